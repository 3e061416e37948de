//! The service and its stores from outside: over real sockets, with a real Redis.

mod algorithms;
mod bad_input;
mod cli;
mod clock;
mod connections;
mod control_plane;
mod documentation;
mod environment;
mod leases;
mod metrics;
mod outage;
mod outage_cluster;
mod outage_matrix;
mod outage_return;
mod pipelining;
mod priority;
mod redis_parts;
mod reflection;
mod reload;
mod store;
mod support;
mod tls;
mod topologies;
mod trace;
mod wire;
mod xds;
