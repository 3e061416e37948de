//! The messages of OTLP as JSON names them: what the decoders read, and no more. Fields that are
//! not here are passed over, as unknown ones are.
//!
//! Names and numbers are those of `opentelemetry/proto/{metrics,logs,trace,common}/v1`.

/// A message.
#[derive(Debug)]
pub struct Message {
    /// Its fields.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// In lowerCamelCase.
    pub name: &'static str,
    /// In protobuf.
    pub number: u32,
    /// How it is written in both.
    pub kind: Kind,
    /// Whether it is a list.
    pub is_list: bool,
}

/// How a field is written.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A message of its own.
    Message(&'static Message),
    /// Text.
    Text,
    /// Bytes in hexadecimal: identifiers of traces and spans.
    Hex,
    /// Bytes in base64.
    Base64,
    /// `fixed64`.
    Fixed64,
    /// `sfixed64`.
    SignedFixed64,
    /// `double`.
    Double,
    /// `fixed32`, `uint32` and `uint64` where they are read as variable in length.
    Unsigned,
    /// `int64`.
    Signed,
    /// `sint32`.
    Zigzag,
    /// `bool`.
    Boolean,
    /// A number of an enumeration, or its name.
    Enumeration(&'static Names),
}

/// The names of an enumeration.
#[derive(Debug)]
pub struct Names {
    /// What all begin with.
    pub prefix: &'static str,
    /// What is behind it, by number.
    pub names: &'static [&'static str],
}

impl Message {
    /// The field of this name, in lowerCamelCase or as in the `.proto` file.
    pub fn field(&self, key: &[u8]) -> Option<&'static Field> {
        let fields: &'static [Field] = self.fields;
        fields.iter().find(|field| is_named(field.name.as_bytes(), key))
    }
}

fn is_named(name: &[u8], key: &[u8]) -> bool {
    if name == key {
        return true;
    }
    let mut name = name.iter();
    let mut raise = false;
    for byte in key {
        match (byte, raise) {
            (b'_', false) => raise = true,
            (byte, true) if Some(&byte.to_ascii_uppercase()) == name.next() => raise = false,
            (byte, false) if Some(byte) == name.next() => {}
            _ => return false,
        }
    }
    !raise && name.len() == 0
}

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, is_list: false }
}

const fn list(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, is_list: true }
}

use Kind::{
    Base64, Boolean, Double, Enumeration, Fixed64, Hex, Message as Of, Signed, SignedFixed64, Text,
    Unsigned, Zigzag,
};

/// `ExportMetricsServiceRequest`.
pub static METRICS: Message =
    Message { fields: &[list("resourceMetrics", 1, Of(&RESOURCE_METRICS))] };
/// `ExportLogsServiceRequest`.
pub static LOGS: Message = Message { fields: &[list("resourceLogs", 1, Of(&RESOURCE_LOGS))] };
/// `ExportTraceServiceRequest`.
pub static TRACES: Message = Message { fields: &[list("resourceSpans", 1, Of(&RESOURCE_SPANS))] };

static RESOURCE_METRICS: Message = Message {
    fields: &[one("resource", 1, Of(&RESOURCE)), list("scopeMetrics", 2, Of(&SCOPE_METRICS))],
};
static RESOURCE_LOGS: Message =
    Message { fields: &[one("resource", 1, Of(&RESOURCE)), list("scopeLogs", 2, Of(&SCOPE_LOGS))] };
static RESOURCE_SPANS: Message = Message {
    fields: &[one("resource", 1, Of(&RESOURCE)), list("scopeSpans", 2, Of(&SCOPE_SPANS))],
};
static SCOPE_METRICS: Message =
    Message { fields: &[one("scope", 1, Of(&SCOPE)), list("metrics", 2, Of(&METRIC))] };
static SCOPE_LOGS: Message =
    Message { fields: &[one("scope", 1, Of(&SCOPE)), list("logRecords", 2, Of(&LOG_RECORD))] };
static SCOPE_SPANS: Message =
    Message { fields: &[one("scope", 1, Of(&SCOPE)), list("spans", 2, Of(&SPAN))] };

static RESOURCE: Message = Message { fields: &[list("attributes", 1, Of(&KEY_VALUE))] };
static SCOPE: Message = Message {
    fields: &[one("name", 1, Text), one("version", 2, Text), list("attributes", 3, Of(&KEY_VALUE))],
};
static KEY_VALUE: Message =
    Message { fields: &[one("key", 1, Text), one("value", 2, Of(&ANY_VALUE))] };
static ANY_VALUE: Message = Message {
    fields: &[
        one("stringValue", 1, Text),
        one("boolValue", 2, Boolean),
        one("intValue", 3, Signed),
        one("doubleValue", 4, Double),
        one("arrayValue", 5, Of(&ARRAY_VALUE)),
        one("kvlistValue", 6, Of(&LIST_OF_PAIRS)),
        one("bytesValue", 7, Base64),
    ],
};
static ARRAY_VALUE: Message = Message { fields: &[list("values", 1, Of(&ANY_VALUE))] };
static LIST_OF_PAIRS: Message = Message { fields: &[list("values", 1, Of(&KEY_VALUE))] };

