//! The ingest path on its real parts: both journals under one contract, and the writer on files,
//! on InfluxDB and on a fake that fails on demand.

#![allow(clippy::unwrap_used)]

mod canonical;
mod collector;
mod commands;
mod confined;
mod contract;
mod disk;
mod documents;
mod fake_influxdb;
mod faults;
mod full_disk;
mod influxd;
mod kafka;
mod kafka_broker;
mod kafka_mock;
mod kafka_newer;
mod kafka_partitions;
mod memory;
mod one_of_three;
mod outages;
mod pins;
mod process;
mod rebalances;
mod retention;
mod streams;
mod support;
mod target_subjects;
mod targets;
mod victoria;
mod writer_faults;
mod writer_file;
mod writer_influxdb;
