//! Tests of `line_protocol`.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::point::{FieldValue, encode};

mod corpus;
mod known;

const NS: Dialect =
    Dialect { precision: Precision::Nanoseconds, unsigned: true, line_bytes_max: 4 << 20 };
const NOW_NS: i64 = 1_700_000_000_000_000_000;

type Verdicts<'a> = Vec<Result<(u64, Point<'a>), LineError>>;

fn read(body: &[u8], dialect: Dialect) -> Verdicts<'_> {
    let mut lines = Lines::new(body, dialect);
    let mut point = Point::default();
    let mut verdicts = Vec::new();
    while let Some(verdict) = lines.next(&mut point) {
        verdicts.push(verdict.map(|line| (line, point.clone())));
    }
    verdicts
}

/// The canonical form of every good line, and `line:column fault` of every bad one.
fn canonical(body: &str) -> Vec<String> {
    let text = |verdict: Result<(u64, Point<'_>), LineError>| match verdict {
        Ok((line, mut point)) => {
            let mut out = Vec::new();
            match encode(&mut point, NOW_NS, &mut out) {
                Ok(_) => String::from_utf8(out).expect("UTF-8"),
                Err(fault) => format!("{line}: {fault}"),
            }
        }
        Err(error) => format!("{}:{} {}", error.line, error.column, error.fault),
    };
    read(body.as_bytes(), NS).into_iter().map(text).collect()
}

#[track_caller]
fn check(body: &str, expected: &[&str]) {
    assert_eq!(canonical(body), expected, "{body:?}");
}

