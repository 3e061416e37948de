//! Moments in key records: RFC 3339 in UTC, at millisecond resolution.
//!
//! Only `Z` is accepted as the offset, so that a record means the same moment to every reader.

use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroI64;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MS_PER_DAY: i64 = 86_400_000;

/// One millisecond after `i64::MIN` of them.
const SMALLEST: NonZeroI64 = NonZeroI64::new(1).expect("one is not zero");

/// A moment, in milliseconds since 1970-01-01T00:00:00Z. An `Option` of it is no larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// The milliseconds with the sign bit turned: zero would be `i64::MIN` of them.
    turned: NonZeroI64,
}

/// Why a text is not a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UTC time such as 2030-01-31T23:59:59Z")]
pub struct TimestampError;

impl Timestamp {
    /// The moment this many milliseconds after 1970.
    pub const fn from_millis(millis: i64) -> Self {
        match NonZeroI64::new(millis ^ i64::MIN) {
            Some(turned) => Self { turned },
            // A millisecond later, in a year that no calendar has.
            None => Self { turned: SMALLEST },
        }
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.turned.get() ^ i64::MIN
    }

    /// The moment so much later.
    pub fn after(self, time: Duration) -> Self {
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.as_millis().saturating_add(millis))
    }

    /// The present, by the system clock.
    pub fn now() -> Self {
        // A clock before 1970 reads as 1970; one past the year 292 million reads as that.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_millis().cmp(&other.as_millis())
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        parse(text.as_bytes()).ok_or(TimestampError)
    }
}

/// `YYYY-MM-DDThh:mm:ss[.f…]Z`; digits after the third of a fraction are cut off.
fn parse(text: &[u8]) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, rest) = rest.split_at_checked(9)?;
    let shape = |at: usize, byte: u8, of: &[u8]| of.get(at) == Some(&byte);
    if !(shape(4, b'-', date) && shape(7, b'-', date)) {
        return None;
    }
    if !(shape(0, b'T', clock) && shape(3, b':', clock) && shape(6, b':', clock)) {
        return None;
    }
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?);
    let (hour, minute, second) =
        (number(&clock[1..3])?, number(&clock[4..6])?, number(&clock[7..])?);
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second;
    let millis = days(year, month, day) * MS_PER_DAY + seconds * 1000 + fraction(rest)?;
    Some(Timestamp::from_millis(millis))
}

/// The milliseconds of `.f…Z`, or 0 of `Z`.
fn fraction(text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if digits.is_empty() {
        return Some(0);
    }
    let digits = digits.strip_prefix(b".")?;
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| digits.get(at).map_or(0, |byte| i64::from(byte - b'0'));
    Some(digit(0) * 100 + digit(1) * 10 + digit(2))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, in the proleptic Gregorian calendar, for years 0 to 9999.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Counting years from March puts the leap day last, so month lengths follow one formula.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut day = self.as_millis().div_euclid(MS_PER_DAY);
        let in_day = self.as_millis().rem_euclid(MS_PER_DAY);
        // From a year that is not too late, on to the right one; this is for people to read, not
        // on the request path.
        let mut year = 1970 + day.div_euclid(366).min(day.div_euclid(365));
        while days(year + 1, 1, 1) <= day {
            year += 1;
        }
        day -= days(year, 1, 1);
        let mut month = 1;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        let (seconds, millis) = (in_day / 1000, in_day % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", day + 1)?;
        if millis > 0 {
            write!(f, ".{millis:03}")?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(text: &str) -> Option<i64> {
        text.parse::<Timestamp>().ok().map(Timestamp::as_millis)
    }

    #[test]
    fn known_moments() {
        assert_eq!(millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(millis("2000-02-29T12:00:00Z"), Some(951_825_600_000));
        assert_eq!(millis("2026-11-21T12:36:35.5Z"), Some(1_795_264_595_500));
        assert_eq!(millis("9999-12-31T23:59:59.999999999Z"), Some(253_402_300_799_999));
        assert_eq!(millis("1969-12-31T23:59:59Z"), Some(-1000));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "2026",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+00:00",
            "2026-01-01t00:00:00Z",
            "2026-01-01 00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00ZZ",
            "2026-1-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "é026-01-01T00:00:00Z",
        ] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn any_number_of_milliseconds_is_kept_and_ordered() {
        let all = [i64::MIN + 1, -1000, -1, 0, 1, 1000, i64::MAX];
        for pair in all.windows(2) {
            let [early, late] = [pair[0], pair[1]].map(Timestamp::from_millis);
            assert!(early < late && early.as_millis() == pair[0], "{pair:?}");
        }
        assert_eq!(Timestamp::from_millis(i64::MIN).as_millis(), i64::MIN + 1);
        assert_eq!(size_of::<Option<Timestamp>>(), size_of::<i64>());
    }

    proptest! {
        #[test]
        fn display_is_read_back(millis in -62_167_219_200_000_i64..253_402_300_800_000) {
            let moment = Timestamp::from_millis(millis);
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
