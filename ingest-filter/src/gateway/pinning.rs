//! Pins the types of new fields before any point of them is stored: requests that bring some at
//! the same time share one append to the log of pins.
//!
//! ```text
//! request ─ cpu usage float ─┐              ┌ append once, read back ┐
//! request ─ cpu usage float ─┼─► queue ──►  │                        │ ──► ours │ another type
//! request ─ mem used integer ┘              └────────────────────────┘
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chassis::readiness::{Readiness, Vital};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::journal::AppendError;
use crate::journal::pins::PinLog;
use crate::types::{Pin, Types};

/// How many requests with new fields may wait.
pub const QUEUE_MAX: usize = 1024;
/// How many requests share an append.
pub const BATCH_MAX: usize = 256;

/// The types of fields, and how new ones are pinned.
pub struct Pinning {
    types: Arc<Types>,
    queue: mpsc::Sender<Asked>,
    worker: JoinHandle<()>,
}

/// What became of the pins of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// They are in force for every gateway, and durable.
    Ours,
    /// Another request pinned one of the fields to another type at the same time.
    Others,
    /// Too many requests with new fields wait already, or this one did for too long.
    Full,
    /// The log did not confirm.
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

struct Asked {
    pins: Vec<Pin>,
    answer: oneshot::Sender<Pinned>,
}

impl Pinning {
    /// Begins to serve; `log` hands what it has to `types`. Must run inside a tokio runtime.
    pub fn new(types: Arc<Types>, log: Arc<dyn PinLog>, readiness: &Readiness) -> Self {
        let (queue, asked) = mpsc::channel(QUEUE_MAX);
        let vital = readiness.vital("pinning the types of fields");
        let worker = tokio::spawn(work(types.clone(), log, asked, vital));
        Self { types, queue, worker }
    }

    /// The types in force.
    pub fn types(&self) -> &Arc<Types> {
        &self.types
    }

    /// Makes the types of new fields durable, or says that they are not. Nothing of a request
    /// may be stored before.
    pub async fn pin(&self, pins: Vec<Pin>) -> Pinned {
        if pins.is_empty() {
            return Pinned::Ours;
        }
        let (answer, answered) = oneshot::channel();
        match self.queue.try_send(Asked { pins, answer }) {
            Ok(()) => answered.await.unwrap_or(Pinned::Full),
            Err(_) => Pinned::Full,
        }
    }
}

impl Drop for Pinning {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

async fn work(
    types: Arc<Types>,
    log: Arc<dyn PinLog>,
    mut asked: mpsc::Receiver<Asked>,
    _vital: Vital,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while asked.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // Who went away meanwhile pins nothing.
        batch.retain(|asked: &Asked| !asked.answer.is_closed());
        let new = new_pins(&types, &batch);
        let stored = if new.is_empty() { Ok(()) } else { log.append(new).await };
        for Asked { pins, answer } in batch.drain(..) {
            let _ = answer.send(outcome(&types, &pins, &stored));
        }
    }
}

/// What is not pinned yet; of several types of a field the first.
fn new_pins(types: &Types, batch: &[Asked]) -> Vec<Pin> {
    let mut seen = HashSet::new();
    let all = batch.iter().flat_map(|asked| &asked.pins);
    all.filter(|pin| types.pinned(pin).is_none())
        .filter(|pin| seen.insert((&*pin.destination, &*pin.measurement, &*pin.field)))
        .cloned()
        .collect()
}

fn outcome(types: &Types, pins: &[Pin], stored: &Result<(), AppendError>) -> Pinned {
    // At a bound a field stays without a type.
    let other = |pin: &Pin| types.pinned(pin).is_some_and(|pinned| pinned != pin.field_type);
    match stored {
        _ if pins.iter().any(other) => Pinned::Others,
        Ok(()) => Pinned::Ours,
        Err(_) if pins.iter().all(|pin| types.pinned(pin).is_some()) => Pinned::Ours,
        Err(error) => Pinned::Unavailable { retry_after: error.retry_after() },
    }
}

#[cfg(test)]
mod tests;
