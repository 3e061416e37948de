//! Finding the points in canonical line protocol. Pure.
//!
//! A string field may hold a line break, so a line ends at a `\n` outside of a string. A quote
//! begins a string only as the first byte of a field's value; anywhere else it is a byte like
//! any other.

use std::ops::Range;

/// Where we are in a line.
enum Place {
    /// Measurement and tags, up to the first bare space.
    Series,
    /// A field's key, up to a bare `=`.
    FieldKey,
    /// Right behind the `=`.
    ValueStart,
    /// A value that is no string, or what follows a string, or the timestamp.
    Value,
    /// Inside the quotes.
    Text,
}

/// Where the measurement of a line ends: at its first comma or blank without a backslash.
pub fn measurement_end(line: &[u8]) -> usize {
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b'\\' => at += 2,
            b',' | b' ' => return at,
            _ => at += 1,
        }
    }
    line.len()
}

/// The timestamp at the end of a line, nanoseconds since 1970; `None` where there is none.
pub fn timestamp_ns(line: &[u8]) -> Option<i64> {
    let time = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(time).ok()?.parse().ok()
}

/// The range of each line, its line break included. Bytes after the last break are a line too.
pub fn lines(body: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut start, mut at, mut place) = (0, 0, Place::Series);
    while at < body.len() {
        let byte = body[at];
        place = match (place, byte) {
            (Place::Text, b'\\') => {
                at += 1;
                Place::Text
            }
            (Place::Text, b'"') => Place::Value,
            (Place::Text, _) => Place::Text,
            (_, b'\n') => {
                found.push(start..at + 1);
                start = at + 1;
                Place::Series
            }
            // In names a backslash takes the special meaning from what follows, not from a break.
            (place @ (Place::Series | Place::FieldKey), b'\\') => {
                if body.get(at + 1).is_some_and(|next| *next != b'\n') {
                    at += 1;
                }
                place
            }
            (Place::Series, b' ') => Place::FieldKey,
            (Place::FieldKey, b'=') => Place::ValueStart,
            (Place::ValueStart, b'"') => Place::Text,
            (Place::ValueStart | Place::Value, b',') => Place::FieldKey,
            (Place::ValueStart | Place::Value, _) => Place::Value,
            (place @ (Place::Series | Place::FieldKey), _) => place,
        };
        at += 1;
    }
    if start < body.len() {
        found.push(start..body.len());
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(body: &str) -> Vec<&str> {
        lines(body.as_bytes()).into_iter().map(|range| &body[range]).collect()
    }

    #[test]
    fn a_break_inside_a_string_ends_no_line() {
        let cases: [(&str, &[&str]); 8] = [
            ("", &[]),
            ("m v=1 1\nm v=2 2\n", &["m v=1 1\n", "m v=2 2\n"]),
            ("m v=1", &["m v=1"]),
            ("m v=\"a\nb\" 1\nm v=2 2\n", &["m v=\"a\nb\" 1\n", "m v=2 2\n"]),
            ("m v=\"a\\\"\nb\",w=1i 1\nn w=2 2\n", &["m v=\"a\\\"\nb\",w=1i 1\n", "n w=2 2\n"]),
            ("m,t=a\"b v=1 1\nn v=2 2\n", &["m,t=a\"b v=1 1\n", "n v=2 2\n"]),
            ("m,t=a\\ \"b \"k\"=1 1\nn v=2 2\n", &["m,t=a\\ \"b \"k\"=1 1\n", "n v=2 2\n"]),
            ("m v=\"\\\\\" 1\nn v=2 2\n", &["m v=\"\\\\\" 1\n", "n v=2 2\n"]),
        ];
        for (body, expected) in cases {
            assert_eq!(split(body), expected, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn lines_cover_any_body_without_gaps(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut end = 0;
            for line in lines(&body) {
                prop_assert_eq!(line.start, end);
                prop_assert!(line.end > line.start);
                end = line.end;
            }
            prop_assert_eq!(end, body.len());
        }

        #[test]
        fn points_are_told_apart(texts in proptest::collection::vec("[a\\\\\"\n ,=]{0,12}", 1..8)) {
            let points: Vec<String> = texts
                .iter()
                .map(|text| {
                    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("m\\ \",t=\\,\\=\" k\\=\"=\"{text}\",v=1i 5\n")
                })
                .collect();
            let body = points.concat();
            prop_assert_eq!(split(&body), points);
        }
    }
}
