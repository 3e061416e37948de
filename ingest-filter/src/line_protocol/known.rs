//! A line that differs from an earlier one in its values only, and whose values are written as we
//! would write them: it is copied, not built anew. Any other line is none of these, and is read
//! the long way by [`scan`](super::scan); nothing is refused here.
//!
//! What is canonical enough to be copied: tag values and strings whose escapes are all needed;
//! numbers of up to 18 digits without exponent; `true` and `false`; one blank before the fields
//! and one before the timestamp.

use super::stops::Stops;
use super::{Dialect, Precision};
use crate::point::{KnownLine, KnownTags, Shape, Shapes, ValueKind};

/// The longest such line, bytes: below every bound on names and strings.
const LINE_BYTES_MAX: usize = 32 << 10;
/// As many digits as fit a number of 64 bits whatever they are.
const DIGITS_MAX: usize = 18;
/// With so many digits a timestamp is one in nanoseconds, however it is measured.
const DIGITS_AUTO_NS: usize = 17;

/// What is kept from line to line.
#[derive(Debug)]
pub(super) struct Walk {
    stops: Stops,
    /// Where the tags are, with the comma in front of each.
    tags: Vec<(usize, usize)>,
    series: Vec<u8>,
    timestamp: Vec<u8>,
    pub line_feeds: u64,
}

/// Where the parts of a line end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    pub start: usize,
    measurement_len: usize,
    series: usize,
    fields: usize,
    /// Where the line ends, without its line feed.
    pub end: usize,
    series_moved: bool,
    timestamp_made: bool,
}

impl Walk {
    pub fn new() -> Self {
        let (tags, series, timestamp) = Default::default();
        Self { stops: Stops::new(), tags, series, timestamp, line_feeds: 0 }
    }

    /// The text is going to be another one.
    pub fn forget(&mut self) {
        self.stops.forget();
    }

    /// Reads the line that begins at `start`, if it has one of the shapes.
    pub fn line(
        &mut self,
        text: &[u8],
        start: usize,
        dialect: Dialect,
        shapes: &Shapes,
    ) -> Option<Walked> {
        let measurement_end = self.name_end(text, start, b',')?;
        let measurement = &text[start..measurement_end];
        let known = shapes.of(measurement).iter();
        for shape in known.filter(|shape| shape.measurement() == measurement) {
            if let Some(walked) = self.shaped(text, start, dialect, (shape, shapes)) {
                // A timestamp of our own has up to 20 digits and a blank.
                let bytes_max = LINE_BYTES_MAX.min(dialect.line_bytes_max);
                let bytes_max = shapes.line_bytes_max().min(bytes_max);
                let length = walked.end - start + 22 + shapes.added_bytes();
                return (length <= bytes_max).then_some(walked);
            }
        }
        None
    }

    /// The parts of a line that was just read.
    pub fn parts<'a>(&'a self, text: &'a [u8], line: u64, walked: Walked) -> KnownLine<'a> {
        let Walked { start, series, fields, end, series_moved, timestamp_made, .. } = walked;
        let whole = (!series_moved && !timestamp_made && fields < end).then_some(&text[start..end]);
        KnownLine {
            line,
            series: if series_moved { &self.series } else { &text[start..series] },
            fields: &text[series..fields],
            timestamp: if timestamp_made { &self.timestamp } else { &text[fields..end] },
            whole,
            tags: KnownTags { text, places: &self.tags, measurement_len: walked.measurement_len },
        }
    }

    fn shaped(
        &mut self,
        text: &[u8],
        start: usize,
        dialect: Dialect,
        (shape, shapes): (&Shape, &Shapes),
    ) -> Option<Walked> {
        self.tags.clear();
        self.line_feeds = 0;
        let (mut at, mut series) = (start, None);
        for (part, kind) in shape.parts() {
            let value = at + part.len();
            if !is_same(text.get(at..value)?, part) {
                return None;
            }
            let before = at;
            at = match kind {
                ValueKind::Tag => {
                    let end = self.tag_end(text, value)?;
                    self.tags.push((before, end));
                    end
                }
                ValueKind::Float => float_end(text, value)?,
                ValueKind::Integer => integer_end(text, value, b'i')?,
                ValueKind::Unsigned => integer_end(text, value, b'u')?,
                ValueKind::Boolean => boolean_end(text, value)?,
                ValueKind::Text => self.string_end(text, value)?,
            };
            if kind != ValueKind::Tag && series.is_none() {
                series = Some(match self.tags.last() {
                    Some((_, end)) => *end,
                    None => start + shape.measurement().len(),
                });
            }
        }
        let (series, fields) = (series?, at);
        let (end, timestamp_made) = self.timestamp(text, fields, dialect.precision)?;
        let series_moved = shape.order().is_some();
        if let Some(order) = shape.order() {
            self.series.clear();
            self.series.extend_from_slice(shape.measurement());
            for place in order {
                let place = usize::from(*place);
                let Some(&(from, to)) = self.tags.get(place) else {
                    self.series.extend_from_slice(shapes.added(place - self.tags.len())?);
                    continue;
                };
                // The part of the first tag has the measurement in front of it.
                let from = if place == 0 { from + shape.measurement().len() } else { from };
                self.series.extend_from_slice(&text[from..to]);
            }
        }
        let measurement_len = shape.measurement().len();
        Some(Walked { start, measurement_len, series, fields, end, series_moved, timestamp_made })
    }

