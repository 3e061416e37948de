//! The requests of one second and one part of the threads, counted by shape. Bounded in rows and in
//! bytes: when it is full, the least of a few rows goes to `other` and a newcomer takes its place, so
//! what comes often stays apart and exact, and what is rare is counted together.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use crate::decide::decision::Decision;
use crate::decide::plan::Plan;
use crate::decide::request::Request;
use crate::keyed_hash::KeyedState;
use crate::limits::stats::Reason;
use crate::record::shape::encode;

/// Bytes of all shapes of a table, by row.
const SHAPE_BYTES_A_ROW: usize = 256;
/// Rows of which the least gives way.
const SAMPLE: usize = 8;
/// Different ways in which one row is refused; more are counted with the last.
pub const REFUSALS_MAX: usize = 8;

/// Which rule refused a request, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The rule's name in metrics; empty for a limit without a name.
    pub rule: &'a str,
    /// Why.
    pub reason: Reason,
}

impl<'a> Refused<'a> {
    /// The first descriptor that is over its limit.
    pub fn of(plan: &'a Plan<'_>, decision: &Decision) -> Self {
        let over = decision.outcomes.iter().find(|outcome| outcome.over_limit);
        let rule = |descriptor: usize| plan.lines.get(descriptor)?.metric_id();
        Self {
            rule: over.and_then(|outcome| rule(outcome.descriptor)).unwrap_or_default(),
            reason: over.map_or(Reason::OverLimit, |outcome| outcome.reason),
        }
    }
}

/// Requests that one rule refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule's name in metrics.
    pub rule: Box<str>,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub requests: u64,
}

/// What is counted of the requests that have no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Other {
    /// How many requests.
    pub requests: u64,
    /// How many of them were refused.
    pub refused: u64,
}

/// The requests of one shape in one second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    hash: u64,
    /// Where the shape stands.
    shape: (usize, usize),
    /// Where the hits of its descriptors stand.
    hits: (usize, usize),
    /// How many requests.
    pub requests: u64,
    /// Milliseconds within the second of the first request and of the last.
    pub milliseconds: (u16, u16),
    /// What was refused.
    pub refusals: Vec<Refusal>,
}

/// Requests of one second by shape.
pub struct Table {
    second: Option<u64>,
    rows: Vec<Row>,
    rows_max: usize,
    index: HashMap<u64, u32, BuildHasherDefault<AlreadyHashed>>,
    shapes: Vec<u8>,
    hits: Vec<u64>,
    scratch: Vec<u8>,
    hasher: KeyedState,
    sampled: usize,
    /// What has no row.
    pub other: Other,
}

impl Table {
    /// An empty table of at most `rows_max` rows.
    pub fn new(rows_max: usize) -> Self {
        Self {
            second: None,
            rows: Vec::new(),
            rows_max,
            index: HashMap::default(),
            shapes: Vec::new(),
            hits: Vec::new(),
            scratch: Vec::new(),
            hasher: KeyedState::default(),
            sampled: 0,
            other: Other::default(),
        }
    }

    /// The second that is counted, once one is.
    pub fn second(&self) -> Option<u64> {
        self.second
    }

    /// The most rows.
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Begins to count a second, in an empty table.
    pub fn begin(&mut self, second: u64) {
        self.second = Some(second);
    }

    /// Forgets everything, and keeps the memory for the next second.
    pub fn clear(&mut self) {
        self.second = None;
        self.rows.clear();
        self.index.clear();
        self.shapes.clear();
        self.hits.clear();
        self.other = Other::default();
    }

    /// Counts a request of `class`.
    pub fn add(
        &mut self,
        request: &Request<'_>,
        class: &str,
        refused: Option<Refused<'_>>,
        millisecond: u16,
    ) {
        if !encode(request, class, &mut self.scratch) {
            self.other.requests += 1;
            self.other.refused += u64::from(refused.is_some());
            return;
        }
        let hash = self.hasher.hash_one(Bytes(&self.scratch));
        let found = self.index.get(&hash).copied();
        let at = found.map(|at| at as usize).or_else(|| self.insert(hash, request, millisecond));
        let Some(at) = at.filter(|at| *self.shape(&self.rows[*at]) == *self.scratch) else {
            self.other.requests += 1;
            self.other.refused += u64::from(refused.is_some());
            return;
        };
        let row = &mut self.rows[at];
        row.requests += 1;
        row.milliseconds.0 = row.milliseconds.0.min(millisecond);
        row.milliseconds.1 = row.milliseconds.1.max(millisecond);
        if let Some(refused) = refused {
            row.refuse(refused);
        }
        let sums = &mut self.hits[row.hits.0..row.hits.1];
        for (sum, descriptor) in sums.iter_mut().zip(&request.descriptors) {
            *sum = sum.saturating_add(request.hits(descriptor));
        }
    }

