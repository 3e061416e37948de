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
//! Files import from their own part and from parts below, as tidy/arrows.rs holds:
//!
//! ```text
//! cli ► server ► config ► console, grpc, json, reflection, tenant_page ► xds ► reload ► import, limiter, simulate ► outage
//!     ► metrics ► store ► explain, lease, live, record ► decide, diff, lint ► limits
//!     ► clock, document, keyed_hash, struct_json
//! ```
//!
//! What is pure, does no I/O and is given the time: `limits`, `decide`, `diff`, `lint`, `lease`, `live`, and of
//! `store` and `outage` what PURE in tidy/main.rs names.

pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod decide;
pub mod diff;
pub mod document;
pub mod explain;
pub mod grpc;
mod html;
pub mod import;
pub mod json;
pub mod keyed_hash;
pub mod lease;
pub mod limiter;
pub mod limits;
pub mod lint;
pub mod live;
pub mod metrics;
pub mod outage;
pub mod record;
mod reflection;
pub mod reload;
pub mod server;
pub mod simulate;
pub mod store;
pub mod struct_json;
pub mod tenant_page;
pub mod xds;
