//! What can be given to our programs is documented: every flag of every command, as `--help` of the
//! program that was built shows it.

use std::collections::{BTreeMap, BTreeSet};
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

/// Whether a document has the flag as a word: `--key` is not in `--key-id`.
fn names(document: &str, flag: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-');
    document.match_indices(flag).any(|(at, _)| ends(&document[at + flag.len()..]))
}
