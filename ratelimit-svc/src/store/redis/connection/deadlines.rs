//! The deadlines of one thread's calls, kept by one timer. Who is due when is `queue`.
//!
//! ```text
//! calls     ├a┤ ├─b─┤ ├c┤   ├──── d …       all of a budget: deadlines come in order
//! timer     └──────── a's ─┴─ d's ──►       set again only when it is over, not by each call
//! ```
//!
//! A deadline that is noticed late is a sign of this process and not of the call: it was kept from the
//! processor, and the answer may wait unread. Such a call is given [`GRACE`] more, once.
//!
//! A timer of its own for each call costs more than it seems: one that ends before all others wakes
//! the thread that sets it, by a system call and a turn in vain.

mod queue;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Duration;

use queue::Queue;
use tokio::time::Instant;

/// A timer that is this late was kept from running: those of the runtime are exact to a millisecond.
pub const LATE: Duration = Duration::from_millis(2);
/// What a call is given beyond its deadline where that was noticed late.
pub const GRACE: Duration = Duration::from_millis(2);

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
    let mut call = pin!(call);
    // Only what runs on a worker stays on its thread.
    let answered = match chassis::grpc::worker().is_some() {
        true => by_of_thread(deadline, call.as_mut()).await,
        false => tokio::time::timeout_at(deadline, call.as_mut()).await.map_err(|_| Elapsed),
    };
    let now = Instant::now();
    match answered {
        Err(Elapsed) if now >= deadline + LATE => {
            tokio::time::timeout_at(now + GRACE, call).await.map_err(|_| Elapsed)
        }
        answered => answered,
    }
}

async fn by_of_thread<T>(
    deadline: Instant,
    mut call: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Elapsed> {
    let mut position: Option<Position> = None;
    let in_order = poll_fn(|cx| {
        if let Poll::Ready(value) = call.as_mut().poll(cx) {
            return Poll::Ready(Some(Ok(value)));
        }
        let Some(position) = &position else {
            position = Position::take(deadline, cx.waker());
            return if position.is_some() { Poll::Pending } else { Poll::Ready(None) };
        };
        match position.is_due(cx.waker()) {
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

/// A call's position among those that wait, until it is dropped.
struct Position(usize);

impl Position {
    fn take(deadline: Instant, waker: &Waker) -> Option<Self> {
        let (position, is_first) =
            QUEUE.with_borrow_mut(|queue| queue.add(deadline.into_std(), waker))?;
        if is_first {
            tokio::spawn(keep());
        }
        Some(Self(position))
    }

    fn is_due(&self, waker: &Waker) -> bool {
        QUEUE.with_borrow_mut(|queue| queue.is_due(self.0, waker))
    }
}

impl Drop for Position {
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
            let call = pin!(after(ms(takes)));
            let answer = by_of_thread(began + ms(budget), call).await;
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
        assert_eq!(by_of_thread(began + ms(5), pin!(after(ms(50)))).await, Err(Elapsed));
        assert_eq!(began.elapsed(), ms(5));
        after(ms(10)).await;
        QUEUE.with_borrow(|queue| assert!(queue.is_idle()));
    }

    /// A thread that was away finds the deadline passed, and the answer unread.
    #[tokio::test(start_paused = true)]
    async fn a_pause_of_this_process_is_no_silence_of_the_store() {
        for (pause, answer_after, expected) in [
            // On time: the store is slow.
            (ms(0), ms(6), None),
            // The timer was late, and the answer is there.
            (ms(20), ms(21), Some(())),
            // Late, and silent all the same.
            (ms(20), ms(30), None),
        ] {
            let began = Instant::now();
            let call = async {
                // The clock runs on, and nothing else does.
                tokio::time::advance(pause).await;
                tokio::time::sleep_until(began + answer_after).await;
            };
            assert_eq!(by(began + ms(5), call).await.ok(), expected, "{pause:?}");
        }
    }
}
