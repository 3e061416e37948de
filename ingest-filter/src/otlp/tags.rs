//! The tags of a data point: those of its resource and scope, and its own behind them.
//!
//! Data points of one metric mostly have attributes of the same keys in the same order, and some of
//! the same values. So the tags of a point stay where they are for the next one, which changes what
//! differs:
//!
//! ```text
//! resource, scope │ attributes of the point           encoded attributes of the next one
//! env=prod        │ host=a   method=GET   code=200    host=b   method=GET   code=500
//!  ▲                ▲        ▲            ▲
//!  made once        value    nothing      value       is read, the rest is compared as bytes
//! ```
//!
//! From the first attribute on that has another key, all are read one by one.

use std::borrow::Cow;

use super::attributes::{key_value, tag_value};
use crate::fault::Fault;
use crate::point::{Point, TAGS_MAX, TagKind, storable};
use crate::rules::Attributes;

/// The shortest encoded length of two bytes; what is shorter has one.
const SHORT_MAX: usize = 0x7f;

/// Tags with unique keys, in order of appearance. What was added last can be taken away again, so
/// that the points of a resource share its tags instead of each having a copy.
#[derive(Debug, Default)]
pub struct Tags<'a> {
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// What each of them was.
    kinds: Vec<TagKind>,
    /// Values that were replaced, and where.
    replaced: Vec<(usize, Cow<'a, str>, TagKind)>,
    attributes: Attributes,
    /// Where the tags are to be taken back to next.
    kept: Mark,
    /// How far the tags of resource and scope go.
    group: Mark,
    /// The attributes behind those, as the last point had them.
    known: Vec<Known<'a>>,
    /// How many attributes of this point have the same keys.
    same: usize,
    step: Step,
}

/// An attribute as it was encoded: its key with what stands before it, and everything behind.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    key: &'a [u8],
    rest: &'a [u8],
}

/// How the attributes of a point go along with those of the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// They have the same keys so far.
    Same,
    /// They had, and from there on they are remembered anew.
    Learning,
    /// One changed a tag of its group or is no tag, so no more are remembered.
    #[default]
    Off,
}

/// How far tags had come; see [`Tags::rewind`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    tags: usize,
    replaced: usize,
}

impl<'a> Tags<'a> {
    /// No tags yet; `attributes` says how values become text.
    pub fn new(attributes: Attributes) -> Self {
        Self { attributes, ..Self::default() }
    }

    /// Where the tags stand. What is added from now on is taken away by [`Tags::rewind`].
    pub fn mark(&mut self) -> Mark {
        self.kept = Mark { tags: self.tags.len(), replaced: self.replaced.len() };
        self.kept
    }

    /// Takes away what was added since `mark`.
    pub fn rewind(&mut self, mark: Mark) {
        self.restore(mark.replaced);
        self.tags.truncate(mark.tags);
        self.kinds.truncate(mark.tags);
        self.known.clear();
        self.kept = mark;
    }

    /// The tags of resource and scope are complete: what comes now is a point's.
    pub fn begin_points(&mut self) {
        self.group = self.mark();
        self.known.clear();
    }

    /// Begins a point; those of the last one stay until it is known that this one has others.
    pub fn begin_point(&mut self) {
        self.restore(self.group.replaced);
        (self.same, self.step) = (0, Step::Same);
    }

    /// Ends a point: what it has not is not there.
    pub fn end_point(&mut self) {
        if self.step == Step::Same {
            self.leave_step();
        }
    }

    /// Adds one encoded `KeyValue` of a point; as [`Tags::add`].
    pub fn add_of_point(&mut self, pair: &'a [u8]) -> Result<(), Fault> {
        if self.step == Step::Same {
            let added = self.add_same(pair);
            if added == Ok(true) {
                return Ok(());
            }
            self.leave_step();
            added?;
            self.step = Step::Learning;
        }
        let pushed = self.push(pair)?;
        match (self.step, pushed, split(pair)) {
            (Step::Learning, true, Some(known)) => self.known.push(known),
            _ => self.step = Step::Off,
        }
        Ok(())
    }

    /// Adds one encoded `KeyValue`; a key that is there already gets the new value. One without a
    /// key or a value is left out.
    pub fn add(&mut self, pair: &'a [u8]) -> Result<(), Fault> {
        self.push(pair).map(|_| ())
    }

    /// Adds a tag, unless its value is empty.
    pub fn add_text(&mut self, key: &'static str, value: &'a [u8]) -> Result<(), Fault> {
        self.end_point();
        self.set(Cow::Borrowed(key), storable(value)?, TagKind::Plain).map(|_| ())
    }

