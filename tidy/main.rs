//! The rules of the house as code: what decides is pure, what exists is documented, and nothing
//! unfinished or foreign is in the tree. Each message says how to mend it.

mod arrows;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Deciding modules: no I/O, no runtime, no wire types.
const PURE: &[&str] = &[
    "chassis/src/connections/table",
    "chassis/src/tls/expiry",
    "ratelimit-svc/src/limits",
    "ratelimit-svc/src/decide",
    "ratelimit-svc/src/diff",
    "ratelimit-svc/src/document",
    "ratelimit-svc/src/lint",
    "ratelimit-svc/src/html",
    "ratelimit-svc/src/keyed_hash",
    "ratelimit-svc/src/lease",
    "ratelimit-svc/src/live",
    "ratelimit-svc/src/console/changes",
    "ratelimit-svc/src/record/format",
    "ratelimit-svc/src/record/hashed",
    "ratelimit-svc/src/record/shape",
    "ratelimit-svc/src/record/table",
    "ratelimit-svc/src/import/bootstrap",
    "ratelimit-svc/src/import/instant",
    "ratelimit-svc/src/import/operators",
    "ratelimit-svc/src/simulate/arrivals",
    "ratelimit-svc/src/simulate/fleet",
    "ratelimit-svc/src/simulate/gate",
    "ratelimit-svc/src/simulate/instant",
    "ratelimit-svc/src/simulate/notes",
    "ratelimit-svc/src/simulate/planned",
    "ratelimit-svc/src/simulate/report",
    "ratelimit-svc/src/simulate/shapes",
    "ratelimit-svc/src/simulate/suggest",
    "ratelimit-svc/src/simulate/tally",
    "ratelimit-svc/src/simulate/world",
    "ratelimit-svc/src/xds/backoff",
    "ext-authz/src/check",
    "ingest-filter/src/command/audit/ledger",
    "ingest-filter/src/command/audit/values",
    "ingest-filter/src/command/moment",
    "ingest-filter/src/command/dlq/parse",
    "ingest-filter/src/destination",
    "ingest-filter/src/journal/room",
    "ingest-filter/src/journal/stored_letter",
    "ingest-filter/src/journal/kafka/durability",
    "ingest-filter/src/journal/kafka/placement",
    "ingest-filter/src/journal/kafka/progress",
    "ingest-filter/src/gateway/hold_time",
    "ingest-filter/src/gateway/confirmed",
    "ingest-filter/src/gateway/stamps",
    "ingest-filter/src/gateway/turns",
    "ingest-filter/src/line_protocol",
    "ingest-filter/src/point",
    "ingest-filter/src/datadog",
    "ingest-filter/src/histogram",
    "ingest-filter/src/intake",
    "ingest-filter/src/otlp",
    "ingest-filter/src/remote_write",
    "ingest-filter/src/rules",
    "ingest-filter/src/signal",
    "ingest-filter/src/wire",
    "ingest-filter/src/target/answer",
    "ingest-filter/src/target/refusal",
    "ingest-filter/src/types",
    "ingest-filter/src/writer/pace",
    "ingest-filter/src/writer/standing",
    "ingest-filter/src/writer/watermark",
    "ingest-filter/src/writer/work",
    "ratelimit-svc/src/store/breaker",
    "ratelimit-svc/src/store/pace",
    "ratelimit-svc/src/clock/offset",
    "ratelimit-svc/src/store/redis/topology/slots",
    "ratelimit-svc/src/store/memory",
    "ratelimit-svc/src/outage/local",
    "ratelimit-svc/src/outage/owed",
    "ratelimit-svc/src/outage/replicas",
    "ratelimit-svc/src/outage/share",
    "ratelimit-svc/src/outage/unavailable",
    "tests/src/load/schedule",
    "tests/src/load/traffic",
    "tests/src/load/tally",
    "tests/src/load/wire",
    "tests/src/load/bench/measured",
    "tests/src/load/bench/plot",
    "tests/src/load/bench/profile",
    "tests/src/load/bench/results",
    "tests/src/load/bench/rounds/stopping",
    "tests/src/load/bench/stage",
    "tests/src/load/bench/stages_table",
    "tests/src/load/table",
    "tests/src/load/bench/water",
];

/// What a pure module may not name.
const IMPURE: &[&str] = &[
    "tokio::",
    "tonic::",
    "hyper::",
    "axum::",
    "redis::",
    "rdkafka::",
    "proto::",
    "Instant::now",
    "SystemTime::now",
];

/// Files that may have more than 400 lines without their tests, and why.
const LONG: &[(&str, &str)] =
    &[("ratelimit-svc/src/limits/file.rs", "one reader: the grammar with all of its messages")];

const LINES_MAX: usize = 400;

