//! The service as a whole: over TCP, through its files, and through its binary.

mod agents;
mod bootstrap;
mod cli;
mod documents;
mod rig;
mod tls;
mod wire;
