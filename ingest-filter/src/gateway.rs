//! The gateway role.

pub mod config;
