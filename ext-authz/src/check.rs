//! The decision, in pure code: a request, the keys in force and the time go in, an answer comes
//! out. Nothing here knows gRPC, files or clocks.
//!
//! ```text
//! request ─► extract (exactly one credential) ─► Presented::parse (grammar, CRC)
//!         ─► Keyring::find (one HMAC, constant time) ─► status, time, network, scope ─► Decision
//! Decision ─► answer (status, headers and body in the caller's dialect)
//! ```

pub mod abuse;
pub mod answer;
pub mod builder;
pub mod decide;
pub mod digest;
pub mod extract;
pub mod feed;
pub mod kept;
pub mod key;
pub mod key_set;
pub mod keyring;
pub mod network;
pub mod profile;
pub mod record;
pub mod table;
