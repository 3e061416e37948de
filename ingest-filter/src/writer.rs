//! The writer role.

pub mod config;
