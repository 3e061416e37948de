//! `diff`: which limits change, before they change.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chassis::process::EXIT_USAGE;

use super::check;
use crate::diff::diff;
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
    for change in &changes {
        println!("{change}");
    }
    if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CHANGES) }
}

fn load(side: &Path, merge_domains: bool) -> Result<Quotas, Vec<String>> {
    let update = Library::new(merge_domains).update(&check::contents(side));
    match update.errors.is_empty() {
        true => Ok(update.quotas),
        false => Err(update.errors.iter().map(ToString::to_string).collect()),
    }
}
