//! Moments as people type and read them: UTC to the second, or so long ago. Pure.

const DAY_SECONDS: i64 = 86_400;

/// Reads `2026-11-28T04:00:00Z`, `2026-11-28`, or a duration before `now_ms` such as `2h`; gives
/// milliseconds since 1970.
///
/// # Errors
/// With what is expected.
pub fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    let expected = || format!("'{text}' is neither a time such as 2026-11-28T04:00:00Z nor 2h");
    if let Some(ms) = ago(text) {
        return Ok(now_ms - ms);
    }
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let numbers = |text: &str, separator| -> Option<Vec<i64>> {
        text.split(separator).map(|part: &str| part.parse().ok()).collect()
    };
    let date = numbers(date, '-').filter(|date| date.len() == 3).ok_or_else(expected)?;
    let time = time.strip_suffix('Z').and_then(|time| numbers(time, ':'));
    let time = time.filter(|time| time.len() == 3).ok_or_else(expected)?;
    let within = (1..=12).contains(&date[1])
        && (1..=31).contains(&date[2])
        && (0..24).contains(&time[0])
        && (0..60).contains(&time[1])
        && (0..61).contains(&time[2])
        && (1..10_000).contains(&date[0]);
    if !within {
        return Err(expected());
    }
    let seconds = days(date[0], date[1], date[2]) * DAY_SECONDS;
    Ok((seconds + time[0] * 3600 + time[1] * 60 + time[2]) * 1000)
}

fn ago(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let count: i64 = text[..text.len() - unit.len_utf8()].parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => DAY_SECONDS,
        _ => return None,
    };
    count.checked_mul(seconds * 1000).filter(|ms| *ms >= 0)
}

/// `2026-11-28T04:00:00Z`.
pub fn show(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (day, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    let (year, month, date) = civil(day);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

/// Days since 1970 of a date of the Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, date: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + date - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_as_people_type_them() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-28T04:41:57Z", 1_795_840_917_000),
            ("2024-02-29", 1_709_164_800_000),
            ("90s", 10_000_000 - 90_000),
            ("2h", 10_000_000 - 7_200_000),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text, 10_000_000), Ok(expected), "{text}");
        }
        for bad in
            ["", "h", "-2h", "2026-13-01", "2026-11-28T04:00:00", "2026-11-28T24:00:00Z", "é"]
        {
            assert!(parse(bad, 0).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(seconds in 0_i64..200_000_000_000) {
            prop_assert_eq!(parse(&show(seconds * 1000), 0), Ok(seconds * 1000));
        }
    }
}
