//! The instants of access logs.

/// Milliseconds since 1970 of `2027-01-15T08:00:00.125Z`, or of seconds with or without a fraction.
pub fn millis(text: &str) -> Option<u64> {
    let text = text.trim_matches(['[', ']']);
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        return seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths(fraction)?);
    }
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, sign: char| -> Option<[u64; 3]> {
        let numbers: Option<Vec<u64>> = text.split(sign).map(|part| part.parse().ok()).collect();
        numbers?.try_into().ok()
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
    let is_instant = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_instant {
        return None;
    }
    // Days from civil, as Howard Hinnant's paper has it: years begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let month = if month > 2 { month - 3 } else { month + 9 };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds * 1000 + thousandths(fraction)?)
}

/// Of the digits after a point.
fn thousandths(digits: &str) -> Option<u64> {
    let first: String = digits.chars().chain("000".chars()).take(3).collect();
    first.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_of_logs() {
        for (text, expected) in [
            ("2027-01-15T08:00:00.125Z", Some(1_800_000_000_125)),
            ("[2000-02-29T00:00:00Z]", Some(951_782_400_000)),
            ("1970-01-01T00:00:00.5Z", Some(500)),
            ("1800000000", Some(1_800_000_000_000)),
            ("1800000000.0421", Some(1_800_000_000_042)),
            ("2027-13-15T08:00:00Z", None),
            ("2027-01-15 08:00:00", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
