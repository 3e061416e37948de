//! Line protocol as the gateway takes it, by CPU time of one thread: read, checked, given its types
//! and written anew, also by the rules of a tenant; bodies taken in, short and long; beside inflating
//! the same bytes, and beside the crate `influxdb-line-protocol`
//! where `LINE_PROTOCOL_PEER` names the program built from tests/peers/line-protocol.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use ingest_filter::gateway::budget::Budget;
use ingest_filter::gateway::inflate::{BodyCaps, Encoding, Inflate};
use ingest_filter::gateway::intake::{RequestIntake, Wanted};
use ingest_filter::gateway::refusal::Refusal;
use ingest_filter::line_protocol::{Dialect, Lines, Precision};
use ingest_filter::point::{Chunker, Point};
use ingest_filter::rules::Rules;
use ingest_filter::rules::guard::Guard;
use ingest_filter::rules::series::Tracked;
use ingest_filter::types::{Limits, Types};

use super::Context;
use super::results::Aim;
use crate::load::cpu;
use crate::load::message::lines;

const POINTS: usize = 5_000;
const TIME_NS: u64 = 1_700_000_000_000_000_000;
/// What lines as agents send them should reach, MB a second of one core.
const SORTED_MIN: f64 = 800.0;
/// What tags out of order, and names and strings with escapes, should reach.
const UNSORTED_MIN: f64 = 400.0;

type Read<'a> = (&'static str, &'a dyn Fn() -> usize, usize, Aim);

/// Runs the stage.
///
/// # Errors
/// When a line that is good was not read.
pub fn measure(cx: &mut Context) -> Result<()> {
    let short = lines(1, POINTS, TIME_NS);
    let (sorted, unsorted) = (host_metrics(true), host_metrics(false));
    let zipped = gzip(&sorted)?;
    match std::env::var_os("LINE_PROTOCOL_PEER") {
        Some(program) => peer(cx, &PathBuf::from(program), &sorted)?,
        None => {
            let note = "LINE_PROTOCOL_PEER is not set: no figure of influxdb-line-protocol";
            cx.results.notes.push(note.to_owned());
        }
    }
    let reads: [Read<'_>; 10] = [
        ("parsed", &|| parse(&sorted), sorted.len(), Aim::None),
        ("written anew, few fields", &|| written(&short), short.len(), Aim::None),
        ("parsed and written anew", &|| written(&sorted), sorted.len(), Aim::AtLeast(SORTED_MIN)),
        (
            "written anew, tags unsorted, escapes",
            &|| written(&unsorted),
            unsorted.len(),
            Aim::AtLeast(UNSORTED_MIN),
        ),
        ("inflated from gzip", &|| inflate(&zipped, sorted.len()), sorted.len(), Aim::None),
        ("written anew, tenant with rules", &|| ruled(&sorted, &[]), sorted.len(), Aim::None),
        (
            "written anew, tenant with rules and a tag of theirs",
            &|| ruled(&sorted, &[("db", "telegraf")]),
            sorted.len(),
            Aim::None,
        ),
        ("taken in, 200 KiB", &|| taken_in(&sorted, 200 << 10), sorted.len(), Aim::None),
        ("taken in, 300 KiB", &|| taken_in(&sorted, 300 << 10), sorted.len(), Aim::None),
        ("taken in, 1 MiB", &|| taken_in(&sorted, 1 << 20), sorted.len(), Aim::None),
    ];
    let mut samples: [Vec<f64>; 10] = Default::default();
    for round in 0..cx.rounds() {
        for number in 0..reads.len() {
            let at = if round % 2 == 1 { reads.len() - 1 - number } else { number };
            let (_, read, bytes, _) = reads[at];
            samples[at].push(speed(bytes, times(cx), read)?);
        }
    }
    for ((name, _, _, aim), samples) in reads.into_iter().zip(&samples) {
        cx.results.add(format!("parser/line protocol, {name}"), best(samples), "MB/s a core", aim);
        cx.results.samples.insert(format!("parser/{name}"), serde_json::json!(samples));
    }
    let ratio = best(&samples[2]) / best(&samples[4]);
    cx.results.add("parser/written anew, times inflating", ratio, "", Aim::AtLeast(1.0));
    Ok(())
}

