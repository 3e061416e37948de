//! Datadog's series as points: the JSON of `/api/v1/series`, and JSON and protobuf of
//! `/api/v2/series`; distributions (`sketches`) and service checks (`checks`) as well.
//!
//! ```text
//! metric            measurement
//! host, device      tags of these names; of v2, a resource is a tag named by its type
//! tags "k:v"        tag k; one without a value is "true", several values of a key are joined
//! type              the field: gauge, count or rate
//! interval          field `interval`, seconds, where it is given and the type is not gauge
//! ```
//!
//! Pure; HTTP is the gateway's.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::fault::Fault;
use crate::intake::{Intake, Item, Kind, Stop};
use crate::point::{FieldValue, NAME_BYTES_MAX, Point, TAGS_MAX, clean};

mod checks;
mod json;
mod protobuf;
mod sketches;
#[cfg(test)]
pub(crate) mod tests;

pub use checks::service_checks;
pub use json::{series_v1, series_v2};
pub use protobuf::series_protobuf;
pub use sketches::sketches;

/// The values of one key together, at most; each is compared with those before it.
const JOINED_BYTES_MAX: usize = 1024;

/// What a series says about all of its points.
#[derive(Debug, Default)]
struct Series<'a> {
    metric: Cow<'a, str>,
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The values of tags that have several, by the place of the tag; an empty one says that its
    /// first is there too.
    joined: HashSet<(usize, Cow<'a, str>)>,
    shape: Shape,
    interval: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    #[default]
    Gauge,
    Count,
    Rate,
}

impl Shape {
    fn field(self) -> &'static str {
        match self {
            Shape::Gauge => "gauge",
            Shape::Count => "count",
            Shape::Rate => "rate",
        }
    }

    /// The enumeration of v2, in which 0 is "unspecified".
    fn of_number(number: u64) -> Result<Self, Fault> {
        match number {
            0 | 3 => Ok(Shape::Gauge),
            1 => Ok(Shape::Count),
            2 => Ok(Shape::Rate),
            _ => Err(Fault::Malformed),
        }
    }
}

impl<'a> Series<'a> {
    /// Adds a tag as Datadog writes it.
    fn add(&mut self, tag: Cow<'a, str>) -> Result<(), Fault> {
        match tag {
            Cow::Borrowed(tag) => {
                let (key, value) = tag.split_once(':').unwrap_or((tag, "true"));
                self.set(Cow::Borrowed(key), Cow::Borrowed(value))
            }
            Cow::Owned(tag) => {
                let (key, value) = tag.split_once(':').unwrap_or((&tag, "true"));
                self.set(Cow::Owned(key.to_owned()), Cow::Owned(value.to_owned()))
            }
        }
    }

    fn set(&mut self, key: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), Fault> {
        let (key, value) = (storable(key)?, storable(value)?);
        if key.is_empty() || value.is_empty() {
            return Ok(());
        }
        if let Some(at) = self.tags.iter().position(|tag| tag.0 == key) {
            return self.join(at, value);
        }
        if self.tags.len() >= TAGS_MAX {
            return Err(Fault::TagsTooMany);
        }
        self.tags.push((key, value));
        Ok(())
    }

    /// A point with its name and tags, and what is wrong with them.
    fn named(self, fault: Result<(), Fault>) -> (Point<'a>, Result<(), Fault>) {
        let mut point = Point { tags: self.tags, ..Point::default() };
        let named = fault.and_then(|()| storable(self.metric).map(|name| point.measurement = name));
        (point, named)
    }

    /// Adds another value to a tag, unless it has it already.
    fn join(&mut self, at: usize, value: Cow<'a, str>) -> Result<(), Fault> {
        let tag = &mut self.tags[at].1;
        if self.joined.insert((at, Cow::Borrowed(""))) {
            self.joined.insert((at, tag.clone()));
        }
        if self.joined.contains(&(at, value.clone())) {
            return Ok(());
        }
        if tag.len() + 1 + value.len() > JOINED_BYTES_MAX {
            return Err(Fault::NameTooLong);
        }
        let joined = tag.to_mut();
        joined.push(',');
        joined.push_str(&value);
        self.joined.insert((at, value));
        Ok(())
    }

    /// Hands on points of this series, or the fault of each of them.
    fn hand_on(
        self,
        fault: Result<(), Fault>,
        points: impl Iterator<Item = Result<(i64, f64), Fault>>,
        intake: &mut dyn Intake,
    ) -> Result<(), Stop> {
        let (shape, interval) = (self.shape, self.interval);
        let (mut point, named) = self.named(fault);
        for read in points {
            point.fields.clear();
            let filled = named.and(read).and_then(|(seconds, value)| {
                if !value.is_finite() {
                    return Err(Fault::NotFinite);
                }
                point.fields.push((Cow::Borrowed(shape.field()), FieldValue::Float(value)));
                if shape != Shape::Gauge && interval > 0.0 && interval.is_finite() {
                    point.fields.push((Cow::Borrowed("interval"), FieldValue::Float(interval)));
                }
                point.timestamp_ns = Some(whole_seconds(seconds)?);
                Ok(())
            });
            let item = match filled {
                Ok(()) => Item::Point(&mut point),
                Err(fault) => Item::Rejected(fault),
            };
            intake.take(Kind::Sample, item)?;
        }
        Ok(())
    }
}

fn whole_seconds(seconds: i64) -> Result<i64, Fault> {
    seconds.checked_mul(1_000_000_000).ok_or(Fault::TimestampOutOfRange)
}

fn storable(text: Cow<'_, str>) -> Result<Cow<'_, str>, Fault> {
    if text.len() > NAME_BYTES_MAX {
        return Err(Fault::NameTooLong);
    }
    Ok(match text {
        Cow::Borrowed(text) => clean(text),
        Cow::Owned(text) => Cow::Owned(clean(&text).into_owned()),
    })
}
