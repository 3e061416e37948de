//! `simulate`: what quotas would have done to recorded traffic, as text, JSON, Markdown or a page.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use chassis::config::DurationText;
use chassis::process::EXIT_USAGE;

use crate::cli::check;
use crate::cli::finding::{self, Finding, Level, render};
use crate::config::{self, Environment};
use crate::limits::nearest::nearest;
use crate::limits::quotas::Quotas;
use crate::simulate::gate::Condition;
use crate::simulate::report::Report;
use crate::simulate::run::{Answer, Progress, Question, run as simulate};
use crate::simulate::{Counting, REPLICAS_MAX, Scenario};

/// The exit code when a condition of `--fail-if` holds.
pub const EXIT_FAILED: u8 = 1;

/// What is simulated.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Quota files, or directories of them, that are tried.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub quotas: Vec<PathBuf>,
    /// Quota files to hold them against; without them, what was answered when it was recorded.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub against: Vec<PathBuf>,
    /// Recordings: directories or files.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    pub traffic: Vec<PathBuf>,
    /// Let several files define one domain, as MERGE_DOMAIN_CONFIG does.
    #[arg(long)]
    pub merge_domains: bool,
    /// Fail when this holds, such as 'newly_refused > 0.1 %' or 'refused[CLASS] > 0'.
    #[arg(long, value_name = "CONDITION")]
    pub fail_if: Vec<Condition>,
    /// Count in Redis with leases, by so many replicas; without it each request is counted exactly.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLICAS_MAX)))]
    pub replicas: Option<u32>,
    /// From a claim of a replica to its answer.
    #[arg(long, default_value = "500us", requires = "replicas", value_name = "T")]
    pub round_trip: DurationText,
    /// Redis is out of reach from one instant to another, in seconds since 1970.
    #[arg(long, requires = "replicas", value_name = "FROM..TO", value_parser = outage)]
    pub outage: Option<Range<u64>>,
    /// A file with the RECORD_HASH_SALT of recordings whose values are hashed.
    #[arg(long, value_name = "FILE")]
    pub salt_file: Option<PathBuf>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Write the report as a page as well.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables for people.
    Text,
    /// One JSON object.
    Json,
    /// A comment on a pull request.
    Markdown,
    /// Workflow commands that GitHub shows.
    Github,
    /// A code quality report for GitLab.
    Gitlab,
}

