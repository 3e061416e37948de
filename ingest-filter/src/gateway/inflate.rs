//! Decompression with three caps: bytes on the wire, bytes decoded, and their ratio.
//!
//! Pieces go in as they arrive and come out into one buffer that never grows beyond a cap nor
//! beyond the memory budget, so that a bomb costs no more than an honest body of the same size.

use std::io::{self, Write};
use std::time::Duration;

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

use self::zstd::ZstdDecoder;
use crate::gateway::budget::{Denied, Reservation};
use crate::gateway::buffer::Buffer;
use crate::gateway::refusal::{Cap, Refusal};

pub mod snappy;
mod zstd;

/// A ratio is only looked at from this size on: a short body of blanks is no attack.
pub const RATIO_FREE_BYTES: usize = 1 << 20;

/// The buffer's first size.
const BUFFER_BYTES_MIN: usize = 4 << 10;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 1950, which HTTP calls `deflate`.
    Deflate,
    /// RFC 8878, any number of frames.
    Zstd,
    /// Snappy, one block or a stream of frames.
    Snappy,
    /// Snappy, one block, as remote write has it. No header names it.
    SnappyBlock,
}

/// The caps of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyCaps {
    /// Bytes on the wire.
    pub wire: usize,
    /// Bytes after decompression.
    pub decoded: usize,
    /// Decoded over wire bytes.
    pub ratio: u64,
}

/// A body being decompressed.
pub struct Inflate {
    stage: Stage,
    wire: usize,
    caps: BodyCaps,
}

enum Stage {
    Identity(Sink),
    Gzip(Box<MultiGzDecoder<Sink>>),
    Deflate(Box<ZlibDecoder<Sink>>),
    Zstd(Box<ZstdDecoder<Sink>>),
    /// What came so far; decoded at the end.
    Snappy(Sink),
    /// The same.
    SnappyBlock(Sink),
}

struct Sink {
    decoded: Buffer,
    wire: usize,
    caps: BodyCaps,
    reservation: Reservation,
    refusal: Option<Refusal>,
}

impl Encoding {
    /// Reads `Content-Encoding`.
    ///
    /// # Errors
    /// For any other encoding, and for more than one.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(Encoding::Identity),
            (Some(value), None) => value.as_bytes(),
            (Some(_), Some(_)) => return Err(Refusal::ContentEncodingUnsupported),
        };
        Self::parse(value.trim_ascii()).ok_or(Refusal::ContentEncodingUnsupported)
    }

    /// The encoding of this name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("identity") || name.is_empty() {
            Some(Encoding::Identity)
        } else if is("gzip") || is("x-gzip") {
            Some(Encoding::Gzip)
        } else if is("deflate") || is("zlib") {
            Some(Encoding::Deflate)
        } else if is("zstd") || is("zstd1") {
            // The second is what the clients of Datadog's API say.
            Some(Encoding::Zstd)
        } else if is("snappy") || is("x-snappy-framed") {
            // A block over HTTP and a stream over gRPC; each says which it is.
            Some(Encoding::Snappy)
        } else {
            None
        }
    }
}

impl Inflate {
    /// Decompresses into memory that is added to `reservation`.
    ///
    /// # Errors
    /// When the memory that a decoder needs is gone.
    pub fn new(
        encoding: Encoding,
        caps: BodyCaps,
        mut reservation: Reservation,
    ) -> Result<Self, Refusal> {
        if encoding == Encoding::Zstd {
            reservation.grow(zstd::MEMORY_BYTES)?;
        }
        let sink = Sink { decoded: Buffer::default(), wire: 0, caps, reservation, refusal: None };
        let stage = match encoding {
            Encoding::Identity => Stage::Identity(sink),
            Encoding::Gzip => Stage::Gzip(Box::new(MultiGzDecoder::new(sink))),
            Encoding::Deflate => Stage::Deflate(Box::new(ZlibDecoder::new(sink))),
            Encoding::Snappy => Stage::Snappy(sink),
            Encoding::SnappyBlock => Stage::SnappyBlock(sink),
            Encoding::Zstd => Stage::Zstd(Box::new(ZstdDecoder::new(sink))),
        };
        Ok(Self { stage, wire: 0, caps })
    }

    /// Makes room at once for as many bytes as are said to come: a request that is refused for want
    /// of memory is refused before it has sent them, and one that is not does not compete for it with
    /// others that are half read.
    ///
    /// # Errors
    /// When the memory is gone.
    pub fn expect(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.sink().allocate(bytes, Reservation::grow_to_begin)
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    /// When a cap is passed, the memory is gone, or the piece is not of the encoding.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.wire += piece.len();
        if self.wire > self.caps.wire {
            return Err(Refusal::BodyTooLarge(Cap::Wire(self.caps.wire)));
        }
        self.sink().wire = self.wire;
        let written = match &mut self.stage {
            Stage::Identity(sink) | Stage::Snappy(sink) | Stage::SnappyBlock(sink) => {
                sink.write_all(piece)
            }
            Stage::Gzip(decoder) => decoder.write_all(piece),
            Stage::Deflate(decoder) => decoder.write_all(piece),
            Stage::Zstd(decoder) => decoder.write_all(piece),
        };
        written.map_err(|_| self.refusal())
    }

