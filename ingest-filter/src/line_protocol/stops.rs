//! Where the bytes are that mean something in line protocol, found 64 at a time.
//!
//! A plain loop writes a flag for each byte of a block, which the compiler turns into vector
//! instructions; eight flags become eight bits by one multiplication.
//!
//! ```text
//! bytes   c p u , h o s t = a   u = 1     flags 0 0 0 1 0 0 0 1 …   bits …10001000
//!               ^         ^   ^   ^
//! ```

/// Bytes of a block, as many as a word has bits.
const BLOCK: usize = u64::BITS as usize;

/// Moves the lowest bit of each byte of a word to the top byte, in order.
const GATHER: u64 = 0x0102_0408_1020_4080;

/// The stops of the block that was looked at last.
#[derive(Debug)]
pub(super) struct Stops {
    block: usize,
    bits: u64,
}

impl Stops {
    /// Nothing was looked at yet.
    pub fn new() -> Self {
        Self { block: usize::MAX, bits: 0 }
    }

    /// The first of `,`, `=`, `"`, `\`, blanks, control characters and U+007F at or behind `at`, or the
    /// end of `text`. Between two calls of [`Stops::forget`] the text must be the same.
    pub fn next(&mut self, text: &[u8], at: usize) -> usize {
        let block = at / BLOCK;
        if block != self.block {
            self.look_at(text, block);
        }
        let bits = self.bits & (u64::MAX << (at % BLOCK));
        if bits != 0 {
            return block * BLOCK + bits.trailing_zeros() as usize;
        }
        self.search(text, block + 1)
    }

    /// The text is going to be another one.
    pub fn forget(&mut self) {
        *self = Self::new();
    }

    fn search(&mut self, text: &[u8], from: usize) -> usize {
        for block in from..=text.len() / BLOCK {
            self.look_at(text, block);
            if self.bits != 0 {
                return block * BLOCK + self.bits.trailing_zeros() as usize;
            }
        }
        text.len()
    }

    /// Behind the end of the text stands a stop.
    fn look_at(&mut self, text: &[u8], block: usize) {
        let rest = text.get(block * BLOCK..).unwrap_or_default();
        self.block = block;
        self.bits = match rest.first_chunk::<BLOCK>() {
            Some(bytes) => stops(bytes),
            None => {
                let mut bytes = [b'\n'; BLOCK];
                bytes[..rest.len()].copy_from_slice(rest);
                stops(&bytes)
            }
        };
    }
}

fn stops(bytes: &[u8; BLOCK]) -> u64 {
    let mut flags = [0; BLOCK];
    for (flag, &byte) in flags.iter_mut().zip(bytes) {
        *flag = u8::from(byte <= b' ')
            | u8::from(byte == b',')
            | u8::from(byte == b'=')
            | u8::from(byte == b'"')
            | u8::from(byte == b'\\')
            | u8::from(byte == 0x7f);
    }
    let (eights, _) = flags.as_chunks::<8>();
    eights
        .iter()
        .rev()
        .fold(0, |bits, eight| bits << 8 | u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_stop(byte: u8) -> bool {
        matches!(byte, 0..=b' ' | b',' | b'=' | b'"' | b'\\' | 0x7f)
    }

    proptest! {
        #[test]
        fn every_stop_is_found_and_nothing_else(
            text in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'x')], 0..300),
            jumps in proptest::collection::vec(0usize..90, 0..20),
        ) {
            let mut stops = Stops::new();
            let mut at = 0;
            for jump in jumps {
                let rest = text.get(at..).unwrap_or_default();
                let expected = rest.iter().position(|byte| is_stop(*byte));
                let expected = expected.map_or(text.len().max(at), |place| at + place);
                prop_assert_eq!(stops.next(&text, at).max(at), expected);
                at += jump;
            }
        }
    }

    #[test]
    fn each_byte_is_a_stop_or_not() {
        for byte in 0..=255 {
            let mut bytes = [b'x'; BLOCK];
            bytes[37] = byte;
            assert_eq!(stops(&bytes) == 1 << 37, is_stop(byte), "{byte}");
            assert_eq!(stops(&bytes) == 0, !is_stop(byte), "{byte}");
        }
    }
}
