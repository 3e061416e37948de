//! Reads a request's body, decompressing as it arrives, within the caps, the memory budget and
//! the deadline.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::gateway::budget::Reservation;
use crate::gateway::buffer::Buffer;
use crate::gateway::inflate::{BodyCaps, Encoding, Inflate};
use crate::gateway::refusal::{Cap, Refusal};

/// What a request holds besides its body: its task, its headers, a decoder's window; with what it
/// holds from its head to the end of its answer.
pub const REQUEST_BYTES: usize = 64 << 10;

/// How much of the wire is decoded in one go.
const PART_BYTES: usize = 4 << 10;

/// After this much was decoded, other tasks of the thread and other requests of the tenant have their
/// turn.
const YIELD_BYTES: usize = 256 << 10;

/// A body in memory and the reservation that covers it.
pub struct Received {
    /// The decoded body.
    pub bytes: Buffer,
    /// Covers the body; grows with what is made of it.
    pub reservation: Reservation,
    /// Size on the wire.
    pub wire_bytes: usize,
}

/// A body that is there to its end, and may be left to be decoded.
pub struct Arrived {
    /// What has come.
    pub inflate: Inflate,
    /// Size on the wire.
    pub wire_bytes: usize,
}

impl Arrived {
    /// The decoded body.
    ///
    /// # Errors
    /// When a cap is passed, memory is out, or it is not of its encoding.
    pub fn decoded(self) -> Result<Received, Refusal> {
        let (bytes, reservation) = self.inflate.finish()?;
        Ok(Received { bytes, reservation, wire_bytes: self.wire_bytes })
    }
}

/// Reads a body and decompresses it as far as that can be done as it arrives, into memory that is
/// added to `reservation`.
///
/// # Errors
/// When a cap is passed, memory or time is out, or it breaks off.
pub async fn receive(
    encoding: Encoding,
    headers: &HeaderMap,
    mut body: Body,
    caps: BodyCaps,
    reservation: Reservation,
    deadline: Instant,
) -> Result<Arrived, Refusal> {
    let declared = declared_length(headers).unwrap_or(0);
    if declared > caps.wire as u64 {
        return Err(Refusal::BodyTooLarge(Cap::Wire(caps.wire)));
    }
    let mut inflate = Inflate::new(encoding, caps, reservation)?;
    inflate.expect(usize::try_from(declared).unwrap_or(caps.wire))?;
    let wire_bytes = read(&mut body, deadline, &mut inflate).await?;
    Ok(Arrived { inflate, wire_bytes })
}

/// Takes the pieces of a body.
pub trait Pieces {
    /// Takes the next.
    ///
    /// # Errors
    /// When it cannot be taken.
    fn push(&mut self, piece: &[u8]) -> Result<(), Refusal>;

    /// What they have become so far, bytes.
    fn decoded_bytes(&self) -> usize;

    /// When the client should come back if the next does not come in time.
    fn retry_after(&mut self) -> Duration;
}

impl Pieces for Inflate {
    fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        Inflate::push(self, piece)
    }

    fn decoded_bytes(&self) -> usize {
        Inflate::decoded_bytes(self)
    }

    fn retry_after(&mut self) -> Duration {
        Inflate::retry_after(self)
    }
}

/// Hands a body on to its end; gives its size on the wire.
///
/// # Errors
/// When a piece is not taken, or does not come.
pub async fn read(
    body: &mut Body,
    deadline: Instant,
    pieces: &mut impl Pieces,
) -> Result<usize, Refusal> {
    let (mut wire_bytes, mut yielded) = (0, 0);
    while let Some(piece) = next_piece(body, deadline, || pieces.retry_after()).await? {
        wire_bytes += piece.len();
        // A piece may decode into a thousand times its size, and the connections that share this
        // thread have pings to answer.
        for part in piece.chunks(PART_BYTES) {
            pieces.push(part)?;
            if pieces.decoded_bytes() - yielded >= YIELD_BYTES {
                yielded = pieces.decoded_bytes();
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(wire_bytes)
}

/// The next piece of a body; trailers are passed over. Where none comes in time the client is told
/// when to come back.
///
/// # Errors
/// When it does not come in time, or not at all.
async fn next_piece(
    body: &mut Body,
    deadline: Instant,
    retry_after: impl FnOnce() -> Duration,
) -> Result<Option<bytes::Bytes>, Refusal> {
    loop {
        let Ok(frame) = timeout_at(deadline, body.frame()).await else {
            return Err(Refusal::BodyTimeout { retry_after: retry_after() });
        };
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Refusal::BodyBroken),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
