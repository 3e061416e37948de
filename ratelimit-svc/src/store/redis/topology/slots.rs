//! Where a Redis cluster keeps a key: its hash slot, and the node that has the slot. Connects to
//! nobody.

use std::sync::OnceLock;

/// How many slots there are.
pub const SLOTS: usize = 16384;

const NOBODY: u16 = u16::MAX;

/// The slot of a key: CRC16 (XMODEM) of what stands between its first braces, or of all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        Some(&rest[..close]).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS as u16
}

/// The smallest number whose decimal digits have this slot.
pub fn number_at(slot: u16) -> u32 {
    static NUMBERS: OnceLock<Box<[u32]>> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(|| {
        let (mut numbers, mut missing) = (vec![u32::MAX; SLOTS], SLOTS);
        for number in 0..u32::MAX {
            let known = &mut numbers[usize::from(slot_of(number.to_string().as_bytes()))];
            if *known == u32::MAX {
                *known = number;
                missing -= 1;
            }
            if missing == 0 {
                break;
            }
        }
        numbers.into()
    });
    numbers[usize::from(slot) % SLOTS]
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x1021,
        })
    })
}

/// Which node has which slot; nodes are numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMap {
    nodes: Box<[u16]>,
}

impl Default for SlotMap {
    fn default() -> Self {
        Self { nodes: vec![NOBODY; SLOTS].into() }
    }
}

impl SlotMap {
    /// Says that `node` has the slots from `first` to `last`, as far as there are such.
    pub fn assign(&mut self, first: u16, last: u16, node: u16) {
        let last = usize::from(last).min(SLOTS - 1);
        for at in usize::from(first)..=last {
            self.nodes[at] = node;
        }
    }

    /// The node that has a slot, if any has.
    pub fn node(&self, slot: u16) -> Option<u16> {
        self.nodes.get(usize::from(slot)).copied().filter(|node| *node != NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [
            (&b"foo"[..], 12182),
            (b"bar", 5061),
            (b"{foo}bar", 12182),
            (b"a{foo}{bar}", 12182),
            (b"{}foo", crc16(b"{}foo") % 16384),
            (b"foo{", crc16(b"foo{") % 16384),
            (b"", 0),
        ] {
            assert_eq!(slot_of(key), slot, "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
    }

    #[test]
    fn every_slot_has_a_number() {
        for slot in 0..SLOTS as u16 {
            assert_eq!(slot_of(number_at(slot).to_string().as_bytes()), slot);
        }
        assert_eq!(number_at(slot_of(b"0")), 0);
    }

    #[test]
    fn a_map_knows_who_has_a_slot() {
        let mut map = SlotMap::default();
        assert_eq!(map.node(0), None);
        map.assign(0, 8191, 0);
        map.assign(8192, u16::MAX, 1);
        assert_eq!((map.node(8191), map.node(8192)), (Some(0), Some(1)));
        assert_eq!((map.node(16383), map.node(16384)), (Some(1), None));
        map.assign(5, 4, 7);
        assert_eq!(map.node(5), Some(0), "an empty range");
    }
}
