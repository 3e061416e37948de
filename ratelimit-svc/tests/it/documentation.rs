//! REFERENCE.md names everything there is to set and to see.

use std::path::Path;

use ratelimit_svc::config::variables::VARIABLES;
use ratelimit_svc::lint::{Rule, rules};

use crate::support::Service;

const REFERENCE: &str = include_str!("../../REFERENCE.md");

#[test]
fn every_variable_is_documented_with_its_default() {
    for variable in VARIABLES {
        let line =
            REFERENCE.lines().find(|line| line.starts_with(&format!("| `{}` |", variable.name)));
        let line = line.unwrap_or_else(|| panic!("{} is missing in REFERENCE.md", variable.name));
        let default = format!("`{}`", variable.default);
        assert!(variable.default.is_empty() || line.contains(&default), "{line}");
    }
}

#[test]
fn every_key_of_a_quota_file_is_documented() {
    let keys: Vec<&str> = ratelimit_svc::limits::file::known_keys().collect();
    assert!(keys.contains(&"requests_per_unit") && keys.contains(&"wildcards"));
    for key in keys {
        assert!(REFERENCE.contains(&format!("`{key}`")), "{key} is missing in REFERENCE.md");
    }
}

#[tokio::test]
async fn every_metric_is_documented() {
    let service = Service::start(&[("a.yaml", "domain: d")]).await;
    let (_, text) = service.admin("/metrics").await;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().expect("a name");
        assert!(REFERENCE.contains(&format!("`{name}")), "{name} is missing in REFERENCE.md");
    }
    service.stop().await;
}

#[test]
fn every_difference_from_the_reference_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    gather(&root.join("src"), &mut code);
    gather(&root.join("tests"), &mut code);
    let differences = REFERENCE.split("## Deliberate differences").nth(1).expect("the section");
    let rows: Vec<&str> = differences.lines().filter(|line| line.ends_with("` |")).collect();
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in rows {
        let test = row.trim_end_matches("` |").rsplit('`').next().expect("a test");
        assert!(code.contains(&format!("fn {test}()")), "no test {test}: {row}");
    }
}

/// The commands in the examples are ones that the program takes.
#[test]
fn the_examples_of_gitops_run() {
    use clap::Parser;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut commands = 0;
    for name in
        ["examples/gitops/github.yaml", "examples/gitops/gitlab.yaml", "../.pre-commit-hooks.yaml"]
    {
        let text = std::fs::read_to_string(root.join(name)).expect("there");
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let Some((_, command)) = line.split_once("ratelimit-svc ") else { continue };
            let mut arguments = vec!["ratelimit-svc".to_owned()];
            arguments.extend(words(command));
            // pre-commit adds the files.
            if name.ends_with("hooks.yaml") {
                arguments.push("quotas/a.yaml".to_owned());
            }
            let parsed = ratelimit_svc::cli::Args::try_parse_from(&arguments);
            parsed.unwrap_or_else(|error| panic!("{name}: {arguments:?}: {error}"));
            commands += 1;
        }
    }
    assert_eq!(commands, 5);
}

/// The words of a shell command up to a redirection or an alternative.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('"').enumerate() {
        match at % 2 {
            1 => words.push(part.to_owned()),
            _ => words.extend(part.split(' ').filter(|word| !word.is_empty()).map(str::to_owned)),
        }
    }
    let end = words.iter().position(|word| word == ">" || word == "||").unwrap_or(words.len());
    words.truncate(end);
    words
}

fn gather(dir: &Path, code: &mut String) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => gather(&path, code),
            false => *code += &std::fs::read_to_string(&path).unwrap_or_default(),
        }
    }
}

#[test]
fn every_rule_of_lint_envoy_is_documented() {
    let section = REFERENCE.split("## Traps of an Envoy bootstrap").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let documented: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |rule: &Rule| {
        format!("| `{}` | {} | {} | {} |", rule.name, rule.severity, rule.trap, rule.cure)
    };
    let expected: Vec<String> = rules().map(row).collect();
    assert_eq!(documented, expected, "\n{}\n", expected.join("\n"));
}
