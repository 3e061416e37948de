//! JSON read where it stands, value by value, without building anything. Text is bytes: what is
//! not UTF-8 in one string costs neither the body nor its neighbours.

use std::borrow::Cow;

use crate::point::TEXT_BYTES_MAX;

/// Of a string with escapes, so many bytes are kept: more than are ever stored.
const COPIED_BYTES_MAX: usize = TEXT_BYTES_MAX + 1;

/// Lists and objects in each other, at most.
const DEPTH_MAX: usize = 512;

/// Bytes that are not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

#[cfg(test)]
thread_local! {
    static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many values and brackets this thread has looked at.
#[cfg(test)]
pub(super) fn looks() -> usize {
    LOOKS.get()
}

/// So much is kept of a key with escapes: longer than any that means something.
const KEY_BYTES_MAX: usize = 128;

/// A place in a body.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of `bytes`; a byte order mark there is passed over.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes), at: 0 }
    }

    /// The first byte of what comes next, blanks aside, which is not taken.
    pub fn peek(&mut self) -> Result<u8, NotJson> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().ok_or(NotJson)
    }

    /// Whether nothing but blanks is left.
    pub fn is_done(&mut self) -> bool {
        self.peek().is_err()
    }

    /// Takes the bracket that begins a list or an object, if it is the next byte.
    pub fn opens(&mut self, bracket: u8) -> Result<bool, NotJson> {
        let found = self.peek()? == bracket;
        self.at += usize::from(found);
        Ok(found)
    }

    /// The next key of an object, or `None` at its end. `is_first` begins as true.
    pub fn key(&mut self, is_first: &mut bool) -> Result<Option<Cow<'a, [u8]>>, NotJson> {
        if !self.goes_on(b'}', is_first)? {
            return Ok(None);
        }
        let key = self.string_up_to(KEY_BYTES_MAX)?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// Whether a list has one more value. `is_first` begins as true.
    pub fn element(&mut self, is_first: &mut bool) -> Result<bool, NotJson> {
        self.goes_on(b']', is_first)
    }

    /// A string, with its escapes resolved. Half of a surrogate pair is U+FFFD. One with escapes is
    /// cut where it is longer than any text that is stored.
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, NotJson> {
        self.string_up_to(COPIED_BYTES_MAX)
    }

    /// A string, of which this many bytes are kept where it has to be copied.
    fn string_up_to(&mut self, bytes_max: usize) -> Result<Cow<'a, [u8]>, NotJson> {
        self.expect(b'"')?;
        let plain = self.plain()?;
        if self.is_closed() {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain[..plain.len().min(bytes_max)].to_vec();
        loop {
            let char = self.escape()?;
            let plain = self.plain()?;
            for part in [char.encode_utf8(&mut [0; 4]).as_bytes(), plain] {
                let room = bytes_max - text.len();
                text.extend_from_slice(&part[..part.len().min(room)]);
            }
            if self.is_closed() {
                return Ok(Cow::Owned(text));
            }
        }
    }

    /// What stands before the next quote or backslash, which is taken too.
    fn plain(&mut self) -> Result<&'a [u8], NotJson> {
        let rest = &self.bytes[self.at..];
        let is_end = |byte: &u8| matches!(byte, b'"' | b'\\');
        let length = rest.iter().position(is_end).ok_or(NotJson)?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    /// Whether that was the quote at the end of a string.
    fn is_closed(&self) -> bool {
        self.bytes[self.at - 1] == b'"'
    }

    /// A number, as it is written.
    pub fn number(&mut self) -> Result<&'a str, NotJson> {
        self.peek()?;
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        std::str::from_utf8(&self.bytes[start..self.at]).map_err(|_| NotJson)
    }

    /// `true`, `false` or `null`.
    pub fn word(&mut self) -> Result<&'static str, NotJson> {
        self.peek()?;
        let rest = &self.bytes[self.at..];
        let word =
            ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word.as_bytes()));
        let word = word.ok_or(NotJson)?;
        self.at += word.len();
        Ok(word)
    }

    /// Passes over one value of any kind.
    pub fn skip(&mut self) -> Result<(), NotJson> {
        // The closing brackets that are due, innermost last.
        let mut open: Vec<u8> = Vec::new();
        let mut is_first = false;
        loop {
            match self.peek()? {
                b'{' | b'[' if open.len() == DEPTH_MAX => return Err(NotJson),
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    open.push(bracket + 2);
                    is_first = true;
                }
                b'"' => _ = self.string_up_to(0)?,
                b'-' | b'0'..=b'9' => _ = self.number()?,
                _ => _ = self.word()?,
            }
            loop {
                let more = match open.last() {
                    None => return Ok(()),
                    Some(b'}') => self.key(&mut is_first)?.is_some(),
                    Some(_) => self.element(&mut is_first)?,
                };
                if more {
                    break;
                }
                open.pop();
                is_first = false;
            }
        }
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        match self.opens(byte)? {
            true => Ok(()),
            false => Err(NotJson),
        }
    }

    fn goes_on(&mut self, closing: u8, is_first: &mut bool) -> Result<bool, NotJson> {
        if self.opens(closing)? {
            return Ok(false);
        }
        if !std::mem::replace(is_first, false) {
            self.expect(b',')?;
        }
        Ok(true)
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == start { Err(NotJson) } else { Ok(()) }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, NotJson> {
        let byte = self.byte().ok_or(NotJson)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.escaped_char()?,
            _ => return Err(NotJson),
        })
    }

    fn escaped_char(&mut self) -> Result<char, NotJson> {
        let first = self.four_hex()?;
        let rest = &self.bytes[self.at..];
        if (0xd800..0xdc00).contains(&first) && rest.starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let second = self.four_hex()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_hex(&mut self) -> Result<u32, NotJson> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(NotJson)?;
        let value = digits.iter().try_fold(0, |value, digit| {
            char::from(*digit).to_digit(16).map(|digit| value * 16 + digit)
        });
        self.at += 4;
        value.ok_or(NotJson)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_json(text: &[u8]) -> bool {
        let mut reader = Reader::new(text);
        reader.skip().is_ok() && reader.is_done()
    }

    fn piece() -> impl Strategy<Value = String> {
        let pieces = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\u00e9\"",
            "1",
            "-0.5e3",
            "01",
            "1.",
            "null",
            "true",
            " ",
            "\"\\x\"",
            "nul",
            "-",
        ];
        (0..pieces.len()).prop_map(move |at| pieces[at].to_owned())
    }

    proptest! {
        #[test]
        fn it_is_json_where_serde_says_so(pieces in prop::collection::vec(piece(), 0..12)) {
            let text = pieces.concat();
            let expected = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_json(text.as_bytes()), expected, "{}", text);
        }

        #[test]
        fn strings_are_read_as_serde_writes_them(text: String) {
            let written = serde_json::to_string(&text).expect("text");
            let mut reader = Reader::new(written.as_bytes());
            let read = reader.string().expect("a string");
            prop_assert_eq!(&*read, text.as_bytes());
        }
    }

    #[test]
    fn escapes_and_their_halves() {
        for (written, expected) in [
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ude00x""#, "\u{fffd}x"),
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        ] {
            let read = Reader::new(written.as_bytes()).string();
            assert_eq!(read.as_deref(), Ok(expected.as_bytes()), "{written}");
        }
        for bad in [r#""\u12"#, r#""\u12g4""#, r#""\"#, "\"open", r#""\q""#] {
            assert_eq!(Reader::new(bad.as_bytes()).string(), Err(NotJson), "{bad}");
        }
        assert_eq!(Reader::new(b"\"\xff\n\"").string().as_deref(), Ok(&b"\xff\n"[..]));
    }

    #[test]
    fn a_string_with_escapes_is_cut_where_it_is_too_long_to_be_stored() {
        let long = format!("\"{}\\n{}\"", "x".repeat(COPIED_BYTES_MAX - 1), "y".repeat(1000));
        let mut reader = Reader::new(long.as_bytes());
        let text = reader.string().expect("a string");
        assert_eq!((text.len(), text.last()), (COPIED_BYTES_MAX, Some(&b'\n')));
        assert!(reader.is_done());
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(is_json(&deep(DEPTH_MAX)));
        assert!(!is_json(&deep(DEPTH_MAX + 1)));
        assert!(!is_json(&vec![b'['; 1 << 20]));
    }
}