fn outage(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("is not of the form FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("'{text}' is no number of seconds"));
    let range: Range<u64> = number(from)?..number(to)?;
    if range.is_empty() { Err("ends before it begins".to_owned()) } else { Ok(range) }
}

/// Simulates and prints the report.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args, environment: &Environment) -> ExitCode {
    match try_run(args, environment) {
        Ok((report, fails)) => {
            print!("{report}");
            if fails { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }
        }
        Err(problems) => {
            eprint!("{problems}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// The report, and whether a condition holds; or lines that say what is wrong.
fn try_run(args: &Args, environment: &Environment) -> Result<(String, bool), String> {
    let one = |problem: String| format!("error: {problem}\n");
    let salt = args.salt_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("{}: cannot be read: {error}", path.display()));
        text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
    });
    // Both sides are looked at, so that all faults of both are named at once.
    let quotas = |files: &[PathBuf]| check::quotas(files, args.merge_domains).map(Arc::new);
    let old = (!args.against.is_empty()).then(|| quotas(&args.against)).transpose();
    let (new, old) = match (quotas(&args.quotas), old) {
        (Ok(new), Ok(old)) => (new, old),
        (new, old) => return Err(new.err().unwrap_or_default() + &old.err().unwrap_or_default()),
    };
    for condition in &args.fail_if {
        known_class(condition, &new).map_err(one)?;
    }
    let question = Question {
        traffic: args.traffic.clone(),
        new,
        old,
        scenario: scenario(args, environment).map_err(one)?,
        salt: salt.transpose().map_err(one)?,
    };
    let bar = Bar::new();
    let answer = simulate(&question, &mut |progress| bar.show(progress));
    bar.clear();
    let answer = answer.map_err(one)?;
    bar.speed(answer.decisions);
    let against = match args.against.is_empty() {
        true => "what was recorded".to_owned(),
        false => {
            let paths = args.against.iter().map(|path| path.display().to_string());
            paths.collect::<Vec<_>>().join(" ")
        }
    };
    let report = Report { answer: &answer, against: &against, conditions: &args.fail_if };
    if let Some(path) = &args.html {
        let written = std::fs::write(path, report.html());
        written.map_err(|error| one(format!("{}: cannot be written: {error}", path.display())))?;
    }
    let fails = args.fail_if.iter().any(|condition| condition.holds(&answer.tally).0);
    let text = match args.format {
        Format::Text => report.text(finding::is_coloured_stdout()),
        Format::Json => format!("{}\n", report.json()),
        Format::Markdown => report.markdown(),
        Format::Github => render(&findings(args, &answer), finding::Format::Github, false),
        Format::Gitlab => render(&findings(args, &answer), finding::Format::Gitlab, false),
    };
    Ok((text, fails))
}

/// A sentence about the whole, and one for each condition that holds.
fn findings(args: &Args, answer: &Answer) -> Vec<Finding> {
    let total = answer.tally.total;
    let path = args.quotas.first().map(|path| path.display().to_string()).unwrap_or_default();
    let finding = |level, message| Finding {
        level,
        path: path.clone(),
        at: None,
        message,
        quoted: None,
        meant: None,
    };
    let sentence = format!(
        "of {} recorded requests {} would be refused, {} of them newly, and {} newly admitted",
        total.requests, total.new_refused, total.newly_refused, total.newly_admitted
    );
    let mut findings = vec![finding(Level::Notice, sentence)];
    for condition in &args.fail_if {
        let (holds, figure) = condition.verdict(&answer.tally);
        if holds {
            let message = format!("the simulation fails: {condition}, it is {figure}");
            findings.push(finding(Level::Error, message));
        }
    }
    findings
}

/// A condition on a class that the quotas do not have would never hold.
fn known_class(condition: &Condition, quotas: &Quotas) -> Result<(), String> {
    let Some(class) = condition.class() else { return Ok(()) };
    let names = || quotas.classes().ladder().iter().map(|known| known.name.as_str());
    if names().any(|name| name == class) {
        return Ok(());
    }
    let meant = nearest(class, names()).map(|name| format!("; did you mean '{name}'?"));
    let meant = meant.unwrap_or_default();
    Err(format!("--fail-if '{condition}': the quotas have no class '{class}'{meant}"))
}

fn scenario(args: &Args, environment: &Environment) -> Result<Scenario, String> {
    let settings = config::settings(environment).map_err(|error| error.to_string())?;
    let limit_min = config::lease_limit_min(environment).map_err(|error| error.to_string())?;
    let counting = match args.replicas {
        None => Counting::Exact,
        Some(replicas) => Counting::Leased {
            replicas,
            limit_min,
            round_trip: args.round_trip.0,
            outage: args.outage.clone(),
        },
    };
    Ok(Scenario { settings, counting })
}

/// How far it is, on one line of a terminal and nowhere else.
struct Bar {
    began: Instant,
    is_shown: bool,
}

/// Characters of the bar.
const BAR_WIDTH: usize = 40;

impl Bar {
    fn new() -> Self {
        Self { began: Instant::now(), is_shown: std::io::stderr().is_terminal() }
    }

    fn show(&self, progress: Progress) {
        if !self.is_shown {
            return;
        }
        let done = (progress.part.clamp(0.0, 1.0) * BAR_WIDTH as f64) as usize;
        let rate = progress.decisions as f64 / self.began.elapsed().as_secs_f64().max(1e-3) / 1e6;
        let bar = format!("{}{}", "#".repeat(done), "·".repeat(BAR_WIDTH - done));
        let percent = progress.part * 100.0;
        let mut to = std::io::stderr();
        let _ = write!(to, "\r[{bar}] {percent:3.0} %  {rate:.2} million decisions/s ");
        let _ = to.flush();
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn speed(&self, decisions: u64) {
        let seconds = self.began.elapsed().as_secs_f64();
        if self.is_shown {
            let rate = decisions as f64 / seconds.max(1e-3) / 1e6;
            let _ = writeln!(
                std::io::stderr(),
                "{decisions} decisions in {seconds:.1} s, {rate:.2} million a second"
            );
        }
    }
}
