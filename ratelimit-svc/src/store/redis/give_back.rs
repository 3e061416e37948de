//! Hits that were taken in one place for a request that another place refused: given back by a
//! task, so that no request waits beyond its budget for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::store::Hit;

/// The most hits that wait to be given back; more are lost until their window ends.
pub const BACK_MAX: usize = 4096;

/// What is to be given back.
#[derive(Default)]
pub struct GiveBack {
    waiting: Mutex<Vec<Back>>,
    news: Notify,
}

/// The hits of one request.
pub struct Back {
    /// As refunds.
    pub hits: Vec<Hit>,
    /// When they were taken.
    pub now: Duration,
    done: oneshot::Sender<()>,
}

impl Back {
    /// They were given back, as far as that succeeded.
    pub fn done(self) {
        // Nobody may be waiting any more.
        let _ = self.done.send(());
    }
}

impl GiveBack {
    /// Has the hits given back; the receiver is told once they are, or that they are not.
    pub fn add(&self, hits: Vec<Hit>, now: Duration) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let known: usize = waiting.iter().map(|back| back.hits.len()).sum();
        if !hits.is_empty() && known + hits.len() <= BACK_MAX {
            waiting.push(Back { hits, now, done });
            self.news.notify_one();
        }
        receiver
    }

    /// Has the hits given back, and waits for it until `deadline` at most.
    pub async fn by(&self, deadline: Instant, hits: Vec<Hit>, now: Duration) {
        let _ = tokio::time::timeout_at(deadline, self.add(hits, now)).await;
    }

    /// All that waits, as soon as something does.
    pub async fn next(&self) -> Vec<Back> {
        loop {
            let waiting =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !waiting.is_empty() {
                return waiting;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::limits::algorithm::Algorithm;
    use crate::limits::unit::Window;
    use crate::store::Role;

    fn hits(number: usize) -> Vec<Hit> {
        let hit = Hit {
            key: Box::default(),
            amount: 1,
            is_refund: true,
            limit: 1,
            window: Window { start: 0, seconds: 1 },
            algorithm: Algorithm::FixedWindow,
            role: Role::Observer,
            share: None,
        };
        vec![hit; number]
    }

    #[tokio::test]
    async fn it_is_bounded_and_tells_when_it_is_done() {
        let back = GiveBack::default();
        let add = |number| back.add(hits(number), Duration::ZERO);
        let (first, second) = (add(BACK_MAX - 1), add(2));
        assert!(second.await.is_err(), "no room");
        let waiting = back.next().await;
        assert_eq!(waiting.iter().map(|back| back.hits.len()).sum::<usize>(), BACK_MAX - 1);
        waiting.into_iter().for_each(Back::done);
        assert!(first.await.is_ok());
        assert!(back.next().now_or_never().is_none());
        assert!(add(0).await.is_err(), "nothing to do");
        let _third = add(2);
        assert_eq!(back.next().await.len(), 1);
    }
}
