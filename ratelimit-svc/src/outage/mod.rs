//! What happens while the store is out of reach: when to stop asking it, when to ask again, and
//! what requests are answered meanwhile.

pub mod breaker;
pub mod gate;
pub mod guard;
pub mod local;
pub mod owed;
pub mod ramp;
pub mod replicas;
pub mod share;
pub mod unavailable;
