//! The shapes of a simulation: more come as the recording is read, and those that are there stay where they
//! are, so that plans may borrow from them.
//!
//! ```text
//! blocks ─► [0 … 4095] ─► [4096 … 8191] ─► made when the first shape of a block comes
//! ```

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::record::reader::SHAPES_MAX;
use crate::record::shape::Shape;

/// Shapes of a block.
const BLOCK: usize = 4096;

/// Shapes in the order in which they came.
pub struct Shapes {
    blocks: Vec<OnceLock<Box<[OnceLock<Shape>]>>>,
    len: AtomicUsize,
}

impl Default for Shapes {
    fn default() -> Self {
        let blocks = (0..SHAPES_MAX.div_ceil(BLOCK)).map(|_| OnceLock::new()).collect();
        Self { blocks, len: AtomicUsize::new(0) }
    }
}

impl Shapes {
    /// Adds one; a recording names no more than there is room for.
    pub fn push(&self, shape: Shape) {
        let at = self.len.fetch_add(1, Ordering::Relaxed);
        let Some(block) = self.blocks.get(at / BLOCK) else { return };
        let block = block.get_or_init(|| (0..BLOCK).map(|_| OnceLock::new()).collect());
        // Nobody else has this place.
        let _ = block[at % BLOCK].set(shape);
    }

    /// The shape of a number that a recording has named.
    pub fn get(&self, at: usize) -> &Shape {
        let block = self.blocks[at / BLOCK].get().expect("its first shape came before");
        block[at % BLOCK].get().expect("it came before it is asked for")
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Shape> {
        let blocks = self.blocks.into_iter().filter_map(OnceLock::into_inner);
        blocks.flat_map(|block| block.into_vec()).filter_map(OnceLock::into_inner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_stay_where_they_are() {
        let shapes = Shapes::default();
        let shape = |n: usize| Shape { domain: n.to_string(), ..Shape::default() };
        assert!(shapes.is_empty());
        shapes.push(shape(0));
        let first = shapes.get(0);
        (1..BLOCK + 2).for_each(|n| shapes.push(shape(n)));
        assert_eq!((first.domain.as_str(), shapes.len()), ("0", BLOCK + 2));
        assert_eq!(shapes.get(BLOCK).domain, BLOCK.to_string());
        let all = shapes.into_vec();
        assert!(all.iter().enumerate().all(|(n, one)| one.domain == n.to_string()));
        assert_eq!(all.len(), BLOCK + 2);
    }
}
