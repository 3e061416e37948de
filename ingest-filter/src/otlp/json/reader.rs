//! JSON read where it stands, value by value, without building anything. Text is bytes: what is
//! not UTF-8 in one string costs neither the body nor its neighbours.

use std::borrow::Cow;

/// Lists and objects in each other, at most.
const DEPTH_MAX: usize = 512;

/// Bytes that are not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

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
        let key = self.string()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// Whether a list has one more value. `is_first` begins as true.
    pub fn element(&mut self, is_first: &mut bool) -> Result<bool, NotJson> {
        self.goes_on(b']', is_first)
    }

    /// A string, with its escapes resolved. Half of a surrogate pair is U+FFFD.
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, NotJson> {
        self.expect(b'"')?;
        let start = self.at;
        let is_end = |byte: &u8| matches!(byte, b'"' | b'\\');
        let rest = &self.bytes[start..];
        let plain = rest.iter().position(is_end).ok_or(NotJson)?;
        self.at += plain + 1;
        if rest[plain] == b'"' {
            return Ok(Cow::Borrowed(&rest[..plain]));
        }
        let mut text = rest[..plain].to_vec();
        loop {
            self.escape(&mut text)?;
            let rest = &self.bytes[self.at..];
            let plain = rest.iter().position(is_end).ok_or(NotJson)?;
            text.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Ok(Cow::Owned(text));
            }
        }
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
                b'"' => _ = self.string()?,
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
    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), NotJson> {
        let byte = self.byte().ok_or(NotJson)?;
        self.at += 1;
        text.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let char = self.escaped_char()?;
                text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(NotJson),
        });
        Ok(())
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
    fn depth_is_bounded() {
        let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(is_json(&deep(DEPTH_MAX)));
        assert!(!is_json(&deep(DEPTH_MAX + 1)));
        assert!(!is_json(&vec![b'['; 1 << 20]));
    }
}
