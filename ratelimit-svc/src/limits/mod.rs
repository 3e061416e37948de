//! What the quota files say: reading them, what is wrong with them, and which rule a descriptor
//! matches. Pure: nothing here does I/O or knows a transport.
//!
//! ```text
//! bytes ─► document ─► file (validated) ─► quotas (all files, per-file last good)
//!                                             │ descriptor
//!                                             ▼
//!                                           tree ─► rule
//! ```

pub mod algorithm;
pub mod class;
pub mod file;
pub mod nearest;
pub mod pattern;
pub mod quotas;
pub mod rule;
pub mod sharing;
pub mod stats;
pub mod tree;
pub mod unit;
