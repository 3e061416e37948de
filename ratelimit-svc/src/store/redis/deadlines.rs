//! The deadlines of one thread's calls, kept by one timer. Knows no call.
//!
//! ```text
//! calls     ├a┤ ├─b─┤ ├c┤   ├──── d …       all of a budget: deadlines come in order
//! timer     └──────── a's ─┴─ d's ──►       set again only when it is over, not by each call
//! ```
//!
//! A timer of its own for each call costs more than it seems: one that ends before all others wakes
//! the thread that sets it, by a system call and a turn in vain.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

use tokio::time::Instant;

/// The deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

thread_local! {
    static DEADLINES: RefCell<Deadlines> = RefCell::default();
}

/// What `call` comes to, if it does by `deadline`.
///
/// # Errors
/// When it does not.
pub async fn by<T>(deadline: Instant, call: impl Future<Output = T>) -> Result<T, Elapsed> {
    // Only what runs on a worker stays on its thread.
    if chassis::grpc::worker().is_none() {
        return tokio::time::timeout_at(deadline, call).await.map_err(|_| Elapsed);
    }
    by_of_thread(deadline, call).await
}

async fn by_of_thread<T>(deadline: Instant, call: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut call = pin!(call);
    let mut place: Option<Place> = None;
    let in_order = poll_fn(|cx| {
        if let Poll::Ready(value) = call.as_mut().poll(cx) {
            return Poll::Ready(Some(Ok(value)));
        }
        let Some(place) = &place else {
            place = Place::take(deadline, cx.waker());
            return if place.is_some() { Poll::Pending } else { Poll::Ready(None) };
        };
        match place.is_due(cx.waker()) {
            true => Poll::Ready(Some(Err(Elapsed))),
            false => Poll::Pending,
        }
    });
    match in_order.await {
        Some(result) => result,
        // A second step of a call that began before others.
        None => tokio::time::timeout_at(deadline, call).await.map_err(|_| Elapsed),
    }
}

/// A call's place among those that wait, until it is dropped.
struct Place(usize);

impl Place {
    fn take(deadline: Instant, waker: &Waker) -> Option<Self> {
        let (place, is_first) = DEADLINES.with_borrow_mut(|deadlines| {
            let place = deadlines.add(deadline, waker)?;
            Some((place, !std::mem::replace(&mut deadlines.is_kept, true)))
        })?;
        if is_first {
            tokio::spawn(keep());
        }
        Some(Self(place))
    }

    fn is_due(&self, waker: &Waker) -> bool {
        DEADLINES.with_borrow_mut(|deadlines| deadlines.is_due(self.0, waker))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A thread that ends has forgotten all of them.
        let _ = DEADLINES.try_with(|deadlines| deadlines.borrow_mut().remove(self.0));
    }
}

/// Tells calls of their deadlines, as long as there are any.
async fn keep() {
    loop {
        let (due, next) = DEADLINES.with_borrow_mut(|deadlines| deadlines.pass(Instant::now()));
        due.into_iter().for_each(Waker::wake);
        match next {
            Some(next) => tokio::time::sleep_until(next).await,
            None => return,
        }
    }
}

/// The deadlines, in order. As many as calls of one budget.
#[derive(Default)]
struct Deadlines {
    /// When, and for the call in which place; also of calls that ended meanwhile.
    queue: VecDeque<(Instant, usize)>,
    places: Vec<Waiting>,
    free: Vec<usize>,
    /// A task waits for the first.
    is_kept: bool,
}

/// A place. It is free once its call ended and its deadline left the queue.
enum Waiting {
    Call(Waker),
    Due,
    Ended,
    Free,
}

