//! What to answer, as values in and values out. Pure: no I/O, no clock, no transport.
//!
//! ```text
//! request ─► plan ─► hits to count ─┐
//!              │                    │ the store settles them by their algorithm
//!              └────► conclude ◄────┘ counts
//!                        │
//!                        ▼
//!                     decision
//! ```

pub mod algorithm;
pub mod conclude;
pub mod decision;
pub mod headers;
pub mod hit;
pub mod key;
pub mod metadata;
pub mod plan;
pub mod refusal;
pub mod request;
pub mod reserve;
pub mod settings;
pub mod settle;
pub mod standing;
pub mod trial;
