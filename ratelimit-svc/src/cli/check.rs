//! `check`: what is wrong with quota files, before they are in force.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chassis::config::ConfigError;
use chassis::process::EXIT_USAGE;
use chassis::reload::Source;

use crate::cli::finding::{Finding, Format, Level, is_coloured, render};
use crate::limits::file::{FAULTS_MAX, FILE_BYTES_MAX, meant};
use crate::limits::quotas::{Contents, Library, Quotas, Update};

/// The longest part of a line that is quoted.
const QUOTED_CHARS_MAX: usize = 160;

/// Which files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Quota files, or directories of them, checked as one configuration.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Let several files define one domain, as MERGE_DOMAIN_CONFIG does.
    #[arg(long)]
    pub merge_domains: bool,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Reads the files as one configuration, as [`contents`] does each.
pub fn load(files: &[PathBuf], merge_domains: bool) -> Update {
    Library::new(merge_domains).update(&all_contents(files))
}

fn all_contents(files: &[PathBuf]) -> Contents {
    files.iter().flat_map(|path| contents(path)).collect()
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

/// Everything that is wrong with files that are read as one configuration, and what has no effect in
/// them; with the quotas that the good ones make.
pub fn findings(contents: &Contents, merge_domains: bool) -> (Vec<Finding>, Update) {
    let update = Library::new(merge_domains).update(contents);
    let finding = |level, error: &ConfigError| {
        let text = match contents.get(&error.path) {
            Some(Ok(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
            _ => "",
        };
        let at = error.at.or_else(|| line_of_domain(&error.message, text));
        let line = at.and_then(|(line, _)| text.lines().nth(line.checked_sub(1)? as usize));
        Finding {
            level,
            path: error.path.display().to_string(),
            at,
            message: error.message.clone(),
            quoted: line.map(|line| line.chars().take(QUOTED_CHARS_MAX).collect()),
            meant: meant(&error.message, update.quotas.classes()),
        }
    };
    let mut findings = Vec::new();
    for warning in &update.warnings {
        findings.push(finding(Level::Warning, warning));
    }
    for fault in update.faults(contents, FAULTS_MAX, FILE_BYTES_MAX) {
        findings.push(finding(Level::Error, &fault));
    }
    (findings, update)
}

/// Where a file names its domain, if that is what is wrong with it beside another file.
fn line_of_domain(message: &str, text: &str) -> Option<(u64, u64)> {
    let is_about_it = message.starts_with("duplicate domain '");
    let found = text.lines().position(|line| is_about_it && line.starts_with("domain:"))?;
    Some((found as u64 + 1, 1))
}

/// The quotas of files that are read as one configuration, or everything that is wrong with them.
///
/// # Errors
/// With what is wrong, as [`run`] prints it for people.
pub fn quotas(files: &[PathBuf], merge_domains: bool) -> Result<Quotas, String> {
    let (findings, update) = findings(&all_contents(files), merge_domains);
    let wrong: Vec<Finding> =
        findings.into_iter().filter(|finding| finding.level == Level::Error).collect();
    match update.errors.is_empty() {
        true => Ok(update.quotas),
        false => Err(render(&wrong, Format::Text, is_coloured())),
    }
}

/// Prints what is wrong, or a line for each domain.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args) -> ExitCode {
    let (findings, update) = findings(&all_contents(&args.files), args.merge_domains);
    match args.format {
        Format::Text => eprint!("{}", render(&findings, args.format, is_coloured())),
        _ => print!("{}", render(&findings, args.format, false)),
    }
    if !update.errors.is_empty() {
        return ExitCode::from(EXIT_USAGE);
    }
    if args.format == Format::Text {
        for domain in update.quotas.domains() {
            println!("ok: domain {} has {} rules", domain.name, domain.root.rules().len());
        }
    }
    ExitCode::SUCCESS
}