impl Deadlines {
    /// A place for a call; none when the deadline of one before it is later.
    fn add(&mut self, deadline: Instant, waker: &Waker) -> Option<usize> {
        if self.queue.back().is_some_and(|(last, _)| *last > deadline) {
            return None;
        }
        let waiting = Waiting::Call(waker.clone());
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place] = waiting;
                place
            }
            None => {
                self.places.push(waiting);
                self.places.len() - 1
            }
        };
        self.queue.push_back((deadline, place));
        Some(place)
    }

    /// Whether the deadline of a call passed; if not, `waker` is woken when it does.
    fn is_due(&mut self, place: usize, waker: &Waker) -> bool {
        match &mut self.places[place] {
            Waiting::Call(known) => {
                known.clone_from(waker);
                false
            }
            _ => true,
        }
    }

    /// The call ended.
    fn remove(&mut self, place: usize) {
        match self.places[place] {
            Waiting::Call(_) => self.places[place] = Waiting::Ended,
            _ => self.release(place),
        }
        // Those at the front have waited for nothing else.
        while let Some(&(_, first)) = self.queue.front()
            && matches!(self.places[first], Waiting::Ended)
        {
            self.queue.pop_front();
            self.release(first);
        }
    }

    /// Who is to be woken at `now`, and when the next is. With none, nobody keeps them any more.
    fn pass(&mut self, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        let mut due = Vec::new();
        while let Some(&(_, place)) = self.queue.front().filter(|(deadline, _)| *deadline <= now) {
            self.queue.pop_front();
            match std::mem::replace(&mut self.places[place], Waiting::Due) {
                Waiting::Call(waker) => due.push(waker),
                _ => self.release(place),
            }
        }
        let next = self.queue.front().map(|(deadline, _)| *deadline);
        self.is_kept = next.is_some();
        (due, next)
    }

    fn release(&mut self, place: usize) {
        self.places[place] = Waiting::Free;
        self.free.push(place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;
    use futures_util::task::noop_waker;
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    async fn after(pause: Duration) -> Duration {
        tokio::time::sleep(pause).await;
        pause
    }

    #[tokio::test(start_paused = true)]
    async fn calls_end_by_their_deadline_and_not_before() {
        let began = Instant::now();
        let call = |takes, budget| async move {
            let answer = by_of_thread(began + ms(budget), after(ms(takes))).await;
            (answer.ok(), began.elapsed())
        };
        // The last but one is out of order.
        let calls = [(1, 5), (9, 5), (7, 6), (3, 8), (20, 4), (2, 9)];
        let ended = join_all(calls.map(|(takes, budget)| call(takes, budget))).await;
        let late = |at| (None, ms(at));
        let answered = |at| (Some(ms(at)), ms(at));
        assert_eq!(ended, [answered(1), late(5), late(6), answered(3), late(4), answered(2)]);
        // Later ones as well, when nobody was waiting for a while.
        after(ms(100)).await;
        let began = Instant::now();
        assert_eq!(by_of_thread(began + ms(5), after(ms(50))).await, Err(Elapsed));
        assert_eq!(began.elapsed(), ms(5));
        after(ms(10)).await;
        DEADLINES.with_borrow(|deadlines| {
            assert!(deadlines.queue.is_empty() && !deadlines.is_kept);
            assert_eq!(deadlines.free.len(), deadlines.places.len());
        });
    }

    #[test]
    fn a_call_that_is_dropped_leaves_its_place() {
        let (now, waker) = (Instant::now(), noop_waker());
        let mut deadlines = Deadlines::default();
        let places: Vec<_> = (0..3).filter_map(|n| deadlines.add(now + ms(n), &waker)).collect();
        deadlines.remove(places[1]);
        assert_eq!(deadlines.queue.len(), 3, "behind one that waits");
        deadlines.remove(places[0]);
        assert_eq!(deadlines.queue.len(), 1, "and with it");
        let (due, next) = deadlines.pass(now + ms(9));
        assert_eq!((due.len(), next), (1, None));
        assert!(deadlines.is_due(places[2], &waker));
        deadlines.remove(places[2]);
        assert_eq!(deadlines.free.len(), 3);
    }

    proptest! {
        /// Against a list of who waits until when.
        #[test]
        fn whoever_waits_is_told_in_time(
            steps in proptest::collection::vec((0..3u8, 0..40u64), 1..200),
        ) {
            let (began, waker) = (Instant::now(), noop_waker());
            let (mut deadlines, mut waiting) = (Deadlines::default(), Vec::new());
            let mut now = began;
            for (step, number) in steps {
                match step {
                    0 => {
                        let deadline = now + ms(number);
                        let last = deadlines.queue.back().map(|(last, _)| *last);
                        let place = deadlines.add(deadline, &waker);
                        prop_assert_eq!(place.is_none(), last.is_some_and(|last| last > deadline));
                        waiting.extend(place.map(|place| (place, deadline)));
                    }
                    1 if !waiting.is_empty() => {
                        let (place, _) = waiting.remove(number as usize % waiting.len());
                        deadlines.remove(place);
                    }
                    _ => {
                        now += ms(number);
                        let (due, next) = deadlines.pass(now);
                        let told = waiting.iter().filter(|(_, at)| *at <= now).count();
                        prop_assert!(due.len() <= told);
                        prop_assert!(next.is_none_or(|next| next > now));
                        let first = waiting.iter().map(|(_, at)| *at).filter(|at| *at > now).min();
                        prop_assert!(first.is_none() || next <= first && next.is_some());
                    }
                }
                for (place, _) in &waiting {
                    let due = matches!(deadlines.places[*place], Waiting::Due);
                    let (_, at) = waiting.iter().find(|(known, _)| known == place).expect("waits");
                    prop_assert!(!due || *at <= now, "not before");
                }
                let places: std::collections::HashSet<_> = waiting.iter().map(|(p, _)| p).collect();
                prop_assert_eq!(places.len(), waiting.len(), "one each");
            }
            let (_, next) = deadlines.pass(now + ms(100));
            prop_assert_eq!(next, None);
            for (place, _) in waiting {
                prop_assert!(deadlines.is_due(place, &waker));
                deadlines.remove(place);
            }
            prop_assert_eq!(deadlines.free.len(), deadlines.places.len());
        }
    }
}
