//! Tests of `gateway/inflate`: what writers of other authors compress comes out as it was, however
//! many members or frames it has and in whatever pieces it comes.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;
use crate::gateway::budget::Budget;

const CAPS: BodyCaps = BodyCaps { wire: 1 << 20, decoded: 1 << 20, ratio: 1000 };

/// What comes out of a body that comes in pieces of this size.
fn inflated(encoding: Encoding, body: &[u8], piece: usize) -> Result<Vec<u8>, Refusal> {
    let budget = Budget::new(64 << 20);
    let mut inflate = Inflate::new(encoding, CAPS, budget.reserve(0)?)?;
    for piece in body.chunks(piece) {
        inflate.push(piece)?;
    }
    let (bytes, _reservation) = inflate.finish()?;
    Ok(bytes.to_vec())
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("memory grows");
    encoder.finish().expect("memory grows")
}

fn deflate(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("memory grows");
    encoder.finish().expect("memory grows")
}

fn zstd(bytes: &[u8], level: u32) -> Vec<u8> {
    ::zstd::stream::encode_all(bytes, level as i32).expect("memory grows")
}

fn snappy_frames(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).expect("memory grows");
    encoder.into_inner().expect("memory grows")
}

/// Bytes that repeat and bytes that do not.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<u8>(), 1..3000usize).prop_map(|(byte, length)| vec![byte; length]);
    let noise = proptest::collection::vec(any::<u8>(), 1..300);
    proptest::collection::vec(prop_oneof![run, noise], 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_compressed_comes_out_as_it_was(
        parts in proptest::collection::vec((any_bytes(), 1..10u32), 1..4), piece in 1..5000usize,
    ) {
        let whole: Vec<u8> = parts.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let many = |compress: fn(&[u8], u32) -> Vec<u8>| -> Vec<u8> {
            parts.iter().flat_map(|(bytes, level)| compress(bytes, *level)).collect()
        };
        for (encoding, body) in [
            (Encoding::Identity, whole.clone()),
            (Encoding::Gzip, many(gzip)),
            (Encoding::Deflate, deflate(&whole, parts[0].1)),
            (Encoding::Zstd, many(zstd)),
            (Encoding::Snappy, snap::raw::Encoder::new().compress_vec(&whole).expect("short")),
            (Encoding::Snappy, snappy_frames(&whole)),
        ] {
            let out = inflated(encoding, &body, piece);
            prop_assert!(out.as_ref() == Ok(&whole), "{:?}: {:?}", encoding, out.map(|out| out.len()));
            // Cut short, it is no body.
            let cut = &body[..body.len() - usize::from(!body.is_empty())];
            let out = inflated(encoding, cut, piece);
            prop_assert!(
                encoding == Encoding::Identity || cut.is_empty() || out.as_ref() != Ok(&whole),
                "{:?} cut short", encoding
            );
        }
    }
}
