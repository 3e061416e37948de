//! Lets so many writes to the target be under way as its pace says, whichever lane they are of.
//!
//! A write whose failure would be held against its points goes alone: when the database dies of
//! one of several writes, all of them fail, and only one is to blame.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::writer::pace::{Ended, Pace};

/// The one gate of a writer.
pub struct Gate {
    state: Mutex<State>,
    /// Told of every change that may let one in.
    changed: Notify,
}

struct State {
    pace: Pace,
    under_way: usize,
    /// One of them goes alone.
    alone: bool,
    /// So many wait to go alone; nobody else begins meanwhile.
    waiting_alone: usize,
}

/// Counts as waiting to go alone until dropped.
struct WaitsAlone<'a>(&'a Gate);

/// A write that is under way; one that is dropped without an end says nothing about the target.
pub struct UnderWay<'a> {
    gate: &'a Gate,
    ended: Ended,
    alone: bool,
}

impl Gate {
    /// At most `max` writes at once.
    pub fn new(max: usize) -> Self {
        let state = State { pace: Pace::new(max), under_way: 0, alone: false, waiting_alone: 0 };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Waits until one more may be under way.
    pub async fn enter(&self) -> UnderWay<'_> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                let closed = state.alone || state.waiting_alone > 0;
                if !closed && state.under_way < state.pace.limit() {
                    state.under_way += 1;
                    return UnderWay { gate: self, ended: Ended::Otherwise, alone: false };
                }
            }
            changed.await;
        }
    }

    /// Waits until nothing else is under way, and keeps it so.
    pub async fn enter_alone(&self) -> UnderWay<'_> {
        self.state().waiting_alone += 1;
        let _waits = WaitsAlone(self);
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if state.under_way == 0 {
                    state.under_way = 1;
                    state.alone = true;
                    return UnderWay { gate: self, ended: Ended::Otherwise, alone: true };
                }
            }
            changed.await;
        }
    }

    /// How many may be under way now.
    pub fn limit(&self) -> usize {
        self.state().pace.limit()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay<'_> {
    /// How it ended.
    pub fn end(mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let (room, all) = {
            let mut state = self.gate.state();
            let busy = state.under_way >= state.pace.limit();
            state.pace.ended(self.ended, busy);
            state.under_way -= 1;
            state.alone &= !self.alone;
            let room = state.pace.limit().saturating_sub(state.under_way);
            (room, self.alone || state.waiting_alone > 0)
        };
        if all {
            return self.gate.changed.notify_waiters();
        }
        for _ in 0..room {
            self.gate.changed.notify_one();
        }
    }
}

impl Drop for WaitsAlone<'_> {
    fn drop(&mut self) {
        self.0.state().waiting_alone -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn no_more_are_under_way_than_the_target_takes() {
        let gate = Gate::new(3);
        let first = gate.enter().now_or_never().expect("room");
        let second = gate.enter().now_or_never().expect("room");
        assert!(gate.enter().now_or_never().is_none());
        second.end(Ended::Overloaded);
        assert_eq!(gate.limit(), 1);
        assert!(gate.enter().now_or_never().is_none(), "the first is still under way");
        first.end(Ended::Answered(1, Duration::ZERO));
        let mut all: Vec<_> =
            (0..gate.limit()).map(|_| gate.enter().now_or_never().expect("room")).collect();
        assert!(gate.enter().now_or_never().is_none());
        drop(all.pop());
        assert!(gate.enter().now_or_never().is_some(), "one that was given up makes room");
    }

    #[test]
    fn a_suspect_goes_alone() {
        let gate = Gate::new(8);
        let other = gate.enter().now_or_never().expect("room");
        let mut suspect = Box::pin(gate.enter_alone());
        assert!(suspect.as_mut().now_or_never().is_none());
        assert!(gate.enter().now_or_never().is_none(), "nobody begins while it waits");
        let mut later = Box::pin(gate.enter());
        assert!(later.as_mut().now_or_never().is_none());
        drop(other);
        let alone = suspect.as_mut().now_or_never().expect("nothing else is under way");
        assert!(later.as_mut().now_or_never().is_none());
        drop(suspect);
        drop(alone);
        assert!(later.as_mut().now_or_never().is_some());
        drop(later);
        let given_up = Box::pin(gate.enter_alone());
        drop(given_up);
        assert!(gate.enter().now_or_never().is_some());
    }
}
