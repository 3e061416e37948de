//! Hits that were taken in one part of a store for a request that another part refused: given back by a
//! task, so that no request waits beyond its budget for it.
//!
//! ```text
//! a −1 ┐
//! a −1 ┼─► a −2, b −1 ─► up to AT_ONCE_MAX calls at a time, and then what came meanwhile
//! b −1 ┘   what waits adds up by counter, so a flood of one tenant is one call after the other
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use crate::decide::hit::Hit;
use crate::store::error::StoreError;

/// The most hits of requests that wait to be given back, beside as many under way; more are lost until
/// their window ends.
pub const BACK_MAX: usize = 4096;
/// The most calls under way at a time.
pub const AT_ONCE_MAX: usize = 64;

/// What is to be given back.
pub struct GiveBack {
    sender: mpsc::Sender<Back>,
    receiver: Mutex<mpsc::Receiver<Back>>,
}

/// What requests took of one counter.
struct Back {
    /// As a refund.
    hit: Hit,
    /// When it was taken, at the latest.
    now: Duration,
    /// Those whose last one is dropped have all of their hits back, or will not.
    waiting: Vec<Arc<oneshot::Sender<()>>>,
}

/// A counter and what is taken of it: the same hits but for their number.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Counter {
    key: Box<[u8]>,
    window_start: u64,
    limit: u32,
    capacity: u32,
    class: Option<u8>,
}

impl Default for GiveBack {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(BACK_MAX);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl GiveBack {
    /// Has refunds given back; the receiver resolves once they are, or when they are not.
    pub fn add(&self, hits: Vec<Hit>, now: Duration) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let done = Arc::new(done);
        for hit in hits {
            // Without room it is lost until its window ends.
            let _ = self.sender.try_send(Back { hit, now, waiting: vec![done.clone()] });
        }
        receiver
    }

    /// Has the hits given back; the future waits for it until `deadline` at most.
    pub fn by(
        &self,
        deadline: Instant,
        hits: Vec<Hit>,
        now: Duration,
    ) -> impl Future<Output = ()> + use<> {
        let done = self.add(hits, now);
        async move {
            let _ = tokio::time::timeout_at(deadline, done).await;
        }
    }

    /// Gives back by `call`, a counter in each. Never ends.
    pub async fn run<T, F>(&self, call: impl Fn(Hit, Duration) -> F)
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let give = |Back { hit, now, waiting }: Back| {
            let given = call(hit, now);
            async move {
                // What is not given back is lost until its window ends.
                let _ = given.await;
                drop(waiting);
            }
        };
        let (mut receiver, mut backs) = (self.receiver.lock().await, Vec::new());
        while receiver.recv_many(&mut backs, BACK_MAX).await > 0 {
            let calls = stream::iter(by_counter(backs.drain(..)));
            calls.for_each_concurrent(AT_ONCE_MAX, &give).await;
        }
    }
}

/// Refunds of the same counter as one.
fn by_counter(backs: impl Iterator<Item = Back>) -> impl Iterator<Item = Back> {
    let mut counters: HashMap<Counter, Back> = HashMap::new();
    for back in backs {
        match counters.entry(Counter::of(&back.hit)) {
            Entry::Occupied(mut known) => known.get_mut().merge(back),
            Entry::Vacant(vacant) => {
                vacant.insert(back);
            }
        }
    }
    counters.into_values()
}

impl Back {
    /// Takes in another refund of the same counter: its hits, and the demand that goes with them.
    fn merge(&mut self, other: Self) {
        self.hit.amount = self.hit.amount.saturating_add(other.hit.amount);
        let asked = other.hit.share.and_then(|share| share.asked);
        if let (Some(share), Some(asked)) = (&mut self.hit.share, asked) {
            share.asked = Some(share.asked.unwrap_or(0).saturating_add(asked));
        }
        self.now = self.now.max(other.now);
        self.waiting.extend(other.waiting);
    }
}

