//! The unit of a client's timestamps.

use crate::fault::Fault;

/// The unit of the timestamps of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Told by the magnitude, as InfluxDB 3 does: seconds below 5·10⁹, milliseconds below
    /// 5·10¹², microseconds below 5·10¹⁵, else nanoseconds.
    Auto,
    /// 1 ns.
    Nanoseconds,
    /// 10³ ns.
    Microseconds,
    /// 10⁶ ns.
    Milliseconds,
    /// 10⁹ ns.
    Seconds,
    /// 60 s.
    Minutes,
    /// 3600 s.
    Hours,
}

/// A `precision` that no dialect knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "precision is none of n, ns, u, us, ms, s, m, h, auto, nanosecond, microsecond, millisecond, second"
)]
pub struct UnknownPrecision;

/// The first and last nanosecond that InfluxDB stores.
const TIMESTAMP_NS: std::ops::RangeInclusive<i64> = i64::MIN + 2..=i64::MAX - 1;

impl std::str::FromStr for Precision {
    type Err = UnknownPrecision;

    /// All dialects' names are understood on every path: they do not contradict each other.
    fn from_str(text: &str) -> Result<Self, UnknownPrecision> {
        Ok(match text {
            "auto" => Precision::Auto,
            "n" | "ns" | "nanosecond" => Precision::Nanoseconds,
            "u" | "us" | "µ" | "µs" | "microsecond" => Precision::Microseconds,
            "ms" | "millisecond" => Precision::Milliseconds,
            "s" | "second" => Precision::Seconds,
            "m" => Precision::Minutes,
            "h" => Precision::Hours,
            _ => return Err(UnknownPrecision),
        })
    }
}

impl Precision {
    /// A timestamp of this unit in nanoseconds.
    ///
    /// # Errors
    /// When the result is not a time that InfluxDB stores.
    pub fn to_ns(self, timestamp: i64) -> Result<i64, Fault> {
        timestamp
            .checked_mul(self.ns_per_unit(timestamp))
            .filter(|ns| TIMESTAMP_NS.contains(ns))
            .ok_or(Fault::TimestampOutOfRange)
    }

    fn ns_per_unit(self, timestamp: i64) -> i64 {
        match self {
            Precision::Auto => match timestamp.unsigned_abs() {
                0..5_000_000_000 => 1_000_000_000,
                5_000_000_000..5_000_000_000_000 => 1_000_000,
                5_000_000_000_000..5_000_000_000_000_000 => 1_000,
                _ => 1,
            },
            Precision::Nanoseconds => 1,
            Precision::Microseconds => 1_000,
            Precision::Milliseconds => 1_000_000,
            Precision::Seconds => 1_000_000_000,
            Precision::Minutes => 60_000_000_000,
            Precision::Hours => 3_600_000_000_000,
        }
    }
}
