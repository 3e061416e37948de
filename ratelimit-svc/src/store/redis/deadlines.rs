//! The deadlines of one thread's calls, kept by one timer. Who is due when is `queue`.
//!
//! ```text
//! calls     ├a┤ ├─b─┤ ├c┤   ├──── d …       all of a budget: deadlines come in order
//! timer     └──────── a's ─┴─ d's ──►       set again only when it is over, not by each call
//! ```
//!
//! A timer of its own for each call costs more than it seems: one that ends before all others wakes
//! the thread that sets it, by a system call and a turn in vain.

mod queue;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

use queue::Queue;
use tokio::time::Instant;

/// The deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
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
        let (place, is_first) =
            QUEUE.with_borrow_mut(|queue| queue.add(deadline.into_std(), waker))?;
        if is_first {
            tokio::spawn(keep());
        }
        Some(Self(place))
    }

    fn is_due(&self, waker: &Waker) -> bool {
        QUEUE.with_borrow_mut(|queue| queue.is_due(self.0, waker))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A thread that ends has forgotten all of them.
        drop(QUEUE.try_with(|queue| queue.borrow_mut().remove(self.0)));
    }
}

/// Tells calls of their deadlines, as long as there are any.
async fn keep() {
    loop {
        let now = Instant::now().into_std();
        let (due, next) = QUEUE.with_borrow_mut(|queue| queue.pass(now));
        due.into_iter().for_each(Waker::wake);
        match next {
            Some(next) => tokio::time::sleep_until(next.into()).await,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;

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
        QUEUE.with_borrow(|queue| assert!(queue.is_idle()));
    }
}