struct File {
    path: String,
    text: String,
}

/// The root of the repository.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace")
}

fn files() -> Vec<File> {
    let root = workspace();
    let mut files = Vec::new();
    collect(root, root, &mut files);
    assert!(files.len() > 50, "the tree was found");
    files
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<File>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        // In a linked worktree it is a file.
        if name == ".git" {
            continue;
        }
        if path.is_dir() {
            // What cargo builds, not a module of that name.
            if name != "target" || path.parent().is_some_and(|parent| parent.ends_with("src")) {
                collect(root, &path, files);
            }
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push(File { path, text });
        }
    }
}

fn rust(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.path.ends_with(".rs"))
}

/// The text without its tests.
fn code(file: &File) -> &str {
    file.text.split("#[cfg(test)]").next().unwrap_or_default()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.starts_with("tests/it/")
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// What a file names that no pure module may name, each with its line.
fn impure_words(file: &File) -> impl Iterator<Item = (usize, &'static str)> {
    code(file).lines().enumerate().flat_map(|(number, line)| {
        let line = line.split("//").next().unwrap_or_default();
        let words = IMPURE.iter().filter(move |word| line.contains(**word));
        words.map(move |word| (number + 1, *word))
    })
}

#[test]
fn deciding_modules_are_pure() {
    let files = files();
    let mut problems = Vec::new();
    for pure in PURE {
        let within = |file: &&File| {
            file.path.strip_prefix(pure).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        let mut found = false;
        for file in rust(&files).filter(within).filter(|file| !is_test(&file.path)) {
            found = true;
            problems.extend(impure_words(file).map(|(line, word)| {
                let path = &file.path;
                format!("{path}:{line}: `{word}` in a deciding module: pass the value in, act at the edge")
            }));
        }
        assert!(found, "{pure} exists: keep PURE in tidy/main.rs true to the tree");
    }
    report(problems);
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    let files = files();
    let mut problems = Vec::new();
    for file in rust(&files) {
        if !file.text.starts_with("//!") {
            problems
                .push(format!("{}: begin with `//!`: what it is and what it is not", file.path));
        }
        let lines = code(file).lines().count();
        let excused = LONG.iter().any(|(path, _)| *path == file.path);
        if lines > LINES_MAX && !is_test(&file.path) && !excused {
            problems
                .push(format!("{}: {lines} lines; split off a part that has a name", file.path));
        }
    }
    report(problems);
}

#[test]
fn nothing_unfinished_and_nothing_of_one_machine() {
    // Put together here, so that this file does not find itself.
    let forbidden: Vec<String> = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("to", "do!("),
        ("unimplemented", "!("),
        ("#[ig", "nore"),
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("artif", "actory"),
        ("index.cra", "tes.io"),
        ("pypi.o", "rg"),
        ("repo.mav", "en"),
    ]
    .map(|(a, b)| format!("{a}{b}"))
    .to_vec();
    let mut problems = Vec::new();
    for file in files().iter().filter(|file| file.path != "Cargo.lock" && file.path != "LICENSE") {
        for (number, line) in file.text.lines().enumerate() {
            for word in forbidden.iter().filter(|word| line.contains(word.as_str())) {
                problems.push(format!("{}:{}: `{word}`", file.path, number + 1));
            }
        }
    }
    report(problems);
}

/// The reference of each service, and where its code is.
const REFERENCES: &[(&str, &[&str])] = &[
    ("ratelimit-svc/src", &["ratelimit-svc/REFERENCE.md"]),
    ("ext-authz/src", &["ext-authz/REFERENCE.md"]),
    ("ingest-filter/src", &["ingest-filter/REFERENCE.md", "ingest-filter/REFERENCE-writer.md"]),
];

fn source(files: &[File], dir: &str) -> Vec<PathBuf> {
    let of_dir = rust(files).filter(|file| file.path.starts_with(dir) && !is_test(&file.path));
    of_dir.map(|file| PathBuf::from(&file.path)).collect()
}

/// Every configuration key (field of a `Raw…` struct), environment variable and metric in the code.
fn named_in_code(file: &File) -> BTreeSet<String> {
    let text = code(file);
    let mut names = BTreeSet::new();
    let mut raw = false;
    for line in text.lines() {
        if line.starts_with("pub struct Raw")
            || line.starts_with("struct Raw")
            || line.starts_with("pub enum Raw")
        {
            raw = true;
        } else if line.starts_with('}') {
            raw = false;
        } else if raw && let Some(field) = field_name(line) {
            names.insert(field.to_owned());
        }
    }
    for literal in text.split('"').skip(1).step_by(2) {
        let constant = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if literal.len() > 3
            && !literal.starts_with("CARGO_")
            && literal.contains('_')
            && literal.chars().all(constant)
        {
            names.insert(literal.to_owned());
        }
        let metric =
            ["ratelimit_", "authz_", "ingest_"].iter().any(|prefix| literal.starts_with(prefix));
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if metric
            && literal.chars().all(lower)
            && !["ingest_filter", "ratelimit_svc"].contains(&literal)
        {
            names.insert(literal.to_owned());
        }
    }
    names
}

/// `name` of a line `pub name: Type,`.
fn field_name(line: &str) -> Option<&str> {
    let (field, _) = line.trim().trim_start_matches("pub ").split_once(": ")?;
    let name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    field.chars().all(name).then_some(field)
}

#[test]
fn every_key_variable_and_metric_is_documented() {
    let files = files();
    let mut problems = Vec::new();
    for (dir, references) in REFERENCES {
        let documents = files.iter().filter(|file| references.contains(&file.path.as_str()));
        let document: String = documents.map(|file| file.text.as_str()).collect();
        let reference = references[0];
        let paths = source(&files, dir);
        let mut count = 0;
        // The words of the linter are Envoy's; its rules have a table of their own.
        let ours = |file: &&File| !file.path.contains("/src/lint/");
        let of_dir = rust(&files).filter(|file| paths.contains(&PathBuf::from(&file.path)));
        for file in of_dir.filter(ours) {
            for name in named_in_code(file) {
                count += 1;
                if !document.contains(&name) {
                    problems.push(format!(
                        "{}: `{name}` is not in {reference}: document it",
                        file.path
                    ));
                }
            }
        }
        assert!(count > 10, "names were found below {dir}");
    }
    report(problems);
}

/// Documents for whoever reads the code, and how long they may be.
const DOCUMENTS: &[(&str, usize)] = &[
    ("ARCHITECTURE.md", 150),
    ("README.md", 260),
    ("chassis/ARCHITECTURE.md", 200),
    ("ext-authz/ARCHITECTURE.md", 200),
    ("ingest-filter/ARCHITECTURE.md", 200),
    ("ratelimit-svc/ARCHITECTURE.md", 200),
    ("tests/ARCHITECTURE.md", 200),
];

/// A map that names a file which moved misleads; one that grows is not read.
#[test]
fn maps_of_the_code_are_short_and_true() {
    let mut problems = Vec::new();
    for (path, lines_max) in DOCUMENTS {
        let text = std::fs::read_to_string(workspace().join(path)).unwrap_or_default();
        let lines = text.lines().count();
        if !(1..=*lines_max).contains(&lines) {
            problems.push(format!("{path}: {lines} lines of at most {lines_max}"));
        }
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let is_there = |name: &str| {
            let below = |dir: &str| workspace().join(dir).join(name).exists();
            below(&format!("{dir}/src")) || below(dir) || below("")
        };
        for name in text.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            if !is_there(name) {
                problems.push(format!("{path}: there is no `{name}`"));
            }
        }
    }
    report(problems);
}

