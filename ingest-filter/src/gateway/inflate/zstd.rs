//! Zstandard as it arrives, piece by piece, with a bounded window.

use std::io::{self, Write};

use zstd::stream::raw::{DParameter, Decoder, Operation};

/// The largest window of a frame, as a power of two: 8 MiB, which RFC 8878 asks decoders for.
const WINDOW_LOG_MAX: u32 = 23;

/// What a decoder may hold: its window and two blocks.
pub const MEMORY_BYTES: usize = (1 << WINDOW_LOG_MAX) + (256 << 10);

/// How much is decoded in one step.
const STEP_BYTES: usize = 16 << 10;

/// Decodes into `sink`, any number of frames.
pub struct ZstdDecoder<W> {
    sink: W,
    decoder: Decoder<'static>,
    step: Box<[u8]>,
    is_within_frame: bool,
}

impl<W: Write> ZstdDecoder<W> {
    /// Nothing decoded yet.
    pub fn new(sink: W) -> Self {
        let mut decoder = Decoder::new().expect("a decoder without a dictionary");
        let bounded = decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX));
        bounded.expect("a window that the library knows");
        Self { sink, decoder, step: vec![0; STEP_BYTES].into(), is_within_frame: false }
    }

    /// Where it decodes to.
    pub fn get_ref(&self) -> &W {
        &self.sink
    }

    /// Where it decodes to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Checks that the last frame is complete.
    pub fn try_finish(&mut self) -> io::Result<()> {
        match self.is_within_frame {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }

    /// Takes all of a piece.
    pub fn write_all(&mut self, mut piece: &[u8]) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        loop {
            let status = self.decoder.run_on_buffers(piece, &mut self.step)?;
            piece = &piece[status.bytes_read..];
            self.sink.write_all(&self.step[..status.bytes_written])?;
            self.is_within_frame = status.remaining > 0;
            if status.remaining == 0 && !piece.is_empty() {
                self.decoder.reinit()?;
            }
            // A full step may have left something behind.
            let is_drained = status.bytes_written < self.step.len();
            if piece.is_empty() && (is_drained || status.remaining == 0) {
                return Ok(());
            }
        }
    }
}
