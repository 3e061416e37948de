//! The gateway's intake: what decoders hand on becomes chunks, within the memory, the work and the
//! time of the request. Knows no protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use crate::fault::Fault;
use crate::gateway::budget::Reservation;
use crate::gateway::refusal::{Cap, Refusal};
use crate::gateway::verdict::{Rejection, Verdict};
use crate::intake::{Intake, Item, Kind, Stop};
use crate::line_protocol::Lines;
use crate::point::{Chunk, Chunker, FieldValue, Point};
use crate::rules::OtlpRules;
use crate::rules::guard::{self, Guard};
use crate::types::Pin;

/// How many times its decoded size a body may become as canonical line protocol. The tags of a
/// resource or a series are written for each of its points, so work grows faster than a body.
pub const EXPANSION_MAX: u64 = 128;

/// What a body may become whatever its size, bytes.
pub const EXPANSION_FREE_BYTES: u64 = 1 << 20;

/// After so many items it is looked whether anybody still waits.
const ITEMS_A_LOOK: u64 = 256;

/// Takes the items of one request.
pub struct RequestIntake {
    chunker: Chunker,
    /// The tenant's rules. Every point must pass them, whichever way it comes.
    guard: Option<Guard>,
    /// Covers the body and what decoders hold, and in addition the chunks.
    reservation: Reservation,
    chunk_bytes: usize,
    verdict: Verdict,
    position: u64,
    work_left: u64,
    wanted: Wanted,
    refusal: Option<Refusal>,
}

/// Whether the answer to a request is still wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    deadline: Instant,
    given_up: Arc<AtomicBool>,
}

/// Says that nobody waits any more when it is dropped.
pub struct GiveUpOnDrop(Arc<AtomicBool>);

/// What a body was turned into.
pub struct Converted {
    /// The types of new fields, to be pinned before anything is stored.
    pub pins: Vec<Pin>,
    /// What the journal is to store.
    pub chunks: Vec<Chunk>,
    /// What becomes of the points once it has.
    pub verdict: Verdict,
    /// Whether a point had no time of its own.
    pub stamped: bool,
    /// Covers the memory of the chunks.
    pub reservation: Reservation,
    /// New series that the tenant's rules let through without remembering them.
    pub untracked: u64,
}

impl Wanted {
    /// Until `deadline`, or until the second value is dropped.
    pub fn until(deadline: Instant) -> (Self, GiveUpOnDrop) {
        let given_up = Arc::new(AtomicBool::new(false));
        (Self { deadline, given_up: given_up.clone() }, GiveUpOnDrop(given_up))
    }

    fn is_over(&self) -> bool {
        self.given_up.load(Relaxed) || Instant::now() >= self.deadline
    }
}

impl Drop for GiveUpOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl RequestIntake {
    /// An intake for a body of `decoded_bytes`, which `reservation` covers already.
    pub fn new(
        chunker: Chunker,
        decoded_bytes: usize,
        reservation: Reservation,
        wanted: Wanted,
    ) -> Self {
        let work_left = EXPANSION_FREE_BYTES + decoded_bytes as u64 * EXPANSION_MAX;
        let (guard, verdict, position, chunk_bytes, refusal) = Default::default();
        Self {
            chunker,
            guard,
            reservation,
            chunk_bytes,
            verdict,
            position,
            work_left,
            wanted,
            refusal,
        }
    }

    /// Points must pass the rules of their tenant.
    pub fn guarded(mut self, guard: Option<Guard>) -> Self {
        self.chunker.add_tags(guard.as_ref().map_or(&[], Guard::tags));
        Self { guard, ..self }
    }

    /// Takes lines for as long as they look like earlier ones, and pass the rules of the tenant.
    /// One that does not is left for [`RequestIntake::take_line`], which says what is wrong.
    pub fn take_known(&mut self, lines: &mut Lines<'_>) -> Result<(), Stop> {
        loop {
            let (guard, mut hash) = (&mut self.guard, 0);
            let known = lines.next_known_if(self.chunker.shapes(), |line| {
                hash = xxh3_64(line.series);
                guard.as_mut().is_none_or(|guard| guard.admits_known(line, hash))
            });
            let Some(line) = known else { return Ok(()) };
            self.chunker.push_known_of(&line, hash);
            self.verdict.count(Kind::Sample);
            self.spend((line.series.len() + line.fields.len()) as u64)?;
            self.follow_memory()?;
        }
    }

    /// Takes the point of a line.
    pub fn take_line(
        &mut self,
        position: u64,
        point: &mut Point<'_>,
        excerpt: impl FnOnce() -> String,
    ) -> Result<(), Stop> {
        self.spend(work(point))?;
        match self.push(point) {
            Ok(()) => {
                self.chunker.learn(point);
                self.verdict.count(Kind::Sample);
            }
            Err(fault) => self.reject_of(position, fault, excerpt),
        }
        self.follow_memory()
    }

