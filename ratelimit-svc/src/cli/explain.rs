//! `explain`: which rule a request would meet, and why. Uses the very code that decides, with the
//! switches of the environment that a service would have.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use chassis::process::EXIT_USAGE;

use crate::cli::{check, only_domain};
use crate::config::{self, Environment};
use crate::decide::plan::{ClassSource, Line, Plan, plan};
use crate::decide::request::{Descriptor, Request};
use crate::json::{BODY_BYTES_MAX, WireRequest};
use crate::limits::class::PRIORITY_KEY;
use crate::limits::pattern::Precedence;
use crate::limits::quotas::Quotas;
use crate::limits::rule::{REPORTED_KEY, Rule};
use crate::limits::sharing::{ClassShare, How};

/// Which request.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Quota files, or directories of them, read as one configuration.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Let several files define one domain, as MERGE_DOMAIN_CONFIG does.
    #[arg(long)]
    pub merge_domains: bool,
    /// The domain of the request; the only one of the files where it is not given.
    #[arg(long)]
    pub domain: Option<String>,
    /// A descriptor as key=value,key=value; give it again for each descriptor.
    #[arg(long = "descriptor", required_unless_present = "json", value_name = "K=V,...")]
    pub descriptors: Vec<String>,
    /// A file with the whole request as JSON, as /json takes it; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domain", "descriptors"])]
    pub json: Option<PathBuf>,
}

/// Prints the explanation.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args, environment: &Environment) -> ExitCode {
    let update = check::load(&args.files, args.merge_domains);
    for error in &update.errors {
        eprintln!("error: {error}");
    }
    if !update.errors.is_empty() {
        return ExitCode::from(EXIT_USAGE);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match explain(args, &update.quotas, environment, now) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// The explanation as text.
///
/// # Errors
/// When the request cannot be one, or a variable cannot work.
pub fn explain(
    args: &Args,
    quotas: &Quotas,
    environment: &Environment,
    now_seconds: u64,
) -> Result<String, String> {
    let settings = config::settings(environment).map_err(|error| error.to_string())?;
    let key_prefix = environment.get("CACHE_KEY_PREFIX").map_or("", String::as_str);
    let read = args.json.as_deref().map(json_request).transpose()?;
    let only = only_domain::of_quotas(quotas);
    let request = match &read {
        Some(read) => read.request(),
        None => {
            let descriptors = args.descriptors.iter().map(|text| descriptor(text));
            let domain = args.domain.as_deref().map_or(only, Ok)?;
            Request { domain, descriptors: descriptors.collect::<Result<_, _>>()?, hits_addend: 1 }
        }
    };
    let planned = plan(&request, quotas, &settings, now_seconds);
    let planned = planned.map_err(|error| error.to_string())?;
    let mut text = class(&planned);
    if settings.shadow_mode {
        text += "SHADOW_MODE: nothing is refused\n";
    }
    if !planned.domain_known {
        text += &format!("domain {}: no file has it, so everything passes\n", request.domain);
        return Ok(text);
    }
    let domain = quotas.domain(request.domain);
    let names_priority = domain.is_some_and(|domain| domain.names_priority);
    if domain.is_some_and(|domain| domain.root.precedence() == Precedence::MostSpecific) {
        text += "wildcards: of the patterns that match, the most specific counts\n";
    }
    for (at, line) in planned.lines.iter().enumerate() {
        text += &format!("descriptor {}: {}\n", written(&request.descriptors[at]), verdict(line));
        let takes_off = !names_priority
            && request.descriptors[at].entries.iter().any(|(key, _)| *key == PRIORITY_KEY);
        if takes_off {
            text += "  the priority entry names the class and takes no part in matching\n";
        }
        let is_reported = domain.is_some_and(|domain| !domain.names_reported)
            && request.descriptors[at].entries.iter().any(|(key, _)| *key == REPORTED_KEY);
        if is_reported {
            text += "  the reported entry says that the hits have happened and takes no part in matching\n";
        }
        if let Line::Counted(counted) = line {
            let hit = &planned.hits[counted.hit];
            text += &format!("  counter {key_prefix}{}\n", String::from_utf8_lossy(&hit.key));
            if let Some(share) = &hit.share {
                text += &format!("  {}\n", shared(share, hit.capacity()));
            }
            if hit.algorithm.has_windows() {
                let left = hit.window.remaining(now_seconds);
                text += &format!("  window ends in {left} s\n");
            }
        }
    }
    Ok(text)
}

/// The request that a file holds.
fn json_request(path: &Path) -> Result<WireRequest, String> {
    let cannot = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
    let mut bytes = Vec::new();
    match path.to_str() {
        Some("-") => {
            std::io::stdin().lock().take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)
        }
        _ => std::fs::File::open(path)
            .and_then(|file| file.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)),
    }
    .map_err(cannot)?;
    if bytes.len() > BODY_BYTES_MAX {
        return Err(format!("{}: is larger than {BODY_BYTES_MAX} bytes", path.display()));
    }
    WireRequest::read(&bytes).map_err(|problem| format!("{}: {problem}", path.display()))
}

