//! The units and periods of a limit, and the windows they cut time into.
//!
//! ```text
//! epoch        start              start + seconds
//!   ├────────────┼───────── now ──────┼──────►
//!                     window of `now`
//! ```

use std::fmt;
use std::time::Duration;

/// The longest period of a limit: ten years.
pub const PERIOD_SECONDS_MAX: u64 = 10 * 365 * 86_400;

/// The named lengths of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// 1 s
    Second,
    /// 60 s
    Minute,
    /// 3,600 s
    Hour,
    /// 86,400 s
    Day,
    /// 604,800 s; windows begin on Thursdays, as the epoch did
    Week,
    /// 30 days
    Month,
    /// 365 days
    Year,
}

/// All units, shortest first.
pub const UNITS: [Unit; 7] =
    [Unit::Second, Unit::Minute, Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year];

impl Unit {
    /// Reads a unit's name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        UNITS.into_iter().find(|unit| unit.name().eq_ignore_ascii_case(name))
    }

    /// The name as in Envoy's API.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Second => "SECOND",
            Unit::Minute => "MINUTE",
            Unit::Hour => "HOUR",
            Unit::Day => "DAY",
            Unit::Week => "WEEK",
            Unit::Month => "MONTH",
            Unit::Year => "YEAR",
        }
    }

    /// The length of the window.
    pub fn seconds(self) -> u64 {
        match self {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3600,
            Unit::Day => 86_400,
            Unit::Week => 7 * 86_400,
            Unit::Month => 30 * 86_400,
            Unit::Year => 365 * 86_400,
        }
    }

    /// The window that contains `now`, in seconds since the epoch.
    pub fn window(self, now_seconds: u64) -> Window {
        Period::from(self).window(now_seconds)
    }
}

/// How long the window of a limit is: whole seconds, from one to [`PERIOD_SECONDS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period(u64);

impl Period {
    /// A period of so many seconds, if it can be one.
    pub fn try_new(seconds: u64) -> Option<Self> {
        (1..=PERIOD_SECONDS_MAX).contains(&seconds).then_some(Self(seconds))
    }

    /// The length.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// The unit that is exactly as long.
    pub fn unit(self) -> Option<Unit> {
        UNITS.into_iter().find(|unit| unit.seconds() == self.0)
    }

    /// The window that contains `now`, in seconds since the epoch.
    pub fn window(self, now_seconds: u64) -> Window {
        Window { start: now_seconds - now_seconds % self.0, seconds: self.0 }
    }
}

impl From<Unit> for Period {
    fn from(unit: Unit) -> Self {
        Self(unit.seconds())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit() {
            Some(unit) => f.write_str(&unit.name().to_lowercase()),
            None => write!(f, "{}s", self.0),
        }
    }
}

/// A stretch of time in which hits are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// First second, since the epoch.
    pub start: u64,
    /// Length.
    pub seconds: u64,
}

impl Window {
    /// The first second after the window.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.seconds)
    }

    /// Seconds until the window ends, at least one while it lasts.
    pub fn remaining(self, now_seconds: u64) -> u64 {
        self.end().saturating_sub(now_seconds)
    }
}

/// Microseconds of a duration, as far as an integer of stores goes.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_of_a_units_length_have_its_name() {
        for unit in UNITS {
            assert_eq!(Period::try_new(unit.seconds()).and_then(Period::unit), Some(unit));
        }
        let period = Period::try_new(300).expect("in bounds");
        assert_eq!((period.unit(), period.to_string().as_str()), (None, "300s"));
        assert_eq!(period.window(1000), Window { start: 900, seconds: 300 });
        assert_eq!(Period::from(Unit::Day).to_string(), "day");
        assert!(Period::try_new(0).is_none() && Period::try_new(PERIOD_SECONDS_MAX + 1).is_none());
    }

    #[test]
    fn windows_are_aligned_to_the_epoch() {
        let now = 1_795_264_597;
        for unit in UNITS {
            let window = unit.window(now);
            assert_eq!(window.start % unit.seconds(), 0, "{unit:?}");
            assert!(window.start <= now && now < window.end(), "{unit:?}");
            assert_eq!(window.remaining(now), unit.seconds() - now % unit.seconds());
            assert_eq!(Unit::parse(&unit.name().to_lowercase()), Some(unit));
        }
        assert_eq!(Unit::Second.window(now).remaining(now), 1);
        assert_eq!(Unit::parse("unknown"), None);
        assert_eq!(Unit::parse("minutes"), None);
    }
}
