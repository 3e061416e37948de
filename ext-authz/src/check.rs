//! The decision, in pure code: a request, the keys in force and the time go in, an answer comes
//! out. Nothing here knows gRPC, files or clocks.
//!
//! ```text
//! request ─► extract (exactly one credential) ─► ApiKey::parse (grammar, CRC)
//!         ─► Snapshot::find (one HMAC, constant time) ─► revoked? expired? scope? ─► Decision
//! Decision ─► answer (status, headers and body in the caller's dialect)
//! ```

pub mod answer;
pub mod decide;
pub mod digest;
pub mod extract;
pub mod key;
pub mod profile;
pub mod record;
pub mod snapshot;
