//! As much header compression as a client needs that forbids the dynamic table: request blocks are
//! written as literals, so every request of a connection has the same bytes, and of a response
//! block the two fields are read that matter. Not a general decoder.

use super::Fault;

/// `grpc-status` in Huffman code.
const GRPC_STATUS_HUFFMAN: [u8; 8] = [0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];
const STATUS_INDICES: std::ops::RangeInclusive<usize> = 8..=14;
const STATUS_VALUES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// What a block of response headers says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `:status`.
    pub status: Option<u16>,
    /// `grpc-status`.
    pub grpc_status: Option<u32>,
}

/// The header block of a gRPC request to `path`.
pub fn grpc_request(authority: &str, path: &str) -> Vec<u8> {
    // :method POST, :scheme http
    let mut block = vec![0x83, 0x86];
    let mut literal = |index: u8, value: &str| {
        // Literal without indexing: the name from the static table.
        if index < 15 {
            block.push(index)
        } else {
            block.extend([0x0f, index - 15])
        }
        text(&mut block, value);
    };
    literal(4, path);
    literal(1, authority);
    literal(31, "application/grpc");
    block.push(0);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block
}

fn text(block: &mut Vec<u8>, value: &str) {
    // Longer strings would need the long form of a length.
    let value = &value.as_bytes()[..value.len().min(126)];
    block.push(value.len() as u8);
    block.extend(value);
}

/// Reads a response block of a server that was told to use no dynamic table.
///
/// # Errors
/// When the block is broken, or refers to a dynamic table.
pub fn fields(mut block: &[u8]) -> Result<Fields, Fault> {
    let mut fields = Fields::default();
    while let [first, ..] = *block {
        if first & 0x80 != 0 {
            let index = integer(&mut block, 7)?;
            if STATUS_INDICES.contains(&index) {
                fields.status = Some(STATUS_VALUES[index - STATUS_INDICES.start()]);
            } else if index == 0 || index > 61 {
                return Err(Fault::Protocol("a header field out of a dynamic table"));
            }
            continue;
        }
        if first & 0xe0 == 0x20 {
            integer(&mut block, 5)?;
            continue;
        }
        let bits = if first & 0x40 != 0 { 6 } else { 4 };
        let index = integer(&mut block, bits)?;
        let is_grpc_status = if index == 0 {
            let (huffman, name) = string(&mut block)?;
            if huffman { name == GRPC_STATUS_HUFFMAN } else { name == b"grpc-status" }
        } else {
            false
        };
        let (huffman, value) = string(&mut block)?;
        if is_grpc_status {
            fields.grpc_status = Some(number(huffman, value)?);
        } else if STATUS_INDICES.contains(&index) {
            fields.status = u16::try_from(number(huffman, value)?).ok();
        }
    }
    Ok(fields)
}

/// An integer with a prefix of `bits`.
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Fault> {
    const CUT: Fault = Fault::Protocol("a header block that is cut");
    let (first, rest) = block.split_first().ok_or(CUT)?;
    *block = rest;
    let most = (1 << bits) - 1;
    let mut value = usize::from(first & most as u8);
    if value < most {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let (byte, rest) = block.split_first().ok_or(CUT)?;
        *block = rest;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Fault::Protocol("a header length without end"))
}

fn string<'a>(block: &mut &'a [u8]) -> Result<(bool, &'a [u8]), Fault> {
    let huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    if length > block.len() {
        return Err(Fault::Protocol("a header block that is cut"));
    }
    let (string, rest) = block.split_at(length);
    *block = rest;
    Ok((huffman, string))
}

/// Decimal digits, plain or in Huffman code.
fn number(huffman: bool, value: &[u8]) -> Result<u32, Fault> {
    const BAD: Fault = Fault::Protocol("a status that is no number");
    let digits = if huffman { huffman_digits(value).ok_or(BAD)? } else { value.to_vec() };
    let text = std::str::from_utf8(&digits).map_err(|_| BAD)?;
    text.parse().map_err(|_| BAD)
}

/// `0`, `1`, `2` have the codes 0, 1, 2 of five bits; `3` to `9` have 25 to 31 of six.
fn huffman_digits(value: &[u8]) -> Option<Vec<u8>> {
    let mut bits: Vec<u8> = Vec::with_capacity(value.len() * 8);
    bits.extend(value.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)));
    let mut digits = Vec::new();
    let mut bits = bits.as_slice();
    // What is left at the end is padding of ones.
    while bits.len() >= 5 {
        let code = |length: usize| bits[..length].iter().fold(0, |code, bit| code << 1 | bit);
        let (digit, length) = match (code(5), bits.len() > 5) {
            (code @ 0..=2, _) => (code, 5),
            (_, true) if (25..=31).contains(&code(6)) => (code(6) - 22, 6),
            _ => return bits.iter().all(|bit| *bit == 1).then_some(digits),
        };
        digits.push(b'0' + digit);
        bits = &bits[length..];
    }
    bits.iter().all(|bit| *bit == 1).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters_and_skips_the_rest() {
        let table: [(&[u8], Fields); 6] = [
            (&[0x88], Fields { status: Some(200), grpc_status: None }),
            // A table size update, :status 503 as a literal, another header of the static table.
            (
                &[0x20, 0x08, 3, b'5', b'0', b'3', 0x0f, 0x10, 2, b'a', b'b'],
                Fields { status: Some(503), grpc_status: None },
            ),
            (b"\x00\x0bgrpc-status\x0214", Fields { status: None, grpc_status: Some(14) }),
            (
                &[0x40, 0x88, 0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f, 0x81, 0x07],
                Fields { status: None, grpc_status: Some(0) },
            ),
            // 13 in Huffman code: 00001 011001 and five ones.
            (
                &[0x40, 0x88, 0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f, 0x82, 0x0b, 0x3f],
                Fields { status: None, grpc_status: Some(13) },
            ),
            (b"\x00\x01a\x01b", Fields::default()),
        ];
        for (block, expected) in table {
            assert_eq!(fields(block), Ok(expected), "{block:?}");
        }
    }

    #[test]
    fn refuses_broken_blocks() {
        for block in [&[0xbe][..], &[0x00, 0x05, b'a'], &[0x80], &[0x7f, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            assert!(matches!(fields(block), Err(Fault::Protocol(_))), "{block:?}");
        }
        assert!(fields(b"\x00\x0bgrpc-status\x01x").is_err());
    }

    #[test]
    fn a_request_block_reads_back() {
        let block = grpc_request("127.0.0.1:1", "/a.B/C");
        assert_eq!(fields(&block), Ok(Fields::default()));
    }
}
