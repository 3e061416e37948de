//! Who watches: a bounded list. Where it is full the slowest gives way to the next.
//!
//! ```text
//! states made  ──1──2──3──4──5──►
//! reader A     ──1──2──3──4──5      takes each
//! reader B     ──1──2                three behind: gives way first
//! ```
//!
//! Everybody may read a few states first, unless they are behind: with more readers than there is
//! room for, each has its turn, and nobody is turned out by whoever just came.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who may watch at once.
pub const WATCHERS_MAX: usize = 100;
/// States that somebody may read before they give way to the next.
pub const STATES_OWN: u64 = 3;
/// So many states behind, somebody gives way whenever they came.
pub const BEHIND: u64 = 2;

/// Who watches.
#[derive(Default)]
pub struct Watchers {
    /// States made so far.
    made: AtomicU64,
    number: AtomicUsize,
    list: Mutex<Vec<Arc<Reading>>>,
}

/// How far somebody is.
struct Reading {
    /// States that were made before they came.
    from: u64,
    /// States that were made when they last took one.
    taken: AtomicU64,
    gave_way: AtomicBool,
}

/// Somebody who watches; dropped, they do no longer.
pub struct Watcher {
    watchers: Arc<Watchers>,
    reading: Arc<Reading>,
}

impl Watchers {
    /// Begins to watch. Where [`WATCHERS_MAX`] do already the slowest of them gives way; none where all
    /// of those keep up and came just now.
    pub fn watch(self: &Arc<Self>) -> Option<Watcher> {
        let made = self.made.load(Ordering::Relaxed);
        let mut list = self.list();
        if list.len() >= WATCHERS_MAX {
            let slowest = list.iter().enumerate().max_by_key(|(_, one)| one.slowness(made));
            let (at, _) = slowest.filter(|(_, one)| one.may_give_way(made))?;
            list.swap_remove(at).gave_way.store(true, Ordering::Relaxed);
        }
        let (taken, gave_way) = (AtomicU64::new(made), AtomicBool::new(false));
        let reading = Arc::new(Reading { from: made, taken, gave_way });
        list.push(reading.clone());
        self.number.store(list.len(), Ordering::Relaxed);
        Some(Watcher { watchers: self.clone(), reading })
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        self.number.load(Ordering::Relaxed) > 0
    }

    /// A state was made.
    pub fn made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Reading>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    fn behind(&self, made: u64) -> u64 {
        made.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// The states not taken, and of those who are as far behind how long they have watched.
    fn slowness(&self, made: u64) -> (u64, u64) {
        (self.behind(made), made.saturating_sub(self.from))
    }

    fn may_give_way(&self, made: u64) -> bool {
        self.behind(made) >= BEHIND || made.saturating_sub(self.from) >= STATES_OWN
    }
}

impl Watcher {
    /// Takes the newest state; not where this one gave way to another.
    pub fn take(&self) -> bool {
        let made = self.watchers.made.load(Ordering::Relaxed);
        self.reading.taken.store(made, Ordering::Relaxed);
        !self.reading.gave_way.load(Ordering::Relaxed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut list = self.watchers.list();
        list.retain(|one| !Arc::ptr_eq(one, &self.reading));
        self.watchers.number.store(list.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as there is room for.
    fn full(watchers: &Arc<Watchers>) -> Vec<Watcher> {
        let all: Vec<_> = (0..WATCHERS_MAX).filter_map(|_| watchers.watch()).collect();
        assert_eq!(all.len(), WATCHERS_MAX);
        all
    }

    #[test]
    fn so_many_watch_and_nobody_is_turned_out_at_once() {
        let watchers = Arc::new(Watchers::default());
        assert!(!watchers.is_watched());
        let mut all = full(&watchers);
        assert!(watchers.watch().is_none(), "all came just now");
        all.pop();
        all.extend(watchers.watch());
        assert_eq!(all.len(), WATCHERS_MAX, "there was room");
        assert!(watchers.is_watched() && all.iter().all(Watcher::take));
        drop(all);
        assert!(!watchers.is_watched());
    }

    #[test]
    fn the_slowest_gives_way() {
        let watchers = Arc::new(Watchers::default());
        let all = full(&watchers);
        for _ in 0..BEHIND {
            watchers.made();
            all.iter().enumerate().filter(|(at, _)| *at != 42).for_each(|(_, one)| {
                one.take();
            });
        }
        let next = watchers.watch().expect("one is behind");
        let gone: Vec<usize> = (0..all.len()).filter(|at| !all[*at].take()).collect();
        assert_eq!(gone, [42]);
        assert!(watchers.watch().is_none(), "all others keep up");
        // Whoever gave way is no longer counted.
        drop(all);
        assert!(watchers.is_watched() && next.take());
        drop(next);
        assert!(!watchers.is_watched());
    }

    #[test]
    fn of_those_who_keep_up_everybody_has_a_turn() {
        let watchers = Arc::new(Watchers::default());
        let mut all = full(&watchers);
        for _ in 0..STATES_OWN {
            watchers.made();
            all.iter().for_each(|one| assert!(one.take()));
        }
        // The first half gives way to as many, and those have their time.
        let next: Vec<_> = (0..WATCHERS_MAX / 2).filter_map(|_| watchers.watch()).collect();
        assert_eq!(next.len(), WATCHERS_MAX / 2);
        all.retain(Watcher::take);
        assert_eq!(all.len(), WATCHERS_MAX / 2);
        let rest: Vec<_> = (0..WATCHERS_MAX).filter_map(|_| watchers.watch()).collect();
        assert_eq!(rest.len(), WATCHERS_MAX / 2);
        assert!(next.iter().all(Watcher::take) && !all.iter().any(Watcher::take));
    }
}