/// A descriptor as it is written on the command line.
fn written(descriptor: &Descriptor<'_>) -> String {
    let entries = descriptor.entries.iter().map(|(key, value)| format!("{key}={value}"));
    entries.collect::<Vec<_>>().join(",")
}

/// The descriptor written as `key=value,key=value`.
pub(crate) fn descriptor(text: &str) -> Result<Descriptor<'_>, String> {
    let entry = |entry| {
        str::split_once(entry, '=').ok_or_else(|| format!("'{entry}' is not of the form key=value"))
    };
    let entries = text.split(',').map(entry).collect::<Result<_, _>>()?;
    Ok(Descriptor { entries, ..Descriptor::default() })
}

fn class(plan: &Plan<'_>) -> String {
    let why = match plan.class_source {
        ClassSource::Named => "named by the request",
        ClassSource::Absent => "the default, as the request names none",
        ClassSource::Unknown => "the default, as the request names one that does not exist",
    };
    format!("class {}: {why}\n", plan.class)
}

fn verdict(line: &Line<'_>) -> String {
    match line {
        Line::NoLimit => {
            "no rule stands at exactly this depth for these entries, so it passes".to_owned()
        }
        Line::Unlimited(rule) => format!("{}, unlimited, so it passes uncounted", place(rule)),
        Line::Replaced(rule) => {
            format!("{}, replaced by another limit of the request", place(rule))
        }
        Line::Counted(counted) => {
            let limit = counted.limit;
            let rule = counted.rule.map_or_else(String::new, place);
            let mut text = format!("{rule}, {limit}");
            let sharing = counted.rule.map(|rule| rule.sharing.listing());
            for sharing in sharing.iter().filter(|sharing| !sharing.is_empty()) {
                text += &format!(", {sharing}");
            }
            if counted.shadow_mode {
                text += ", shadow mode: never refuses";
            }
            if counted.overdraft {
                text += ", overdraft: hits are counted beyond it, 0 hits are refused from it on";
            }
            if counted.quota_mode {
                text += ", quota mode: refuses only when all quota limits are over";
            }
            text
        }
    }
}

/// What the class may take of a limit that it shares.
fn shared(share: &ClassShare, capacity: u32) -> String {
    match (&share.how, share.rank) {
        (How::UpTo(fraction), _) => {
            format!("the class is admitted up to {} of {capacity}", fraction.of(capacity))
        }
        (How::Forecast { .. }, 0) => {
            "the class ranks highest and reserves what it needs".to_owned()
        }
        (How::Forecast { .. }, above) => {
            let classes = if above == 1 { "class" } else { "classes" };
            format!("the class may take what the {above} {classes} above it will not need")
        }
    }
}

/// The rule, where it stands, and how each level was matched.
fn place(rule: &Rule) -> String {
    let steps: Vec<String> = rule
        .steps
        .iter()
        .map(|step| match step.value.as_deref() {
            None => format!("{} by key alone", step.key),
            Some(value) if value.contains('*') => format!("{} by pattern {value}", step.key),
            Some(value) => format!("{} by value {value}", step.key),
        })
        .collect();
    format!("rule {} at {} ({})", rule.id, rule.origin, steps.join(", "))
}
