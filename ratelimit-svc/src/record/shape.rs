//! The shape of a request: everything about it but when it came and how many hits it brought. Requests
//! of one shape are counted together. Here is a shape as bytes, which is how tables look it up, and as
//! a value, which is how it is read back.

use crate::decide::request::{Descriptor, Override, Request};
use crate::limits::unit::{UNITS, Unit};

/// Shapes of more bytes than this are counted with the tail: long values are few and say little.
pub const SHAPE_BYTES_MAX: usize = 4096;

const REFUND: u8 = 1;
const LOOK: u8 = 2;
const OVERRIDE: u8 = 4;

/// The shape of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The domain that was asked.
    pub domain: String,
    /// The class that was found when it was recorded.
    pub class: String,
    /// What was asked.
    pub descriptors: Vec<ShapeDescriptor>,
}

/// One descriptor of a shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShapeDescriptor {
    /// Keys and values, outermost first.
    pub entries: Vec<(String, String)>,
    /// A limit that came with the request.
    pub limit: Option<(u32, Unit)>,
    /// Its hits are given back.
    pub is_refund: bool,
    /// It brings no hits and only looks.
    pub is_look: bool,
}

/// Writes the shape of a request, decided for `class`, into `bytes`; whether it is short enough.
pub fn encode(request: &Request<'_>, class: &str, bytes: &mut Vec<u8>) -> bool {
    bytes.clear();
    let mut fits = pair(bytes, request.domain, class);
    for descriptor in &request.descriptors {
        let limit = descriptor.limit_override.and_then(|limit| Some((limit, limit.unit?)));
        let mut flags = 0;
        for (is_set, flag) in [
            (descriptor.is_negative_hits, REFUND),
            (request.hits(descriptor) == 0, LOOK),
            (limit.is_some(), OVERRIDE),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        bytes.extend_from_slice(&[flags, descriptor.entries.len() as u8]);
        if let Some((limit, unit)) = limit {
            bytes.extend_from_slice(&limit.requests_per_unit.to_le_bytes());
            bytes.push(unit as u8);
        }
        for (key, value) in &descriptor.entries {
            fits = fits && pair(bytes, key, value);
        }
    }
    fits && bytes.len() <= SHAPE_BYTES_MAX
}

/// Two texts after their lengths, which are written in one step; whether they are short enough.
fn pair(bytes: &mut Vec<u8>, one: &str, other: &str) -> bool {
    let fits = one.len() <= SHAPE_BYTES_MAX && other.len() <= SHAPE_BYTES_MAX;
    if fits {
        let lengths = one.len() as u32 | (other.len() as u32) << 16;
        bytes.extend_from_slice(&lengths.to_le_bytes());
        bytes.extend_from_slice(one.as_bytes());
        bytes.extend_from_slice(other.as_bytes());
    }
    fits
}

/// Reads what [`encode`] wrote; nothing for other bytes.
pub fn decode(bytes: &[u8]) -> Option<Shape> {
    let mut rest = bytes;
    let (domain, class) = take_pair(&mut rest)?;
    let mut descriptors = Vec::new();
    while !rest.is_empty() {
        let [flags, entries] = *take(&mut rest, 2)? else { return None };
        let limit = match flags & OVERRIDE {
            0 => None,
            _ => {
                let requests = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
                let unit = UNITS.get(usize::from(*take(&mut rest, 1)?.first()?))?;
                Some((requests, *unit))
            }
        };
        descriptors.push(ShapeDescriptor {
            entries: (0..entries).map(|_| take_pair(&mut rest)).collect::<Option<_>>()?,
            limit,
            is_refund: flags & REFUND != 0,
            is_look: flags & LOOK != 0,
        });
    }
    Some(Shape { domain, class, descriptors })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn take_pair(rest: &mut &[u8]) -> Option<(String, String)> {
    let lengths = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize;
    let mut text = |length| String::from_utf8(take(rest, length)?.to_vec()).ok();
    Some((text(lengths & 0xffff)?, text(lengths >> 16)?))
}

impl Shape {
    /// A request of this shape with these hits, one number for each descriptor.
    pub fn request(&self, hits: impl Fn(usize) -> u64) -> Request<'_> {
        let numbered = self.descriptors.iter().enumerate();
        let descriptors = numbered.map(|(at, shape)| shape.descriptor(hits(at))).collect();
        Request { domain: &self.domain, descriptors, hits_addend: 0 }
    }
}

impl ShapeDescriptor {
    fn descriptor(&self, hits: u64) -> Descriptor<'_> {
        let limit = |(requests_per_unit, unit)| Override { requests_per_unit, unit: Some(unit) };
        Descriptor {
            entries: self.entries.iter().map(|(key, value)| (&**key, &**value)).collect(),
            limit_override: self.limit.map(limit),
            hits_addend: Some(if self.is_look { 0 } else { hits }),
            is_negative_hits: self.is_refund,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_makes_a_shape() {
        let descriptor = Descriptor {
            entries: [("tenant", "acme")][..].into(),
            limit_override: Some(Override { requests_per_unit: 7, unit: Some(Unit::Hour) }),
            hits_addend: Some(5),
            is_negative_hits: true,
        };
        let look = Descriptor { hits_addend: Some(0), ..Descriptor::default() };
        let request = Request { domain: "d", descriptors: vec![descriptor, look], hits_addend: 1 };
        let mut bytes = Vec::new();
        assert!(encode(&request, "ingest", &mut bytes));
        let shape = decode(&bytes).expect("a shape");
        assert_eq!((shape.domain.as_str(), shape.class.as_str()), ("d", "ingest"));
        let [first, second] = &shape.descriptors[..] else { panic!("two") };
        assert_eq!(first.entries, [("tenant".to_owned(), "acme".to_owned())]);
        assert_eq!(first.limit, Some((7, Unit::Hour)));
        assert!(first.is_refund && !first.is_look && second.is_look);
        let again = shape.request(|_| 5);
        let (asked, look) = (&again.descriptors[0], &again.descriptors[1]);
        assert_eq!(asked.entries.as_slice(), [("tenant", "acme")]);
        let expected = Override { requests_per_unit: 7, unit: Some(Unit::Hour) };
        assert_eq!((asked.limit_override, asked.hits_addend), (Some(expected), Some(5)));
        assert!(asked.is_negative_hits && look.hits_addend == Some(0));
        // The hits are no part of the shape.
        let mut other = Vec::new();
        assert!(encode(&shape.request(|_| 6), "ingest", &mut other));
        assert_eq!(bytes, other);
        let long = "x".repeat(SHAPE_BYTES_MAX);
        let request = Request { domain: &long, ..Request::default() };
        assert!(!encode(&request, "ingest", &mut other));
    }

    proptest! {
        #[test]
        fn bytes_of_anyone_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
