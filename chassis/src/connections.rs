//! Who may hold a connection, and for how long: what keeps silent peers from closing a listener
//! for everybody else.
//!
//! ```text
//! accepted ─► silent ──request──► busy ──last answer sent──► idle ──request──► busy …
//!               │ head                │ request                │ idle
//!               ▼                     ▼                        ▼
//!             closed                closed                   closed
//! ```
//!
//! Each state has a time limit. Where a newcomer finds no slot, the connection that has been
//! silent for longest makes room, of the peer that holds the most; a connection with an open
//! request never does. So silence costs only those who are silent.

use std::io;
use std::time::Duration;

mod slots;
pub mod table;

pub use slots::{OpenRequest, Slot, Slots};
pub use table::{Limits, Peer};

/// Pause after a connection that could not be accepted, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What to do when accepting failed: nothing where only that connection is at fault; otherwise
/// the quietest connection makes room, and the listener waits a little.
pub async fn accept_failed(error: &io::Error, slots: &Slots) {
    if is_of_one_connection(error) {
        return;
    }
    tracing::warn!(%error, "cannot accept connections");
    slots.relieve();
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Whether only the connection that was accepted is at fault.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected,
    };
    // Options of a socket whose peer is already gone are refused as invalid.
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected
    )
}
