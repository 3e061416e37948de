//! What a tenant's points must be like, and what becomes of the database and the organization that
//! a client names. Pure: settings, and the decisions by them.
//!
//! ```text
//! files ─► library (good ones stay in force) ─► book: tenant ─► rules ─► guard of one request
//! ```
//!
//! A rule refuses a point, never a request for the sake of one point, and never chooses the tenant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub mod file;
pub mod guard;
pub mod library;
pub mod mapping;
pub mod series;

use mapping::Mapping;

/// The rules of one tenant. The defaults change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// What a value of another type than its field's becomes.
    pub field_types: FieldTypes,
    /// How many labels a point may have.
    pub labels_max: Option<usize>,
    /// The longest name of a label, bytes.
    pub label_name_bytes_max: Option<usize>,
    /// The longest value of a label, bytes.
    pub label_value_bytes_max: Option<usize>,
    /// The largest body after decompression, bytes.
    pub request_bytes_max: Option<usize>,
    /// How many series may be active.
    pub series_max: Option<usize>,
    /// How many series may be new in a minute.
    pub new_series_per_minute: Option<u32>,
    /// How old a point may be.
    pub past_max: Option<Duration>,
    /// How far ahead of our clock a point may be.
    pub future_max: Option<Duration>,
    /// What the client's database and organization become.
    pub mapping: Mapping,
    /// What becomes of OTLP's units, temporalities and attributes.
    pub otlp: OtlpRules,
}

/// What a value of another type than its field's becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldTypes {
    /// Converted where it stays the same number, refused otherwise.
    #[default]
    Convert,
    /// Refused.
    Refuse,
    /// Stored as it is; the database decides.
    Off,
}

/// Rules for OTLP alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OtlpRules {
    /// Where the unit of a metric goes.
    pub unit: Unit,
    /// Which sums and histograms are taken.
    pub temporality: Temporality,
    /// Whether attributes that differ in their type alone stay apart.
    pub attributes: Attributes,
}

/// How an attribute is written as a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Attributes {
    /// As text, and with its type in front where the tag had values of another type before.
    #[default]
    Apart,
    /// As text: the text `1` and the number 1 are the same tag.
    Plain,
    /// With its type in front, `int:1`, unless it is text.
    Typed,
}

/// Where the unit of a metric goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nowhere.
    #[default]
    Drop,
    /// Behind the name of the metric, as in Prometheus.
    Suffix,
    /// Into the tag `unit`.
    Tag,
}

/// Which sums and histograms are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Temporality {
    /// All.
    #[default]
    Any,
    /// Running totals.
    Cumulative,
    /// Changes since the last point.
    Delta,
}

impl Temporality {
    /// Whether a sum or histogram of changes, or of running totals, is taken.
    pub fn takes(self, is_delta: bool) -> bool {
        match self {
            Temporality::Any => true,
            Temporality::Cumulative => !is_delta,
            Temporality::Delta => is_delta,
        }
    }
}

/// The rules of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Those of tenants that have none of their own.
    pub default: Arc<Rules>,
    /// Those of the others.
    pub tenants: HashMap<String, Arc<Rules>>,
}

impl Book {
    /// The rules of a tenant.
    pub fn of(&self, tenant: &str) -> &Arc<Rules> {
        self.tenants.get(tenant).unwrap_or(&self.default)
    }
}

impl Rules {
    /// Whether these are the defaults, which change nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
