//! The lines of a recording: JSON, one object a line, in a zstd stream. REFERENCE.md documents it for
//! other programs. Only the words; `segments` writes them and `reader` reads them.
//!
//! ```text
//! {"format":"tidegate-traffic","version":1,"replica":"5f…","started":1800000000,"hashed_keys":[]}
//! {"shape":0,"domain":"edge","class":"ingest","descriptors":[{"entries":[["tenant","acme"]]}]}
//! {"t":1800000000,"rows":[[0,120,[120],[3,998],[["tenant","over_limit",20]]]],"other":[7,2]}
//!                           │ │    │     │        └ rule, reason, requests refused
//!                           │ │    │     └ milliseconds of the first request and of the last
//!                           │ │    └ hits, a sum for each descriptor
//!                           │ └ requests
//!                           └ shape
//! ```

use serde::{Deserialize, Serialize};

use crate::limits::unit::Unit;
use crate::record::shape::{Shape, ShapeDescriptor};

/// What the first line says.
pub const FORMAT: &str = "tidegate-traffic";
/// The version that is written and read.
pub const VERSION: u64 = 1;
/// The longest line that is read.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// The most rows of a line; a second with more has several lines.
pub const LINE_ROWS_MAX: usize = 4096;
/// A file spans no more seconds than this, so a clock that jumps begins another.
pub const SEGMENT_SECONDS: u64 = 600;

/// Any line, as it is read: what it has says what it is.
#[derive(Debug, Default, Deserialize)]
pub struct Line {
    /// Of the first line: [`FORMAT`].
    pub format: Option<String>,
    /// Of the first line.
    pub version: Option<u64>,
    /// Of the first line: who recorded.
    pub replica: Option<String>,
    /// Of the first line: the first second.
    pub started: Option<u64>,
    /// Of the first line: keys whose values are hashes.
    #[serde(default)]
    pub hashed_keys: Vec<String>,
    /// The number of a shape.
    pub shape: Option<u32>,
    /// Of a shape.
    pub domain: Option<String>,
    /// Of a shape.
    pub class: Option<String>,
    /// Of a shape.
    pub descriptors: Option<Vec<DescriptorLine>>,
    /// A second since the epoch.
    pub t: Option<u64>,
    /// Of a second.
    #[serde(default)]
    pub rows: Vec<RowLine>,
    /// Of a second: requests without a row, and how many of them were refused.
    pub other: Option<(u64, u64)>,
}

/// The first line.
#[derive(Debug, Serialize)]
pub struct HeaderLine<'a> {
    /// [`FORMAT`].
    pub format: &'a str,
    /// [`VERSION`].
    pub version: u64,
    /// Who recorded.
    pub replica: &'a str,
    /// The first second.
    pub started: u64,
    /// Keys whose values are hashes.
    pub hashed_keys: Vec<&'a str>,
}

/// A line that gives a shape a number.
#[derive(Debug, Serialize)]
pub struct ShapeLine<'a> {
    /// Its number in this file.
    pub shape: u32,
    /// The domain asked.
    pub domain: &'a str,
    /// The class found.
    pub class: &'a str,
    /// What was asked.
    pub descriptors: Vec<DescriptorLine>,
}

/// A descriptor of a shape.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DescriptorLine {
    /// Keys and values.
    pub entries: Vec<(String, String)>,
    /// A limit that came with the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitLine>,
    /// Hits are given back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refund: bool,
    /// No hits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub look: bool,
}

/// A limit that came with a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct LimitLine {
    /// So many hits.
    pub requests_per_unit: u32,
    /// In each of these, as Envoy's API names it.
    pub unit: String,
}

/// Requests of one shape in one second: shape, requests, hits by descriptor, milliseconds of the first
/// and last, and what was refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct RowLine(
    pub u32,
    pub u64,
    pub Vec<u64>,
    pub (u16, u16),
    #[serde(default)] pub Vec<(String, String, u64)>,
);

/// A second, or a part of one.
#[derive(Debug, Serialize)]
pub struct SecondLine {
    /// Seconds since the epoch.
    pub t: u64,
    /// What was asked.
    pub rows: Vec<RowLine>,
    /// What has no row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<(u64, u64)>,
}

impl From<&ShapeDescriptor> for DescriptorLine {
    fn from(shape: &ShapeDescriptor) -> Self {
        Self {
            entries: shape.entries.clone(),
            limit: shape.limit.map(|(requests_per_unit, unit)| LimitLine {
                requests_per_unit,
                unit: unit.name().to_owned(),
            }),
            refund: shape.is_refund,
            look: shape.is_look,
        }
    }
}

impl Line {
    /// The shape that the line describes, if it does.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn to_shape(self) -> Result<Shape, &'static str> {
        let descriptor = |line: DescriptorLine| -> Result<ShapeDescriptor, &'static str> {
            let limit = line.limit.map(|limit| {
                let unit = Unit::parse(&limit.unit).ok_or("a limit with an unknown unit");
                unit.map(|unit| (limit.requests_per_unit, unit))
            });
            Ok(ShapeDescriptor {
                entries: line.entries,
                limit: limit.transpose()?,
                is_refund: line.refund,
                is_look: line.look,
            })
        };
        let descriptors = self.descriptors.ok_or("a shape without descriptors")?;
        Ok(Shape {
            domain: self.domain.ok_or("a shape without a domain")?,
            class: self.class.unwrap_or_default(),
            descriptors: descriptors.into_iter().map(descriptor).collect::<Result<_, _>>()?,
        })
    }
}