    /// A row for the shape that was just encoded, if there is room or the least of a few can go.
    fn insert(&mut self, hash: u64, request: &Request<'_>, millisecond: u16) -> Option<usize> {
        let (length, descriptors) = (self.scratch.len(), request.descriptors.len());
        let has_room = self.shapes.len() + length <= self.rows_max * SHAPE_BYTES_A_ROW;
        let least = if self.rows.len() < self.rows_max { None } else { Some(self.least()) };
        // Space of a row that goes is used again where the newcomer fits.
        let space = least.map(|at| &self.rows[at]).filter(|row| {
            row.shape.1 - row.shape.0 >= length && row.hits.1 - row.hits.0 >= descriptors
        });
        let (shape, hits) = match space {
            Some(row) => (row.shape.0, row.hits.0),
            None if has_room => (self.shapes.len(), self.hits.len()),
            None => return None,
        };
        let (shape, hits) = ((shape, shape + length), (hits, hits + descriptors));
        self.shapes.resize(self.shapes.len().max(shape.1), 0);
        self.shapes[shape.0..shape.1].copy_from_slice(&self.scratch);
        self.hits.resize(self.hits.len().max(hits.1), 0);
        self.hits[hits.0..hits.1].fill(0);
        let milliseconds = (millisecond, millisecond);
        let row = Row { hash, shape, hits, requests: 0, milliseconds, refusals: Vec::new() };
        let at = match least {
            Some(at) => {
                let gone = std::mem::replace(&mut self.rows[at], row);
                self.index.remove(&gone.hash);
                self.other.requests += gone.requests;
                self.other.refused += gone.refused();
                at
            }
            None => {
                self.rows.push(row);
                self.rows.len() - 1
            }
        };
        self.index.insert(hash, at as u32);
        Some(at)
    }

    /// The row with the fewest requests of a few that come next.
    fn least(&mut self) -> usize {
        let length = self.rows.len();
        let sample = (0..SAMPLE.min(length)).map(|offset| (self.sampled + offset) % length);
        let least = sample.min_by_key(|at| self.rows[*at].requests).unwrap_or(0);
        self.sampled = (self.sampled + SAMPLE) % length;
        least
    }

    /// The rows so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The bytes of a row's shape.
    pub fn shape(&self, row: &Row) -> &[u8] {
        &self.shapes[row.shape.0..row.shape.1]
    }

    /// The hits of a row, one sum for each descriptor.
    pub fn hits(&self, row: &Row) -> &[u64] {
        &self.hits[row.hits.0..row.hits.1]
    }

    /// All requests, with and without a row.
    pub fn requests(&self) -> u64 {
        self.other.requests + self.rows.iter().map(|row| row.requests).sum::<u64>()
    }
}

impl Row {
    fn refuse(&mut self, refused: Refused<'_>) {
        let same =
            |refusal: &Refusal| refusal.reason == refused.reason && *refusal.rule == *refused.rule;
        let known = self.refusals.iter().position(same);
        let known = known.or((self.refusals.len() == REFUSALS_MAX).then_some(REFUSALS_MAX - 1));
        match known {
            Some(at) => self.refusals[at].requests += 1,
            None => {
                let Refused { rule, reason } = refused;
                self.refusals.push(Refusal { rule: rule.into(), reason, requests: 1 });
            }
        }
    }

    /// How many requests were refused.
    pub fn refused(&self) -> u64 {
        self.refusals.iter().map(|refusal| refusal.requests).sum()
    }
}

/// Bytes that hash in one go.
struct Bytes<'a>(&'a [u8]);

impl std::hash::Hash for Bytes<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(self.0);
    }
}

/// What is looked up is a hash itself.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
