//! The units of a limit and the windows they cut time into.
//!
//! ```text
//! epoch        start              start + seconds
//!   ├────────────┼───────── now ──────┼──────►
//!                     window of `now`
//! ```

/// How long the window of a limit is.
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
        let seconds = self.seconds();
        Window { start: now_seconds - now_seconds % seconds, seconds }
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

#[cfg(test)]
mod tests {
    use super::*;

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
