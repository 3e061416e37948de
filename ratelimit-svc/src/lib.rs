//! The rate-limit service: Envoy's `envoy.service.ratelimit.v3` with quotas from YAML files and
//! counters in memory or Redis.
//!
//! ```text
//! grpc, json ─► limiter ─► decide::plan ─► store (guarded by outage) ─► decide::conclude
//!                 ▲
//!   quota files ──┤ followed, checked and swapped by `reload`
//! control plane ──┘ asked by `xds`
//! ```
//!
//! `limits`, `decide`, `diff`, `lint`, `outage::breaker`, `clock::offset`, `store::split`, `store::key` and
//! `store::redis::slots` are pure: they do no I/O and are given the time.

pub mod cli;
pub mod clock;
pub mod config;
pub mod decide;
pub mod diff;
pub mod grpc;
pub mod json;
pub mod keyed_hash;
pub mod lease;
pub mod limiter;
pub mod limits;
pub mod lint;
pub mod metrics;
pub mod outage;
mod reflection;
pub mod reload;
pub mod server;
pub mod store;
pub mod xds;