/// Whether that is a file of code by its name alone.
fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    (text.ends_with(".rs") || text.ends_with(".lua")) && text.chars().all(plain)
}

/// The chart holds a file and no link: what takes charts from Git drops links out of them.
#[test]
fn the_charts_bootstrap_is_the_one_source() {
    let read = |path: &str| std::fs::read_to_string(workspace().join(path)).unwrap_or_default();
    let source = read("envoy-config/envoy.yaml");
    assert!(!source.is_empty());
    let differs = source != read("helm/tidegate/files/envoy.yaml");
    let problem = "run `cp envoy-config/envoy.yaml helm/tidegate/files/envoy.yaml`: they differ";
    report(differs.then(|| problem.to_owned()).into_iter().collect());
}

#[test]
fn every_placeholder_of_the_bootstrap_is_documented() {
    let read = |path: &str| std::fs::read_to_string(workspace().join(path)).unwrap_or_default();
    let (all, readme) = (read("envoy-config/envoy.yaml"), read("envoy-config/README.md"));
    let code: Vec<&str> = all.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let template = code.join("\n");
    let names: BTreeSet<&str> =
        template.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect();
    assert!(names.len() > 10);
    let begin = |line: &str| line.trim().strip_prefix("# begin ").map(str::to_owned);
    let sections: BTreeSet<String> = all.lines().filter_map(begin).collect();
    assert!(sections.len() > 1);
    let missing = sections.iter().filter(|name| !readme.contains(&format!("| `{name}` |")));
    report(missing.map(|name| format!("envoy-config/README.md: add section `{name}`")).collect());
    let undocumented = names.iter().filter(|name| !readme.contains(&format!("`{name}`")));
    report(undocumented.map(|name| format!("envoy-config/README.md: add `{name}`")).collect());
}
