//! The one message of a unary gRPC request: five bytes of head, then the message.

use axum::body::Body;
use http::{HeaderMap, HeaderName, header};
use tokio::time::Instant;

use crate::gateway::body::{Received, next_piece};
use crate::gateway::budget::Reservation;
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
) -> Result<Received, Refusal> {
    let named = headers.get(GRPC_ENCODING).map_or(&b"identity"[..], |value| value.as_bytes());
    let named = Encoding::parse(named).ok_or(Refusal::ContentEncodingUnsupported)?;
    let mut reservation = Some(reservation);
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let mut message: Option<(Inflate, usize)> = None;
    let mut wire_bytes = 0;
    while let Some(piece) = next_piece(&mut body, deadline).await? {
        wire_bytes += piece.len();
        let mut piece = &piece[..];
        if message.is_none() {
            let taken = piece.len().min(HEAD_BYTES - head.len());
            head.extend_from_slice(&piece[..taken]);
            piece = &piece[taken..];
            if let (Some((encoding, length)), Some(reservation)) =
                (parse_head(&head, named, caps)?, reservation.take_if(|_| head.len() == HEAD_BYTES))
            {
                message = Some((Inflate::new(encoding, caps, reservation)?, length));
            }
        }
        if let Some((inflate, left)) = &mut message {
            let more = Refusal::BodyInvalid("a unary request holds one message");
            *left = left.checked_sub(piece.len()).ok_or(more)?;
            inflate.push(piece)?;
        }
    }
    match message {
        Some((inflate, 0)) => {
            let (bytes, reservation) = inflate.finish()?;
            Ok(Received { bytes, reservation, wire_bytes })
        }
        _ => Err(Refusal::BodyInvalid("the message is not complete")),
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
