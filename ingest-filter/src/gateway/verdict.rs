//! What became of the points of a request that was read: one internal outcome for all dialects.

use std::collections::BTreeMap;

use crate::fault::Fault;
use crate::intake::Kind;

/// How many bad points are described in an answer; all are counted.
pub const DESCRIBED_MAX: usize = 100;

/// How many bytes of a bad line an answer repeats.
pub const EXCERPT_BYTES_MAX: usize = 128;

/// The points of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many are in the journal.
    pub stored: u64,
    /// The same by kind.
    stored_by_kind: [u64; 3],
    /// How many good ones are not, because the client wants all or none.
    withheld: u64,
    /// How many are not, by fault.
    pub rejected: BTreeMap<Fault, u64>,
    /// The first of those.
    pub described: Vec<Rejection>,
}

/// One bad point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The line from 1, or the data point's place in the request from 1.
    pub position: u64,
    /// The byte of the line from 1; 0 where the whole point is meant.
    pub column: usize,
    /// What is wrong.
    pub fault: Fault,
    /// What the fault alone does not say, or nothing.
    pub detail: String,
    /// The beginning of the line, for the dialect that repeats it.
    pub excerpt: String,
}

impl Rejection {
    /// Of an item of which no more is shown.
    pub fn of(position: u64, fault: Fault, detail: String) -> Self {
        Self { position, column: 0, fault, detail, excerpt: String::new() }
    }

    /// What is wrong, in words.
    pub fn reason(&self) -> String {
        match self.detail.is_empty() {
            true => self.fault.to_string(),
            false => format!("{}: {}", self.fault, self.detail),
        }
    }
}

impl Verdict {
    /// Counts a bad point, and describes it while there is room.
    pub fn reject(&mut self, fault: Fault, describe: impl FnOnce() -> Rejection) {
        *self.rejected.entry(fault).or_default() += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(describe());
        }
    }

    /// Counts a good point.
    pub fn count(&mut self, kind: Kind) {
        self.stored += 1;
        self.stored_by_kind[kind as usize] += 1;
    }

    /// How many of this kind are in the journal.
    pub fn stored_of(&self, kind: Kind) -> u64 {
        self.stored_by_kind[kind as usize]
    }

    /// The good points are not stored either.
    pub fn withhold(&mut self) {
        self.withheld = std::mem::take(&mut self.stored);
        self.stored_by_kind = [0; 3];
    }

    /// How many points are bad.
    pub fn rejected_count(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// One sentence for a client: how many are bad, and what is wrong with the first.
    pub fn message(&self, item: &str) -> String {
        let bad = self.rejected_count();
        let all = bad + self.stored + self.withheld;
        let mut message = match self.withheld {
            0 => format!("{bad} of {all} {item}s not stored"),
            _ => format!("{all} of {all} {item}s not stored, {bad} of them bad"),
        };
        for (index, rejection) in self.described.iter().enumerate() {
            let separator = if index == 0 { ':' } else { ';' };
            message += &match rejection.column {
                0 => format!("{separator} {item} {}: {}", rejection.position, rejection.reason()),
                column => format!(
                    "{separator} {item} {} byte {column}: {}",
                    rejection.position,
                    rejection.reason()
                ),
            };
        }
        if bad > self.described.len() as u64 {
            message += &format!("; and {} more", bad - self.described.len() as u64);
        }
        message
    }
}
