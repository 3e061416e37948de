//! Prometheus remote write 1.0: a `WriteRequest` becomes points in the shape that InfluxDB itself
//! gives it: measurement = metric name, tags = the other labels, one field `value`.
//!
//! NaN and infinities have no place in InfluxDB. Prometheus sends them routinely (stale markers,
//! empty quantiles), so they are counted and passed over, which is not an error. Native histograms
//! are rejected. Decompression and HTTP are the gateway's.

use std::borrow::Cow;

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::fault::Fault;
use crate::point::{FieldValue, Point};

/// The label that names the metric.
const NAME_LABEL: &str = "__name__";

/// The field of `WriteRequest` that holds the series.
const TIMESERIES: u32 = 1;

/// The most memory a decoded series takes, for each of its bytes: an empty label is two bytes on
/// the wire, 48 in memory, and a list that grows holds up to twice its elements.
pub const DECODED_PER_BYTE: usize = 48;

/// The body is not a `WriteRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message of remote write 1.0")]
pub struct Malformed;

/// The series of a `WriteRequest`, still encoded: a request is decoded series by series, so that
/// it never stands in memory twice.
#[derive(Clone, Debug)]
pub struct SeriesOf<'a> {
    body: &'a [u8],
}

impl<'a> SeriesOf<'a> {
    /// The series of this body.
    pub fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    fn advance(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        while !self.body.is_empty() {
            let (tag, wire_type) = decode_key(&mut self.body).map_err(|_| Malformed)?;
            if tag == TIMESERIES && wire_type == WireType::LengthDelimited {
                let length = decode_varint(&mut self.body).map_err(|_| Malformed)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (one, rest) = self.body.split_at_checked(length).ok_or(Malformed)?;
                self.body = rest;
                return Ok(Some(one));
            }
            skip_field(wire_type, tag, &mut self.body, DecodeContext::default())
                .map_err(|_| Malformed)?;
        }
        Ok(None)
    }
}

impl<'a> Iterator for SeriesOf<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if let Some(Err(_)) = next {
            self.body = &[];
        }
        next
    }
}

/// `prometheus.TimeSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Sorted labels, `__name__` among them.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// The samples, oldest first.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Native histograms; only their number matters here.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub histograms: Vec<Vec<u8>>,
}

/// `prometheus.Label`.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// The label's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The label's value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `prometheus.Sample`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// The value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// What became of one sample.
#[derive(Debug, PartialEq)]
pub enum Item<'a> {
    /// A point to store.
    Point(Point<'a>),
    /// NaN or infinity: nothing to store, and no fault of the sender.
    Skipped,
    /// A sample or histogram that cannot be stored.
    Rejected(Fault),
}

impl TimeSeries {
    /// Hands every sample and histogram to `visit`, in order.
    ///
    /// # Errors
    /// Whatever `visit` stops with.
    pub fn visit<E>(&self, mut visit: impl FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        let named = self.point();
        for sample in &self.samples {
            visit(sample.item(&named))?;
        }
        for _ in &self.histograms {
            visit(Item::Rejected(Fault::HistogramUnsupported))?;
        }
        Ok(())
    }

    /// The series as a point without a value.
    fn point(&self) -> Result<Point<'_>, Fault> {
        let name = self.labels.iter().find(|label| label.name == NAME_LABEL);
        let name = name.map_or("", |label| label.value.as_str());
        if name.is_empty() {
            return Err(Fault::MeasurementMissing);
        }
        // An empty label value is the same as no label.
        let tags = self.labels.iter().filter(|label| label.name != NAME_LABEL);
        let tags = tags.filter(|label| !label.value.is_empty());
        let tags = tags.map(|label| (Cow::Borrowed(&*label.name), Cow::Borrowed(&*label.value)));
        Ok(Point { measurement: Cow::Borrowed(name), tags: tags.collect(), ..Point::default() })
    }
}

impl Sample {
    fn item<'a>(&self, series: &Result<Point<'a>, Fault>) -> Item<'a> {
        let point = match series {
            Ok(point) => point,
            Err(fault) => return Item::Rejected(*fault),
        };
        if !self.value.is_finite() {
            return Item::Skipped;
        }
        let Some(timestamp_ns) = self.timestamp.checked_mul(1_000_000) else {
            return Item::Rejected(Fault::TimestampOutOfRange);
        };
        let fields = vec![(Cow::Borrowed("value"), FieldValue::Float(self.value))];
        Item::Point(Point { fields, timestamp_ns: Some(timestamp_ns), ..point.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn label(name: &str, value: &str) -> Label {
        Label { name: name.to_owned(), value: value.to_owned() }
    }

    fn request(all: &[TimeSeries]) -> Vec<u8> {
        let mut body = Vec::new();
        for one in all {
            prost::encoding::message::encode(TIMESERIES, one, &mut body);
        }
        // Metadata, which is passed over.
        prost::encoding::bytes::encode(3, &b"metadata".to_vec(), &mut body);
        body
    }

    fn items(one: TimeSeries) -> Vec<String> {
        let body = request(&[one.clone(), one]);
        let series: Result<Vec<_>, _> = SeriesOf::new(&body).collect();
        let series = series.expect("just encoded");
        assert_eq!((series.len(), series[0]), (2, series[1]));
        let series = TimeSeries::decode(series[0]).expect("just encoded");
        let mut items = Vec::new();
        let all = series.visit(|item| {
            items.push(match item {
                Item::Point(point) => format!(
                    "{} {:?} {:?} {:?}",
                    point.measurement, point.tags, point.fields, point.timestamp_ns
                ),
                Item::Skipped => "skipped".to_owned(),
                Item::Rejected(fault) => format!("{fault:?}"),
            });
            Ok::<(), Infallible>(())
        });
        assert!(all.is_ok());
        items
    }

    #[test]
    fn samples_become_points() {
        let labels = vec![label("__name__", "up"), label("empty", ""), label("job", "node")];
        let sample = |value, timestamp| Sample { value, timestamp };
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        let samples = vec![
            sample(1.0, 1_700_000_000_123),
            sample(stale, 1_700_000_000_124),
            sample(f64::INFINITY, 1),
            sample(1.0, i64::MAX),
        ];
        let histograms = vec![vec![1, 2, 3]];
        assert_eq!(
            items(TimeSeries { labels, samples, histograms }),
            [
                "up [(\"job\", \"node\")] [(\"value\", Float(1.0))] Some(1700000000123000000)",
                "skipped",
                "skipped",
                "TimestampOutOfRange",
                "HistogramUnsupported",
            ]
        );
    }

    #[test]
    fn a_series_without_a_name_is_rejected() {
        let samples = vec![Sample { value: 1.0, timestamp: 1 }];
        for labels in [vec![], vec![label("job", "x")], vec![label("__name__", "")]] {
            let series = TimeSeries { labels, samples: samples.clone(), histograms: vec![] };
            assert_eq!(items(series), ["MeasurementMissing"]);
        }
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        for bad in
            [&b"\x0a\x05abc"[..], b"\xff", b"\x0b", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            assert_eq!(SeriesOf::new(bad).collect::<Vec<_>>(), [Err(Malformed)], "{bad:?}");
        }
        assert_eq!(SeriesOf::new(b"").next(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for one in SeriesOf::new(&body).flatten() {
                // Either answer will do; a panic will not.
                let _ = TimeSeries::decode(one);
            }
        }
    }
}
