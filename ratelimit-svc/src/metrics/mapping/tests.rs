//! Tests of the mapping language.

use super::*;

fn parse(text: &str) -> Result<Mapping, String> {
    Mapping::parse(Path::new("m.yaml"), text.as_bytes()).map_err(|error| error.to_string())
}

fn series(name: &str, labels: &[(&str, &str)]) -> Option<(String, Vec<(String, String)>)> {
    let labels = labels.iter().map(|(label, value)| (label.to_string(), value.to_string()));
    Some((name.to_owned(), labels.collect()))
}

#[test]
fn the_first_glob_decides_then_the_first_regular_expression() {
    let mapping = parse(
        r#"
defaults: {timer_type: histogram, buckets: [0.1, 1], ttl: 0s}
mappings:
  - {match: 'b\.(?P<rest>.*)', match_type: regex, name: "r_${rest}", labels: {all: "$0", x: "a$"}}
  - {match: "a.*.*.over", name: over, timer_type: histogram, labels: {domain: "$1", key: "${2}-k"}}
  - {match: "a.*.x.over", name: never}
  - {match: "t.*", match_metric_type: timer, name: "t_$1"}
  - {match: "t.*", match_metric_type: counter, name: c}
  - {match: "gone.*", action: drop, name: dropped}
  - {match: "z", match_type: regex, action: drop}
"#,
    )
    .expect("valid");
    let check = |name: &str, kind, expected| {
        let got = mapping.apply(name, kind).map(|series| (series.name, series.labels));
        assert_eq!(got, expected, "{name}");
    };
    let counter = Kind::Counter;
    check("a.d.x.over", counter, series("over", &[("domain", "d"), ("key", "x-k")]));
    check("a..x.over", counter, series("over", &[("domain", ""), ("key", "x-k")]));
    check("a.d.x.y.over", counter, series("a_d_x_y_over", &[]));
    check("b.c/d.e", counter, series("r_c_d_e", &[("all", "b.c/d.e"), ("x", "a$")]));
    check("t.1", counter, series("c", &[]));
    check("t.1", Kind::Timer, series("t_1", &[]));
    check("gone.1", counter, None);
    check("xzx", counter, None);
    check("1.b-c", counter, series("_1_b_c", &[]));
    check("t.1", Kind::Gauge, series("t_1", &[]));
}

#[test]
fn what_cannot_work_is_refused_with_its_line() {
    for (mapping, expected) in [
        ("{match: 'a(', match_type: regex, name: a}", "is not a regular expression"),
        ("{match: 'a.*', name: a, labels: {x: \"$2\"}}", "has no group $2"),
        ("{match: 'a.*', name: \"$1_total\"}", "has no group $1_total"),
        ("{match: '(?P<n>a)', match_type: regex, name: \"${m}\"}", "has no group $m"),
        ("{match: 'a.b*', name: a}", "'b*': a * must be a whole part"),
        ("{match: 'a..b', name: a}", "has an empty part"),
        ("{match: 'a'}", "needs a name"),
        ("{match: 'a', name: a, action: move}", "action must be map or drop"),
        ("{match: 'a', name: a, match_type: exact}", "match_type must be glob or regex"),
        (
            "{match: 'a', name: a, match_metric_type: set}",
            "must be counter, gauge, observer or timer",
        ),
        ("{match: 'a', name: a, scale: 2}", "scale is not supported"),
        ("{match: 'a', name: a, labels: {1x: b}}", "'1x' is no label"),
        ("{match: 'a', name: a, colour: red}", "unknown field"),
    ] {
        let text = format!("mappings:\n  - {{match: 'ok', name: ok}}\n  - {mapping}\n");
        let error = parse(&text).expect_err(mapping);
        assert!(error.starts_with("m.yaml:3:") && error.contains(expected), "{mapping}: {error}");
    }
    let error = parse("defaults:\n  glob_disable_ordering: true\n").expect_err("not supported");
    assert!(error.starts_with("m.yaml:2:"), "{error}");
}

#[test]
fn a_file_is_bounded() {
    let of = |number| format!("mappings:\n{}", "  - {match: a, name: a}\n".repeat(number));
    assert!(parse(&of(MAPPINGS_MAX)).is_ok());
    let error = parse(&of(MAPPINGS_MAX + 1)).expect_err("too many");
    assert!(error.contains("has more than 256 mappings"), "{error}");
    let error = parse(&"#".repeat(MAPPING_BYTES_MAX + 1)).expect_err("too large");
    assert_eq!(error, "m.yaml: is larger than 1048576 bytes");
    assert!(parse("").is_ok() && parse("mappings: []").is_ok(), "nothing is mapped");
}
