//! The whole edge as one value: what `make run`, `make run-full` and the end-to-end tests start.
//!
//! [`edge::Edge`] composes the real Envoy, our three services as processes, and either embedded
//! parts (memory, disk, file) or the real Redis, Kafka and InfluxDB of [`parts`], on free loopback
//! ports and in a directory of its own. Everything it starts it stops, by process id.

pub mod child;
pub mod demo;
pub mod edge;
pub mod faults;
pub mod http;
pub mod load;
pub mod parts;
pub mod pki;
pub mod ports;
pub mod run;
pub mod steady;
pub mod wait;
