//! The memory of one body. A short one is on the heap; a longer one has pages of its own, which
//! the system has back as soon as the body is gone. An allocator would keep them, in pieces that
//! fit no other body, and the process would hold much more than its requests do.
//!
//! ```text
//! heap   4 KiB ─► 8 ─► … ─► 256 KiB      each step copies what is there
//! pages  └── address space for the largest body ──┘   written from the front, nothing is copied
//! ```

use std::io;
use std::ops::Deref;

use memmap2::{MmapMut, MmapOptions};

/// From this size on a body has pages of its own.
pub const PAGES_BYTES_MIN: usize = 256 << 10;

/// Bytes that are added at the end.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    /// How much there is room for; of pages, how many are thought to be written.
    capacity: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    Pages { map: MmapMut, length: usize },
}

impl Default for Buffer {
    fn default() -> Self {
        Self { memory: Memory::Heap(Vec::new()), capacity: 0 }
    }
}

impl Buffer {
    /// So many zeros.
    ///
    /// # Errors
    /// When the system has no pages.
    pub fn zeroed(length: usize) -> io::Result<Self> {
        let memory = match length < PAGES_BYTES_MIN {
            true => Memory::Heap(vec![0; length]),
            false => Memory::Pages { map: pages(length)?, length },
        };
        Ok(Self { memory, capacity: length })
    }

    /// How many bytes there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How much of the room is in pages that were never written, and take no memory.
    pub fn unwritten(&self) -> usize {
        match &self.memory {
            Memory::Heap(_) => 0,
            Memory::Pages { length, .. } => self.capacity - length,
        }
    }

    /// Whether room for this many bytes means that what is there is copied, and is there twice
    /// meanwhile.
    pub fn is_copied_for(&self, capacity: usize) -> bool {
        capacity > self.capacity && matches!(self.memory, Memory::Heap(_))
    }

    /// Makes room for `capacity` bytes in all; it will never have to be for more than `most`.
    ///
    /// # Errors
    /// When the system has no pages.
    pub fn make_room(&mut self, capacity: usize, most: usize) -> io::Result<()> {
        if capacity <= self.capacity {
            return Ok(());
        }
        match &mut self.memory {
            Memory::Heap(bytes) if capacity < PAGES_BYTES_MIN => {
                bytes.reserve_exact(capacity - bytes.len());
            }
            Memory::Heap(bytes) => {
                let mut map = pages(most.max(capacity))?;
                let length = bytes.len();
                map[..length].copy_from_slice(bytes);
                self.memory = Memory::Pages { map, length };
            }
            Memory::Pages { map, .. } => {
                if capacity > map.len() {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
            }
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Adds bytes, for which there is room.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        match &mut self.memory {
            Memory::Heap(bytes) => bytes.extend_from_slice(more),
            Memory::Pages { map, length } => {
                map[*length..*length + more.len()].copy_from_slice(more);
                *length += more.len();
            }
        }
    }

    /// All bytes, to be written over.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Pages { map, length } => &mut map[..*length],
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Pages { map, length } => &map[..*length],
        }
    }
}

/// Address space; a page of it takes memory once it is written.
fn pages(length: usize) -> io::Result<MmapMut> {
    MmapOptions::new().len(length).no_reserve_swap().map_anon()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_stands_there_on_the_heap_and_in_pages() {
        const MOST: usize = 3 * PAGES_BYTES_MIN;
        let piece: Vec<u8> = (0..=250).cycle().take(1000).collect();
        let (mut buffer, mut expected) = (Buffer::default(), Vec::new());
        while expected.len() + piece.len() <= MOST {
            expected.extend_from_slice(&piece);
            let was_heap = matches!(buffer.memory, Memory::Heap(_));
            assert_eq!(buffer.is_copied_for(expected.len()), was_heap);
            buffer.make_room(expected.len(), MOST).expect("room");
            buffer.extend_from_slice(&piece);
            let is_heap = expected.len() < PAGES_BYTES_MIN;
            assert_eq!(matches!(buffer.memory, Memory::Heap(_)), is_heap);
            assert_eq!(buffer.capacity(), expected.len());
        }
        assert!(*buffer == *expected);
        assert!(buffer.make_room(MOST, MOST).is_ok());
        assert_eq!(buffer.unwritten(), MOST - expected.len());
        assert!(buffer.make_room(MOST + 1, MOST).is_err(), "more than was said");
    }

    #[test]
    fn zeros_of_any_length() {
        for length in [0, 1, PAGES_BYTES_MIN - 1, PAGES_BYTES_MIN, PAGES_BYTES_MIN + 1] {
            let mut buffer = Buffer::zeroed(length).expect("room");
            assert!(buffer.len() == length && buffer.iter().all(|byte| *byte == 0), "{length}");
            buffer.as_mut_slice().fill(7);
            assert!(buffer.iter().all(|byte| *byte == 7), "{length}");
        }
    }
}
