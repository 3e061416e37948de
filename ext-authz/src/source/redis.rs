//! Keys from Redis: all of them once, then its stream of changes.
//!
//! ```text
//! state    epoch, generation, count      ◄─ written by one script with everything below
//! records  key id ─► record in JSON
//! tenants  name ─► active | suspended
//! changes  stream: 41-0, 42-0, …            an entry is one generation; old ones are trimmed
//! replicas name ─► generation, time         what each service has in force
//! ```
//!
//! A service that is within the stream reads only what changed. One that is not (it is new, it was
//! away for longer than the stream is, or all keys were put in anew) reads everything.

pub mod connect;
pub mod follow;
pub mod scripts;
pub mod server;
pub mod settings;
mod unreadable;
pub mod wire;
pub mod worded;
