//! What goes back to its counter because a limit changed: the queue between slots and whoever sends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{DUE_MAX, Table, lock};
use crate::lease::claim::Unspent;
use crate::lease::slot::Slot;

impl Table {
    /// Takes up to `max` hits that go back to their counters, to be counted as refunds.
    pub fn returns(&self, max: usize) -> Vec<Unspent> {
        let mut returns = Vec::new();
        while returns.len() < max {
            let Some(back) = lock(&self.returns).pop_front() else { break };
            self.pending.fetch_sub(1, Ordering::AcqRel);
            let mut shard = self.shard(self.hash(&back.stem));
            match shard.slot(&back.stem) {
                Some(slot) if !slot.may_return(back.epoch) => slot.returned(&back.hit, None),
                _ => returns.push(back),
            }
        }
        returns
    }

    /// Takes in where a counter stands since hits went back to it; none where that is not known. The hash
    /// is that of the tickets it concerns.
    pub fn returned(&self, back: &Unspent, count: Option<u64>) -> u64 {
        let hash = self.hash(&back.stem);
        if let Some(slot) = self.shard(hash).slot(&back.stem) {
            slot.returned(&back.hit, count);
        }
        let tally = if count.is_some() { &self.tally.returned } else { &self.tally.stranded };
        tally.fetch_add(back.hit.amount, Ordering::Relaxed);
        hash
    }

    pub(super) fn queue_returns(&self, stem: &Arc<[u8]>, slot: &mut Slot) {
        let hits = slot.take_returns();
        if hits.is_empty() {
            return;
        }
        let epoch = slot.epoch();
        let mut returns = lock(&self.returns);
        for hit in hits {
            match returns.len() < DUE_MAX {
                true => {
                    returns.push_back(Unspent { stem: stem.clone(), hit, epoch });
                    self.pending.fetch_add(1, Ordering::AcqRel);
                }
                false => slot.returned(&hit, None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::lease::LeaseTerms;

    /// Every request that finds its tokens asks whether claims are due: with a lock there, all of them
    /// would wait for one another, whatever the number of shards.
    #[test]
    fn to_see_that_nothing_is_due_takes_no_lock() {
        let table = Table::new(&LeaseTerms::default(), 1000, 1, Duration::ZERO);
        let (due, returns) = (lock(&table.due), lock(&table.returns));
        let (sender, seen) = mpsc::channel();
        std::thread::scope(|scope| {
            let table = &table;
            scope.spawn(move || sender.send(table.has_due()));
            let seen = seen.recv_timeout(Duration::from_secs(10));
            drop((due, returns));
            assert_eq!(seen, Ok(false));
        });
    }
}
