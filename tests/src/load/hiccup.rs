//! How long the machine itself kept threads waiting that had next to nothing to do: one thread on
//! each processor sleeps for a moment, again and again, and notes when it was woken late. Waits of
//! requests in that time say nothing of the servers.
//!
//! ```text
//!  due        ●    ●    ●    ●    ●
//!  woken      ●    ●    ├──────►●   ●      a hiccup: from when it was due to when it ran
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

/// How long a thread sleeps.
const NAP: Duration = Duration::from_millis(1);
/// Woken this much too late, it was kept waiting.
const LATE: Duration = Duration::from_millis(1);
/// The most hiccups of one processor that are kept.
const KEPT_MAX: usize = 100_000;

/// A time in which a processor was not to be had, from the start of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hiccup {
    /// When a thread wanted to run.
    pub from: Duration,
    /// When it did.
    pub until: Duration,
}

/// Threads that look for hiccups until they are asked what they saw.
pub struct Meter {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Hiccup>>>,
}

impl Meter {
    /// Begins to look on every processor that this process may use.
    pub fn start(began: Instant) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let ours = rustix::thread::sched_getaffinity(None).unwrap_or_default();
        let processors = (0..CpuSet::MAX_CPU).filter(|processor| ours.is_set(*processor));
        let threads = processors.map(|processor| {
            let done = done.clone();
            std::thread::spawn(move || look(processor, began, &done))
        });
        Self { threads: threads.collect(), done }
    }

    /// All hiccups so far, by their beginning; those that overlap are one.
    pub fn finish(self) -> Vec<Hiccup> {
        self.done.store(true, Ordering::Relaxed);
        let seen = self.threads.into_iter().filter_map(|thread| thread.join().ok());
        merged(seen.flatten().collect())
    }
}

fn look(processor: usize, began: Instant, done: &AtomicBool) -> Vec<Hiccup> {
    let mut set = CpuSet::new();
    set.set(processor);
    // Where threads may not choose, the scheduler does, and fewer hiccups are seen.
    let _ = rustix::thread::sched_setaffinity(None, &set);
    let mut seen = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let due = began.elapsed() + NAP;
        std::thread::sleep(NAP);
        let woken = began.elapsed();
        if woken > due + LATE && seen.len() < KEPT_MAX {
            seen.push(Hiccup { from: due, until: woken });
        }
    }
    seen
}

fn merged(mut hiccups: Vec<Hiccup>) -> Vec<Hiccup> {
    hiccups.sort_by_key(|hiccup| hiccup.from);
    let mut merged: Vec<Hiccup> = Vec::with_capacity(hiccups.len());
    for hiccup in hiccups {
        match merged.last_mut() {
            Some(last) if hiccup.from <= last.until => last.until = last.until.max(hiccup.until),
            _ => merged.push(hiccup),
        }
    }
    merged
}

/// What remains of a wait without the hiccups in it, which are in order and apart.
pub fn without(hiccups: &[Hiccup], from: Duration, until: Duration) -> Duration {
    let first = hiccups.partition_point(|hiccup| hiccup.until <= from);
    let inside = hiccups[first..].iter().take_while(|hiccup| hiccup.from < until);
    let lost: Duration = inside.map(|hiccup| hiccup.until.min(until) - hiccup.from.max(from)).sum();
    until.saturating_sub(from).saturating_sub(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn hiccup(from: u64, until: u64) -> Hiccup {
        Hiccup { from: MS(from), until: MS(until) }
    }

    #[test]
    fn hiccups_of_several_processors_that_overlap_are_one() {
        let seen = vec![hiccup(50, 60), hiccup(10, 20), hiccup(12, 15), hiccup(20, 22)];
        assert_eq!(merged(seen), [hiccup(10, 22), hiccup(50, 60)]);
    }

    #[test]
    fn only_what_lies_within_a_wait_is_taken_off_it() {
        let hiccups = [hiccup(10, 22), hiccup(50, 60)];
        for (from, until, rest) in
            [(0, 10, 10), (0, 15, 10), (12, 14, 0), (22, 50, 28), (20, 55, 28), (0, 100, 78)]
        {
            assert_eq!(without(&hiccups, MS(from), MS(until)), MS(rest), "{from} to {until}");
        }
        assert_eq!(without(&[], MS(3), MS(7)), MS(4));
    }

    #[test]
    fn a_meter_sees_every_processor_and_ends() {
        let began = Instant::now();
        let meter = Meter::start(began);
        assert!(!meter.threads.is_empty());
        std::thread::sleep(MS(5));
        let seen = meter.finish();
        assert!(seen.iter().all(|hiccup| hiccup.from < hiccup.until));
        assert!(seen.windows(2).all(|two| two[0].until < two[1].from));
    }
}
