//! The log of pins: which type each field has, decided once for all gateways and kept over
//! restarts.
//!
//! ```text
//! gateway a ─ cpu usage integer ─┐     ┌────────────────────────┐     ┌─► a: integer
//!                                ├──►  │ cpu usage integer      │ ──► │
//! gateway b ─ cpu usage float ───┘     │ cpu usage float        │     └─► b: integer
//!                                      └────────────────────────┘
//!                                        the first line of a field counts
//! ```
//!
//! It is a topic with one partition that forgets nothing, or a file. Nothing is ever taken out of
//! it: compaction would keep the last line of a field, and the first one counts.

use crate::journal::Append;
use crate::types::Pin;

/// Keeps pins.
pub trait PinLog: Send + Sync + 'static {
    /// Stores pins. When this is `Ok` they are as durable as a record, and
    /// [`Types::restore`](crate::types::Types::restore) was given them and everything that was stored before them, in order:
    /// what the types say now is what all gateways say.
    fn append(&self, pins: Vec<Pin>) -> Append<'_>;
}