impl Counter {
    fn of(hit: &Hit) -> Self {
        Self {
            key: hit.key.clone(),
            window_start: hit.window.start,
            limit: hit.limit,
            capacity: hit.capacity(),
            class: hit.share.as_ref().map(|share| share.rank),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::decide::hit::Role;
    use crate::limits::algorithm::Algorithm;
    use crate::limits::unit::Window;

    fn hit(key: usize) -> Hit {
        Hit {
            key: key.to_string().into_bytes().into(),
            amount: 1,
            is_refund: true,
            limit: 1,
            window: Window { start: 0, seconds: 1 },
            algorithm: Algorithm::FixedWindow,
            role: Role::Observer,
            share: None,
        }
    }

    /// What is given back by the time nothing moves any more, while `back` is added to.
    async fn given(back: &GiveBack, while_it_runs: impl Future<Output = ()>) -> Vec<u64> {
        let given: RefCell<Vec<u64>> = RefCell::default();
        let run = back.run(|hit: Hit, _| {
            given.borrow_mut().push(hit.amount);
            std::future::ready(Ok(()))
        });
        tokio::select! {
            () = run => {}
            () = while_it_runs => {}
        }
        let mut given = given.into_inner();
        given.sort_unstable();
        given
    }

    #[tokio::test]
    async fn it_is_bounded_and_tells_when_it_is_done() {
        let back = GiveBack::default();
        let add = |number| back.add((0..number).map(hit).collect(), Duration::ZERO);
        let (mut first, mut second) = (add(BACK_MAX), add(2));
        assert!((&mut second).now_or_never().is_some_and(|done| done.is_err()), "no room");
        assert!((&mut first).now_or_never().is_none(), "it waits");
        let amounts = given(&back, async { drop(first.await) }).await;
        assert_eq!(amounts, [1; BACK_MAX]);
        assert!(add(0).now_or_never().is_some(), "nothing to do");
        let third = add(2);
        assert_eq!(given(&back, async { drop(third.await) }).await, [1, 1], "room again");
    }

    #[tokio::test]
    async fn what_waits_for_one_counter_is_one_call() {
        let back = GiveBack::default();
        let done: Vec<_> = (0..100).map(|n| back.add(vec![hit(n % 2)], Duration::ZERO)).collect();
        let all = async { drop(futures_util::future::join_all(done).await) };
        assert_eq!(given(&back, all).await, [50, 50]);
    }

    #[test]
    fn demand_that_is_none_adds_up_with_the_hits() {
        use crate::limits::sharing::{ClassShare, Fraction, How};
        let half = Fraction::try_new(0.5).expect("in bounds");
        let share = |asked| ClassShare { rank: 1, classes: 2, how: How::UpTo(half), asked };
        let back = |asked| Back {
            hit: Hit { share: Some(share(asked)), ..hit(0) },
            now: Duration::ZERO,
            waiting: Vec::new(),
        };
        let backs = [None, Some(2), None, Some(3)].map(back);
        let merged: Vec<Hit> = by_counter(backs.into_iter()).map(|back| back.hit).collect();
        assert_eq!(merged, [Hit { amount: 4, share: Some(share(Some(5))), ..hit(0) }]);
    }

    #[tokio::test]
    async fn what_one_hit_is_depends_on_its_limit() {
        let back = GiveBack::default();
        let hits = vec![hit(0), Hit { limit: 2, ..hit(0) }, Hit { limit: 2, ..hit(0) }];
        let done = back.add(hits, Duration::ZERO);
        assert_eq!(given(&back, async { drop(done.await) }).await, [1, 2]);
    }

    #[tokio::test]
    async fn calls_do_not_wait_for_each_other_and_are_bounded() {
        let (back, answers) = (GiveBack::default(), Semaphore::new(0));
        let (under_way, most) = (Cell::new(0), Cell::new(0));
        let done = back.add((0..3 * AT_ONCE_MAX).map(hit).collect(), Duration::ZERO);
        let run = back.run(|_, _| async {
            under_way.set(under_way.get() + 1);
            most.set(most.get().max(under_way.get()));
            answers.acquire().await.expect("open").forget();
            under_way.set(under_way.get() - 1);
            Ok(())
        });
        let all = async {
            while under_way.get() < AT_ONCE_MAX {
                tokio::task::yield_now().await;
            }
            answers.add_permits(3 * AT_ONCE_MAX);
            let _ = done.await;
        };
        tokio::select! {
            () = run => {}
            () = all => {}
        }
        assert_eq!(most.get(), AT_ONCE_MAX);
    }
}
