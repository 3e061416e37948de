//! The memory that a request holds from its head to the end of its answer, also while it waits for a
//! turn, and while nobody reads its answer: a peer of HTTP/2 may leave as many unread as it has
//! streams. It is taken from the budget of its tenant.
//!
//! ```text
//! head ─► a place in the budget ─► turns, body, journal ─► answer ─► sent: the place is free
//!   └──► no room: refused, with words if few such answers are unread,
//!                           else without a body, as nobody has to read for a head to be sent
//! ```

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use http::header;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::gateway::budget::{Denied, Reservation};

/// What each request holds: its stream, its task, its head, a short answer.
pub const PLACE_BYTES: usize = 8 << 10;

/// A longer answer takes more.
const SHORT_BYTES: usize = 4 << 10;

/// So many answers at once have a body although there was no room for their requests.
pub const UNCOUNTED_MAX: usize = 1024;

/// The answers of all tenants.
#[derive(Debug)]
pub struct Answers {
    uncounted: Arc<Semaphore>,
}

impl Answers {
    /// None is under way.
    pub fn new() -> Self {
        Self { uncounted: Arc::new(Semaphore::new(UNCOUNTED_MAX)) }
    }

    /// The answer to a request that had a place or found none: it keeps what it has until it has been
    /// sent. `None` where there is no room for its body.
    pub fn kept(&self, place: Result<Reservation, Denied>, answer: Response) -> Option<Response> {
        if answer.body().is_end_stream() {
            return Some(answer);
        }
        match place {
            Ok(mut place) => {
                let length = answer.body().size_hint().upper().unwrap_or(0);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                place.grow(length.saturating_sub(SHORT_BYTES)).ok()?;
                Some(until_sent(answer, place))
            }
            Err(_) => {
                let one = self.uncounted.clone().try_acquire_owned().ok()?;
                Some(until_sent(answer, one))
            }
        }
    }
}

/// An answer that keeps something until it has been sent.
fn until_sent(answer: Response, kept: impl Send + Sync + 'static) -> Response {
    let keep = |body: Body| {
        Body::new(body.map_err(move |error| {
            // Captured, so dropped with the body.
            let _kept = &kept;
            error
        }))
    };
    answer.map(keep)
}

/// The head of an answer.
pub fn head_of(answer: Response) -> Response {
    let mut head = answer.map(|_| Body::empty());
    head.headers_mut().remove(header::CONTENT_LENGTH);
    head.headers_mut().remove(header::CONTENT_TYPE);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::budget::Budget;

    #[test]
    fn a_place_is_kept_until_the_answer_is_sent_and_few_answers_need_none() {
        let budget = Budget::new(9 * PLACE_BYTES);
        let answers = Answers::new();
        let answer = |text: String| {
            answers.kept(budget.reserve_for("a", PLACE_BYTES), Response::new(Body::from(text)))
        };
        let empty = answer(String::new()).expect("nobody has to read it");
        assert_eq!(budget.in_flight(), 0, "its place is free already");
        drop(empty);
        let short = || answer("bad line".to_owned());
        let mut unread: Vec<_> = (0..2).map(|_| short().expect("room")).collect();
        assert_eq!(budget.in_flight(), 2 * PLACE_BYTES as i64);
        unread.push(answer("x".repeat(PLACE_BYTES)).expect("room"));
        assert_eq!(budget.in_flight(), (4 * PLACE_BYTES - SHORT_BYTES) as i64);
        assert!(answer("x".repeat(PLACE_BYTES)).is_none(), "its place does not grow");
        unread.push(short().expect("room"));
        unread.extend((0..UNCOUNTED_MAX).map(|_| short().expect("one of few")));
        assert!(short().is_none());
        assert_eq!(budget.in_flight(), (5 * PLACE_BYTES - SHORT_BYTES) as i64);
        unread.pop();
        assert!(short().is_some());
        drop(unread);
        assert_eq!(budget.in_flight(), 0);
    }
}
