//! `check`: what is wrong with quota files, before they are in force.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chassis::process::EXIT_USAGE;
use chassis::reload::Source;

use crate::limits::quotas::{Contents, Library, Update};

/// Which files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Quota files, or directories of them, checked as one configuration.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Let several files define one domain, as MERGE_DOMAIN_CONFIG does.
    #[arg(long)]
    pub merge_domains: bool,
}

/// Reads the files as one configuration, as [`contents`] does each.
pub fn load(files: &[PathBuf], merge_domains: bool) -> Update {
    let contents: Contents = files.iter().flat_map(|path| contents(path)).collect();
    Library::new(merge_domains).update(&contents)
}

/// A file, or all files of a directory but those whose names begin with a dot: the links of a
/// ConfigMap and the leavings of editors are no quota files.
pub fn contents(path: &Path) -> Contents {
    if !path.is_dir() {
        let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"));
        return Contents::from([(path.to_owned(), bytes)]);
    }
    let files = Source::Directory { path: path.to_owned(), ignore_dotfiles: true }.read();
    if files.is_empty() {
        return Contents::from([(path.to_owned(), Err("holds no quota files".to_owned()))]);
    }
    files
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
