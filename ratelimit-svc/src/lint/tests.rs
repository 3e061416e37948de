//! Each rule by the one edit of a good bootstrap that it is about: exactly that rule, at that place.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

/// A bootstrap without a trap: limits and authorises, and fails as it should.
const GOOD: &str = include_str!("tests/good.yaml");

fn found(text: &str) -> Vec<(&'static str, (u64, u64), String)> {
    let root: Node = chassis::config::parse_yaml(Path::new("envoy.yaml"), text.as_bytes())
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let lint = lint(&root, Load { in_flight_max: 1025 });
    lint.findings.into_iter().map(|found| (found.rule.name, found.at, found.subject)).collect()
}

/// The good bootstrap with one edit, which must find its place once.
fn edited(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "the edit has one place: {from}");
    GOOD.replace(from, to)
}

/// Edits of the good bootstrap: what is replaced, by what, and the rules that then speak. `«` in
/// the new text, which is taken out, marks where the first of them points to.
const EDITS: &[(&str, &str, &[&str])] = include!("tests/edits.in");

#[test]
fn a_good_bootstrap_has_no_trap() {
    assert_eq!(found(GOOD), []);
}

#[test]
fn each_edit_is_found_where_it_stands() {
    for (from, to, rules) in EDITS {
        let marked = edited(from, to);
        let found = found(&marked.replace('«', ""));
        let names: Vec<&str> = found.iter().map(|(name, ..)| *name).collect();
        assert_eq!(&names, rules, "{to}\n{found:?}");
        if let Some(at) = marked.find('«') {
            let before = &marked[..at];
            let line = before.matches('\n').count() as u64 + 1;
            let column = (before.len() - before.rfind('\n').map_or(0, |end| end + 1)) as u64 + 1;
            assert_eq!(found[0].1, (line, column), "{to}\n{found:?}");
        }
    }
}

#[test]
fn each_rule_has_an_edit_that_it_finds() {
    let tried: BTreeSet<&str> =
        EDITS.iter().flat_map(|(_, _, rules)| rules.iter().copied()).collect();
    let all: BTreeSet<&str> = rules().map(|rule| rule.name).collect();
    assert_eq!(tried, all);
    assert_eq!(rules().count(), all.len(), "a name twice");
    let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(all.iter().all(|name| name.chars().all(kebab)));
}

#[test]
fn a_fault_behind_an_anchor_is_told_once_where_it_is_written() {
    let text = edited("status_on_error: {code: 503} # ratelimit", "");
    let alias = "- name: second\n                    typed_config: *ratelimit\n                  ";
    let twice = text.replace(
        "- name: envoy.filters.http.router",
        &format!("{alias}- name: envoy.filters.http.router"),
    );
    assert_ne!(text, twice);
    let found: Vec<_> = found(&twice)
        .into_iter()
        .filter(|(name, ..)| *name == "ratelimit-status-on-error")
        .collect();
    // Two filters, and the one place where both are written.
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].1, found[1].1);
}

#[test]
fn json_and_the_other_spelling_of_fields_read_the_same() {
    let root: serde_json::Value =
        chassis::config::parse_yaml(Path::new("a"), edited("timeout: 0.05s", "").as_bytes())
            .expect("valid");
    let names = |text: &str| found(text).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    assert_eq!(
        names(&serde_json::to_string_pretty(&root).expect("text")),
        ["ratelimit-timeout-default"]
    );
    assert_eq!(
        names(&serde_json::to_string(&camel(&root)).expect("text")),
        ["ratelimit-timeout-default"]
    );
    let tabs = serde_json::to_string_pretty(&root).expect("text").replace("  ", "\t");
    assert_eq!(names(&tabs), ["ratelimit-timeout-default"]);
}

fn camel(value: &serde_json::Value) -> serde_json::Value {
    let spelled = |name: &str| {
        let mut words = name.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
    };
    match value {
        serde_json::Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let is_field =
                    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                (if is_field { spelled(name) } else { name.clone() }, camel(value))
            })
            .collect(),
        serde_json::Value::Array(items) => items.iter().map(camel).collect(),
        other => other.clone(),
    }
}

#[test]
fn what_config_dump_shows_is_understood() {
    let broken = edited("status_on_error: {code: 503} # ratelimit", "");
    let root: serde_json::Value =
        chassis::config::parse_yaml(Path::new("a"), broken.as_bytes()).expect("valid");
    let mut listener = root["static_resources"]["listeners"][0].clone();
    listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let mut routes = manager["route_config"].take();
    routes["@type"] = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".into();
    routes["virtual_hosts"][0]["routes"] = serde_json::json!([]);
    manager["rds"] = serde_json::json!({"route_config_name": routes["name"]});
    let dump = serde_json::json!({"configs": [
        {"dynamic_listeners": [{"active_state": {"listener": listener}}]},
        {"dynamic_route_configs": [{"route_config": routes}]},
        {"bootstrap": {
            "admin": {"address": {"socket_address": {"address": "0.0.0.0", "port_value": 9901}}},
            "overload_manager": root["overload_manager"],
        }},
    ]});
    let mut names: Vec<_> = found(&dump.to_string()).into_iter().map(|(name, ..)| name).collect();
    names.sort_unstable();
    assert_eq!(names, ["admin-not-on-loopback", "no-catch-all-route", "ratelimit-status-on-error"]);
    // It leaves out what is false.
    let config = "/configs/0/dynamic_listeners/0/active_state/listener/filter_chains/0/filters/0/typed_config/http_filters/1/typed_config";
    let mut dump = dump;
    let limit = dump.pointer_mut(config).and_then(|config| config.as_object_mut()).expect("there");
    limit.remove("failure_mode_deny_percent").expect("it was there");
    let names: Vec<_> = found(&dump.to_string()).into_iter().map(|(name, ..)| name).collect();
    assert!(!names.contains(&"ratelimit-fails-open"), "{names:?}");
}

#[test]
fn a_file_that_is_something_else_has_no_managers_and_no_findings() {
    for text in [
        "a: 1\n",
        "[]\n",
        "static_resources: {listeners: [{name: a, filter_chains: [1, {filters: x}]}]}\n",
    ] {
        let root: Node =
            chassis::config::parse_yaml(Path::new("a"), text.as_bytes()).expect("yaml");
        let lint = lint(&root, Load { in_flight_max: 1025 });
        assert_eq!((lint.managers, lint.findings.len()), (0, 0), "{text}");
    }
}
