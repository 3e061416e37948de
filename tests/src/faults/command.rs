//! `tidegate-load faults`: one fault run from its flags, and what it found as text or JSON.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Outcome, Peaks, Plan, VICTIMS, options, run};
use crate::edge::{Edge, Part};

/// Shown by `--help`.
pub const EXAMPLES: &str = "Examples:
  tidegate-load faults
  tidegate-load faults --points 50000 --rounds 1
  tidegate-load faults --only influxdb --rounds 1 --away 600 --points 700000 --rate 1000
  tidegate-load faults --output json | jq '{lost, doubled}'

Exit code 1 when an acknowledged point is lost, there twice, or not as it was sent.";

/// `faults`.
#[derive(Args)]
pub struct FaultArgs {
    /// Points of all tenants together
    #[arg(long, default_value_t = 1_000_000)]
    points: u64,
    /// Tenants
    #[arg(long, default_value_t = 4)]
    tenants: usize,
    /// Clients of each tenant, each with one write under way
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Points of one write
    #[arg(long, default_value_t = 200)]
    write_points: u64,
    /// How often each process is killed at most
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Seconds that a killed process stays away
    #[arg(long, default_value_t = 1.0)]
    away: f64,
    /// Kill only this one
    #[arg(long, value_parser = victim)]
    only: Option<Part>,
    /// Points a second of all tenants together; as fast as answers come without it
    #[arg(long)]
    rate: Option<u64>,
    /// Directory of the edge; emptied first
    #[arg(long, default_value = "target/faults")]
    dir: PathBuf,
    /// How to print the outcome
    #[arg(long, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Does what the flags say.
///
/// # Errors
/// When a part is missing, the edge does not recover, or a point is not where it belongs.
pub fn main(args: &FaultArgs) -> Result<()> {
    ensure!(args.points > 0 && args.tenants > 0 && args.clients > 0, "nothing would be sent");
    let plan = Plan {
        points: args.points,
        tenants: args.tenants,
        clients: args.clients,
        write_points: args.write_points.max(1),
        rounds: args.rounds,
        away: Duration::try_from_secs_f64(args.away)?,
        undisturbed: args.points / 5,
        between: args.points / 50,
        only: args.only,
        per_second: args.rate,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let bar = progress(args.points);
        let dir = std::path::absolute(&args.dir)?;
        let mut edge = Edge::start(options(&dir), |step| bar.set_message(step.to_owned())).await?;
        let told = bar.clone();
        let outcome = run(&mut edge, plan, &move |step: &str, points: u64| {
            told.set_message(step.to_owned());
            told.set_position(points);
        })
        .await;
        bar.finish_and_clear();
        edge.stop().await;
        outcome
    })?;
    let printed = match args.output {
        Output::Text => text(&outcome),
        Output::Json => format!("{:#}\n", json(&outcome)),
    };
    std::io::stdout().lock().write_all(printed.as_bytes())?;
    ensure!(outcome.is_exact(), "not every acknowledged point is where it belongs, once");
    Ok(())
}

/// One of those that can be killed, by its name.
fn victim(name: &str) -> Result<Part, String> {
    let named = VICTIMS.into_iter().find(|(known, _)| *known == name).map(|(_, part)| part);
    named.ok_or_else(|| format!("one of {}", VICTIMS.map(|(name, _)| name).join(", ")))
}

fn progress(points: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(points);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn text(outcome: &Outcome) -> String {
    let Outcome { noticed, stored, .. } = outcome;
    let mut rows = vec![
        ("acknowledged".to_owned(), noticed.acknowledged.to_string()),
        ("in the journal, sent again included".to_owned(), outcome.books.journalled.to_string()),
        ("stored".to_owned(), stored.stored.to_string()),
        ("lost".to_owned(), stored.lost.to_string()),
        ("doubled".to_owned(), stored.doubled.to_string()),
        ("not as sent".to_owned(), stored.foreign.to_string()),
        ("points/s, undisturbed".to_owned(), format!("{:.0}", outcome.undisturbed_per_second)),
        ("the whole run".to_owned(), seconds(outcome.elapsed)),
        ("written after the last 204".to_owned(), seconds(outcome.drained_in)),
        ("longest silence of a tenant".to_owned(), seconds(noticed.longest_silence)),
    ];
    rows.extend(
        outcome
            .cpu
            .iter()
            .map(|(name, us)| (format!("CPU of a point, {name}"), format!("{us:.2} us"))),
    );
    rows.extend(
        outcome.kills.iter().map(|(name, times)| (format!("killed, {name}"), times.to_string())),
    );
    rows.extend(of_the_whole_run(&outcome.peaks));
    let silences = noticed.silence_after.iter();
    rows.extend(silences.map(|(name, silence)| {
        (format!("longest silence after {name} was killed"), seconds(*silence))
    }));
    rows.extend(
        noticed
            .refused
            .iter()
            .map(|(reason, times)| (format!("refused, {reason}"), times.to_string())),
    );
    rows.iter().map(|(name, value)| format!("{name:<60} {value:>12}\n")).collect()
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The rows of what grew and how long it took to catch up.
fn of_the_whole_run(peaks: &Peaks) -> Vec<(String, String)> {
    let mut rows = vec![
        ("most records to write, by the writer".to_owned(), peaks.lag_records.to_string()),
        ("oldest record to write".to_owned(), format!("{:.1} s", peaks.unwritten_age)),
    ];
    let caught_up = peaks.caught_up.iter();
    rows.extend(caught_up.map(|(name, time)| {
        (format!("from the return of {name} until the writer caught up"), seconds(*time))
    }));
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let resident = peaks.resident.iter();
    rows.extend(resident.map(|(name, bytes)| (format!("most memory, {name}"), mib(*bytes))));
    rows
}

fn json(outcome: &Outcome) -> serde_json::Value {
    let Outcome { noticed, stored, .. } = outcome;
    serde_json::json!({
        "acknowledged": noticed.acknowledged,
        "journalled": outcome.books.journalled,
        "confirmed_since_the_gateway_started": outcome.books.confirmed,
        "stored": stored.stored,
        "lost": stored.lost,
        "doubled": stored.doubled,
        "not_as_sent": stored.foreign,
        "points_per_second_undisturbed": outcome.undisturbed_per_second,
        "seconds": outcome.elapsed.as_secs_f64(),
        "seconds_to_drain": outcome.drained_in.as_secs_f64(),
        "longest_silence_seconds": noticed.longest_silence.as_secs_f64(),
        "longest_silence_seconds_after": by_name(&noticed.silence_after),
        "records_to_write_max": outcome.peaks.lag_records,
        "oldest_to_write_seconds_max": outcome.peaks.unwritten_age,
        "caught_up_seconds_after": by_name(&outcome.peaks.caught_up),
        "resident_bytes_max": outcome.peaks.resident,
        "cpu_us_of_a_point": outcome.cpu.iter().copied().collect::<BTreeMap<_, _>>(),
        "kills": outcome.kills,
        "refused": noticed.refused,
    })
}

/// Seconds by name.
fn by_name(times: &BTreeMap<&'static str, Duration>) -> BTreeMap<&'static str, f64> {
    times.iter().map(|(name, time)| (*name, time.as_secs_f64())).collect()
}
