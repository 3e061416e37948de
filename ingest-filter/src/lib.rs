//! The ingest path: a gateway that accepts telemetry and journals it, and a writer that carries it
//! from the journal into InfluxDB.
//!
//! ```text
//! HTTP, gRPC ─► gateway: decode ─► points ─► canonical line protocol ─► journal (disk | Kafka)
//!                                                                           │
//! InfluxDB | file ◄─ writer: batch, write, bisect what is refused ◄─────────┘
//! ```
//!
//! The two roles run apart and meet only in the journal. [`record`] is what passes between them.

pub mod command;
pub mod config;
pub mod datadog;
pub mod destination;
pub mod fault;
pub mod gateway;
pub mod histogram;
pub mod intake;
pub mod journal;
pub mod line_protocol;
pub mod otlp;
pub mod point;
pub mod record;
pub mod remote_write;
pub mod rules;
mod secret;
pub mod signal;
pub mod target;
pub mod types;
pub mod wire;
pub mod writer;
