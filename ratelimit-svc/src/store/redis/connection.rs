//! Connections to one server: where it is, how they are made and shared among threads, how long a call
//! may take, and what the server means when it refuses. Knows no other server.

pub mod address;
pub mod asking;
pub mod connections;
pub mod connector;
pub(crate) mod deadlines;
pub(in crate::store) mod refusal;
pub mod tls;
