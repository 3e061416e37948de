//! Process plumbing that all Tidegate binaries share: configuration loading, telemetry, the
//! admin listener, readiness, reload of watched files, and an orderly end.
//!
//! The crate knows nothing of requests, tenants or limits. What it offers is the life of a
//! process:
//!
//! ```text
//! telemetry ─► config (bad: exit 64) ─► bind ─► serve + admin ─► ready
//!                                                                 │ SIGTERM
//!              exit 0 ◄─ flush ◄─ streams end ◄─ stop accepting ◄─┴ not ready, drain delay
//! ```

pub mod admin;
pub mod build_info;
pub mod causes;
pub mod config;
pub mod connections;
pub mod drain;
pub mod grpc;
pub mod http;
pub mod process;
pub mod readiness;
pub mod reload;
pub mod telemetry;
pub mod tls;
