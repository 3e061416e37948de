//! `lint-envoy`: the traps of an Envoy bootstrap, before it is in force.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chassis::config::{ConfigError, load_yaml};
use chassis::process::EXIT_USAGE;
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use crate::document::Node;
use crate::lint::{Finding, Lint, Load, Severity, lint, rules};

/// The exit code when a file has an error.
pub const EXIT_ERRORS: u8 = 1;

/// Which files, and what is not to be said of them.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// Bootstraps of Envoy, YAML or JSON, or what its /config_dump showed.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Do not mention this rule; give it again for each.
    #[arg(long = "allow", value_name = "RULE", hide_possible_values = true,
        value_parser = PossibleValuesParser::new(rules().map(|rule| rule.name)))]
    pub allowed: Vec<String>,
    /// The most calls in flight that a circuit breaker must let pass: above Envoy's default, or yours.
    #[arg(long = "in-flight", value_name = "N", default_value_t = 1025)]
    pub in_flight_max: u64,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line for each.
    Text,
    /// One array of objects.
    Json,
}

fn help() -> String {
    let line = |severity: Severity| {
        let names = rules().filter(|rule| rule.severity == severity).map(|rule| rule.name);
        format!("{severity}s: {}", names.collect::<Vec<_>>().join(", "))
    };
    format!("Rules\n  {}\n  {}", line(Severity::Error), line(Severity::Warning))
}

/// Prints what is found, or that a file is in order.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args) -> ExitCode {
    let read: Result<Vec<(&Path, Lint)>, ConfigError> =
        args.files.iter().map(|file| Ok((file.as_path(), read(file, args)?))).collect();
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match args.format {
        Format::Text => read.iter().for_each(|(file, lint)| print!("{}", text(file, lint))),
        Format::Json => println!("{:#}", json(&read)),
    }
    let errors = read.iter().any(|(_, lint)| count(lint, Severity::Error) > 0);
    if errors { ExitCode::from(EXIT_ERRORS) } else { ExitCode::SUCCESS }
}

/// Reads one file and looks for all that is not allowed.
fn read(file: &Path, args: &Args) -> Result<Lint, ConfigError> {
    let root: Node = load_yaml(file)?;
    let mut lint = lint(&root, Load { in_flight_max: args.in_flight_max });
    if lint.managers == 0 {
        return Err(ConfigError::file(file, "has no listener with an HTTP connection manager"));
    }
    let allowed: BTreeSet<&str> = args.allowed.iter().map(String::as_str).collect();
    lint.findings.retain(|finding| !allowed.contains(finding.rule.name));
    Ok(lint)
}

fn count(lint: &Lint, severity: Severity) -> usize {
    lint.findings.iter().filter(|finding| finding.rule.severity == severity).count()
}

fn text(file: &Path, lint: &Lint) -> String {
    let mut text = String::new();
    for Finding { rule, at: (line, column), subject } in &lint.findings {
        let (severity, name) = (rule.severity, rule.name);
        let subject = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
        let (trap, cure) = (rule.trap, rule.cure);
        text += &format!(
            "{severity}: {}:{line}:{column}: {name}: {subject}{trap}; {cure}\n",
            file.display()
        );
    }
    if count(lint, Severity::Error) == 0 {
        text += &format!(
            "ok: {} has {} HTTP connection managers, {} warnings\n",
            file.display(),
            lint.managers,
            count(lint, Severity::Warning)
        );
    }
    text
}

fn json(read: &[(&Path, Lint)]) -> Value {
    let of_file = |(file, lint): &(&Path, Lint)| {
        let file = file.display().to_string();
        let one = |finding: &Finding| {
            json!({
                "file": &file,
                "line": finding.at.0,
                "column": finding.at.1,
                "rule": finding.rule.name,
                "severity": finding.rule.severity.to_string(),
                "subject": finding.subject,
                "trap": finding.rule.trap,
                "cure": finding.rule.cure,
            })
        };
        lint.findings.iter().map(one).collect::<Vec<_>>()
    };
    Value::Array(read.iter().flat_map(of_file).collect())
}
