//! Points that no database takes, and where they go: kept with their cause, never dropped.

use bytes::Bytes;

use crate::journal::{Append, Original};

/// The most of a database's own words that is kept, bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// Where dead letters go.
pub trait DeadLetters: Send + Sync + 'static {
    /// Stores all letters, as durably as the journal stores records.
    fn append(&self, letters: Vec<DeadLetter>) -> Append<'_>;

    /// Marks letters, by their names, as put into the journal again.
    fn mark_replayed(&self, ids: Vec<String>) -> Append<'_>;
}

/// Why something is a dead letter; a closed set, used as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The database refused the point: a bound, a retention policy.
    Refused,
    /// A field has another type in the database: the gateway did not know of it.
    TypeConflict,
    /// The database fails or dies every time it is given the point.
    Poison,
    /// The point alone is more than the database takes in one request.
    TooLarge,
    /// What the journal holds is no record.
    Malformed,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Refused, Self::TypeConflict, Self::Poison, Self::TooLarge, Self::Malformed];

    /// Why a database refuses a point, from its words: those of 1.x and 2.x, and those of 3.
    pub fn of_refusal(message: &str) -> Self {
        let conflict = ["field type conflict", "invalid column type"];
        match conflict.iter().any(|words| message.contains(words)) {
            true => Self::TypeConflict,
            false => Self::Refused,
        }
    }

    /// The name in metrics, logs and dead letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TypeConflict => "type_conflict",
            Self::Poison => "poison",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
        }
    }
}

/// Points of one record that share their fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub cause: Cause,
    /// The database's HTTP status; 0 where there was no answer.
    pub status: u16,
    /// The database's words, cut at [`MESSAGE_BYTES_MAX`].
    pub message: String,
    /// How often the points were tried on their own.
    pub attempts: u32,
    /// Whose points; empty where the record does not tell.
    pub tenant: String,
    /// The database that the client named.
    pub database: String,
    /// The record's virtual shard.
    pub shard: u32,
    /// How many points the body holds.
    pub points: u32,
    /// When the gateway admitted them, nanoseconds since 1970.
    pub admitted_at_ns: i64,
    /// Envoy's `x-request-id`.
    pub request_id: Option<String>,
    /// Trace context of the request that brought the points.
    pub traceparent: Option<String>,
    /// Journal partition the record came from.
    pub partition: i32,
    /// Its position there.
    pub position: u64,
    /// The lines, or the bytes that are no record.
    pub body: Bytes,
    /// What stood around bytes that are no record: a letter never makes a record of them.
    pub original: Option<Original>,
}

/// `text`, cut to at most [`MESSAGE_BYTES_MAX`] bytes between characters.
pub fn bounded_message(text: &str) -> String {
    text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(bounded_message("short"), "short");
        let long = "é".repeat(MESSAGE_BYTES_MAX);
        let cut = bounded_message(&format!("x{long}"));
        assert!(cut.len() <= MESSAGE_BYTES_MAX && cut.len() >= MESSAGE_BYTES_MAX - 1);
    }
}