    /// The end of a name whose escapes are all needed; it is followed by a comma or a blank.
    fn name_end(&mut self, text: &[u8], from: usize, escapable: u8) -> Option<usize> {
        let mut at = from;
        loop {
            at = self.stops.next(text, at);
            match text.get(at)? {
                b',' | b' ' => return (at > from).then_some(at),
                b'=' if escapable != b'=' => at += 1,
                b'"' => at += 1,
                b'\\' if matches!(text.get(at + 1)?, b',' | b' ') => at += 2,
                b'\\' if text.get(at + 1) == Some(&escapable) => at += 2,
                _ => return None,
            }
        }
    }

    fn tag_end(&mut self, text: &[u8], from: usize) -> Option<usize> {
        self.name_end(text, from, b'=')
    }

    /// Behind the closing quote of a string that begins at `from`.
    fn string_end(&mut self, text: &[u8], from: usize) -> Option<usize> {
        if text.get(from) != Some(&b'"') {
            return None;
        }
        let mut at = from + 1;
        loop {
            at = self.stops.next(text, at);
            match text.get(at)? {
                b'"' => return Some(at + 1),
                b'\\' if matches!(text.get(at + 1)?, b'"' | b'\\') => at += 2,
                b'\\' => return None,
                b'\n' => {
                    self.line_feeds += 1;
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// The end of the line, and whether the timestamp had to be written anew.
    fn timestamp(
        &mut self,
        text: &[u8],
        from: usize,
        precision: Precision,
    ) -> Option<(usize, bool)> {
        match text.get(from) {
            None | Some(b'\n') => return Some((from, false)),
            Some(b' ') => {}
            Some(_) => return None,
        }
        let start = from + 1;
        let end = digits_end(text, start);
        let count = end - start;
        let first = *text.get(start)?;
        if !matches!(text.get(end), None | Some(b'\n')) || count == 0 {
            return None;
        }
        // Below 9·10¹⁸ every number of nanoseconds is a time that is stored.
        let bounded = count <= DIGITS_MAX || (count == DIGITS_MAX + 1 && first < b'9');
        if !bounded || (first == b'0' && count > 1) {
            return None;
        }
        let as_written = match precision {
            Precision::Nanoseconds => true,
            Precision::Auto => count >= DIGITS_AUTO_NS,
            _ => false,
        };
        if !as_written {
            let digits = text[start..end].iter();
            let given = digits.fold(0, |sum: i64, digit| sum * 10 + i64::from(digit - b'0'));
            let ns = precision.to_ns(given).ok()?;
            self.timestamp.clear();
            self.timestamp.push(b' ');
            self.timestamp.extend_from_slice(itoa::Buffer::new().format(ns).as_bytes());
        }
        Some((end, !as_written))
    }
}

/// Whether two slices of one length are the same. Keys are short, and calling a function to compare
/// them takes longer than to do it.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(a_first), Some(b_first), Some(a_last), Some(b_last)) if a.len() <= 16 => {
            a_first == b_first && a_last == b_last
        }
        _ => a == b,
    }
}

/// Behind the last of the digits at `from`.
fn digits_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        // A digit becomes 0 to 9, and the sum below has its top bit set for anything else. What
        // is carried goes upward, behind the first byte that is no digit.
        let value = u64::from_le_bytes(*eight) ^ 0x3030_3030_3030_3030;
        let other = (value.wrapping_add(0x7676_7676_7676_7676) | value) & 0x8080_8080_8080_8080;
        if other != 0 {
            return at + other.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// Behind the digits of a whole number without leading zeros, and where they begin.
fn whole(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let start = from + usize::from(text.get(from) == Some(&b'-'));
    let end = digits_end(text, start);
    let leading_zero = end > start + 1 && text[start] == b'0';
    (end > start && !leading_zero).then_some((start, end))
}

fn float_end(text: &[u8], from: usize) -> Option<usize> {
    let (start, mut end) = whole(text, from)?;
    let point = text.get(end) == Some(&b'.');
    if point {
        let behind = digits_end(text, end + 1);
        if behind == end + 1 {
            return None;
        }
        end = behind;
    }
    let digits = end - start - usize::from(point);
    (digits <= DIGITS_MAX && is_separator(text.get(end))).then_some(end)
}

fn integer_end(text: &[u8], from: usize, suffix: u8) -> Option<usize> {
    let (start, end) = whole(text, from)?;
    let signed_where_none_is = suffix == b'u' && start > from;
    let fits = end - start <= DIGITS_MAX && !signed_where_none_is;
    (fits && text.get(end) == Some(&suffix)).then_some(end + 1)
}

fn boolean_end(text: &[u8], from: usize) -> Option<usize> {
    let rest = &text[from..];
    let length = match rest {
        [b't', b'r', b'u', b'e', ..] => 4,
        [b'f', b'a', b'l', b's', b'e', ..] => 5,
        _ => return None,
    };
    is_separator(rest.get(length)).then_some(from + length)
}

fn is_separator(byte: Option<&u8>) -> bool {
    matches!(byte, None | Some(b',' | b' ' | b'\n'))
}
