//! The unit of a metric behind its name, as Prometheus has it.
//!
//! Units are those of UCUM, as OpenTelemetry writes them: `By`, `ms`, `{request}`, `By/s`.

use std::borrow::Cow;

/// Units whose names are not their own.
const NAMES: [(&str, &str); 24] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

/// What stands behind a slash, of one.
const EACH: [(&str, &str); 7] = [
    ("s", "second"),
    ("min", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("m", "meter"),
    ("By", "byte"),
    ("ms", "millisecond"),
];

/// The name with its unit behind it, unless it ends so already or the unit is none.
pub fn named<'a>(name: Cow<'a, str>, unit: &str) -> Cow<'a, str> {
    let (of, per) = unit.split_once('/').unwrap_or((unit, ""));
    let of = word(of, &NAMES);
    let per = word(per, &EACH);
    let unit = match (of.is_empty(), per.is_empty()) {
        (_, true) => of,
        (true, false) => format!("per_{per}"),
        (false, false) => format!("{of}_per_{per}"),
    };
    let is_there = name.strip_suffix(unit.as_str()).is_some_and(|rest| rest.ends_with(['_', '.']));
    match unit.is_empty() || is_there {
        true => name,
        false => Cow::Owned(format!("{name}_{unit}")),
    }
}

/// The name of a unit. What is in braces says what is counted and is no unit, and neither is 1.
fn word(unit: &str, names: &[(&str, &str)]) -> String {
    let unit = match unit.split_once('{') {
        Some((before, _)) => before.trim(),
        None => unit.trim(),
    };
    if unit == "1" {
        return String::new();
    }
    if let Some((_, name)) = names.iter().find(|(short, _)| *short == unit) {
        return (*name).to_owned();
    }
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '_' };
    unit.chars().map(plain).collect::<String>().trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_the_names_of_prometheus() {
        for (name, unit, expected) in [
            ("latency", "s", "latency_seconds"),
            ("latency_seconds", "s", "latency_seconds"),
            ("http.latency.seconds", "s", "http.latency.seconds"),
            ("io", "By/s", "io_bytes_per_second"),
            ("rate", "{request}/s", "rate_per_second"),
            ("rate", "1/s", "rate_per_second"),
            ("requests", "{request}", "requests"),
            ("ratio", "1", "ratio"),
            ("m", "", "m"),
            ("speed", "furlong/fortnight", "speed_furlong_per_fortnight"),
            ("x", "a b\"/", "x_a_b"),
            ("load", "%", "load_percent"),
        ] {
            assert_eq!(named(Cow::Borrowed(name), unit), expected, "{unit}");
        }
    }
}
