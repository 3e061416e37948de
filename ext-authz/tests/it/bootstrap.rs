//! What `envoy-config/envoy.yaml` says of credentials, profiles and scopes is what the table of
//! `check::profile` says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ext_authz::check::profile::{CREDENTIAL_HEADERS, Profile, SEEN_HEADERS, STRIPPED_HEADERS};
use ext_authz::names::RESERVED_TENANTS;
use serde_json::Value;

/// The bootstrap with a number in each place that is filled in later.
fn bootstrap() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy-config/envoy.yaml");
    let template = fs::read_to_string(path).expect("there is a bootstrap");
    let mut text = String::new();
    for (at, part) in template.split("${").enumerate() {
        match part.split_once('}') {
            Some((_, rest)) if at > 0 => text.extend(["1", rest]),
            _ => text.push_str(part),
        }
    }
    serde_saphyr::from_str(&text).expect("YAML")
}

/// Every value of a key, wherever it stands.
fn all<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    let mut found = Vec::new();
    collect(value, key, &mut found);
    found
}

fn collect<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| collect(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}

fn texts<'v>(values: impl IntoIterator<Item = &'v Value>) -> BTreeSet<&'v str> {
    values.into_iter().filter_map(Value::as_str).collect()
}

#[test]
fn ext_authz_sees_every_credential_and_little_else() {
    let bootstrap = bootstrap();
    // Listeners with TLS and without have the same filters.
    let allowed = all(&bootstrap, "allowed_headers");
    assert!(!allowed.is_empty() && allowed.iter().all(|list| *list == allowed[0]));
    let seen = texts(all(allowed[0], "exact"));
    let expected = CREDENTIAL_HEADERS.iter().chain(&SEEN_HEADERS).copied().collect();
    assert_eq!(seen, expected, "allowed_headers");
    assert!(all(allowed[0], "ignore_case").into_iter().all(|value| value == true));
}

#[test]
fn break_glass_takes_off_what_ext_authz_would_have() {
    let bootstrap = bootstrap();
    let removed = all(&bootstrap, "request_headers_to_remove");
    assert_eq!(removed.len(), 1);
    let headers = texts(removed[0].as_array().expect("a list"));
    let expected = CREDENTIAL_HEADERS.iter().chain(&STRIPPED_HEADERS).copied().collect();
    assert_eq!(headers, expected, "request_headers_to_remove");
    let removed = all(&bootstrap, "query_parameter_mutations");
    assert_eq!(removed.len(), 1);
    let parameters = texts(all(removed[0], "remove"));
    let expected = Profile::ALL.iter().flat_map(|profile| profile.row().stripped_parameters);
    assert_eq!(parameters, expected.copied().collect(), "query_parameter_mutations");
}

#[test]
fn break_glass_admits_no_reserved_tenant() {
    let bootstrap = bootstrap();
    let refused = texts(all(&bootstrap, "principal_name").into_iter().map(|name| &name["exact"]));
    assert_eq!(refused, RESERVED_TENANTS.into());
}

#[test]
fn every_route_has_the_profile_and_the_scope_of_the_table() {
    let bootstrap = bootstrap();
    let mut found = BTreeSet::new();
    for route in all(&bootstrap, "routes").iter().flat_map(|list| list.as_array().expect("routes"))
    {
        let Some(settings) = all(route, "context_extensions").first().copied() else { continue };
        let path = route["match"]["path"].as_str().expect("a profile belongs to whole paths");
        let profile = Profile::named(settings["profile"].as_str()).expect("a known profile");
        found.insert((path, profile.as_str(), settings["scope"].as_str()));
    }
    let table = Profile::ALL.iter().flat_map(|profile| {
        profile.row().routes.iter().map(|route| (route.path, profile.as_str(), route.scope))
    });
    assert_eq!(found, table.collect());
}
