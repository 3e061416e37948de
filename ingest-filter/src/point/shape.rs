//! What the lines of one agent have in common: names and types. A line that differs from an
//! earlier one in nothing but its values needs no other check than that of its values.
//!
//! ```text
//! cpu,host=a,cpu=0 user=1.5,n=3i 1700000000000000000
//! └───────┘ └───┘ └────┘   └─┘                          spelling, in parts
//!          ▲     ▲      ▲     ▲                         a value behind each: tag, tag, float, integer
//! ```
//!
//! A shape is learned from a point that passed every check, so its names are good, its tags are
//! none of ours and there once, and its fields have the types that are pinned.

use super::encode::{write_key, write_measurement, write_tag};
use super::{FieldValue, Point, TAGS_MAX};

/// The longest spelling of a shape, bytes; longer lines are read one by one.
const SPELLING_BYTES_MAX: usize = 4 << 10;
/// The most fields of a shape.
const FIELDS_OF_SHAPE_MAX: usize = 128;
/// How many shapes of measurements that share a place are remembered.
const WAYS: usize = 4;
const PLACES: usize = 16;

/// What stands behind a part of the spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// The value of a tag.
    Tag,
    /// A double.
    Float,
    /// `1i`.
    Integer,
    /// `1u`.
    Unsigned,
    /// `true` or `false`.
    Boolean,
    /// A string.
    Text,
}

/// The names and types of a line, in the order in which they stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Measurement and keys as they are written, each with what separates it and its `=`.
    spelling: Vec<u8>,
    /// Where each part of the spelling ends, and what is behind it.
    parts: Vec<(usize, ValueKind)>,
    measurement_len: usize,
    /// The tags by their keys, those that are added behind those of the line; empty where all stand
    /// so already.
    order: Vec<u8>,
}

/// A tag that every point gets.
#[derive(Debug)]
struct Added {
    key: String,
    /// A comma and the tag.
    text: Vec<u8>,
}

/// A line of a known shape, to be written as it stands or in these parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLine<'a> {
    /// Its number in the body, from 1.
    pub line: u64,
    /// Measurement and tags in canonical order.
    pub series: &'a [u8],
    /// A blank and the fields.
    pub fields: &'a [u8],
    /// A blank and the timestamp in nanoseconds; nothing where the client gave none.
    pub timestamp: &'a [u8],
    /// All of the three, where they stand together like that.
    pub whole: Option<&'a [u8]>,
    /// Its tags as they came, `key=value`, with their escapes.
    pub tags: KnownTags<'a>,
}

/// The tags of a known line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTags<'a> {
    /// The body.
    pub text: &'a [u8],
    /// Where they are, each with the comma in front of it; the first one with the measurement too.
    pub places: &'a [(usize, usize)],
    /// How long the measurement is, bytes.
    pub measurement_len: usize,
}

impl<'a> KnownTags<'a> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Each as it is written, without the comma.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.places.iter().enumerate().map(move |(place, &(from, to))| {
            let before = if place == 0 { self.measurement_len } else { 0 };
            &self.text[from + before + 1..to]
        })
    }
}

/// The shapes of one request.
#[derive(Debug)]
pub struct Shapes {
    /// The longest line that may be written.
    line_bytes_max: usize,
    /// What is written with the tags of each line; none where that cannot be written.
    added: Option<Vec<Added>>,
    places: [Vec<Shape>; PLACES],
    /// The way that is overwritten next.
    next: usize,
    learned: Shape,
    bytes: usize,
}

impl Shape {
    /// The parts of the spelling and what is behind each.
    pub fn parts(&self) -> impl Iterator<Item = (&[u8], ValueKind)> {
        let mut start = 0;
        self.parts.iter().map(move |&(end, kind)| {
            let part = &self.spelling[start..end];
            start = end;
            (part, kind)
        })
    }

    /// The measurement as it is written.
    pub fn measurement(&self) -> &[u8] {
        &self.spelling[..self.measurement_len]
    }

    /// In which order the tags are to be written, where it is not that in which they stand.
    pub fn order(&self) -> Option<&[u8]> {
        (!self.order.is_empty()).then_some(&self.order)
    }

    fn bytes(&self) -> usize {
        self.spelling.capacity() + self.order.capacity() + self.parts.capacity() * 16
    }

    /// Takes the names and types of a point; none where they are too long to be worth it.
    fn read(&mut self, point: &Point<'_>, added: &[Added]) -> Option<()> {
        self.spelling.clear();
        self.parts.clear();
        self.order.clear();
        write_measurement(&point.measurement, &mut self.spelling).ok()?;
        self.measurement_len = self.spelling.len();
        let fields = point.fields.iter().map(|(key, value)| (key, ValueKind::of(value)));
        let tags = point.tags.iter().map(|(key, _)| (key, ValueKind::Tag));
        for (place, (key, kind)) in tags.chain(fields).enumerate() {
            self.spelling.push(if place == point.tags.len() { b' ' } else { b',' });
            write_key(key, &mut self.spelling).ok()?;
            self.spelling.push(b'=');
            self.parts.push((self.spelling.len(), kind));
            if self.spelling.len() > SPELLING_BYTES_MAX {
                return None;
            }
        }
        let own = point.tags.len();
        let key = |place: u8| match added.get(usize::from(place).wrapping_sub(own)) {
            Some(added) => &*added.key,
            None => &*point.tags[usize::from(place)].0,
        };
        if !added.is_empty() || !point.tags.is_sorted_by_key(|(key, _)| key) {
            self.order.extend(0..u8::try_from(own + added.len()).ok()?);
            self.order.sort_unstable_by(|a, b| key(*a).cmp(key(*b)));
        }
        Some(())
    }
}

