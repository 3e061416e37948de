//! Which servers hold the counters, and which of them has a counter: one server, a master that
//! sentinels watch over, the primaries of a cluster, or two of those.

pub mod cluster;
pub mod give_back;
pub mod link;
pub mod part;
mod ranges;
pub(in crate::store::redis) mod scatter;
pub mod sentinel;
pub mod servers;
pub mod side;
pub mod slots;
