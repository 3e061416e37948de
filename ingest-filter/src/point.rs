//! A point: what every protocol is turned into, and what is written as canonical line protocol.
//!
//! A point borrows from the request wherever the text needs no change. It is no database row and
//! knows no protocol; whether it may be stored is decided where it is encoded.

use std::borrow::Cow;

mod chunk;
mod clean;
mod encode;
mod shape;

pub use chunk::{Chunk, Chunker};
pub use clean::{clean, storable};
pub use encode::encode;
pub use shape::{KnownLine, KnownTags, Shape, Shapes, ValueKind};

/// How many tags a point may have in the database: InfluxDB 1.x fails on exactly 100.
pub const TAGS_STORED_MAX: usize = 99;
/// How many tags a client may send; 97 where a shared database takes two of ours.
pub const TAGS_MAX: usize = 98;
/// How many fields a point may have.
pub const FIELDS_MAX: usize = 1024;
/// The longest measurement, key or tag value, in bytes.
pub const NAME_BYTES_MAX: usize = 64 * 1024;
/// The longest string field, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// One point. Tags and fields are in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point<'a> {
    /// The measurement, or the metric's name.
    pub measurement: Cow<'a, str>,
    /// Keys and values of the tags.
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// What the values of the tags were in their protocol; none where tags are nothing but text.
    pub tag_kinds: Vec<TagKind>,
    /// Keys and values of the fields.
    pub fields: Vec<(Cow<'a, str>, FieldValue<'a>)>,
    /// Nanoseconds since 1970; the time of admission where the client gave none.
    pub timestamp_ns: Option<i64>,
    /// How long behind the time of admission it is put where the client gave none.
    pub behind_ns: u32,
}

/// What the value of a tag was before it became text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagKind {
    /// Text that no value of another kind would be written as.
    #[default]
    Plain,
    /// Text that one would.
    Text,
    /// An integer.
    Integer,
    /// A double.
    Double,
    /// `true` or `false`.
    Boolean,
    /// Bytes, a list or a map.
    Other,
}

impl TagKind {
    /// All that may stand in front of a value to say what it is.
    pub const NAMES: [&str; 6] = ["string:", "int:", "double:", "bool:", "json:", "bytes:"];

    /// What stands in front of a value that is written as `text`.
    pub fn name(self, text: &str) -> &'static str {
        match self {
            TagKind::Plain | TagKind::Text => "string:",
            TagKind::Integer => "int:",
            TagKind::Double => "double:",
            TagKind::Boolean => "bool:",
            TagKind::Other if text.starts_with(['[', '{']) => "json:",
            TagKind::Other => "bytes:",
        }
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// A double. NaN and infinity cannot be encoded.
    Float(f64),
    /// A signed integer, `1i`.
    Integer(i64),
    /// An unsigned integer, `1u`.
    Unsigned(u64),
    /// `true` or `false`.
    Boolean(bool),
    /// A string; may hold any character.
    Text(Cow<'a, str>),
}

impl Point<'_> {
    /// Empties the point and keeps its memory for the next one.
    pub fn clear(&mut self) {
        self.measurement = Cow::Borrowed("");
        self.tags.clear();
        self.tag_kinds.clear();
        self.fields.clear();
        self.timestamp_ns = None;
        self.behind_ns = 0;
    }
}
