//! `check`: what is wrong with quota files, before they are in force.

use std::path::PathBuf;
use std::process::ExitCode;

use chassis::process::EXIT_USAGE;

use crate::limits::quotas::{Contents, Library, Update};

/// Which files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Quota files, checked as one configuration.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Let several files define one domain, as MERGE_DOMAIN_CONFIG does.
    #[arg(long)]
    pub merge_domains: bool,
}

/// Reads the files as one configuration.
pub fn load(files: &[PathBuf], merge_domains: bool) -> Update {
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"));
        (path.clone(), bytes)
    };
    let contents: Contents = files.iter().map(read).collect();
    Library::new(merge_domains).update(&contents)
}

/// Prints what is wrong, or a line for each domain.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args) -> ExitCode {
    let update = load(&args.files, args.merge_domains);
    for warning in &update.warnings {
        eprintln!("warning: {warning}");
    }
    for error in &update.errors {
        eprintln!("error: {error}");
    }
    if !update.errors.is_empty() {
        return ExitCode::from(EXIT_USAGE);
    }
    for domain in update.quotas.domains() {
        println!("ok: domain {} has {} rules", domain.name, domain.root.rules().len());
    }
    ExitCode::SUCCESS
}