fn times(cx: &Context) -> usize {
    if cx.quick { 10 } else { 25 }
}

fn best(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::NAN, f64::max)
}

/// The peer's best round, by its own account of its CPU.
fn peer(cx: &mut Context, program: &PathBuf, body: &[u8]) -> Result<()> {
    let file = super::rig::stage_dir(&cx.dir, "parser")?.join("body.lp");
    std::fs::write(&file, body)?;
    let numbers = [POINTS, times(cx), cx.rounds()].map(|number| number.to_string());
    let output = Command::new(program).arg(&file).args(numbers).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", program.display(), error.trim());
    let text = String::from_utf8(output.stdout).context("the peer's output")?;
    let samples: Result<Vec<f64>, _> = text.lines().map(str::parse).collect();
    let samples = samples.context("the peer prints numbers")?;
    let name = "parser/line protocol, parsed by influxdb-line-protocol 2";
    cx.results.add(name, best(&samples), "MB/s a core", Aim::None);
    cx.results.samples.insert(name.to_owned(), serde_json::json!(samples));
    Ok(())
}

/// Ten tags and ten fields a line, as an agent on a host sends them; or with tags in no order and
/// escapes in a tag and a string.
fn host_metrics(sorted: bool) -> Vec<u8> {
    let mut text = String::with_capacity(POINTS * 480);
    for point in 0..POINTS {
        let (host, cpu) = (point * 31 % 1000, point % 8);
        let tags = [
            "arch=x64".to_owned(),
            format!("cpu=cpu{cpu}"),
            format!("datacenter=eu-west-1{}", ["a", "b", "c"][point % 3]),
            format!("hostname=host_{host:04}"),
            "os=Ubuntu16.10".to_owned(),
            format!("rack={}", point % 97),
            "region=eu-west-1".to_owned(),
            format!("service={}", point % 19),
            "service_environment=production".to_owned(),
            "team=SF".to_owned(),
        ];
        let order = |place: usize| if sorted { place } else { place * 7 % 10 };
        text.push_str("cpu");
        for place in 0..tags.len() {
            text.push(',');
            text.push_str(&tags[order(place)]);
            if !sorted && order(place) == 5 {
                text.push_str("\\ left\\,top");
            }
        }
        let names = [
            "usage_guest",
            "usage_guest_nice",
            "usage_idle",
            "usage_iowait",
            "usage_irq",
            "usage_nice",
            "usage_softirq",
            "usage_steal",
            "usage_system",
        ];
        for (number, name) in names.into_iter().enumerate() {
            let value = (point * (number * 2 + 7) % 1000) as f64 / 10.0;
            let separator = if number == 0 { ' ' } else { ',' };
            // Writing into a String cannot fail.
            let _ = write!(text, "{separator}{name}={value:.3}");
        }
        let time = TIME_NS + point as u64;
        let _ = match sorted {
            true => writeln!(text, ",switches={}i {time}", point * 1009),
            false => writeln!(text, ",note=\"cpu \\\"{cpu}\\\" is {host}\" {time}"),
        };
    }
    text.into_bytes()
}

fn gzip(body: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    Ok(encoder.finish()?)
}

/// MB for each second of this thread's CPU.
fn speed(bytes: usize, times: usize, read: &dyn Fn() -> usize) -> Result<f64> {
    let before = cpu::this_thread()?;
    for _ in 0..times {
        ensure!(std::hint::black_box(read)() == POINTS, "a good line was not read");
    }
    let used = cpu::this_thread()?.saturating_sub(before);
    Ok((bytes * times) as f64 / 1e6 / used.as_secs_f64())
}

const DIALECT: Dialect =
    Dialect { precision: Precision::Nanoseconds, unsigned: false, line_bytes_max: 64 << 10 };