    /// Adds a tag of ours whose value is storable already, unless it is empty. An attribute of
    /// that name is not lost to it.
    pub fn add_ours(&mut self, key: &'static str, value: Cow<'a, str>) -> Result<(), Fault> {
        self.end_point();
        match self.tags.iter().any(|tag| tag.0 == key) {
            true => Err(Fault::TagDuplicate),
            false => self.set(Cow::Borrowed(key), value, TagKind::Plain).map(|_| ()),
        }
    }

    /// Lends the tags to a point while it is taken.
    pub fn lend<T>(&mut self, point: &mut Point<'a>, take: impl FnOnce(&mut Point<'a>) -> T) -> T {
        std::mem::swap(&mut point.tags, &mut self.tags);
        std::mem::swap(&mut point.tag_kinds, &mut self.kinds);
        let taken = take(point);
        std::mem::swap(&mut point.tags, &mut self.tags);
        std::mem::swap(&mut point.tag_kinds, &mut self.kinds);
        taken
    }

    /// Adds the next attribute of a point if its key is that of the last point's; false when it is
    /// another one, or the value is none. Unless it is true, the step must be left.
    #[inline]
    fn add_same(&mut self, pair: &'a [u8]) -> Result<bool, Fault> {
        let Some(known) = self.known.get_mut(self.same) else { return Ok(false) };
        let Some(rest) = pair.strip_prefix(known.key) else { return Ok(false) };
        if rest == known.rest {
            self.same += 1;
            return Ok(true);
        }
        let place = self.group.tags + self.same;
        let (text, kind) = match short_text(rest) {
            Some(text) => self.attributes.text(storable(text)?),
            // What is behind the key may hold another key.
            None => match key_value(pair)? {
                (key, Some(value)) if known.key[2..] == *key => {
                    let before = std::mem::take(&mut self.tags[place].1);
                    let buffer = if let Cow::Owned(text) = before { text } else { String::new() };
                    tag_value(value, self.attributes, buffer)?
                }
                _ => return Ok(false),
            },
        };
        if text.is_empty() {
            return Ok(false);
        }
        known.rest = rest;
        (self.tags[place].1, self.kinds[place]) = (text, kind);
        self.same += 1;
        Ok(true)
    }

    /// Takes away the attributes of the last point that this one has not.
    fn leave_step(&mut self) {
        let tags = self.group.tags + self.same;
        self.tags.truncate(tags);
        self.kinds.truncate(tags);
        self.known.truncate(self.same);
        self.step = Step::Off;
    }

    fn restore(&mut self, replaced: usize) {
        for (at, value, kind) in self.replaced.drain(replaced..).rev() {
            (self.tags[at].1, self.kinds[at]) = (value, kind);
        }
    }

    /// Adds an encoded `KeyValue`; true if it is a new tag.
    fn push(&mut self, pair: &'a [u8]) -> Result<bool, Fault> {
        let (key, value) = key_value(pair)?;
        let Some(value) = value else { return Ok(false) };
        let (text, kind) = tag_value(value, self.attributes, String::new())?;
        self.set(storable(key)?, text, kind)
    }

    /// Sets a tag; true if it is a new one.
    fn set(
        &mut self,
        key: Cow<'a, str>,
        value: Cow<'a, str>,
        kind: TagKind,
    ) -> Result<bool, Fault> {
        if key.is_empty() || value.is_empty() {
            return Ok(false);
        }
        if let Some(at) = self.tags.iter().position(|tag| tag.0 == key) {
            let before = std::mem::replace(&mut self.tags[at].1, value);
            let kind = std::mem::replace(&mut self.kinds[at], kind);
            // Of a key that is there many times only the first value comes back.
            let since = &self.replaced[self.kept.replaced..];
            if since.iter().all(|(place, ..)| *place != at) {
                self.replaced.push((at, before, kind));
            }
            return Ok(false);
        }
        if self.tags.len() >= TAGS_MAX {
            return Err(Fault::TagsTooMany);
        }
        self.tags.push((key, value));
        self.kinds.push(kind);
        Ok(true)
    }
}

/// An encoded `KeyValue` that begins with a short key and has no other behind it, in two parts.
fn split(pair: &[u8]) -> Option<Known<'_>> {
    let &[0x0a, length, ..] = pair else { return None };
    let (key, rest) = pair.split_at_checked(2 + usize::from(length))?;
    // Of several keys the last counts.
    let is_its_key = key_value(pair).is_ok_and(|(last, _)| last == &key[2..]);
    (usize::from(length) <= SHORT_MAX && is_its_key).then_some(Known { key, rest })
}

/// The text of what stands behind the key of a `KeyValue`, where it is a short text and nothing
/// else.
fn short_text(rest: &[u8]) -> Option<&[u8]> {
    let &[0x12, value, 0x0a, length, ref text @ ..] = rest else { return None };
    let (value, length) = (usize::from(value), usize::from(length));
    let is_whole = value <= SHORT_MAX && value == length + 2 && length == text.len();
    is_whole.then_some(text)
}

#[cfg(test)]
mod tests;
