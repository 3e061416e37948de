//! Why a point or a line is refused: a closed set, so that it can label a metric, be counted in a
//! test and be said to a client without repeating what the client sent.

use crate::wire::Malformed;

/// What is wrong with one line or one data point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    /// A byte sequence that is not UTF-8.
    #[error("is not valid UTF-8")]
    InvalidUtf8,
    /// A control character outside of a string field value.
    #[error("control character outside of a string field")]
    ControlCharacter,
    /// A line that begins with a comma, an empty metric name.
    #[error("measurement is missing")]
    MeasurementMissing,
    /// A measurement that the canonical form could not tell from a comment.
    #[error("measurement begins with '#'")]
    MeasurementIsComment,
    /// A tag without a key.
    #[error("tag key is missing")]
    TagKeyMissing,
    /// A tag without a value.
    #[error("tag value is missing")]
    TagValueMissing,
    /// A point without fields.
    #[error("field set is missing")]
    FieldSetMissing,
    /// A field without a key.
    #[error("field key is missing")]
    FieldKeyMissing,
    /// A field without a value, or with one that is no number, string or boolean.
    #[error("field value is missing or not a number, string or boolean")]
    FieldValueInvalid,
    /// A number that is not written as one.
    #[error("field value is not a number")]
    NumberInvalid,
    /// An integer beyond 64 bits, or a float beyond a double.
    #[error("number is out of range")]
    NumberOutOfRange,
    /// An unsigned integer where the database has none.
    #[error("unsigned integers are not accepted, write the value with 'i' or as a float")]
    UnsignedRefused,
    /// NaN or infinity.
    #[error("value is not a finite number")]
    NotFinite,
    /// A string without its closing quote.
    #[error("string field is not closed")]
    StringUnterminated,
    /// Text behind a field value or behind the timestamp.
    #[error("unexpected text after a value")]
    TrailingText,
    /// A timestamp that is not an integer.
    #[error("timestamp is not an integer")]
    TimestampInvalid,
    /// A timestamp that does not fit 64 bits of nanoseconds.
    #[error("timestamp is out of range for its precision")]
    TimestampOutOfRange,
    /// Two tags with one key.
    #[error("tag key appears twice")]
    TagDuplicate,
    /// More tags than [`crate::point::TAGS_MAX`].
    #[error("more than 98 tags, or than 97 where tenants share a database")]
    TagsTooMany,
    /// More fields than [`crate::point::FIELDS_MAX`].
    #[error("more than 1024 fields")]
    FieldsTooMany,
    /// A measurement, key or tag value longer than [`crate::point::NAME_BYTES_MAX`].
    #[error("name or tag value is longer than 64 KiB")]
    NameTooLong,
    /// A string field longer than [`crate::point::TEXT_BYTES_MAX`].
    #[error("string field is longer than 1 MiB")]
    TextTooLong,
    /// A tag or field key that the database uses itself.
    #[error("key is reserved: time, _field and _measurement may not be used")]
    NameReserved,
    /// A tag that says where a point belongs in a shared database.
    #[error("tag is reserved: tidegate_tenant and tidegate_db may not be used")]
    TagReserved,
    /// A field with another type than it has in its database, and another value in that type.
    #[error("field type conflict")]
    TypeConflict,
    /// A backslash where line protocol cannot express it.
    #[error("backslash at the end of a name or before a comma, an equals sign or a space")]
    BackslashAmbiguous,
    /// A point larger than a chunk may be.
    #[error("point is larger than a chunk of the journal")]
    PointTooLarge,
    /// An OTLP data point or metric without a value.
    #[error("data point has no value")]
    ValueMissing,
    /// An OTLP sum or histogram that does not say whether it is delta or cumulative.
    #[error("aggregation temporality is not set")]
    TemporalityMissing,
    /// An OTLP histogram whose counts and bounds do not fit together.
    #[error("bucket counts and bounds do not match")]
    BucketsInvalid,
    /// An item that is no message of its protocol.
    #[error("is not a valid message of its protocol")]
    Malformed,
    /// A label of remote write 2.0 without its half in the list of symbols.
    #[error("label refers to a symbol that is not there")]
    SymbolMissing,
    /// More labels than the tenant's rules allow.
    #[error("more tags than the rules of the tenant allow")]
    LabelsTooMany,
    /// A label's name longer than the tenant's rules allow.
    #[error("tag key is longer than the rules of the tenant allow")]
    LabelNameTooLong,
    /// A label's value longer than the tenant's rules allow.
    #[error("tag value is longer than the rules of the tenant allow")]
    LabelValueTooLong,
    /// A timestamp before the tenant's window.
    #[error("point is older than the rules of the tenant allow")]
    TooOld,
    /// A timestamp behind the tenant's window.
    #[error("timestamp is further ahead than the rules of the tenant allow")]
    TooFarAhead,
    /// A new series beyond the tenant's limit.
    #[error("new series beyond the limit of the tenant")]
    SeriesTooMany,
    /// A new series beyond the tenant's rate.
    #[error("new series beyond the rate of the tenant")]
    SeriesTooFast,
    /// An OTLP sum or histogram of a temporality that the tenant's rules do not take.
    #[error("aggregation temporality is not the one that the rules of the tenant take")]
    TemporalityRefused,
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Fault::Malformed
    }
}

impl Fault {
    /// The fault as the value of a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Fault::InvalidUtf8 => "invalid_utf8",
            Fault::ControlCharacter => "control_character",
            Fault::MeasurementMissing => "measurement_missing",
            Fault::MeasurementIsComment => "measurement_is_comment",
            Fault::TagKeyMissing => "tag_key_missing",
            Fault::TagValueMissing => "tag_value_missing",
            Fault::FieldSetMissing => "field_set_missing",
            Fault::FieldKeyMissing => "field_key_missing",
            Fault::FieldValueInvalid => "field_value_invalid",
            Fault::NumberInvalid => "number_invalid",
            Fault::NumberOutOfRange => "number_out_of_range",
            Fault::UnsignedRefused => "unsigned_refused",
            Fault::NotFinite => "not_finite",
            Fault::StringUnterminated => "string_unterminated",
            Fault::TrailingText => "trailing_text",
            Fault::TimestampInvalid => "timestamp_invalid",
            Fault::TimestampOutOfRange => "timestamp_out_of_range",
            Fault::TagDuplicate => "tag_duplicate",
            Fault::TagsTooMany => "tags_too_many",
            Fault::FieldsTooMany => "fields_too_many",
            Fault::NameTooLong => "name_too_long",
            Fault::TextTooLong => "text_too_long",
            Fault::NameReserved => "name_reserved",
            Fault::TagReserved => "tag_reserved",
            Fault::TypeConflict => "type_conflict",
            Fault::BackslashAmbiguous => "backslash_ambiguous",
            Fault::PointTooLarge => "point_too_large",
            Fault::ValueMissing => "value_missing",
            Fault::TemporalityMissing => "temporality_missing",
            Fault::BucketsInvalid => "buckets_invalid",
            Fault::Malformed => "malformed",
            Fault::SymbolMissing => "symbol_missing",
            Fault::LabelsTooMany => "labels_too_many",
            Fault::LabelNameTooLong => "label_name_too_long",
            Fault::LabelValueTooLong => "label_value_too_long",
            Fault::TooOld => "too_old",
            Fault::TooFarAhead => "too_far_ahead",
            Fault::SeriesTooMany => "series_too_many",
            Fault::SeriesTooFast => "series_too_fast",
            Fault::TemporalityRefused => "temporality_refused",
        }
    }
}
