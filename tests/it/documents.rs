//! What can be given to our programs is documented: every flag of every command, as `--help` of the
//! program that was built shows it, and every key of a configuration file, as the program names them
//! when it meets one that it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use tests::edge::service;

/// Programs, and where their flags are documented.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("ratelimit-svc", &[include_str!("../../ratelimit-svc/REFERENCE.md")]),
    ("ext-authz", &[include_str!("../../ext-authz/REFERENCE.md")]),
    (
        "ingest-filter",
        &[
            include_str!("../../ingest-filter/REFERENCE.md"),
            include_str!("../../ingest-filter/REFERENCE-writer.md"),
        ],
    ),
    ("tidegate-load", &[include_str!("../REFERENCE.md")]),
];
/// What every program of this kind has.
const OF_ALL: [&str; 2] = ["--help", "--version"];

/// The flags of a command and of those below it, by the command that has them.
fn flags(program: &str, commands: &[String], found: &mut BTreeMap<String, BTreeSet<String>>) {
    let path = service(program).expect("built");
    let output = Command::new(path).args(commands).arg("--help").output().expect("started");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{program} {commands:?}: {help}");
    let of_here = section(&help, "Options:").into_iter().filter_map(|line| {
        let flag =
            line.trim_start().split([' ', ',', '=', '[']).find(|word| word.starts_with("--"));
        // What a flag means may name another one.
        flag.filter(|_| line.trim_start().starts_with('-')).map(str::to_owned)
    });
    found.entry(commands.join(" ")).or_default().extend(of_here);
    // Names are two deep; what stands deeper is the end of a sentence.
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let below = section(&help, "Commands:").into_iter().filter(is_name);
    let names = below.filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| *name != "help") {
        flags(program, &[commands, &[name.to_owned()]].concat(), found);
    }
}

/// The lines of one section of a help text.
fn section<'h>(help: &'h str, name: &str) -> Vec<&'h str> {
    let lines = help.lines().skip_while(|line| *line != name).skip(1);
    lines.take_while(|line| line.starts_with(' ') || line.is_empty()).collect()
}

#[test]
fn every_flag_is_documented() {
    let mut missing = Vec::new();
    for (program, documents) in PROGRAMS {
        let mut found = BTreeMap::new();
        flags(program, &[], &mut found);
        let all: usize = found.values().map(BTreeSet::len).sum();
        assert!(all >= 4, "flags of {program} were found: {found:?}");
        for (command, flags) in found {
            for flag in flags.iter().filter(|flag| !OF_ALL.contains(&flag.as_str())) {
                if !documents.iter().any(|document| names(document, flag)) {
                    missing.push(format!("{program} {command} {flag}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in the reference:\n{}", missing.join("\n"));
}

/// Commands that read a configuration file, and how many keys it has at least.
const CONFIGURED: [(&str, &str, usize); 2] =
    [("ext-authz", "serve", 30), ("ingest-filter", "writer", 100)];
/// A key that no file has.
const UNKNOWN: &str = "no_such_key";
/// Where keys may stand: in a map, in a list of maps, in maps under names of the user's own.
const SHAPES: [&str; 3] = ["{no_such_key: 1}", "[{no_such_key: 1}]", "{a: {no_such_key: 1}}"];

/// The keys that the program expects in `file`, which has a key that it does not know; none where it
/// complains of something else.
fn expected(program: &str, command: &str, file: &Path) -> Option<Vec<String>> {
    let path = service(program).expect("built");
    let output = Command::new(path).args([command, "--config"]).arg(file).output();
    let output = output.expect("started");
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(64), "{program} took it: {message}");
    let (_, list) =
        message.trim_end().split_once(&format!("unknown field `{UNKNOWN}`, expected "))?;
    let list = list.trim_start_matches("one of ").replace(" or ", ", ");
    Some(list.split(", ").map(|key| key.trim_matches('`').to_owned()).collect())
}

/// Gathers the keys below a key, by their path.
fn keys(program: &str, command: &str, below: &[String], file: &Path, found: &mut BTreeSet<String>) {
    for shape in SHAPES {
        let within = |text: String, key: &String| format!("{{{key}: {text}}}");
        let text = below.iter().rev().fold(shape.to_owned(), within);
        std::fs::write(file, text).expect("written");
        let Some(names) = expected(program, command, file) else { continue };
        for name in names {
            let path = [below, &[name]].concat();
            assert!(path.len() < 8, "{path:?} has no end");
            found.insert(path.join("."));
            keys(program, command, &path, file, found);
        }
        return;
    }
}

#[test]
fn every_key_of_a_configuration_is_documented() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("configuration.yaml");
    let mut missing = Vec::new();
    for (program, command, at_least) in CONFIGURED {
        let mut found = BTreeSet::new();
        keys(program, command, &[], &file, &mut found);
        assert!(found.len() >= at_least, "keys of {program}: {found:?}");
        let (_, documents) = PROGRAMS.iter().find(|(name, _)| *name == program).expect("listed");
        let is_named = |path: &String| {
            let key = path.rsplit('.').next().unwrap_or(path);
            let quoted = [format!("`{key}`"), format!("`{path}`")];
            quoted.iter().any(|name| documents.iter().any(|document| document.contains(name)))
        };
        let of_program = found.iter().filter(|path| !is_named(path));
        missing.extend(of_program.map(|path| format!("{program}: {path}")));
    }
    assert!(missing.is_empty(), "not in the reference:\n{}", missing.join("\n"));
}

/// Whether a document has the flag as a word: `--key` is not in `--key-id`.
fn names(document: &str, flag: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-');
    document.match_indices(flag).any(|(at, _)| ends(&document[at + flag.len()..]))
}
