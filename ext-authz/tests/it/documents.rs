//! The examples load, and the reference names everything there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ext_authz::check::decide::{Reason, Trouble};
use ext_authz::check::profile::{CREDENTIAL_HEADERS, Profile, STRIPPED_HEADERS, WRITE_SCOPES};
use ext_authz::config::Config;
use ext_authz::key_file::{KeyFile, Rules};

use crate::rig::{Files, Running, keys_yaml};

fn here(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn reference() -> String {
    fs::read_to_string(here("REFERENCE.md")).expect("there is a reference")
}

/// What the reference says a user of Redis needs, as an ACL rule.
pub fn redis_rights() -> String {
    let reference = reference();
    let (_, after) = reference.split_once("ACL SETUSER authz on >password ").expect("rights");
    after.lines().next().expect("a line").to_owned()
}

#[test]
fn the_examples_load() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for name in ["ext-authz.yaml", "keys.yaml"] {
        fs::copy(here("examples").join(name), dir.path().join(name)).expect("copied");
    }
    fs::write(dir.path().join("pepper-1"), "as the example says: make one").expect("written");
    let config = Config::load(&dir.path().join("ext-authz.yaml")).expect("valid");
    let path = config.keys.path.as_deref().expect("a keys file");
    let bytes = fs::read(path).expect("beside the configuration");
    let rules =
        Rules { peppers: &config.keys.peppers, priority_classes: &config.keys.priority_classes };
    KeyFile::parse(path, &bytes, rules).expect("valid");
}

/// The fields of the structs in a source file whose names begin with `Raw`.
fn raw_fields(source: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(here(source)).expect("source");
    let mut fields = BTreeSet::new();
    for raw in text.split("struct Raw").skip(1) {
        let body = raw.split("\n}").next().expect("a body");
        let lines = body.lines().skip(1).filter(|line| !line.trim_start().starts_with('#'));
        fields.extend(lines.filter_map(|line| {
            Some(line.split_once(':')?.0.trim().trim_start_matches("pub(super) ").to_owned())
        }));
    }
    assert!(fields.len() > 4, "{source}: {fields:?}");
    fields
}

#[test]
fn the_reference_names_every_key_reason_profile_and_header() {
    let reference = reference();
    let mut names = raw_fields("src/config.rs");
    names.extend(raw_fields("src/config/redis.rs"));
    names.extend(raw_fields("src/key_file/validate.rs"));
    names.extend(Reason::ALL.map(|reason| reason.as_str().to_owned()));
    names.extend(
        [Trouble::NoKeys, Trouble::Stale, Trouble::UnknownProfile].map(|t| t.as_str().to_owned()),
    );
    names.extend(WRITE_SCOPES.map(str::to_owned));
    names.extend(Profile::ALL.map(|profile| profile.as_str().to_owned()));
    names.extend(CREDENTIAL_HEADERS.iter().chain(&STRIPPED_HEADERS).map(|name| (*name).to_owned()));
    for profile in Profile::ALL {
        names.extend(profile.row().stripped_parameters.iter().map(|name| (*name).to_owned()));
    }
    let missing: Vec<_> =
        names.iter().filter(|name| !reference.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "REFERENCE.md does not name {missing:?}");
}

#[test]
fn the_reference_has_the_table_of_profiles() {
    let reference = reference();
    let list = |names: &[&str]| match names {
        [] => "–".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    for row in Profile::ALL.map(Profile::row) {
        let start = format!(
            "| `{}` | {} | {} |",
            row.name,
            list(row.key_parameters),
            list(row.stripped_parameters)
        );
        let statuses = format!(
            "| {} | {} | {} |",
            row.missing_status, row.bad_key_status, row.throttled_status
        );
        let line = reference.lines().find(|line| line.starts_with(&start)).expect(&start);
        assert!(line.contains(&statuses), "{line}: {statuses}");
        // The services over gRPC are named together.
        for route in row.routes.iter().filter(|route| !route.path.starts_with("/opentelemetry")) {
            let scope = route.scope.map(|scope| format!(" `{scope}`")).unwrap_or_default();
            assert!(line.contains(&format!("`{}`{scope}", route.path)), "{line}: {route:?}");
        }
    }
}

#[tokio::test]
async fn the_reference_names_every_metric() {
    let (files, reference) = (Files::new(), reference());
    files.write_keys(&keys_yaml(&[]));
    let running = Running::start_ready(&files).await;
    running.check(crate::rig::bearer("x")).await;
    let metrics = running.get("/metrics").await.1;
    let mut seen = 0;
    for line in metrics.lines().filter(|line| line.starts_with("authz_")) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        assert!(reference.contains(&format!("`{family}`")), "REFERENCE.md lacks {family}");
        seen += 1;
    }
    assert!(seen > 8, "{metrics}");
}

#[test]
fn every_line_of_the_security_checklist_names_tests_that_exist() {
    let reference = reference();
    let (_, checklist) = reference.split_once("## Security checklist").expect("a checklist");
    let lines: Vec<&str> = checklist.lines().filter(|line| line.starts_with("| S")).collect();
    let numbers: Vec<String> = (1..=26).map(|number| format!("S{number}")).collect();
    let named: Vec<&str> =
        lines.iter().filter_map(|line| line.split('|').nth(1).map(str::trim)).collect();
    assert_eq!(named, numbers);
    for line in lines {
        let tests = line.split('|').nth(3).expect("a column of tests");
        let mut count = 0;
        for test in tests.split('`').skip(1).step_by(2) {
            let (file, function) = test.split_once("::").expect("a file and a function");
            let source = fs::read_to_string(here("..").join(file)).expect(file);
            assert!(source.contains(&format!("fn {function}(")), "{file} has no {function}");
            count += 1;
        }
        assert!(count > 0, "{line}");
    }
}
