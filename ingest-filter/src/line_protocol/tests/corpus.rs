//! The decode cases of influxdata/line-protocol, where the file is at hand.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;

const CASES: &str = "TIDEGATE_LINE_PROTOCOL_CASES";

/// Where our rules are stricter than the reference, and how often that shows: a backslash before
/// a separator is read differently by the databases, and some keys are theirs.
const STRICTER: &[(Fault, usize)] = &[(Fault::NameReserved, 8), (Fault::BackslashAmbiguous, 10)];

/// The reference turns `\t`, `\n` and `\r` in strings into control characters. InfluxDB 1.x and 3
/// keep them as written, and so do we.
const ESCAPES_KEPT: usize = 2;

#[test]
fn verdicts_of_the_reference() {
    let Ok(path) = std::env::var(CASES) else {
        println!("{CASES} is not set: the reference cases were not compared");
        return;
    };
    let text = std::fs::read_to_string(&path).expect("the cases can be read");
    let cases: Value = serde_json::from_str(&text).expect("the cases are JSON");
    let cases = cases["decode"].as_object().expect("decode cases");
    let mut stricter: BTreeMap<Fault, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut escapes_kept = 0;
    for (id, case) in cases {
        let body = match &case["input"]["text"] {
            Value::String(text) => text.clone().into_bytes(),
            other => STANDARD.decode(other["binary"].as_str().expect("base64")).expect("base64"),
        };
        let precision = case["input"]["precision"].as_str().expect("a precision");
        let precision = precision.trim_start_matches('1').parse().expect("a known precision");
        let default_ns = case["input"]["defaultTime"].as_i64().expect("a time");
        let found = verdict(&body, Dialect { precision, ..NS }, default_ns);
        super::known::same(
            &[&body[..], b"\n", &body, b"\n", &body].concat(),
            Dialect { precision, ..NS },
        );
        let expected = case["output"]["result"].as_array();
        match (found, expected) {
            (Ok(found), Some(expected)) => {
                let expected: Vec<String> = expected.iter().map(point_text).collect();
                let kept = expected.iter().any(|point| point.contains(['\t', '\n']));
                if found != expected && kept {
                    escapes_kept += 1;
                } else if found != expected {
                    wrong.push(format!("{id}: {found:?}, not {expected:?}"));
                }
            }
            (Err(_), None) => {}
            (Err(fault), Some(_)) => {
                if !STRICTER.iter().any(|(rule, _)| *rule == fault) {
                    wrong.push(format!("{id}: {fault:?} {:?}", String::from_utf8_lossy(&body)));
                }
                *stricter.entry(fault).or_default() += 1;
            }
            (Ok(found), None) => wrong.push(format!(
                "{id}: lenient {found:?}: {} {:?}",
                case["output"]["error"],
                String::from_utf8_lossy(&body)
            )),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(escapes_kept, ESCAPES_KEPT);
    assert_eq!(stricter.into_iter().collect::<Vec<_>>(), STRICTER);
}

/// The points of a body that may all be stored, or the first fault.
fn verdict(body: &[u8], dialect: Dialect, default_ns: i64) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    for verdict in read(body, dialect) {
        let (_, mut point) = verdict.map_err(|error| error.fault)?;
        encode(&mut point.clone(), default_ns, &mut Vec::new())?;
        point.timestamp_ns.get_or_insert(default_ns);
        point.tags.sort();
        found.push(text_of(&point));
    }
    Ok(found)
}

fn point_text(expected: &Value) -> String {
    let text = |value: &Value| -> Cow<'static, str> {
        match value {
            Value::String(text) => Cow::Owned(text.clone()),
            other => {
                let bytes = STANDARD.decode(other["binary"].as_str().expect("base64"));
                Cow::Owned(String::from_utf8(bytes.expect("base64")).expect("UTF-8"))
            }
        }
    };
    let list = |name: &str| expected[name].as_array().cloned().unwrap_or_default();
    let mut tags: Vec<_> =
        list("tags").iter().map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect();
    tags.sort();
    let field = |field: &Value| {
        let (kind, value) =
            field["value"].as_object().and_then(|v| v.iter().next()).expect("a value");
        let value = match kind.as_str() {
            "float" => FieldValue::Float(value.as_f64().expect("a float")),
            "int" => FieldValue::Integer(value.as_i64().expect("an integer")),
            "uint" => FieldValue::Unsigned(value.as_u64().expect("an unsigned integer")),
            "bool" => FieldValue::Boolean(value.as_bool().expect("a boolean")),
            _ => FieldValue::Text(text(value)),
        };
        (text(&field["key"]), value)
    };
    let point = Point {
        measurement: text(&expected["name"]),
        tags,
        fields: list("fields").iter().map(field).collect(),
        timestamp_ns: expected["time"].as_i64(),
        ..Point::default()
    };
    text_of(&point)
}

/// Floats to 15 digits: the cases' own are not read exactly, and minus zero is written as zero.
fn text_of(point: &Point<'_>) -> String {
    let mut text = format!("{} {:?} {:?}", point.measurement, point.tags, point.timestamp_ns);
    for (key, value) in &point.fields {
        text += &match value {
            FieldValue::Float(float) => format!(" {key}={:.14e}", float + 0.0),
            FieldValue::Text(string) => format!(" {key}={string}"),
            value => format!(" {key}={value:?}"),
        };
    }
    text
}