impl ValueKind {
    fn of(value: &FieldValue<'_>) -> Self {
        match value {
            FieldValue::Float(_) => Self::Float,
            FieldValue::Integer(_) => Self::Integer,
            FieldValue::Unsigned(_) => Self::Unsigned,
            FieldValue::Boolean(_) => Self::Boolean,
            FieldValue::Text(_) => Self::Text,
        }
    }
}

impl Shapes {
    /// Nothing is known yet; no line is to be written that is longer than `line_bytes_max`.
    pub fn new(line_bytes_max: usize) -> Self {
        let (places, next, learned, bytes) = Default::default();
        Self { line_bytes_max, added: Some(Vec::new()), places, next, learned, bytes }
    }

    /// Every line is written with these tags beside its own.
    pub fn add_tags(&mut self, tags: &[(String, String)]) {
        let written = |(key, value): &(String, String)| {
            let mut text = Vec::new();
            write_tag(key, value, &mut text).ok()?;
            Some(Added { key: key.clone(), text })
        };
        self.added = tags.iter().map(written).collect();
    }

    /// One of the tags that are written with those of each line, with a comma in front of it.
    pub fn added(&self, place: usize) -> Option<&[u8]> {
        self.added.as_ref()?.get(place).map(|added| &*added.text)
    }

    /// How long those are together, bytes.
    pub fn added_bytes(&self) -> usize {
        self.added.iter().flatten().map(|added| added.text.len()).sum()
    }

    /// The longest line that may be written, bytes.
    pub fn line_bytes_max(&self) -> usize {
        self.line_bytes_max
    }

    /// The shapes of a measurement, and perhaps of others.
    pub fn of(&self, measurement: &[u8]) -> &[Shape] {
        &self.places[place(measurement)]
    }

    /// What they take in memory, bytes.
    pub fn allocated(&self) -> usize {
        self.bytes
    }

    /// Learns the shape of a point that passed every check and that is written as it stands, with
    /// the tags that are added.
    pub fn learn(&mut self, point: &Point<'_>) {
        if point.tags.len() > TAGS_MAX || point.fields.len() > FIELDS_OF_SHAPE_MAX {
            return;
        }
        let Some(added) = &self.added else { return };
        if self.learned.read(point, added).is_none() {
            return;
        }
        let ways = &mut self.places[place(self.learned.measurement())];
        if ways.contains(&self.learned) {
            return;
        }
        let learned = std::mem::take(&mut self.learned);
        self.bytes += learned.bytes();
        if ways.len() < WAYS {
            ways.push(learned);
        } else {
            let forgotten = std::mem::replace(&mut ways[self.next % WAYS], learned);
            self.next += 1;
            self.bytes -= forgotten.bytes();
        }
    }
}

fn place(measurement: &[u8]) -> usize {
    let byte = |at: usize| measurement.get(at).map_or(0, |byte| usize::from(*byte));
    let length = measurement.len();
    (length + byte(0) + 3 * byte(length / 2) + 7 * byte(length.wrapping_sub(1))) % PLACES
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn point<'a>(measurement: &'a str, tags: &[&'a str], fields: &[&'a str]) -> Point<'a> {
        let value = Cow::Borrowed("v");
        Point {
            measurement: Cow::Borrowed(measurement),
            tags: tags.iter().map(|tag| (Cow::Borrowed(*tag), value.clone())).collect(),
            fields: fields
                .iter()
                .map(|field| (Cow::Borrowed(*field), FieldValue::Float(1.0)))
                .collect(),
            timestamp_ns: None,
            ..Point::default()
        }
    }

    #[test]
    fn a_shape_is_spelled_in_parts() {
        let mut shapes = Shapes::new(100);
        shapes.learn(&point("c pu", &["z", "a"], &["u,ser", "n"]));
        let [shape] = shapes.of(b"c\\ pu") else { panic!("one shape") };
        let parts: Vec<_> = shape.parts().collect();
        let expected: [(&[u8], ValueKind); 4] = [
            (b"c\\ pu,z=", ValueKind::Tag),
            (b",a=", ValueKind::Tag),
            (b" u\\,ser=", ValueKind::Float),
            (b",n=", ValueKind::Float),
        ];
        assert_eq!(parts, expected);
        assert_eq!((shape.measurement(), shape.order()), (&b"c\\ pu"[..], Some(&[1, 0][..])));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let mut shapes = Shapes::new(100);
        let names: Vec<_> = (0..1000).map(|n| format!("f{n:020}")).collect();
        for name in &names {
            shapes.learn(&point("cpu", &["a", "b"], &[name]));
            shapes.learn(&point("cpu", &["a", "b"], &[name]));
            assert!(shapes.of(b"cpu").len() <= WAYS);
        }
        assert!(shapes.allocated() < 4 << 10, "{}", shapes.allocated());
        let last = shapes.of(b"cpu").iter().filter(|shape| shape.spelling.ends_with(b"999="));
        assert_eq!(last.count(), 1);
        let long = "x".repeat(SPELLING_BYTES_MAX);
        shapes.learn(&point(&long, &[], &["f"]));
        assert!(shapes.of(long.as_bytes()).iter().all(|shape| shape.measurement_len == 3));
    }
}
