//! One block of snappy, whose decoded size is known before it is decoded.

use crate::gateway::body::Received;
use crate::gateway::buffer::Buffer;
use crate::gateway::inflate::{BodyCaps, RATIO_FREE_BYTES};
use crate::gateway::refusal::{Cap, Refusal};

const NOT_SNAPPY: Refusal = Refusal::BodyInvalid("the body is not a block of snappy");

/// Decompresses a body, after its declared size was held against the caps and the budget.
///
/// # Errors
/// When a cap is passed, the memory is gone, or the body is no block of snappy.
pub fn decompress(received: Received, caps: BodyCaps) -> Result<Received, Refusal> {
    let Received { bytes, mut reservation, wire_bytes } = received;
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
            Ok(Received { bytes: decoded, reservation, wire_bytes })
        }
        _ => Err(NOT_SNAPPY),
    }
}
