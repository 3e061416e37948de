//! The load generator and the benchmarks: what `tidegate-load` and `make bench` are made of.
//!
//! ```text
//!  traffic (what to send) ─► engine (one thread, poll) ─► wire (HTTP/2, HTTP/1.1) ─► any server
//!  schedule (when)       ─┘          └─► tally (latency, verdicts, windows)
//!  bench: rig (real processes) ─► stages ─► results ─► report (HTML, SVG)
//! ```
//!
//! The generator is one thread without a runtime: it asks for much less CPU than the servers it
//! measures, and it prints how much. It is a client; nothing here decides for a service.

pub mod bench;
pub mod cli;
pub mod cpu;
pub mod echo;
pub mod engine;
pub mod hiccup;
pub mod message;
pub mod print;
pub mod redis_info;
pub mod scenario;
pub mod schedule;
pub mod table;
pub mod tally;
pub mod traffic;
pub mod wire;
