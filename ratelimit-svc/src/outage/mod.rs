//! What happens while the store is out of reach: who looks for it, and what requests are answered
//! meanwhile. When to stop asking and when to ask again is `store::breaker`.

pub mod guard;
pub mod local;
pub mod owed;
pub mod replicas;
pub mod share;
pub mod unavailable;
