//! The deadline of one call.
//!
//! A deadline that is noticed late is a sign of this process and not of the call: it was kept from the
//! processor, and the answer may wait unread. Such a call is given [`GRACE`] more, once.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// A timer that is this late was kept from running: those of the runtime are exact to a millisecond.
pub const LATE: Duration = Duration::from_millis(2);
/// What a call is given beyond its deadline where that was noticed late.
pub const GRACE: Duration = Duration::from_millis(2);

/// What `call` comes to, if it does by `deadline`.
///
/// # Errors
/// When it does not.
pub async fn by<T>(deadline: Instant, call: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut call = pin!(call);
    let answered = timeout_at(deadline, call.as_mut()).await;
    let now = Instant::now();
    match answered {
        Err(_) if now >= deadline + LATE => timeout_at(now + GRACE, call).await,
        answered => answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A thread that was away finds the deadline passed, and the answer unread.
    #[tokio::test(start_paused = true)]
    async fn a_pause_of_this_process_is_no_silence_of_the_store() {
        for (pause, answer_after, expected) in [
            // On time: it answers, or the store is slow.
            (ms(0), ms(4), Some(())),
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
