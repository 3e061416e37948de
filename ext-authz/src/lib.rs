//! ext-authz: answers Envoy's question "who is calling?" from API keys.
//!
//! ```text
//! CheckRequest ─► service::request ─► check::decide(now, keys, request) ─► service::response ─► CheckResponse
//!                                            ▲
//!   keys files ─► source::file ─► key_file ─► keys (keyring, swapped whole)
//! ```
//!
//! Everything that decides is in [`check`], [`key_file`] and [`names`]: pure, synchronous, told the
//! time. [`keys`] follows the files, [`service`] speaks Envoy's gRPC, [`server`] is the process
//! around them, and [`cli`] issues and revokes keys.

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
pub mod timestamp;
