//! `record import`: recordings from access logs.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chassis::config::ByteSize;
use chassis::process::EXIT_USAGE;

use crate::import::bootstrap::{self, Found};
use crate::import::operators::{DEFAULT_FORMAT, Log, parse};
use crate::import::{DescriptorRule, Import, Rules, Summary, ValueRule, descriptor_rule};
use crate::record::hashed::HashedKeys;
use crate::record::segments::Segments;

/// The longest line of a log; the rest of it is left out.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What to do with recordings.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes recordings from access logs of Envoy.
    Import(ImportArgs),
}

/// Which logs, and what their lines would have asked.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Access logs; - for standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The directory for the recordings.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// What the recordings may take.
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    bytes_max: ByteSize,
    /// `json` for this platform's own log, `default` for Envoy's, or the operator string of a text log.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// An Envoy bootstrap that says the format, the domain and the descriptors.
    #[arg(long, value_name = "FILE")]
    bootstrap: Option<PathBuf>,
    /// A descriptor of each request, as key=value,key=%OPERATOR%; give it again for each.
    #[arg(long = "descriptor", value_name = "K=V,...", value_parser = descriptor_rule)]
    descriptors: Vec<DescriptorRule>,
    /// The domain of the requests.
    #[arg(long)]
    domain: Option<String>,
    /// Status codes that are given before limits are asked.
    #[arg(long, default_value = "401,403", value_delimiter = ',', value_name = "CODES")]
    not_asked: Vec<u16>,
}

/// Does it and prints what became of the lines.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args) -> ExitCode {
    let Command::Import(args) = &args.command;
    match import(args) {
        Ok((summary, notes)) => {
            for note in notes {
                eprintln!("note: {note}");
            }
            for (number, problem, line) in &summary.shown {
                eprintln!("warning: line {number} {problem}\n  {}", line.trim_end());
            }
            println!(
                "requests recorded: {}, of them refused: {}; lines that ask nothing: {}, that came too late: {}, \
                 that do not match: {}",
                summary.requests, summary.refused, summary.not_asked, summary.late, summary.broken
            );
            match summary.requests {
                0 => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::SUCCESS,
            }
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn import(args: &ImportArgs) -> Result<(Summary, Vec<String>), String> {
    let found = args.bootstrap.as_deref().map(read_bootstrap).transpose()?.unwrap_or_default();
    let log = match args.format.as_deref() {
        Some("json") => Log::own(),
        Some("default") => Log::Text(parse(DEFAULT_FORMAT)?),
        Some(format) => Log::Text(parse(format).map_err(|problem| format!("--format: {problem}"))?),
        None => found.log.clone().ok_or("give --format, or a bootstrap with an access log")?,
    };
    let domain = args.domain.clone().or(found.domain.clone());
    let domain = domain.ok_or("give --domain, or a bootstrap with a rate limit filter")?;
    let (descriptors, mut notes) = descriptors(args, found, &log);
    if descriptors.is_empty() {
        let why = notes.join("; ");
        return Err(format!("give --descriptor: there is none that the log can fill; {why}"));
    }
    let rules = Rules { domain, descriptors, not_asked: args.not_asked.clone() };
    let cannot = |error: io::Error| format!("{}: cannot be written: {error}", args.to.display());
    let (replica, hashed) = ("import".to_owned(), HashedKeys::default());
    let segments = Segments::new(&args.to, args.bytes_max.0, replica, hashed).map_err(cannot)?;
    let mut import = Import::new(&log, &rules, segments);
    for path in &args.files {
        let named = |error: io::Error| format!("{}: cannot be read: {error}", path.display());
        let mut lines = open(path).map_err(named)?;
        let mut line = Vec::new();
        while next_line(&mut lines, &mut line).map_err(named)? {
            import.line(&String::from_utf8_lossy(&line)).map_err(cannot)?;
        }
    }
    notes.dedup();
    Ok((import.finish().map_err(cannot)?, notes))
}

/// The descriptors that the log can fill, and a note for each that it cannot.
fn descriptors(args: &ImportArgs, found: Found, log: &Log) -> (Vec<DescriptorRule>, Vec<String>) {
    let mut notes = found.notes;
    let all = args.descriptors.iter().cloned().chain(found.descriptors);
    let mut kept = Vec::new();
    for rule in all {
        let missing = rule.entries.iter().find_map(|entry| match &entry.value {
            ValueRule::Logged(operator, _) if !log.has(operator) => Some(operator.clone()),
            _ => None,
        });
        match missing {
            None => kept.push(rule),
            Some(operator) => {
                let keys: Vec<&str> = rule.entries.iter().map(|entry| &*entry.key).collect();
                notes.push(format!("the log has no %{operator}%, so no [{}]", keys.join(", ")));
            }
        }
    }
    (kept, notes)
}

fn read_bootstrap(path: &Path) -> Result<Found, String> {
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    bootstrap::read(path, &bytes).map_err(|error| error.to_string())
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    match path.to_str() {
        Some("-") => Ok(Box::new(BufReader::new(io::stdin()))),
        _ => Ok(Box::new(BufReader::new(std::fs::File::open(path)?))),
    }
}

/// Reads a line, of which no more than so much is kept; whether there was one.
fn next_line(mut from: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = (&mut from).take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
    if read == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        from.skip_until(b'\n')?;
    }
    Ok(read > 0)
}
