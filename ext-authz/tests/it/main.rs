//! The service as a whole: over TCP, through its files, and through its binary.

mod agents;
mod bad_files;
mod bootstrap;
mod cli;
mod documents;
mod memory;
mod redis;
mod redis_faults;
mod redis_server;
mod redis_topologies;
mod rig;
mod tls;
mod wire;