    /// Counts an item that cannot be stored, and describes it while there is room.
    pub fn reject_with(
        &mut self,
        fault: Fault,
        describe: impl FnOnce() -> Rejection,
    ) -> Result<(), Stop> {
        self.verdict.reject(fault, describe);
        self.spend(0)
    }

    /// Why the body was not read to its end; nothing of it is stored.
    pub fn refusal(self, stop: Stop, malformed: Refusal) -> Refusal {
        match stop {
            Stop::Malformed => malformed,
            Stop::Refused => self.refusal.unwrap_or(malformed),
        }
    }

    /// The chunks, when all has been taken; none of them when `accept_partial` is false and an
    /// item was rejected. The body must be gone by now.
    pub fn finish(mut self, accept_partial: bool) -> Converted {
        let stamped = self.chunker.stamped();
        let (pins, chunks) = match accept_partial || self.verdict.rejected.is_empty() {
            true => (self.chunker.take_pins(), self.chunker.finish()),
            false => {
                self.verdict.withhold();
                (Vec::new(), Vec::new())
            }
        };
        self.reservation.shrink_to(if chunks.is_empty() { 0 } else { self.chunk_bytes });
        let untracked = self.guard.as_ref().map_or(0, Guard::untracked);
        let (verdict, reservation) = (self.verdict, self.reservation);
        Converted { pins, chunks, verdict, stamped, reservation, untracked }
    }

    fn reject(&mut self, position: u64, fault: Fault) {
        self.reject_of(position, fault, String::new);
    }

    fn reject_of(&mut self, position: u64, fault: Fault, excerpt: impl FnOnce() -> String) {
        self.verdict.reject(fault, || {
            let ruled = self.guard.as_mut().map(Guard::take_detail).unwrap_or_default();
            let detail = if ruled.is_empty() { self.chunker.detail(fault) } else { ruled };
            Rejection { excerpt: excerpt(), ..Rejection::of(position, fault, detail) }
        });
    }

    /// Adds a point that passes the rules, with the tags that it gets by them.
    fn push(&mut self, point: &mut Point<'_>) -> Result<(), Fault> {
        let Some(guard) = &mut self.guard else { return self.chunker.push(point) };
        let own_tags = point.tags.len();
        let pushed = guard.admit(point).and_then(|()| {
            self.chunker.push_if(point, |point, hash| guard.admit_series(point, hash))
        });
        point.tags.truncate(own_tags);
        pushed
    }

    fn spend(&mut self, work: u64) -> Result<(), Stop> {
        self.position += 1;
        if self.position.is_multiple_of(ITEMS_A_LOOK) && self.wanted.is_over() {
            let retry_after = self.reservation.retry_after();
            return self.refuse(Refusal::Overloaded { retry_after });
        }
        match self.work_left.checked_sub(work) {
            Some(left) => {
                self.work_left = left;
                Ok(())
            }
            None => self.refuse(Refusal::BodyTooLarge(Cap::Expansion(EXPANSION_MAX))),
        }
    }

    fn follow_memory(&mut self) -> Result<(), Stop> {
        let allocated = self.chunker.allocated();
        if allocated > self.chunk_bytes {
            let more = allocated - self.chunk_bytes;
            if let Err(denied) = self.reservation.grow(more) {
                return self.refuse(denied.into());
            }
            self.chunk_bytes = allocated;
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) -> Result<(), Stop> {
        self.refusal = Some(refusal);
        Err(Stop::Refused)
    }
}

impl Intake for RequestIntake {
    fn take(&mut self, kind: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        let position = self.position + 1;
        match item {
            Item::Point(point) => {
                self.spend(work(point))?;
                match self.push(point) {
                    Ok(()) => self.verdict.count(kind),
                    Err(fault) => self.reject(position, fault),
                }
                self.follow_memory()
            }
            Item::Skipped => self.spend(0),
            Item::Rejected(fault) => {
                self.reject(position, fault);
                self.spend(0)
            }
            Item::Unwanted(measurement, fault) => {
                let detail = || guard::of_measurement(measurement);
                self.verdict.reject(fault, || Rejection::of(position, fault, detail()));
                self.spend(0)
            }
        }
    }

    fn otlp_rules(&self) -> OtlpRules {
        self.guard.as_ref().map(Guard::otlp).unwrap_or_default()
    }

    fn point_bytes_max(&self) -> usize {
        self.chunker.shapes().line_bytes_max()
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Stop> {
        match self.reservation.grow(bytes) {
            Ok(()) => Ok(()),
            Err(denied) => self.refuse(denied.into()),
        }
    }
}

/// What it takes to write a point, stored or not: about the bytes of its line.
fn work(point: &Point<'_>) -> u64 {
    let tags: usize = point.tags.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
    let field = |(key, value): &(std::borrow::Cow<'_, str>, FieldValue<'_>)| match value {
        FieldValue::Text(text) => key.len() + text.len() + 4,
        _ => key.len() + 8,
    };
    (point.measurement.len() + tags + point.fields.iter().map(field).sum::<usize>()) as u64
}

#[cfg(test)]
mod tests;
