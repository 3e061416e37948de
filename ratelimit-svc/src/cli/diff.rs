//! `diff`: which limits change, before they change.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chassis::process::EXIT_USAGE;

use super::check;
use crate::cli::finding::{Finding, Format, Level, render};
use crate::diff::{Change, Kind, diff};
use crate::limits::quotas::{Library, Quotas};

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
    let sides = [&args.old, &args.new].map(|side| load(side, args.merge_domains));
    let [Ok(old), Ok(new)] = &sides else {
        for error in sides.iter().filter_map(|side| side.as_ref().err()).flatten() {
            eprintln!("error: {error}");
        }
        return ExitCode::from(EXIT_USAGE);
    };
    let changes = diff(old, new);
    match args.format {
        Format::Text => changes.iter().for_each(|change| println!("{change}")),
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

fn load(side: &Path, merge_domains: bool) -> Result<Quotas, Vec<String>> {
    let update = Library::new(merge_domains).update(&check::contents(side));
    match update.errors.is_empty() {
        true => Ok(update.quotas),
        false => Err(update.errors.iter().map(ToString::to_string).collect()),
    }
}