/// Line by line into points, as every line was once read.
fn parse(body: &[u8]) -> usize {
    let (mut lines, mut point, mut points) = (Lines::new(body, DIALECT), Point::default(), 0);
    while let Some(Ok(_)) = lines.next(&mut point) {
        points += 1;
    }
    points
}

/// All that the gateway does between a decoded body and the journal.
fn written(body: &[u8]) -> usize {
    let limits =
        Limits { fields_max: 1_000, fields_per_tenant_max: 1_000, databases_per_tenant_max: 10 };
    let Ok(types) = Types::new(limits).of("acme", "", "acme") else { return 0 };
    let mut chunker = Chunker::new(0, 0, 512 << 10).typed(types);
    let (mut lines, mut point) = (Lines::new(body, DIALECT), Point::default());
    loop {
        while let Some(line) = lines.next_known(chunker.shapes()) {
            chunker.push_known(&line);
        }
        match lines.next(&mut point) {
            Some(Ok(_)) if chunker.push_line(&mut point).is_ok() => {}
            _ => break,
        }
    }
    chunker.finish().iter().map(|chunk| chunk.points as usize).sum()
}

/// The same for a tenant with rules for labels, times and series, which all lines pass, and which
/// add these tags to each.
fn ruled(body: &[u8], added: &[(&str, &str)]) -> usize {
    let rules = Rules {
        labels_max: Some(40),
        label_name_bytes_max: Some(128),
        label_value_bytes_max: Some(1024),
        series_max: Some(1_000_000),
        past_max: Some(Duration::from_secs(3600)),
        future_max: Some(Duration::from_secs(3600)),
        ..Rules::default()
    };
    let now = TIME_NS as i64;
    let tracked = Arc::new(Tracked::new(Arc::default(), 1 << 30));
    let added = added.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let guard = Guard::new(Arc::new(rules), Arc::default(), tracked, now, added.collect());
    let Ok(reservation) = Budget::new(1 << 30).reserve(0) else { return 0 };
    let (wanted, _waiting) = Wanted::until(Instant::now() + Duration::from_secs(60));
    let chunker = Chunker::new(0, now, 512 << 10);
    let intake = RequestIntake::new(chunker, body.len(), reservation, wanted);
    let mut intake = intake.guarded(Some(guard));
    let (mut lines, mut point, mut number) = (Lines::new(body, DIALECT), Point::default(), 0);
    while intake.take_known(&mut lines).is_ok() {
        match lines.next(&mut point) {
            Some(Ok(line)) if intake.take_line(line, &mut point, String::new).is_ok() => {
                number = line
            }
            _ => break,
        }
    }
    match intake.finish(true) {
        taken if number > 0 && taken.verdict.rejected.is_empty() => {
            taken.chunks.iter().map(|chunk| chunk.points as usize).sum()
        }
        _ => 0,
    }
}

/// As many bodies of this length as the bytes make, each as it comes from a socket, into memory that
/// is given back.
fn taken_in(bytes: &[u8], length: usize) -> usize {
    let budget = Budget::new(1 << 30);
    let caps = BodyCaps { wire: 64 << 20, decoded: 64 << 20, ratio: 100 };
    let take = |body: &[u8]| {
        let mut inflate = Inflate::new(Encoding::Identity, caps, budget.reserve(0)?)?;
        body.chunks(4 << 10).try_for_each(|part| inflate.push(part))?;
        inflate.finish().map(|(body, _)| body.len())
    };
    let taken: Result<usize, Refusal> = bytes.chunks(length).map(take).sum();
    if taken == Ok(bytes.len()) { POINTS } else { 0 }
}

/// As the gateway does it, into memory that grows.
fn inflate(zipped: &[u8], length: usize) -> usize {
    let mut decoder = MultiGzDecoder::new(Vec::new());
    let whole = zipped.chunks(4 << 10).all(|part| decoder.write_all(part).is_ok());
    match decoder.finish() {
        Ok(body) if whole && body.len() == length => POINTS,
        _ => 0,
    }
}
