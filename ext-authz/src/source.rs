//! Where keys come from.

pub mod file;
