//! `suggest`: which limit fits what was recorded.

use std::path::PathBuf;
use std::process::ExitCode;

use chassis::process::EXIT_USAGE;
use serde_json::json;

use crate::cli::check;
use crate::limits::nearest::nearest;
use crate::limits::quotas::Quotas;
use crate::record::reader::Traffic;
use crate::simulate::suggest::{POINTS_MAX, Series, UNITS};

/// Which traffic and which rule.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Quota files with the rule.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub quotas: Vec<PathBuf>,
    /// Recordings: directories or files.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    pub traffic: Vec<PathBuf>,
    /// The rule, by its name in metrics and in explain; `domain.rule` as simulate writes it.
    #[arg(long)]
    pub rule: String,
    /// What a limit may refuse of the hits of each who is counted, in percent.
    #[arg(long, default_value_t = 0.1, value_name = "PERCENT")]
    pub refuse_max: f64,
    /// Let several files define one domain, as MERGE_DOMAIN_CONFIG does.
    #[arg(long)]
    pub merge_domains: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Prints the proposals.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args) -> ExitCode {
    let quotas = match check::quotas(&args.quotas, args.merge_domains) {
        Ok(quotas) => quotas,
        Err(faults) => {
            eprint!("{faults}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match suggest(args, &quotas) {
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

fn suggest(args: &Args, quotas: &Quotas) -> Result<String, String> {
    if !(0.0..=100.0).contains(&args.refuse_max) {
        return Err("--refuse-max must be from 0 to 100".to_owned());
    }
    let (domain, rule) = rule(quotas, &args.rule)?;
    let mut traffic = Traffic::open(&args.traffic)?;
    let mut series = Series::new(quotas, &domain, &rule);
    let (mut other, mut seconds) = (0, 0_u64);
    while let Some(second) = traffic.next_second() {
        series.add(&second, &traffic.shapes);
        other += second.other.0;
        seconds += 1;
    }
    if series.is_full {
        return Err(format!("more than {POINTS_MAX} seconds of counters: give fewer recordings"));
    }
    if series.is_empty() {
        return Err(format!("no recorded request meets rule {domain}.{rule}"));
    }
    let part = args.refuse_max / 100.0;
    let proposals: Vec<_> = UNITS.iter().filter_map(|unit| series.proposal(*unit, part)).collect();
    let bucket = series.bucket(part);
    if args.json {
        let proposal = |one: &crate::simulate::suggest::Proposal| {
            json!({"unit": one.unit.name(), "requests_per_unit": one.limit, "who": one.who,
                   "peak": one.peak, "median": one.median})
        };
        let bucket = bucket.map(
            |one| json!({"requests_per_second": one.rate, "burst": one.burst, "who": one.who}),
        );
        let report = json!({
            "rule": args.rule, "counters": series.len(), "refuse_max_percent": args.refuse_max,
            "proposals": proposals.iter().map(proposal).collect::<Vec<_>>(),
            "token_bucket": bucket, "other_requests": other,
            "unusable": traffic.problems.count,
        });
        return Ok(format!("{report}\n"));
    }
    let mut text = format!(
        "rule {}: {} counters in {seconds} busy seconds; each refused at most {} % of its hits\n",
        args.rule,
        series.len(),
        args.refuse_max
    );
    for one in &proposals {
        let unit = one.unit.name().to_lowercase();
        text += &format!(
            "  {} per {unit}, for {}; the peak was {}, and half need no more than {}\n",
            one.limit, one.who, one.peak, one.median
        );
    }
    if let Some(bucket) = bucket {
        let (rate, burst) = (bucket.rate, bucket.burst);
        text += &format!(
            "  {rate} per second as a token_bucket with burst {burst}, for {}\n",
            bucket.who
        );
    }
    if let Some(limit) = series.in_force {
        let unit = limit.period.unit();
        let needed = proposals.iter().find(|one| Some(one.unit) == unit);
        text += &format!("in force: {limit}");
        if let Some(needed) = needed {
            let room =
                100.0 - needed.peak as f64 / f64::from(limit.requests_per_unit.max(1)) * 100.0;
            text += &format!(", headroom over the peak {room:.0} %");
        }
        text.push('\n');
    }
    if other > 0 {
        text += &format!("note: {other} requests of the tail are not in this\n");
    }
    if traffic.problems.count > 0 {
        let count = traffic.problems.count;
        let parts = if count == 1 { "part" } else { "parts" };
        text += &format!("note: {count} {parts} of the recordings could not be used:\n");
        traffic.problems.named.iter().for_each(|named| text += &format!("note:   {named}\n"));
    }
    Ok(text)
}

/// The domain and the name of a rule that is given by its name, with the domain before it where several
/// domains have one of that name: as `simulate` writes it.
fn rule(quotas: &Quotas, named: &str) -> Result<(String, String), String> {
    let mut rules: Vec<(String, String)> = Vec::new();
    for domain in quotas.domains() {
        let ids = domain.root.rules().into_iter().map(|rule| rule.id.to_string());
        rules.extend(ids.map(|id| (domain.name.to_string(), id)));
    }
    rules.dedup();
    let is_named = |(domain, id): &&(String, String)| format!("{domain}.{id}") == named;
    if let Some(found) = rules.iter().find(is_named) {
        return Ok(found.clone());
    }
    let found: Vec<&(String, String)> = rules.iter().filter(|(_, id)| id == named).collect();
    match found[..] {
        [one] => Ok(one.clone()),
        [] => {
            let names =
                rules.iter().flat_map(|(domain, id)| [id.clone(), format!("{domain}.{id}")]);
            let names: Vec<String> = names.collect();
            let meant = nearest(named, names.iter().map(String::as_str));
            let meant = meant.map(|id| format!("; did you mean '{id}'?")).unwrap_or_default();
            Err(format!("the quotas have no rule '{named}'{meant}"))
        }
        [(domain, id), ..] => {
            Err(format!("several domains have a rule '{named}': say which, as in {domain}.{id}"))
        }
    }
}
