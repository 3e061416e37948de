//! The service and its stores from outside: over real sockets, with a real Redis.

mod algorithms;
mod bad_input;
mod cli;
mod connections;
mod control_plane;
mod documentation;
mod environment;
mod metrics;
mod outage;
mod priority;
mod reflection;
mod reload;
mod store;
mod support;
mod tls;
mod trace;
mod wire;
mod xds;
