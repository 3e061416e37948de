//! `diff`: which limits change, before they change.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chassis::process::EXIT_USAGE;

use super::check;
use crate::cli::finding::{Finding, Format, Level, is_coloured_stdout, render};
use crate::diff::{Change, Kind, diff};

/// The exit code when something changes.
pub const EXIT_CHANGES: u8 = 1;

/// Which files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A quota file, or a directory of quota files, as it is in force.
    pub old: PathBuf,
    /// A quota file, or a directory of quota files, as it will be.
    pub new: PathBuf,
    /// Let several files define one domain, as MERGE_DOMAIN_CONFIG does.
    #[arg(long)]
    pub merge_domains: bool,
    /// How changes are printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Prints a line for each change.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args) -> ExitCode {
    let load = |side: &PathBuf| check::quotas(std::slice::from_ref(side), args.merge_domains);
    let sides = [&args.old, &args.new].map(load);
    let [Ok(old), Ok(new)] = &sides else {
        sides.iter().filter_map(|side| side.as_ref().err()).for_each(|faults| eprint!("{faults}"));
        return ExitCode::from(EXIT_USAGE);
    };
    let changes = diff(old, new);
    match args.format {
        Format::Text => {
            let is_coloured = is_coloured_stdout();
            changes.iter().for_each(|change| println!("{}", line(change, is_coloured)));
        }
        format => {
            let findings: Vec<Finding> =
                changes.iter().map(|change| finding(change, [&args.old, &args.new])).collect();
            print!("{}", render(&findings, format, false));
        }
    }
    if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CHANGES) }
}

/// A change where the new rule stands, or the old one where there is no new one.
fn finding(change: &Change, sides: [&Path; 2]) -> Finding {
    let level = match change.kind {
        Kind::Removed | Kind::Lowered => Level::Warning,
        Kind::Added | Kind::Raised | Kind::Changed => Level::Notice,
    };
    let side = usize::from(change.origins[1].is_some() || change.origins[0].is_none());
    let origin = change.origins[side].as_deref().and_then(|origin| origin.rsplit_once(':'));
    let (path, line) = match origin {
        Some((name, line)) if sides[side].is_dir() => (sides[side].join(name), line.parse().ok()),
        Some((_, line)) => (sides[side].to_owned(), line.parse().ok()),
        None => (sides[side].to_owned(), None),
    };
    Finding {
        level,
        path: path.display().to_string(),
        at: line.map(|line| (line, 1)),
        message: change.to_string(),
        quoted: None,
        meant: None,
    }
}

/// A change for people: what callers will miss stands out.
fn line(change: &Change, is_coloured: bool) -> String {
    let text = change.to_string();
    let colour = match change.kind {
        Kind::Removed | Kind::Lowered => "1;31",
        Kind::Added | Kind::Raised => "1;32",
        Kind::Changed => "1;33",
    };
    match text.split_once(' ').filter(|_| is_coloured) {
        Some((kind, rest)) => format!("\x1b[{colour}m{kind}\x1b[0m {rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_people() {
        let change = Change {
            kind: Kind::Lowered,
            domain: Some("d".to_owned()),
            path: "k".to_owned(),
            old: Some("5 per minute".to_owned()),
            new: Some("4 per minute".to_owned()),
            origins: [None, None],
        };
        assert_eq!(line(&change, false), "lowered d k: 5 per minute -> 4 per minute");
        assert!(line(&change, true).starts_with("\x1b[1;31mlowered\x1b[0m d k:"));
    }
}
