//! A server that lost its data: how that is found out, and how its counters are restored. What a loss
//! means for leases is `lease::loss`.

pub mod epoch;
pub mod restore;
