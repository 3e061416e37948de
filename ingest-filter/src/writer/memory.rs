//! The memory of all batches in hand, however many partitions there are.
//!
//! A lane waits for room before it takes its first record, and holds nothing meanwhile. A batch
//! grows only as far as there is room at once; then it is written as it is. So lanes never wait
//! for each other with something in hand.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A record is held as it came, as a part of a batch, and compressed.
pub const COPIES: u64 = 3;
const KIB: u64 = 1024;

/// Room for batches.
#[derive(Clone)]
pub struct Memory {
    room: Arc<Semaphore>,
    kib: u32,
}

/// Room that is taken, until dropped.
pub struct Held(OwnedSemaphorePermit);

impl Memory {
    /// Room for `bytes`.
    pub fn new(bytes: u64) -> Self {
        let kib = u32::try_from(bytes / KIB).unwrap_or(u32::MAX);
        Self { room: Arc::new(Semaphore::new(kib as usize)), kib }
    }

    /// Waits for room for a batch that begins with a record of `bytes`. One that needs more than
    /// there is at all waits for all of it.
    pub async fn begin(&self, bytes: u64) -> Held {
        let room = self.room.clone().acquire_many_owned(self.kib_of(bytes)).await;
        Held(room.expect("the semaphore is never closed"))
    }

    /// Takes room for one more record; `false` when there is none now.
    #[must_use]
    pub fn grow(&self, held: &mut Held, bytes: u64) -> bool {
        let room = self.room.clone().try_acquire_many_owned(self.kib_of(bytes));
        room.map(|room| held.0.merge(room)).is_ok()
    }

    /// What is held by all.
    pub fn bytes(&self) -> u64 {
        (u64::from(self.kib) - self.room.available_permits() as u64) * KIB
    }

    fn kib_of(&self, bytes: u64) -> u32 {
        let kib = bytes.saturating_mul(COPIES).div_ceil(KIB);
        u32::try_from(kib).unwrap_or(u32::MAX).min(self.kib)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn batches_wait_at_the_bound_and_end_at_it() {
        let memory = Memory::new(12 * KIB);
        let mut first = memory.begin(2 * KIB).now_or_never().expect("there is room");
        assert!(memory.grow(&mut first, KIB));
        assert_eq!(memory.bytes(), 9 * KIB);
        assert!(!memory.grow(&mut first, 2 * KIB), "no room: written as it is");
        assert!(memory.begin(2 * KIB).now_or_never().is_none(), "the next one waits");
        assert!(memory.begin(KIB).now_or_never().is_some(), "and one for which there is room not");
        drop(first);
        assert_eq!(memory.bytes(), 0);
        let huge = memory.begin(1 << 40).now_or_never().expect("alone it may have everything");
        assert_eq!(memory.bytes(), 12 * KIB);
        drop(huge);
    }
}
