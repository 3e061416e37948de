//! Whether an answer of 400 or 422 is about a point, or about something else. Pure.
//!
//! A refused point is given up in the end, so only words that a database is known to use for
//! points count as a refusal. Whatever else says 400 (a proxy, a missing parameter, a database
//! that is closing) is a failure: the points are kept and tried again.

/// What the databases say of points, in lower case.
const POINT_WORDS: [&str; 10] = [
    // 1.x and 2.x: a line, quoted, and why.
    "unable to parse '",
    // 1.x and 2.x: a field has another type already.
    "field type conflict",
    "points beyond retention policy",
    "max-series-per-database",
    "max-values-per-tag",
    // 1.x and 2.x: whatever else, with the number of points that were not stored.
    " dropped=",
    // 2.x in the cloud: the numbers of the lines.
    "errors encountered on line(s)",
    // 3.
    "invalid column type",
    "partial write of line protocol",
    // VictoriaMetrics.
    "too long line: more than",
];
/// A bound on series: the database judges points, and takes no new series.
const SERIES_BOUND_WORDS: [&str; 2] = ["max-series-per-database", "max-values-per-tag"];

/// Whether the words of a database name a point that it does not take.
pub fn names_a_point(message: &str) -> bool {
    contains_one_of(message, &POINT_WORDS)
}

/// Whether the words say that the database has all the series it may have.
pub fn names_a_bound_on_series(message: &str) -> bool {
    contains_one_of(message, &SERIES_BOUND_WORDS)
}

fn contains_one_of(message: &str, words: &[&str]) -> bool {
    let message = message.to_ascii_lowercase();
    words.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_about_points_are_a_refusal() {
        let about_points = [
            "unable to parse 'm v=': missing field value",
            "partial write: field type conflict: input field \"v\" on measurement \"m\" is type \
             float, already exists as type integer dropped=1",
            "partial write: points beyond retention policy dropped=2",
            "partial write: max-series-per-database limit exceeded: (10) dropped=3",
            "failure writing points to database: partial write: something new dropped=1",
            "writing points: errors encountered on line(s): line 2: unexpected",
            "partial write of line protocol occurred: invalid column type for column 'v'",
            "cannot read influx line protocol data: too long line: more than 262144 bytes",
        ];
        for message in about_points {
            assert!(names_a_point(message), "{message}");
        }
        let about_others = [
            "",
            "<html><head><title>400 Bad Request</title></head></html>",
            "The plain HTTP request was sent to HTTPS port",
            "database is required",
            "timeout",
            "engine is closed",
            "unable to parse authentication credentials",
            "partial write",
        ];
        for message in about_others {
            assert!(!names_a_point(message), "{message}");
        }
        assert!(names_a_bound_on_series(about_points[3]));
        assert!(!names_a_bound_on_series(about_points[0]));
    }
}