#[test]
fn the_canonical_form() {
    check("m f=1 5", &["m f=1.0 5\n"]);
    check("m f=1", &["m f=1.0 1700000000000000000\n"]);
    check("m,z=1,a=2,tenant=other f=1i 5", &["m,a=2,tenant=other,z=1 f=1i 5\n"]);
    check("m a=1i,b=2i,a=3i 5", &["m b=2i,a=3i 5\n"]);
    check("m a=t,b=F,c=TRUE 5", &["m a=true,b=false,c=true 5\n"]);
    check(
        "m a=1.,b=.5,c=1e3,d=18446744073709551615u 5",
        &["m a=1.0,b=0.5,c=1000.0,d=18446744073709551615u 5\n"],
    );
    check("m\\ 1\\,2=3,k\\=1=v\\ 2 f\\ 1=1i 5", &["m\\ 1\\,2=3,k\\=1=v\\ 2 f\\ 1=1i 5\n"]);
    check(r#"m s="a\"b\\c\d, =" 5"#, &["m s=\"a\\\"b\\\\c\\\\d, =\" 5\n"]);
    check("m s=\"two\nlines\" 5\nn f=1i 6", &["m s=\"two\nlines\" 5\n", "n f=1i 6\n"]);
    check(
        "\n # note\n\r\n  m   f=1i   5  \r\nn f=2i\r",
        &["m f=1i 5\n", "n f=2i 1700000000000000000\n"],
    );
}

#[test]
fn a_bad_line_spares_its_neighbours() {
    check(
        "a f=1i 1\nb f=one 2\nc f=3i 3\n",
        &[
            "a f=1i 1\n",
            "2:5 field value is missing or not a number, string or boolean",
            "c f=3i 3\n",
        ],
    );
    // A quote that is never closed ends with its own line.
    check("a f=\"open 1\nb f=2i 2\n", &["1:5 string field is not closed", "b f=2i 2\n"]);
    // A bad line ends behind the strings it holds, and the count of lines goes on.
    check(
        "a f=x,s=\"1\nb f=1i 1\n\" 1\nc f=3i 3\nd\n",
        &[
            "1:5 field value is missing or not a number, string or boolean",
            "c f=3i 3\n",
            "5:2 field set is missing",
        ],
    );
    check(
        "a s=\"1\n2\" 1\nb\nc f=1i\\\n",
        &["a s=\"1\n2\" 1\n", "3:2 field set is missing", "4:5 field value is not a number"],
    );
}

#[test]
fn lines_that_are_not_utf8_are_named_and_passed_over() {
    let body = b"a f=1i 1\nb\xff f=1i 1\nc f=1i 1\nd,\xc3\x28=1 f=1i\n\xff";
    let verdicts: Vec<_> = read(body, NS)
        .into_iter()
        .map(|verdict| verdict.map(|(line, _)| line).map_err(|e| (e.line, e.column, e.fault)))
        .collect();
    assert_eq!(
        verdicts,
        [
            Ok(1),
            Err((2, 2, Fault::InvalidUtf8)),
            Ok(3),
            Err((4, 3, Fault::InvalidUtf8)),
            Err((5, 1, Fault::InvalidUtf8)),
        ]
    );
}

#[test]
fn every_fault_of_a_line() {
    let check = |line: &str, expected: Fault| {
        let mut out = b"before".to_vec();
        let fault = match read(line.as_bytes(), Dialect { unsigned: false, ..NS }).remove(0) {
            Err(error) => error.fault,
            Ok((_, mut point)) => encode(&mut point, NOW_NS, &mut out).expect_err("a fault"),
        };
        assert_eq!(fault, expected, "{line:?}");
        assert_eq!(out, b"before", "{line:?}");
    };
    check("m\tx f=1", Fault::ControlCharacter);
    check("m f=1\u{7f}", Fault::ControlCharacter);
    check("m,t=a\0 f=1", Fault::ControlCharacter);
    check(",t=a f=1", Fault::MeasurementMissing);
    check("m, f=1", Fault::TagKeyMissing);
    check("m,=a f=1", Fault::TagKeyMissing);
    check("m,t= f=1", Fault::TagValueMissing);
    check("m,t f=1", Fault::TagValueMissing);
    check("m,t=a=b f=1", Fault::TrailingText);
    check("m", Fault::FieldSetMissing);
    check("m,t=a", Fault::FieldSetMissing);
    check("m   ", Fault::FieldSetMissing);
    check("m =1", Fault::FieldKeyMissing);
    check("m f=1,", Fault::FieldKeyMissing);
    check("m f", Fault::FieldValueInvalid);
    check("m f=", Fault::FieldValueInvalid);
    check("m f=NaN", Fault::FieldValueInvalid);
    check("m f=inf", Fault::FieldValueInvalid);
    check("m f=-inf", Fault::NumberInvalid);
    check("m f=tru", Fault::FieldValueInvalid);
    check("m f=1.5i", Fault::NumberInvalid);
    check("m f=-", Fault::NumberInvalid);
    check("m f=1e", Fault::NumberInvalid);
    check("m f=1e999", Fault::NumberOutOfRange);
    check("m f=9223372036854775808i", Fault::NumberOutOfRange);
    check("m f=1u", Fault::UnsignedRefused);
    check("m f=\"a", Fault::StringUnterminated);
    check("m f=\"a\"b", Fault::TrailingText);
    check("m f=1 1 1", Fault::TrailingText);
    check("m f=1 now", Fault::TimestampInvalid);
    check("m f=1 9223372036854775807", Fault::TimestampOutOfRange);
    check("m f=1 99999999999999999999", Fault::TimestampOutOfRange);
    check("m,a=1,a=2 f=1", Fault::TagDuplicate);
    check("m,time=1 f=1", Fault::NameReserved);
    check("m _field=1", Fault::NameReserved);
    check("m,tidegate_tenant=other f=1", Fault::TagReserved);
    check("m,a=1,tidegate_db=other f=1", Fault::TagReserved);
    check("m,_measurement=x f=1", Fault::NameReserved);
    check("m,t=a\\\\ b f=1", Fault::BackslashAmbiguous);
    check("\\#m f\\\\=1", Fault::FieldValueInvalid);
    check(&format!("{} f=1", "m".repeat(65537)), Fault::NameTooLong);
    check(&format!("m f=\"{}\"", "x".repeat((1 << 20) + 1)), Fault::TextTooLong);
    let tags = |count: usize| (0..count).fold("m".to_owned(), |m, i| format!("{m},t{i}=v"));
    check(&format!("{} f=1", tags(99)), Fault::TagsTooMany);
    assert_eq!(canonical(&format!("{} f=1i 1", tags(98))).len(), 1);
    let fields =
        |count: usize| (0..count).map(|i| format!("f{i}=1i")).collect::<Vec<_>>().join(",");
    check(&format!("m {}", fields(1025)), Fault::FieldsTooMany);
    assert!(canonical(&format!("m {} 1", fields(1024)))[0].starts_with("m f0=1i,"));
}

#[test]
fn a_line_is_bounded() {
    let short = Dialect { line_bytes_max: 20, ..NS };
    let verdicts = |body: &str| -> Vec<_> {
        let fault = |error: LineError| (error.line, error.fault);
        read(body.as_bytes(), short)
            .into_iter()
            .map(|v| v.map(|(line, _)| line).map_err(fault))
            .collect()
    };
    let body = format!("m f=\"{}\"\nn f=1\n", "x".repeat(11));
    assert_eq!(verdicts(&body), [Ok(1), Ok(2)]);
    let body = format!("m f=\"{}\"\nn f=1\n", "x".repeat(50));
    assert_eq!(verdicts(&body), [Err((1, Fault::PointTooLarge)), Ok(2)]);
    let body = format!("m f=\"{}\n{}\"\nn f=1\n", "\\\"".repeat(50), "x".repeat(50));
    assert_eq!(verdicts(&body), [Err((1, Fault::PointTooLarge)), Ok(3)]);
    let body = format!("m{} f=1\nn f=1\n", "\\ ".repeat(50));
    assert_eq!(verdicts(&body), [Err((1, Fault::PointTooLarge)), Ok(2)]);
}

#[test]
fn a_body_that_killed_influxdb_1_6_is_refused() {
    check("0 \\\\=\"=\"", &["1:8 string field is not closed"]);
    check("m \\0=\",\"=3,\"=\"", &["1:9 unexpected text after a value"]);
}

#[test]
fn timestamps_become_nanoseconds() {
    let check = |precision: &str, timestamp: &str, expected: Result<i64, Fault>| {
        let precision = precision.parse().expect("known");
        let body = format!("m f=1 {timestamp}");
        let verdict = read(body.as_bytes(), Dialect { precision, unsigned: false, ..NS }).remove(0);
        let found = verdict.map(|(_, point)| point.timestamp_ns.expect("a timestamp"));
        assert_eq!(found.map_err(|error| error.fault), expected, "{timestamp} {precision:?}");
    };
    for (name, ns) in [
        ("n", 1),
        ("ns", 1),
        ("nanosecond", 1),
        ("u", 1_000),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ] {
        check(name, "-7", Ok(-7 * ns));
    }
    check("s", "9223372036", Ok(9_223_372_036_000_000_000));
    check("s", "9223372037", Err(Fault::TimestampOutOfRange));
    check("h", "-2562048", Err(Fault::TimestampOutOfRange));
    check("n", "-9223372036854775806", Ok(i64::MIN + 2));
    check("n", "-9223372036854775807", Err(Fault::TimestampOutOfRange));
    check("auto", "1700000000", Ok(NOW_NS));
    check("auto", "1700000000000", Ok(NOW_NS));
    check("auto", "1700000000000000", Ok(NOW_NS));
    check("auto", "1700000000000000000", Ok(NOW_NS));
    for unknown in ["", "ns ", "S", "d", "1s"] {
        assert_eq!(unknown.parse::<Precision>(), Err(UnknownPrecision), "{unknown}");
    }
}

fn name() -> impl Strategy<Value = String> {
    // A backslash must not stand at the end or before a byte that is escaped.
    proptest::string::string_regex(r##"([a-z"é_#][a-z ,="#]{0,3}|\\[a-z"]){1,4}"##)
        .expect("a valid expression")
        .prop_filter("reserved, or a comment", |name| {
            !matches!(name.as_str(), "time" | "_field" | "_measurement") && !name.starts_with('#')
        })
}

fn value() -> impl Strategy<Value = FieldValue<'static>> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(FieldValue::Float),
        any::<i64>().prop_map(FieldValue::Integer),
        any::<u64>().prop_map(FieldValue::Unsigned),
        any::<bool>().prop_map(FieldValue::Boolean),
        proptest::string::string_regex("[a-z\"\\\\\n\r\t ,=é]{0,12}")
            .expect("a valid expression")
            .prop_map(|text| FieldValue::Text(Cow::Owned(text))),
    ]
}

