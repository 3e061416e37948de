//! Text that line protocol can express in a name.

use std::borrow::Cow;

/// Control characters become blanks, and a backslash that would be read as an escape becomes a
/// slash. For protocols whose names and values may be any text; a client of line protocol is told
/// instead.
pub fn clean(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    // A loop without a branch, of which the compiler makes vector instructions.
    let special = |byte: &u8| *byte < 0x20 || *byte == 0x7f || *byte == b'\\';
    if !bytes.iter().fold(false, |found, byte| found | special(byte)) {
        return Cow::Borrowed(text);
    }
    let separator =
        |next: Option<&u8>| matches!(next, None | Some(b',' | b' ' | b'=' | 0..0x20 | 0x7f));
    let odd = |at: usize| match bytes[at] {
        0..0x20 | 0x7f => true,
        b'\\' => separator(bytes.get(at + 1)),
        _ => false,
    };
    if !(0..bytes.len()).any(odd) {
        return Cow::Borrowed(text);
    }
    let replaced = text.char_indices().map(|(at, char)| match char {
        char if !char.is_ascii() || !odd(at) => char,
        '\\' => '/',
        _ => ' ',
    });
    Cow::Owned(replaced.collect())
}