    /// The whole body, and the reservation that now covers it.
    ///
    /// # Errors
    /// As [`Inflate::push`], and when the compressed stream is not complete.
    pub fn finish(mut self) -> Result<(Buffer, Reservation), Refusal> {
        let finished = match &mut self.stage {
            Stage::Identity(_) | Stage::Snappy(_) | Stage::SnappyBlock(_) => Ok(()),
            // No bytes at all are an empty body in any encoding.
            _ if self.wire == 0 => Ok(()),
            Stage::Gzip(decoder) => decoder.try_finish(),
            Stage::Deflate(decoder) => decoder.try_finish(),
            Stage::Zstd(decoder) => decoder.try_finish(),
        };
        finished.map_err(|_| self.refusal())?;
        let mut sink = match self.stage {
            Stage::Identity(sink) => sink,
            Stage::Snappy(sink) => snappy::decoded(sink)?,
            Stage::SnappyBlock(sink) => snappy::decoded_block(sink)?,
            Stage::Gzip(mut decoder) => decoder.get_mut().take(),
            Stage::Deflate(mut decoder) => decoder.get_mut().take(),
            Stage::Zstd(mut decoder) => {
                let mut sink = decoder.get_mut().take();
                sink.reservation.give_back(zstd::MEMORY_BYTES);
                sink
            }
        };
        sink.reservation.give_back(sink.decoded.unwritten());
        Ok((sink.decoded, sink.reservation))
    }

    /// How much was decoded so far.
    pub fn decoded_bytes(&self) -> usize {
        match &self.stage {
            Stage::Identity(sink) | Stage::Snappy(sink) | Stage::SnappyBlock(sink) => {
                sink.decoded.len()
            }
            Stage::Gzip(decoder) => decoder.get_ref().decoded.len(),
            Stage::Deflate(decoder) => decoder.get_ref().decoded.len(),
            Stage::Zstd(decoder) => decoder.get_ref().decoded.len(),
        }
    }

    /// How much is left to be decoded in one go by [`Inflate::finish`], about.
    pub fn bytes_left(&self) -> usize {
        match &self.stage {
            Stage::Snappy(sink) | Stage::SnappyBlock(sink) => snappy::decoded_bytes(&sink.decoded),
            _ => 0,
        }
    }

    /// When the client should come back whose body does not come in time.
    pub fn retry_after(&mut self) -> Duration {
        self.sink().reservation.retry_after()
    }

    fn sink(&mut self) -> &mut Sink {
        match &mut self.stage {
            Stage::Identity(sink) | Stage::Snappy(sink) | Stage::SnappyBlock(sink) => sink,
            Stage::Gzip(decoder) => decoder.get_mut(),
            Stage::Deflate(decoder) => decoder.get_mut(),
            Stage::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn refusal(&mut self) -> Refusal {
        let broken = Refusal::BodyInvalid("the body is not what its content encoding says");
        self.sink().refusal.unwrap_or(broken)
    }
}

impl Sink {
    fn take(&mut self) -> Sink {
        Sink {
            decoded: std::mem::take(&mut self.decoded),
            wire: self.wire,
            caps: self.caps,
            reservation: self.reservation.take(),
            refusal: self.refusal,
        }
    }

    fn make_room(&mut self, piece: usize) -> Result<(), Refusal> {
        let wanted = self.decoded.len() + piece;
        if wanted > self.caps.decoded {
            return Err(Refusal::BodyTooLarge(Cap::Decoded(self.caps.decoded)));
        }
        let most = (self.wire as u64).saturating_mul(self.caps.ratio);
        if wanted > RATIO_FREE_BYTES && wanted as u64 > most {
            return Err(Refusal::BodyTooLarge(Cap::Ratio(self.caps.ratio)));
        }
        let before = self.decoded.capacity();
        match wanted > before {
            true => self.allocate(wanted.max(before * 2).max(BUFFER_BYTES_MIN), Reservation::grow),
            false => Ok(()),
        }
    }

    /// Makes room for `capacity` bytes in all, or for as many as there may be.
    fn allocate(
        &mut self,
        capacity: usize,
        grow: fn(&mut Reservation, usize) -> Result<(), Denied>,
    ) -> Result<(), Refusal> {
        let (before, most) = (self.decoded.capacity(), self.caps.decoded);
        let capacity = capacity.min(most);
        if capacity > before {
            // While a buffer is copied there are two of them.
            let twice = self.decoded.is_copied_for(capacity);
            grow(&mut self.reservation, if twice { capacity } else { capacity - before })?;
            self.decoded.make_room(capacity, most).map_err(|_| self.reservation.exhausted())?;
            if twice {
                self.reservation.give_back(before);
            }
        }
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        // A decoder tries again to write what is left; a refusal is final.
        if self.refusal.is_none() {
            self.refusal = self.make_room(piece.len()).err();
        }
        if self.refusal.is_some() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.decoded.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
