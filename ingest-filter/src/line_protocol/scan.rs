//! The scanner of one line. It moves forward only, and stands on the fault when it fails.

use std::borrow::Cow;

use super::Dialect;
use super::number::{boolean, integer, number};
use crate::fault::Fault;
use crate::point::{FIELDS_MAX, FieldValue, Point, TAGS_MAX};

/// Tags that are read before some are refused.
const TAGS_READ_MAX: usize = TAGS_MAX;

const COMMA: u8 = 1;
const SPACE: u8 = 2;
const EQUALS: u8 = 4;
const BACKSLASH: u8 = 8;
const QUOTE: u8 = 16;
/// U+0000 to U+001F, which holds the line feed, and U+007F.
const CONTROL: u8 = 32;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        class[byte] = CONTROL;
        byte += 1;
    }
    class[0x7f] = CONTROL;
    class[b',' as usize] = COMMA;
    class[b' ' as usize] = SPACE;
    class[b'=' as usize] = EQUALS;
    class[b'\\' as usize] = BACKSLASH;
    class[b'"' as usize] = QUOTE;
    class
};

pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pub(super) at: usize,
    /// Line feeds inside of string values.
    pub(super) inner_line_feeds: u64,
    dialect: Dialect,
    /// Where the line is too long.
    end_max: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, at: usize, dialect: Dialect) -> Self {
        let end_max = at.saturating_add(dialect.line_bytes_max);
        Self { text, bytes: text.as_bytes(), at, inner_line_feeds: 0, dialect, end_max }
    }

    /// Reads one line, its end included; false when it holds no point.
    pub(super) fn line(&mut self, point: &mut Point<'a>) -> Result<bool, Fault> {
        self.skip_spaces();
        if self.take_end() {
            return Ok(false);
        }
        if self.peek() == Some(b'#') {
            self.skip_until(CONTROL);
            return if self.take_end() { Ok(false) } else { Err(Fault::ControlCharacter) };
        }
        point.measurement = self.name(COMMA | SPACE, COMMA | SPACE, Fault::MeasurementMissing)?;
        while self.take(b',') {
            let tag = self.tag()?;
            if point.tags.len() == TAGS_READ_MAX {
                return Err(Fault::TagsTooMany);
            }
            point.tags.push(tag);
        }
        if self.peek() != Some(b' ') {
            return Err(self.unexpected(Fault::FieldSetMissing));
        }
        self.skip_spaces();
        if self.take_end() {
            self.at -= usize::from(self.bytes.get(self.at - 1) == Some(&b'\n'));
            return Err(Fault::FieldSetMissing);
        }
        loop {
            let field = self.field()?;
            if point.fields.len() == FIELDS_MAX {
                return Err(Fault::FieldsTooMany);
            }
            point.fields.push(field);
            if !self.take(b',') {
                break;
            }
        }
        self.timestamp(point)?;
        self.check_length()?;
        Ok(true)
    }

    fn tag(&mut self) -> Result<(Cow<'a, str>, Cow<'a, str>), Fault> {
        let names = COMMA | SPACE | EQUALS;
        let key = self.name(names, names, Fault::TagKeyMissing)?;
        if !self.take(b'=') {
            return Err(self.unexpected(Fault::TagValueMissing));
        }
        let value = self.name(names, names, Fault::TagValueMissing)?;
        if self.peek() == Some(b'=') {
            return Err(Fault::TrailingText);
        }
        Ok((key, value))
    }

    fn field(&mut self) -> Result<(Cow<'a, str>, FieldValue<'a>), Fault> {
        let names = COMMA | SPACE | EQUALS;
        let key = self.name(names, names, Fault::FieldKeyMissing)?;
        if !self.take(b'=') {
            return Err(self.unexpected(Fault::FieldValueInvalid));
        }
        Ok((key, self.value()?))
    }

    fn value(&mut self) -> Result<FieldValue<'a>, Fault> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                return self.string().map(FieldValue::Text);
            }
            Some(b'0'..=b'9' | b'-' | b'.' | b't' | b'T' | b'f' | b'F') => {}
            _ => return Err(self.unexpected(Fault::FieldValueInvalid)),
        }
        let start = self.at;
        self.skip_until(COMMA | SPACE | CONTROL);
        let token = &self.text[start..self.at];
        let value = match self.bytes[start] {
            b'0'..=b'9' | b'-' | b'.' => number(token, self.dialect.unsigned),
            _ => boolean(token).map(FieldValue::Boolean),
        };
        if value.is_err() {
            self.at = start;
        }
        value
    }

    fn timestamp(&mut self, point: &mut Point<'a>) -> Result<(), Fault> {
        if self.take_end() {
            return Ok(());
        }
        if self.peek() != Some(b' ') {
            return Err(self.unexpected(Fault::TrailingText));
        }
        self.skip_spaces();
        if self.take_end() {
            return Ok(());
        }
        let start = self.at;
        self.skip_until(SPACE | CONTROL);
        let timestamp = integer(&self.bytes[start..self.at], Fault::TimestampInvalid)
            .map_err(|fault| match fault {
                Fault::NumberOutOfRange => Fault::TimestampOutOfRange,
                fault => fault,
            })
            .and_then(|timestamp| self.dialect.precision.to_ns(timestamp));
        match timestamp {
            Ok(ns) => point.timestamp_ns = Some(ns),
            Err(fault) => {
                self.at = start;
                return Err(fault);
            }
        }
        self.skip_spaces();
        if self.take_end() { Ok(()) } else { Err(self.unexpected(Fault::TrailingText)) }
    }

    /// Reads a name up to an unescaped byte of `stops`; a backslash takes the meaning from a
    /// following byte of `escapable` and stands for itself before any other.
    fn name(&mut self, stops: u8, escapable: u8, missing: Fault) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let mut unescaped: Option<String> = None;
        let mut copied = start;
        loop {
            self.skip_until(stops | BACKSLASH | CONTROL);
            if self.peek() != Some(b'\\') {
                break;
            }
            self.at += 1;
            if self.peek().is_some_and(|byte| CLASS[usize::from(byte)] & escapable != 0) {
                self.check_length()?;
                let name = unescaped.get_or_insert_default();
                name.push_str(&self.text[copied..self.at - 1]);
                copied = self.at;
                self.at += 1;
            }
        }
        if self.at == start {
            return Err(self.unexpected(missing));
        }
        let rest = &self.text[copied..self.at];
        Ok(match unescaped {
            None => Cow::Borrowed(rest),
            Some(name) => Cow::Owned(name + rest),
        })
    }

    /// Reads a string up to its closing quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let mut unescaped: Option<String> = None;
        let mut copied = start;
        loop {
            self.skip_until(BACKSLASH | QUOTE);
            match self.peek() {
                None => {
                    self.at = start - 1;
                    return Err(Fault::StringUnterminated);
                }
                Some(b'"') => break,
                Some(_) => {
                    self.at += 1;
                    if matches!(self.peek(), Some(b'"' | b'\\')) {
                        self.check_length()?;
                        let string = unescaped.get_or_insert_default();
                        string.push_str(&self.text[copied..self.at - 1]);
                        copied = self.at;
                        self.at += 1;
                    }
                }
            }
        }
        let inside = &self.bytes[start..self.at];
        self.inner_line_feeds += inside.iter().filter(|byte| **byte == b'\n').count() as u64;
        let rest = &self.text[copied..self.at];
        self.at += 1;
        Ok(match unescaped {
            None => Cow::Borrowed(rest),
            Some(string) => Cow::Owned(string + rest),
        })
    }

    /// Only text with escapes is copied, so that is where a long line must be noticed early.
    fn check_length(&self) -> Result<(), Fault> {
        if self.at <= self.end_max { Ok(()) } else { Err(Fault::PointTooLarge) }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    fn skip_until(&mut self, stops: u8) {
        let rest = &self.bytes[self.at..];
        let stop = rest.iter().position(|byte| CLASS[usize::from(*byte)] & stops != 0);
        self.at += stop.unwrap_or(rest.len());
    }

    /// Takes the end of the line, if that is what comes next.
    fn take_end(&mut self) -> bool {
        let length = match &self.bytes[self.at..] {
            [] | [b'\r'] => self.bytes.len() - self.at,
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return false,
        };
        self.at += length;
        true
    }

    /// The fault here: a control character is one whatever else was expected.
    fn unexpected(&self, fault: Fault) -> Fault {
        match self.peek() {
            Some(b'\n' | b'\r') | None => fault,
            Some(byte) if CLASS[usize::from(byte)] == CONTROL => Fault::ControlCharacter,
            Some(_) => fault,
        }
    }
}

