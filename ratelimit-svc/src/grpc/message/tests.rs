//! Tests of `grpc::message`: prost reads the same, and what it does not.

use proptest::prelude::*;
use prost::Message;
use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use proto::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use proto::pb::google::protobuf::UInt64Value;

use super::*;

/// The same by way of the decoded message.
fn borrowed(wire: &RateLimitRequest) -> Request<'_> {
    Request {
        domain: &wire.domain,
        descriptors: wire.descriptors.iter().map(borrowed_descriptor).collect(),
        hits_addend: wire.hits_addend,
    }
}

fn borrowed_descriptor(wire: &RateLimitDescriptor) -> Descriptor<'_> {
    Descriptor {
        entries: wire.entries.iter().map(|entry| (&*entry.key, &*entry.value)).collect(),
        limit_override: wire.limit.map(|limit| Override {
            requests_per_unit: limit.requests_per_unit,
            unit: unit_of_override(limit.unit),
        }),
        hits_addend: wire.hits_addend.map(|hits| hits.value),
        is_negative_hits: wire.is_negative_hits,
    }
}

fn agrees(bytes: &[u8]) {
    match RateLimitRequest::decode(bytes) {
        Ok(wire) => assert_eq!(read(bytes), Ok(borrowed(&wire))),
        Err(_) => assert_eq!(read(bytes), Err(RequestError::Malformed)),
    }
}

fn descriptors() -> impl Strategy<Value = RateLimitDescriptor> {
    let entry = (".{0,4}", ".{0,40}").prop_map(|(key, value)| Entry { key, value });
    let limit = (any::<u32>(), -2..9i32)
        .prop_map(|(requests_per_unit, unit)| RateLimitOverride { requests_per_unit, unit });
    let hits = any::<u64>().prop_map(|value| UInt64Value { value });
    let entries = proptest::collection::vec(entry, 0..6);
    let (limit, hits) = (proptest::option::of(limit), proptest::option::of(hits));
    (entries, limit, hits, any::<bool>()).prop_map(|(entries, limit, hits_addend, refund)| {
        RateLimitDescriptor { entries, limit, hits_addend, is_negative_hits: refund }
    })
}

fn requests() -> impl Strategy<Value = RateLimitRequest> {
    let descriptors = proptest::collection::vec(descriptors(), 0..6);
    (".{0,9}", descriptors, any::<u32>()).prop_map(|(domain, descriptors, hits_addend)| {
        RateLimitRequest { domain, descriptors, hits_addend }
    })
}

proptest! {
    #[test]
    fn prost_reads_the_same(wire in requests()) {
        agrees(&wire.encode_to_vec());
    }

    /// Two messages in a row are one in which fields come twice.
    #[test]
    fn fields_that_come_twice_are_merged(one in requests(), other in requests()) {
        agrees(&[one.encode_to_vec(), other.encode_to_vec()].concat());
    }

    #[test]
    fn broken_messages_are_refused_alike(
        wire in requests(),
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = wire.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        agrees(&bytes);
    }

    #[test]
    fn noise_is_read_alike(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        agrees(&bytes);
    }
}

#[test]
fn what_comes_twice_and_what_nobody_knows() {
    // An override with requests_per_unit in one part and the unit in another.
    let request = read(&[0x12, 8, 0x12, 2, 0x08, 5, 0x12, 2, 0x10, 1]).expect("read");
    let expected = Override { requests_per_unit: 5, unit: Some(Unit::Second) };
    assert_eq!(request.descriptors[0].limit_override, Some(expected));
    // Field 15, by every wire type: a number, eight bytes, text, a group, four bytes.
    for unknown in [
        &[0x78, 1][..],
        &[0x79, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x7a, 1, 0],
        &[0x7b, 0x08, 1, 0x7c],
        &[0x7d, 0, 0, 0, 0],
    ] {
        assert_eq!(read(unknown), Ok(Request::default()), "{unknown:x?}");
        agrees(unknown);
    }
    // A known field of another type, text that is none, a length beyond the end.
    for broken in [&[0x08, 1][..], &[0x0a, 1, 0xff], &[0x0a, 2, b'a'], &[0x12, 2, 0x0a, 1], &[0x0a]]
    {
        assert_eq!(read(broken), Err(RequestError::Malformed), "{broken:x?}");
        agrees(broken);
    }
}

#[test]
fn bounds_end_the_reading() {
    let descriptors = |count: usize| [0x12, 0].repeat(count);
    assert_eq!(read(&descriptors(DESCRIPTORS_MAX)).expect("read").descriptors.len(), 128);
    let more = [descriptors(DESCRIPTORS_MAX + 1), vec![0xff]].concat();
    assert_eq!(read(&more), Err(RequestError::TooManyDescriptors));
    let entries = |count: usize| [vec![0x12, 2 * count as u8], [0x0a, 0].repeat(count)].concat();
    assert_eq!(read(&entries(ENTRIES_MAX)).expect("read").descriptors[0].entries.len(), 32);
    assert_eq!(read(&entries(ENTRIES_MAX + 1)), Err(RequestError::TooManyEntries));
}
