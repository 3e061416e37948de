//! The ingest path on its real parts: both journals under one contract, and the writer on files,
//! on InfluxDB and on a fake that fails on demand.

#![allow(clippy::unwrap_used)]

mod contract;
mod disk;
mod support;
mod writer_file;
