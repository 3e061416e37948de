//! The requests of one tenant that want to work, and how many of them may at a time. Pure.
//!
//! ```text
//! ask ──► works ─────────────────────────────────────────► done
//!   ├───► has begun: waits, in the order of asking ──► works, as soon as another is done
//!   └───► is new: waits behind all that have begun ──┘
//! ```
//!
//! What has begun comes first, as it holds memory, and as otherwise all of a flood would have begun and
//! nothing be ended in time.

use std::collections::VecDeque;

/// What is asked for by values of `R`, one for each request.
#[derive(Debug)]
pub struct Crowd<R> {
    at_once: usize,
    present: usize,
    working: usize,
    begun: VecDeque<R>,
    new: VecDeque<R>,
}

/// Whether a request has had a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not yet.
    New,
    /// At least one.
    Begun,
}

impl<R> Crowd<R> {
    /// So many may work at once, at least one.
    pub fn new(at_once: usize) -> Self {
        let (present, working, begun, new) = Default::default();
        Self { at_once: at_once.max(1), present, working, begun, new }
    }

    /// A request has come.
    pub fn join(&mut self) {
        self.present += 1;
    }

    /// A request has ended.
    pub fn leave(&mut self) {
        self.present = self.present.saturating_sub(1);
    }

    /// Whether there are more requests than may work at once.
    pub fn is_crowded(&self) -> bool {
        self.present > self.at_once
    }

    /// A request wants to work: whether its turn is now. If not it waits.
    pub fn ask(&mut self, stage: Stage, request: impl FnOnce() -> R) -> bool {
        if self.working < self.at_once {
            self.working += 1;
            return true;
        }
        match stage {
            Stage::New => self.new.push_back(request()),
            Stage::Begun => self.queue(request()),
        }
        false
    }

    /// A request that works wants another turn after this one: it waits behind those that have begun.
    pub fn queue(&mut self, request: R) {
        self.begun.push_back(request);
    }

    /// A turn has ended: whose turn is next, if anybody waits. Where that request is gone meanwhile,
    /// its turn has ended too.
    pub fn done(&mut self) -> Option<R> {
        let next = self.begun.pop_front().or_else(|| self.new.pop_front());
        if next.is_none() {
            self.working = self.working.saturating_sub(1);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn so_many_work_at_once_and_the_others_follow_in_order() {
        let mut crowd = Crowd::new(2);
        let asked: Vec<bool> = (0..5).map(|request| crowd.ask(Stage::New, || request)).collect();
        assert_eq!(asked, [true, true, false, false, false]);
        let next: Vec<_> = (0..5).map(|_| crowd.done()).collect();
        assert_eq!(next, [Some(2), Some(3), Some(4), None, None]);
        assert!(crowd.ask(Stage::New, || 5) && crowd.ask(Stage::Begun, || 6));
        assert!(!crowd.ask(Stage::New, || 7));
    }

    #[test]
    fn what_has_begun_comes_before_what_is_new() {
        let mut crowd = Crowd::new(1);
        assert!(crowd.ask(Stage::New, || "works"));
        for (stage, request) in
            [(Stage::New, "new"), (Stage::Begun, "begun"), (Stage::Begun, "begun too")]
        {
            assert!(!crowd.ask(stage, || request));
        }
        crowd.queue("works on");
        let next: Vec<_> = std::iter::from_fn(|| crowd.done()).collect();
        assert_eq!(next, ["begun", "begun too", "works on", "new"]);
    }

    #[test]
    fn a_crowd_is_more_than_may_work() {
        let mut crowd = Crowd::<()>::new(0);
        crowd.join();
        assert!(!crowd.is_crowded());
        crowd.join();
        assert!(crowd.is_crowded());
        crowd.leave();
        assert!(!crowd.is_crowded());
    }

    proptest! {
        /// Whoever waits is reached, and never more work than may.
        #[test]
        fn nobody_is_left_waiting(at_once in 1_usize..4, asks in prop::collection::vec(any::<bool>(), 0..64)) {
            let mut crowd = Crowd::new(at_once);
            let (mut working, mut served, mut asked) = (0, Vec::new(), 0);
            for is_ask in asks {
                if is_ask {
                    if crowd.ask(Stage::New, || asked) {
                        working += 1;
                        served.push(asked);
                    }
                    asked += 1;
                } else if working > 0 {
                    match crowd.done() {
                        Some(next) => served.push(next),
                        None => working -= 1,
                    }
                }
                prop_assert!(working <= at_once);
                prop_assert!(asked == served.len() || working == at_once, "one waits for nothing");
            }
            while working > 0 {
                match crowd.done() {
                    Some(next) => served.push(next),
                    None => working -= 1,
                }
            }
            prop_assert_eq!(served, (0..asked).collect::<Vec<_>>());
        }
    }
}
