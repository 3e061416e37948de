//! The one message of a unary gRPC request: five bytes of head, then the message.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderName, header};
use tokio::time::Instant;

use crate::gateway::body::{self, Arrived, Pieces, Received};
use crate::gateway::budget::Reservation;
use crate::gateway::hold_time::RETRY_AFTER_MIN;
use crate::gateway::inflate::{BodyCaps, Encoding, Inflate};
use crate::gateway::refusal::{Cap, Refusal};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const HEAD_BYTES: usize = 5;

/// Whether the request says that it is gRPC with protobuf.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value == b"application/grpc"
            || value == b"application/grpc+proto"
            || value.starts_with(b"application/grpc;")
    })
}

/// Reads the message of a request; as [`crate::gateway::body::receive`].
pub async fn receive(
    headers: &HeaderMap,
    mut body: Body,
    caps: BodyCaps,
    reservation: Reservation,
    deadline: Instant,
) -> Result<Arrived, Refusal> {
    let named = headers.get(GRPC_ENCODING).map_or(&b"identity"[..], |value| value.as_bytes());
    let named = Encoding::parse(named).ok_or(Refusal::ContentEncodingUnsupported)?;
    let mut frame = Frame::new(named, caps, reservation);
    body::read(&mut body, deadline, &mut frame).await?;
    frame.arrived()
}

/// A message as it arrives, in pieces of any size.
pub struct Frame {
    named: Encoding,
    caps: BodyCaps,
    head: Vec<u8>,
    wire_bytes: usize,
    stage: Stage,
}

enum Stage {
    /// The head is not complete.
    Head(Option<Reservation>),
    /// So many bytes of the message are still to come.
    Message { inflate: Inflate, left: usize },
}

impl Frame {
    /// A message that may be compressed as `named`; its memory is added to `reservation`.
    pub fn new(named: Encoding, caps: BodyCaps, reservation: Reservation) -> Self {
        let head = Vec::with_capacity(HEAD_BYTES);
        Self { named, caps, head, wire_bytes: 0, stage: Stage::Head(Some(reservation)) }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// When the head is none, a cap is passed, memory is out, the message is not of its encoding,
    /// or there is more than one.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), Refusal> {
        self.wire_bytes += piece.len();
        if let Stage::Head(reservation) = &mut self.stage {
            let taken = piece.len().min(HEAD_BYTES - self.head.len());
            self.head.extend_from_slice(&piece[..taken]);
            piece = &piece[taken..];
            if let Some((encoding, left)) = parse_head(&self.head, self.named, self.caps)?
                && let Some(reservation) = reservation.take()
            {
                let mut inflate = Inflate::new(encoding, self.caps, reservation)?;
                inflate.expect(left)?;
                self.stage = Stage::Message { inflate, left };
            }
        }
        if let Stage::Message { inflate, left } = &mut self.stage {
            let more = Refusal::BodyInvalid("a unary request holds one message");
            *left = left.checked_sub(piece.len()).ok_or(more)?;
            inflate.push(piece)?;
        }
        Ok(())
    }

    /// The whole message.
    ///
    /// # Errors
    /// As [`Frame::push`], and when the message is not complete.
    pub fn finish(self) -> Result<Received, Refusal> {
        self.arrived()?.decoded()
    }

    fn arrived(self) -> Result<Arrived, Refusal> {
        match self.stage {
            Stage::Message { inflate, left: 0 } => {
                Ok(Arrived { inflate, wire_bytes: self.wire_bytes })
            }
            _ => Err(Refusal::BodyInvalid("the message is not complete")),
        }
    }
}

impl Pieces for Frame {
    fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        Frame::push(self, piece)
    }

    fn decoded_bytes(&self) -> usize {
        match &self.stage {
            Stage::Head(_) => 0,
            Stage::Message { inflate, .. } => inflate.decoded_bytes(),
        }
    }

    fn retry_after(&mut self) -> Duration {
        match &mut self.stage {
            Stage::Head(reservation) => {
                reservation.as_ref().map_or(RETRY_AFTER_MIN, Reservation::retry_after)
            }
            Stage::Message { inflate, .. } => inflate.retry_after(),
        }
    }
}

/// How the message is compressed and how long it is, once its head is complete.
fn parse_head(
    head: &[u8],
    named: Encoding,
    caps: BodyCaps,
) -> Result<Option<(Encoding, usize)>, Refusal> {
    let &[flag, a, b, c, d] = head else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > caps.wire {
        return Err(Refusal::BodyTooLarge(Cap::Wire(caps.wire)));
    }
    match (flag, named) {
        (0, _) => Ok(Some((Encoding::Identity, length))),
        (1, Encoding::Identity) => Err(Refusal::BodyInvalid(
            "the message is compressed but grpc-encoding does not say how",
        )),
        (1, encoding) => Ok(Some((encoding, length))),
        _ => Err(Refusal::BodyInvalid("the head of the message is not one of gRPC")),
    }
}
