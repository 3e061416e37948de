//! Line protocol through our parser and writer, by CPU time of one thread; and through the crate
//! `influxdb-line-protocol` on the same bytes, where `LINE_PROTOCOL_PEER` names the program built
//! from tests/peers/line-protocol.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ingest_filter::line_protocol::{Dialect, Lines, Precision};
use ingest_filter::point::{Chunker, Point};

use super::Context;
use super::results::Aim;
use crate::load::cpu;
use crate::load::message::lines;

const POINTS: usize = 5_000;

/// Runs the stage.
///
/// # Errors
/// When a line that is good was not read.
pub fn measure(cx: &mut Context) -> Result<()> {
    let body = lines(1, POINTS, 1_700_000_000_000_000_000);
    let times = if cx.quick { 20 } else { 100 };
    match std::env::var_os("LINE_PROTOCOL_PEER") {
        Some(program) => peer(cx, &PathBuf::from(program), &body, times)?,
        None => {
            let note = "LINE_PROTOCOL_PEER is not set: no figure of influxdb-line-protocol";
            cx.results.notes.push(note.to_owned());
        }
    }
    let parse = || parse(&body);
    let whole = || parse_and_write(&body);
    let mut samples: [Vec<f64>; 2] = Default::default();
    for round in 0..cx.rounds() {
        let mut order: [(usize, &dyn Fn() -> usize); 2] = [(0, &parse), (1, &whole)];
        if round % 2 == 1 {
            order.reverse();
        }
        for (at, read) in order {
            samples[at].push(speed(body.len(), times, read)?);
        }
    }
    let names = ["parsed", "parsed and written anew"];
    for (name, samples) in names.into_iter().zip(&samples) {
        let best = samples.iter().copied().fold(f64::NAN, f64::max);
        cx.results.add(format!("parser/line protocol, {name}"), best, "MB/s a core", Aim::None);
        cx.results.samples.insert(format!("parser/{name}"), serde_json::json!(samples));
    }
    Ok(())
}

/// The peer's best round, by its own account of its CPU.
fn peer(cx: &mut Context, program: &PathBuf, body: &[u8], times: usize) -> Result<()> {
    let file = super::rig::stage_dir(&cx.dir, "parser")?.join("body.lp");
    std::fs::write(&file, body)?;
    let numbers = [POINTS, times, cx.rounds()].map(|number| number.to_string());
    let output = Command::new(program).arg(&file).args(numbers).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", program.display(), error.trim());
    let text = String::from_utf8(output.stdout).context("the peer's output")?;
    let samples: Result<Vec<f64>, _> = text.lines().map(str::parse).collect();
    let samples = samples.context("the peer prints numbers")?;
    let best = samples.iter().copied().fold(f64::NAN, f64::max);
    let name = "parser/line protocol, parsed by influxdb-line-protocol 2";
    cx.results.add(name, best, "MB/s a core", Aim::None);
    cx.results.samples.insert(name.to_owned(), serde_json::json!(samples));
    Ok(())
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

fn parse(body: &[u8]) -> usize {
    let (mut lines, mut point, mut points) = (Lines::new(body, DIALECT), Point::default(), 0);
    while let Some(Ok(_)) = lines.next(&mut point) {
        points += 1;
    }
    points
}

fn parse_and_write(body: &[u8]) -> usize {
    let mut chunker = Chunker::new(0, 0, 512 << 10);
    let (mut lines, mut point) = (Lines::new(body, DIALECT), Point::default());
    while let Some(Ok(_)) = lines.next(&mut point) {
        if chunker.push(&mut point).is_err() {
            break;
        }
    }
    chunker.finish().iter().map(|chunk| chunk.points as usize).sum()
}