static METRIC: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("unit", 3, Text),
        one("gauge", 5, Of(&GAUGE)),
        one("sum", 7, Of(&SUM)),
        one("histogram", 9, Of(&HISTOGRAM)),
        one("exponentialHistogram", 10, Of(&EXPONENTIAL_HISTOGRAM)),
        one("summary", 11, Of(&SUMMARY)),
    ],
};
static TEMPORALITIES: Names =
    Names { prefix: "AGGREGATION_TEMPORALITY_", names: &["UNSPECIFIED", "DELTA", "CUMULATIVE"] };
const TEMPORALITY: Kind = Enumeration(&TEMPORALITIES);
static GAUGE: Message = Message { fields: &[list("dataPoints", 1, Of(&NUMBER))] };
static SUM: Message = Message {
    fields: &[
        list("dataPoints", 1, Of(&NUMBER)),
        one("aggregationTemporality", 2, TEMPORALITY),
        one("isMonotonic", 3, Boolean),
    ],
};
static HISTOGRAM: Message = Message {
    fields: &[
        list("dataPoints", 1, Of(&HISTOGRAM_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
    ],
};
static EXPONENTIAL_HISTOGRAM: Message = Message {
    fields: &[
        list("dataPoints", 1, Of(&EXPONENTIAL_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
    ],
};
static SUMMARY: Message = Message { fields: &[list("dataPoints", 1, Of(&SUMMARY_POINT))] };

static NUMBER: Message = Message {
    fields: &[
        list("attributes", 7, Of(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("asDouble", 4, Double),
        one("asInt", 6, SignedFixed64),
        one("flags", 8, Unsigned),
    ],
};
static HISTOGRAM_POINT: Message = Message {
    fields: &[
        list("attributes", 9, Of(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        list("bucketCounts", 6, Fixed64),
        list("explicitBounds", 7, Double),
        one("flags", 10, Unsigned),
        one("min", 11, Double),
        one("max", 12, Double),
    ],
};
static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        list("attributes", 1, Of(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        one("scale", 6, Zigzag),
        one("zeroCount", 7, Fixed64),
        one("positive", 8, Of(&BUCKETS)),
        one("negative", 9, Of(&BUCKETS)),
        one("flags", 10, Unsigned),
        one("min", 12, Double),
        one("max", 13, Double),
        one("zeroThreshold", 14, Double),
    ],
};
static BUCKETS: Message =
    Message { fields: &[one("offset", 1, Zigzag), list("bucketCounts", 2, Unsigned)] };
static SUMMARY_POINT: Message = Message {
    fields: &[
        list("attributes", 7, Of(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        list("quantileValues", 6, Of(&QUANTILE)),
        one("flags", 8, Unsigned),
    ],
};
static QUANTILE: Message =
    Message { fields: &[one("quantile", 1, Double), one("value", 2, Double)] };

static LOG_RECORD: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("observedTimeUnixNano", 11, Fixed64),
        one("severityNumber", 2, Enumeration(&SEVERITIES)),
        one("severityText", 3, Text),
        one("body", 5, Of(&ANY_VALUE)),
        list("attributes", 6, Of(&KEY_VALUE)),
        one("traceId", 9, Hex),
        one("spanId", 10, Hex),
        one("eventName", 12, Text),
    ],
};
static SEVERITIES: Names = Names {
    prefix: "SEVERITY_NUMBER_",
    names: &[
        "UNSPECIFIED",
        "TRACE",
        "TRACE2",
        "TRACE3",
        "TRACE4",
        "DEBUG",
        "DEBUG2",
        "DEBUG3",
        "DEBUG4",
        "INFO",
        "INFO2",
        "INFO3",
        "INFO4",
        "WARN",
        "WARN2",
        "WARN3",
        "WARN4",
        "ERROR",
        "ERROR2",
        "ERROR3",
        "ERROR4",
        "FATAL",
        "FATAL2",
        "FATAL3",
        "FATAL4",
    ],
};

static SPAN: Message = Message {
    fields: &[
        one("traceId", 1, Hex),
        one("spanId", 2, Hex),
        one("traceState", 3, Text),
        one("parentSpanId", 4, Hex),
        one("name", 5, Text),
        one("kind", 6, Enumeration(&SPAN_KINDS)),
        one("startTimeUnixNano", 7, Fixed64),
        one("endTimeUnixNano", 8, Fixed64),
        list("attributes", 9, Of(&KEY_VALUE)),
        list("events", 11, Of(&COUNTED)),
        list("links", 13, Of(&COUNTED)),
        one("status", 15, Of(&STATUS)),
    ],
};
static SPAN_KINDS: Names = Names {
    prefix: "SPAN_KIND_",
    names: &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"],
};
/// Of which only the number is stored.
static COUNTED: Message = Message { fields: &[] };
static STATUS: Message =
    Message { fields: &[one("message", 2, Text), one("code", 3, Enumeration(&STATUS_CODES))] };
static STATUS_CODES: Names = Names { prefix: "STATUS_CODE_", names: &["UNSET", "OK", "ERROR"] };
