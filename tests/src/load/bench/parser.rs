//! Line protocol through our parser and writer, by CPU time of one thread.

use anyhow::{Result, ensure};
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
    let mut chunker = Chunker::new("tenant", 0, 512 << 10);
    let (mut lines, mut point) = (Lines::new(body, DIALECT), Point::default());
    while let Some(Ok(_)) = lines.next(&mut point) {
        if chunker.push(&mut point).is_err() {
            break;
        }
    }
    chunker.finish().iter().map(|chunk| chunk.points as usize).sum()
}
