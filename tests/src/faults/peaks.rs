//! What grows while something is away: memory of each process, what the writer has still to write,
//! and how long it takes to catch up again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::victims::VICTIMS;
use crate::edge::{Edge, Service};
use crate::http::Http;
use crate::load::cpu;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The writer has caught up when the oldest record in its hands is younger, s.
const CAUGHT_UP: f64 = 2.0;

/// The largest values that were seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peaks {
    /// Resident memory by process, bytes.
    pub resident: BTreeMap<&'static str, u64>,
    /// Records that were not written yet, as the writer says.
    pub lag_records: u64,
    /// Age of the oldest record that was not written yet, s.
    pub unwritten_age: f64,
    /// By who was killed, the longest time from its return until the writer had caught up.
    pub caught_up: BTreeMap<&'static str, Duration>,
    /// Who has returned and since when, while the writer is behind.
    behind_since: Option<(&'static str, Instant)>,
}

impl Peaks {
    /// It is about to be started again.
    pub(super) fn returned(&mut self, name: &'static str, now: Instant) {
        self.behind_since = Some((name, now));
    }

    /// Takes in what a writer says of itself.
    fn writer(&mut self, metrics: &str, now: Instant) {
        let gauge = |name: &str| -> Option<f64> {
            let of = |line: &&str| line.split([' ', '{']).next() == Some(name);
            let values =
                metrics.lines().filter(of).map(|line| line.rsplit(' ').next()?.parse().ok());
            // The lag has a line for each topic.
            values.collect::<Option<Vec<f64>>>()?.into_iter().reduce(|a, b| a + b)
        };
        let Some(age) = gauge("ingest_writer_oldest_unwritten_age_seconds") else { return };
        self.unwritten_age = self.unwritten_age.max(age);
        let lag = gauge("ingest_journal_lag_records").unwrap_or(0.0);
        self.lag_records = self.lag_records.max(lag as u64);
        if age < CAUGHT_UP
            && let Some((name, since)) = self.behind_since.take()
        {
            let longest = self.caught_up.entry(name).or_default();
            *longest = (*longest).max(now - since);
        }
    }
}

/// Looks every second, and keeps the largest values.
pub(super) struct Watch {
    pub peaks: Peaks,
    next: Instant,
    http: Http,
}

impl Watch {
    pub fn new() -> Self {
        Self { peaks: Peaks::default(), next: Instant::now(), http: Http::new() }
    }

    /// Looks, when a second has passed since the last time. Who does not run is left out.
    pub async fn look(&mut self, edge: &Edge) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        for (name, part) in VICTIMS {
            let resident = edge.child(part).and_then(|child| cpu::resident_bytes(child.pid()).ok());
            let peak = self.peaks.resident.entry(name).or_default();
            *peak = (*peak).max(resident.unwrap_or(0));
        }
        for writer in edge.replicas(Service::Writer) {
            let page = self.http.get(&format!("http://{}/metrics", writer.admin)).await;
            if let Ok(page) = page {
                self.peaks.writer(&page.text(), now);
            }
        }
    }

    /// Looks again and again until that is over.
    pub async fn during<T>(&mut self, edge: &Edge, over: impl Future<Output = T>) -> T {
        tokio::pin!(over);
        loop {
            tokio::select! {
                ended = &mut over => return ended,
                () = tokio::time::sleep(EVERY) => self.look(edge).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_values_are_kept_and_the_time_to_catch_up() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let page = |age: f64, lag: u64| {
            format!(
                "# HELP ingest_journal_lag_records x\n\
                 ingest_journal_lag_records{{signal=\"metrics\"}} {lag}\n\
                 ingest_journal_lag_records{{signal=\"logs\"}} 0\n\
                 ingest_writer_oldest_unwritten_age_seconds {age}\n"
            )
        };
        let mut peaks = Peaks::default();
        peaks.writer(&page(1.0, 5), at(0));
        assert_eq!(peaks.caught_up.len(), 0, "nobody was away");
        peaks.writer(&page(60.0, 700), at(60));
        peaks.returned("influxdb", at(60));
        peaks.writer(&page(50.0, 300), at(61));
        peaks.writer("", at(62));
        peaks.writer(&page(0.5, 2), at(64));
        peaks.writer(&page(0.0, 0), at(65));
        assert_eq!((peaks.lag_records, peaks.unwritten_age), (700, 60.0));
        assert_eq!(peaks.caught_up, BTreeMap::from([("influxdb", Duration::from_secs(4))]));
    }
}
