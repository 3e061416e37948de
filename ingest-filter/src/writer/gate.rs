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
    /// How often the target had no room. Writes that began before the last time say nothing about
    /// the pace since: a hiccup that all of them feel is one, and what goes well again was asked
    /// for when there were more.
    hiccups: u64,
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
    /// The state's when it began.
    hiccups: u64,
}

impl Gate {
    /// At most `max` writes at once.
    pub fn new(max: usize) -> Self {
        let pace = Pace::new(max);
        let state = State { pace, hiccups: 0, under_way: 0, alone: false, waiting_alone: 0 };
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
                    return self.begun(&state, false);
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
                    return self.begun(&state, true);
                }
            }
            changed.await;
        }
    }

    /// How many may be under way now.
    pub fn limit(&self) -> usize {
        self.state().pace.limit()
    }

    fn begun(&self, state: &State, alone: bool) -> UnderWay<'_> {
        UnderWay { gate: self, ended: Ended::Otherwise, alone, hiccups: state.hiccups }
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
            if self.hiccups == state.hiccups {
                state.pace.ended(self.ended, busy);
                state.hiccups += u64::from(self.ended == Ended::Overloaded);
            }
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

    /// A target that works on `takes` writes at once, 20 to 32 ms each, more of them slower, and says
    /// no from `refuses` on.
    struct Paced {
        takes: std::cell::Cell<usize>,
        refuses: usize,
        under_way: std::cell::Cell<usize>,
        most: std::cell::Cell<usize>,
        refused: std::cell::Cell<usize>,
        done: std::cell::Cell<usize>,
    }

    impl Paced {
        async fn write(&self, gate: &Gate) {
            let under_way = gate.enter().await;
            self.under_way.set(self.under_way.get() + 1);
            self.most.set(self.most.get().max(self.under_way.get()));
            let began = tokio::time::Instant::now();
            let share = self.under_way.get().div_ceil(self.takes.get()) as u32;
            let refuses = self.under_way.get() >= self.refuses;
            let work = 20 + (self.done.get() + self.refused.get()) as u64 * 7919 % 13;
            let takes = if refuses { 1 } else { work * u64::from(share) };
            tokio::time::sleep(Duration::from_millis(takes)).await;
            self.under_way.set(self.under_way.get() - 1);
            match refuses {
                true => {
                    self.refused.set(self.refused.get() + 1);
                    under_way.end(Ended::Overloaded);
                }
                false => {
                    self.done.set(self.done.get() + 1);
                    under_way.end(Ended::Answered(5000, began.elapsed()));
                }
            }
        }

        /// So many writes by 32 lanes; gives how many were refused of how many.
        async fn writes(&self, gate: &Gate, count: usize) -> (usize, usize) {
            let before = (self.refused.get(), self.done.get());
            self.most.set(0);
            let lane = async || {
                while self.done.get() - before.1 < count {
                    self.write(gate).await;
                }
            };
            futures_util::future::join_all((0..32).map(|_| lane())).await;
            (self.refused.get() - before.0, self.done.get() - before.1)
        }
    }

    /// On a clock of the test's: the writes under way follow what the target takes, when it says
    /// no and when it only becomes slow.
    #[tokio::test(start_paused = true)]
    async fn as_many_are_under_way_as_the_target_takes() {
        let paced = |takes, refuses| Paced {
            takes: std::cell::Cell::new(takes),
            refuses,
            under_way: std::cell::Cell::default(),
            most: std::cell::Cell::default(),
            refused: std::cell::Cell::default(),
            done: std::cell::Cell::default(),
        };
        // It takes eight, and says no to the ninth.
        let (gate, target) = (Gate::new(64), paced(8, 9));
        let (refused, done) = target.writes(&gate, 5000).await;
        assert!(refused * 10 < done, "{refused} refused of {done}");
        let began = tokio::time::Instant::now();
        let (_, done) = target.writes(&gate, 1000).await;
        let at_once = done as f64 * 0.026 / began.elapsed().as_secs_f64();
        assert!(at_once > 4.0, "{at_once:.1} at once of the 8 that it takes");
        // It says nothing, and takes longer with each four more.
        let (gate, target) = (Gate::new(64), paced(4, usize::MAX));
        target.writes(&gate, 5000).await;
        assert!((4..=28).contains(&target.most.get()), "{} at once", target.most.get());
        // Then it has room for one only, and later for many again.
        target.takes.set(1);
        target.writes(&gate, 2000).await;
        target.writes(&gate, 100).await;
        assert!(target.most.get() <= 8, "{} at once where one has room", target.most.get());
        target.takes.set(64);
        target.writes(&gate, 20_000).await;
        assert!(target.most.get() >= 32, "{} at once where all have room", target.most.get());
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