/// Where a line ends, and how much of the text that took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineEnd {
    /// Where its line feed is, or the end of the text.
    pub at: usize,
    /// Where it was looked at last: behind `at` where a quote of the line is never closed.
    pub seen_to: usize,
}

/// The first line feed at or behind `start`, or the end of the text.
pub(super) fn first_line_feed(bytes: &[u8], start: usize) -> usize {
    let line = &bytes[start..];
    start + line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len())
}

/// Where the line that begins at `start` ends, whether or not it can be understood.
pub(super) fn end_of_line(bytes: &[u8], start: usize) -> LineEnd {
    let line = &bytes[start..];
    let (mut at, mut in_fields, mut quoted) = (0, false, false);
    while line.get(at) == Some(&b' ') {
        at += 1;
    }
    while at < line.len() {
        match line[at] {
            b'\\' => at += 1,
            b' ' => in_fields = true,
            b'"' if quoted => quoted = false,
            b'"' if in_fields && line[at - 1] == b'=' => quoted = true,
            b'\n' if !quoted => return LineEnd { at: start + at, seen_to: start + at },
            _ => {}
        }
        // A line feed ends a line even behind a backslash, so it is looked at again.
        if quoted || line.get(at) != Some(&b'\n') {
            at += 1;
        }
    }
    let at = if quoted { first_line_feed(bytes, start) } else { bytes.len() };
    LineEnd { at, seen_to: bytes.len() }
}
