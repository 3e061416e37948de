//! Tags whose values had types in their protocol, as attributes of OTLP have. A tag is text, so the
//! text `1` and the number 1 would be one series, and one point would write over the other. The
//! kind of value that a tag had first is pinned like the type of a field, and a value of another
//! kind has its kind in front:
//!
//! ```text
//! first       then       and
//! code=200    code="200" code=200.0
//! 200         string:200 double:200
//! ```
//!
//! Text that no value of another kind would be written as needs none of this.

use std::borrow::Cow;
use std::sync::Arc;

use super::{TypesOf, known, read};
use crate::point::{Point, TagKind};
use crate::types::{FieldType, Table};

/// What stands before the measurement in the name under which the kinds of its tags are pinned. No
/// measurement begins so.
const KINDS_OF: char = '\u{1}';

/// What was done to the tags of a point, to be undone once it is written.
#[derive(Debug, Default)]
pub struct Marked<'a> {
    before: Vec<(usize, Cow<'a, str>)>,
    has_new: bool,
}

impl<'a> Marked<'a> {
    /// Whether the kind of a tag is not pinned yet.
    pub fn has_new(&self) -> bool {
        self.has_new
    }

    /// Makes the tags what they were.
    pub fn undo(self, point: &mut Point<'a>) {
        for (place, value) in self.before {
            point.tags[place].1 = value;
        }
    }
}

impl TypesOf {
    /// Puts its kind in front of each value that has another one than its tag.
    pub fn mark_tags<'a>(&mut self, point: &mut Point<'a>) -> Marked<'a> {
        let mut marked = Marked::default();
        if point.tag_kinds.iter().all(|kind| *kind == TagKind::Plain) {
            return marked;
        }
        let table = self.known_kinds(&point.measurement);
        let columns = table.as_deref().map(read);
        let own = match self.new.is_empty() {
            true => None,
            false => self.new.get(&*kinds_of(&point.measurement)),
        };
        let mut hint = 0;
        for (place, kind) in point.tag_kinds.iter().enumerate() {
            let Some(sent) = pinned_as(*kind) else { continue };
            let Some((key, value)) = point.tags.get_mut(place) else { break };
            let pinned = columns.as_ref().and_then(|columns| columns.find(hint, key));
            let pinned = pinned.or_else(|| own.and_then(|own| own.find(0, key)));
            let Some((place_of_key, pinned)) = pinned else {
                marked.has_new = true;
                continue;
            };
            hint = place_of_key + 1;
            if pinned != sent {
                let named = Cow::Owned(format!("{}{value}", kind.name(value)));
                marked.before.push((place, std::mem::replace(value, named)));
            }
        }
        marked
    }

    /// Notes the kinds of the tags of a point that was marked; false when somebody else pinned
    /// another kind meanwhile, and the point must be marked again.
    pub fn pin_tags(&mut self, point: &Point<'_>) -> bool {
        let name = kinds_of(&point.measurement);
        let table = self.known_kinds(&point.measurement);
        let kinds = point.tags.iter().zip(&point.tag_kinds);
        let kinds = kinds.filter_map(|((key, _), kind)| Some((&**key, pinned_as(*kind)?)));
        self.note(&name, table.as_deref(), kinds)
    }

    fn known_kinds(&mut self, measurement: &str) -> Option<Arc<Table>> {
        if let Some((name, table)) = &self.last_kinds
            && name.strip_prefix(KINDS_OF) == Some(measurement)
        {
            return Some(table.clone());
        }
        known(&self.database, &mut self.last_kinds, &kinds_of(measurement))
    }
}

/// The name under which the kinds of the tags of a measurement are pinned.
fn kinds_of(measurement: &str) -> String {
    format!("{KINDS_OF}{measurement}")
}

/// The type that stands for a kind among pins; none for text that needs no pin. No value of a tag
/// is unsigned, so that type is free for bytes, lists and maps.
fn pinned_as(kind: TagKind) -> Option<FieldType> {
    match kind {
        TagKind::Plain => None,
        TagKind::Text => Some(FieldType::Text),
        TagKind::Integer => Some(FieldType::Integer),
        TagKind::Double => Some(FieldType::Float),
        TagKind::Boolean => Some(FieldType::Boolean),
        TagKind::Other => Some(FieldType::Unsigned),
    }
}