fn point() -> impl Strategy<Value = Point<'static>> {
    let tags = proptest::collection::btree_map(name(), name(), 0..5);
    let fields = proptest::collection::btree_map(name(), value(), 1..5);
    (name(), tags, fields, i64::MIN + 2..i64::MAX).prop_map(|(measurement, tags, fields, ns)| {
        Point {
            measurement: Cow::Owned(measurement),
            tags: tags.into_iter().map(|(k, v)| (Cow::Owned(k), Cow::Owned(v))).collect(),
            fields: fields.into_iter().map(|(k, v)| (Cow::Owned(k), v)).collect(),
            timestamp_ns: Some(ns),
            ..Point::default()
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(points in proptest::collection::vec(point(), 1..6)) {
        let mut body = Vec::new();
        for point in &points {
            encode(&mut point.clone(), NOW_NS, &mut body).expect("encodable");
        }
        let read_back: Vec<_> = read(&body, NS)
            .into_iter()
            .map(|verdict| {
                verdict.expect("good").1
            })
            .collect();
        prop_assert_eq!(read_back, points);
    }

    #[test]
    fn canonical_is_a_fixed_point(points in proptest::collection::vec(point(), 1..6)) {
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        for point in &points {
            encode(&mut point.clone(), NOW_NS, &mut once).expect("encodable");
        }
        for verdict in read(&once, NS) {
            encode(&mut verdict.expect("good").1, 0, &mut twice).expect("encodable");
        }
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn any_bytes_are_read_to_the_end(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let lines = body.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        for verdict in read(&body, NS) {
            let line = verdict.map_or_else(|error| error.line, |(line, _)| line);
            prop_assert!(line <= lines);
        }
    }

    #[test]
    fn bytes_that_look_like_lines_never_panic(body in "([a-c,= \"\\\\\n\r#.0-9iu\u{1}é-]{0,6}){0,12}") {
        let mut out = Vec::new();
        for verdict in read(body.as_bytes(), NS) {
            match verdict {
                Ok((_, mut point)) => {
                    let _ = encode(&mut point, NOW_NS, &mut out);
                }
                Err(error) => prop_assert!(error.start <= error.end && error.end <= body.len()),
            }
        }
    }

    #[test]
    fn a_bad_line_costs_no_other_line(good in proptest::collection::vec(point(), 1..5), at in 0usize..5) {
        let at = at.min(good.len());
        let mut body = Vec::new();
        for (index, point) in good.iter().enumerate() {
            if index == at {
                body.extend_from_slice(b"m,broken f=1\n");
            }
            encode(&mut point.clone(), NOW_NS, &mut body).expect("encodable");
        }
        let stored = read(&body, NS).into_iter().filter(Result::is_ok).count();
        prop_assert_eq!(stored, good.len());
    }
}

/// Lines that leave a quote open which nothing closes, whichever of them is looked at first.
#[test]
fn lines_that_never_close_a_quote_are_looked_at_once() {
    let body = b"m f=\"\"=\"\n".repeat(10_000);
    let (mut lines, mut point, mut bad) = (Lines::new(&body, NS), Point::default(), 0);
    while let Some(line) = lines.next(&mut point) {
        assert_eq!(line.map_err(|error| (error.line, error.end - error.start)), Err((bad + 1, 8)));
        bad += 1;
    }
    assert_eq!(bad, 10_000);
    assert!(lines.searched <= 2 * body.len(), "{} of {}", lines.searched, body.len());
}

/// Where a bad line ends, by the rule alone: the whole rest is looked at for each of them.
fn naive_ends(body: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (0, Vec::new());
    while at < body.len() {
        let end = super::scan::end_of_line(body, at).at;
        ends.push(end);
        at = end + 1;
    }
    ends
}

proptest! {
    #[test]
    fn what_was_seen_before_changes_no_end_of_a_line(
        pieces in proptest::collection::vec(
            proptest::sample::select(&["m ", "f=\"", "\"", "\\", "\n", "x", "=", " ", ",t=1"][..]),
            0..60,
        ),
    ) {
        // No line is a point, as each begins with a comma.
        let body: String = pieces.concat().split('\n').flat_map(|line| [",", line, "\n"]).collect();
        let (mut lines, mut point, mut ends) =
            (Lines::new(body.as_bytes(), NS), Point::default(), Vec::new());
        while let Some(line) = lines.next(&mut point) {
            ends.extend(line.err().map(|error| error.end));
        }
        prop_assert_eq!(ends, naive_ends(body.as_bytes()), "{:?}", body);
    }
}
