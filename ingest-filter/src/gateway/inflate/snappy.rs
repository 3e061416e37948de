//! Snappy: one block, whose decoded size is known before it is decoded, or a stream of frames, which
//! says at its beginning that it is one.

use std::io::{Read, Write};

use super::{BodyCaps, RATIO_FREE_BYTES, Sink};
use crate::gateway::budget::Reservation;
use crate::gateway::buffer::Buffer;
use crate::gateway::refusal::{Cap, Refusal};

const NOT_SNAPPY: Refusal = Refusal::BodyInvalid("the body is not a block of snappy");
const BAD_FRAMES: Refusal = Refusal::BodyInvalid("the body is not a stream of snappy");

/// How a stream of frames begins.
const STREAM: &[u8] = b"\xff\x06\0\0sNaPpY";

/// What the decoder of frames holds, bytes: a frame as it came, and decoded.
const FRAMES_BYTES: usize = 256 << 10;

/// How many times longer a frame can become: three bytes repeat 64.
const FRAMES_RATIO_MAX: usize = 22;

/// How much of a frame is handed on at once.
const PART_BYTES: usize = 4 << 10;

/// Decompresses a block, after its declared size was held against the caps and the budget.
///
/// # Errors
/// When a cap is passed, the memory is gone, or the body is no block of snappy.
pub fn block(
    bytes: Buffer,
    wire_bytes: usize,
    mut reservation: Reservation,
    caps: BodyCaps,
) -> Result<(Buffer, Reservation), Refusal> {
    let length = snap::raw::decompress_len(&bytes).map_err(|_| NOT_SNAPPY)?;
    if length > caps.decoded {
        return Err(Refusal::BodyTooLarge(Cap::Decoded(caps.decoded)));
    }
    if length > RATIO_FREE_BYTES && length as u64 > (wire_bytes as u64).saturating_mul(caps.ratio) {
        return Err(Refusal::BodyTooLarge(Cap::Ratio(caps.ratio)));
    }
    reservation.grow(length)?;
    let mut decoded = Buffer::zeroed(length).map_err(|_| reservation.exhausted())?;
    let written = snap::raw::Decoder::new().decompress(&bytes, decoded.as_mut_slice());
    match written {
        Ok(written) if written == length => {
            let held = bytes.capacity();
            drop(bytes);
            reservation.give_back(held);
            Ok((decoded, reservation))
        }
        _ => Err(NOT_SNAPPY),
    }
}

/// How long what is compressed says that it is, or may be, once it is decoded.
pub(super) fn decoded_bytes(encoded: &[u8]) -> usize {
    match encoded.starts_with(STREAM) {
        true => encoded.len().saturating_mul(FRAMES_RATIO_MAX),
        false => snap::raw::decompress_len(encoded).unwrap_or_default(),
    }
}

/// Decompresses what a sink holds, whichever of the two it is.
pub(super) fn decoded(sink: Sink) -> Result<Sink, Refusal> {
    match sink.decoded.starts_with(STREAM) {
        true => frames(sink),
        false if sink.wire == 0 => Ok(sink),
        false => decoded_block(sink),
    }
}

/// Decompresses the block that a sink holds.
pub(super) fn decoded_block(sink: Sink) -> Result<Sink, Refusal> {
    let Sink { decoded, wire, caps, reservation, refusal } = sink;
    let (decoded, reservation) = block(decoded, wire, reservation, caps)?;
    Ok(Sink { decoded, wire, caps, reservation, refusal })
}

fn frames(mut encoded: Sink) -> Result<Sink, Refusal> {
    encoded.reservation.grow(FRAMES_BYTES)?;
    let bytes = std::mem::take(&mut encoded.decoded);
    let mut sink = encoded.take();
    let mut frames = snap::read::FrameDecoder::new(&bytes[..]);
    let mut part = [0; PART_BYTES];
    loop {
        let read = frames.read(&mut part).map_err(|_| BAD_FRAMES)?;
        if read == 0 {
            break;
        }
        let written = sink.write_all(&part[..read]);
        written.map_err(|_| sink.refusal.unwrap_or(BAD_FRAMES))?;
    }
    let held = bytes.capacity();
    drop(bytes);
    sink.reservation.give_back(held + FRAMES_BYTES);
    Ok(sink)
}
