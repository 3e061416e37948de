//! The labels of a series of 1.0 as tags of a point. Series of one request mostly have labels of the
//! same names in the same order, and some of the same values, so the tags of a series stay where they
//! are for the next one, which changes what differs. From the first label on that has another name
//! all are read one by one.

use std::borrow::Cow;

use crate::fault::Fault;
use crate::point::{Point, TAGS_MAX, storable};
use crate::wire::{Fields, Malformed, Value};

/// The label that names the metric.
pub(super) const NAME_LABEL: &str = "__name__";

/// The longest encoded length of one byte.
const SHORT_MAX: u8 = 0x7f;

/// How many labels are remembered: those that become tags, the name, and some without a value.
const KNOWN_MAX: usize = TAGS_MAX + 32;

/// The labels that a point has from the last series.
#[derive(Debug, Default)]
pub(super) struct Labels<'a> {
    known: Vec<Known<'a>>,
    /// How many of this series have the same names.
    same: usize,
    is_same: bool,
    /// Whether the labels are still being remembered.
    is_learning: bool,
}

/// A label as it was encoded: its name with what stands before it, and everything behind.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    name: &'a [u8],
    rest: &'a [u8],
    place: Place,
    /// How many tags stand before it.
    tags: usize,
}

/// What a label is in the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Measurement,
    Tag,
    /// An empty value is the same as no label.
    Nowhere,
}

impl<'a> Labels<'a> {
    /// Begins a series; `point` is as the last one left it.
    pub fn begin(&mut self) {
        (self.same, self.is_same, self.is_learning) = (0, true, true);
    }

    /// Takes the next label.
    ///
    /// # Errors
    /// When it is malformed, too long, or one too many.
    pub fn add(&mut self, label: &'a [u8], point: &mut Point<'a>) -> Result<(), Fault> {
        if self.is_same {
            if self.add_same(label, point)? {
                return Ok(());
            }
            self.end(point);
        }
        let tags = point.tags.len();
        let (name, value) = parts(label)?;
        let place = set(storable(name)?, storable(value)?, point)?;
        let named = self.known.iter().position(|known| known.place == Place::Measurement);
        if let (Place::Measurement, Some(first)) = (place, named) {
            // Of several names of a metric the last counts, so the next series reads its own anew.
            self.known.truncate(first);
            self.is_learning = false;
        }
        match split(label) {
            Some((name, rest)) if self.is_learning && self.known.len() < KNOWN_MAX => {
                self.known.push(Known { name, rest, place, tags });
            }
            _ => self.is_learning = false,
        }
        Ok(())
    }

    /// Takes away the labels of the last series that this one has not. To be called after its last.
    pub fn end(&mut self, point: &mut Point<'a>) {
        if !std::mem::take(&mut self.is_same) {
            return;
        }
        if self.same == 0 {
            point.tags.clear();
        } else if let Some(first) = self.known.get(self.same) {
            point.tags.truncate(first.tags);
        } else {
            let last = &self.known[self.same - 1];
            point.tags.truncate(last.tags + usize::from(last.place == Place::Tag));
        }
        self.known.truncate(self.same);
        if self.known.iter().all(|known| known.place != Place::Measurement) {
            point.measurement = Cow::Borrowed("");
        }
    }

    /// Takes a label if its name is that of the last series' label; false when it is another one, or
    /// not a short value.
    #[inline]
    fn add_same(&mut self, label: &'a [u8], point: &mut Point<'a>) -> Result<bool, Fault> {
        let Some(known) = self.known.get_mut(self.same) else { return Ok(false) };
        let Some(rest) = label.strip_prefix(known.name) else { return Ok(false) };
        if rest != known.rest {
            let &[0x12, length, ref value @ ..] = rest else { return Ok(false) };
            if length == 0 || length > SHORT_MAX || usize::from(length) != value.len() {
                return Ok(false);
            }
            match known.place {
                Place::Measurement => point.measurement = storable(value)?,
                Place::Tag => point.tags[known.tags].1 = storable(value)?,
                Place::Nowhere => return Ok(false),
            }
            known.rest = rest;
        }
        self.same += 1;
        Ok(true)
    }
}

fn set<'a>(name: Cow<'a, str>, value: Cow<'a, str>, point: &mut Point<'a>) -> Result<Place, Fault> {
    if name == NAME_LABEL {
        point.measurement = value;
        return Ok(Place::Measurement);
    }
    if value.is_empty() {
        return Ok(Place::Nowhere);
    }
    if point.tags.len() >= TAGS_MAX {
        return Err(Fault::TagsTooMany);
    }
    point.tags.push((name, value));
    Ok(Place::Tag)
}

/// Name and value of an encoded `Label`.
pub(super) fn parts(label: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut name, mut value) = (&b""[..], &b""[..]);
    for field in Fields::new(label) {
        match field? {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((name, value))
}

/// An encoded `Label` that begins with a short name and has no other behind it, in two parts.
fn split(label: &[u8]) -> Option<(&[u8], &[u8])> {
    let &[0x0a, length, ..] = label else { return None };
    let (name, rest) = label.split_at_checked(2 + usize::from(length))?;
    // Of several names the last counts.
    let is_its_name = parts(label).is_ok_and(|(last, _)| last == &name[2..]);
    (length <= SHORT_MAX && is_its_name).then_some((name, rest))
}
