//! ext-authz: answers Envoy's question "who is calling?" from API keys.
//!
//! ```text
//! CheckRequest ─► service::request ─► check::decide(now, keys, request) ─► service::response ─► CheckResponse
//!                                            ▲
//!   keys files ─► source::file ─► key_file ─┐           │
//!   Redis ──────► source::redis ────────────┴► keys (the keyring in force)
//!     ▲
//!   cli ─► store
//! ```
//!
//! Everything that decides is in [`check`], [`key_file`], [`names`] and [`admin`]: pure, synchronous,
//! told the time. [`keys`] holds what is in force, which [`source`] follows, [`service`] speaks
//! Envoy's gRPC, [`server`] is the process around them, and [`cli`] changes keys in a [`store`].

pub mod admin;
pub mod check;
pub mod cli;
pub mod config;
pub mod key_file;
pub mod keys;
pub mod metrics;
pub mod names;
pub mod peppers;
pub mod server;
pub mod service;
pub mod source;
pub mod store;
pub mod timestamp;
