//! Calls that wait, in the order of their deadlines, and who is due. Pure: whoever keeps it tells
//! the time and wakes.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

/// The deadlines, in order. As many as calls of one budget.
#[derive(Default)]
pub struct Queue {
    /// When, and for the call in which place; also of calls that ended meanwhile.
    deadlines: VecDeque<(Instant, usize)>,
    places: Vec<Waiting>,
    free: Vec<usize>,
    /// A task waits for the first.
    is_kept: bool,
    /// Until when it sleeps: a deadline before that would be told late.
    told_next: Option<Instant>,
}

/// A place. It is free once its call ended and its deadline left the queue.
enum Waiting {
    Call(Waker),
    Due,
    Ended,
    Free,
}

impl Queue {
    /// A place for a call, and whether somebody must be found to pass time to the queue; none when
    /// the deadline of a call before it is later,
    /// whether that call has ended or not.
    pub fn add(&mut self, deadline: Instant, waker: &Waker) -> Option<(usize, bool)> {
        let last = self.deadlines.back().map(|(last, _)| *last);
        if last.max(self.told_next).is_some_and(|last| last > deadline) {
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
        self.deadlines.push_back((deadline, place));
        Some((place, !std::mem::replace(&mut self.is_kept, true)))
    }

    /// Whether the deadline of a call passed; if not, `waker` is woken when it does.
    pub fn is_due(&mut self, place: usize, waker: &Waker) -> bool {
        match &mut self.places[place] {
            Waiting::Call(known) => {
                known.clone_from(waker);
                false
            }
            _ => true,
        }
    }

    /// The call ended. Its waker is the caller's to drop: with it may go what uses this queue.
    pub fn remove(&mut self, place: usize) -> Option<Waker> {
        let waker = match std::mem::replace(&mut self.places[place], Waiting::Ended) {
            Waiting::Call(waker) => Some(waker),
            _ => {
                self.release(place);
                None
            }
        };
        // Those at the front have waited for nothing else.
        while let Some(&(_, first)) = self.deadlines.front()
            && matches!(self.places[first], Waiting::Ended)
        {
            self.deadlines.pop_front();
            self.release(first);
        }
        waker
    }

    /// Who is to be woken at `now`, and when the next is. With none, nobody keeps them any more.
    pub fn pass(&mut self, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        let mut due = Vec::new();
        while let Some(&(_, place)) =
            self.deadlines.front().filter(|(deadline, _)| *deadline <= now)
        {
            self.deadlines.pop_front();
            match std::mem::replace(&mut self.places[place], Waiting::Due) {
                Waiting::Call(waker) => due.push(waker),
                _ => self.release(place),
            }
        }
        let next = self.deadlines.front().map(|(deadline, _)| *deadline);
        self.is_kept = next.is_some();
        self.told_next = next;
        (due, next)
    }

    /// Whether nobody waits and nothing is kept of anybody.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.deadlines.is_empty() && !self.is_kept && self.free.len() == self.places.len()
    }

    fn release(&mut self, place: usize) {
        self.places[place] = Waiting::Free;
        self.free.push(place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::task::noop_waker;
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_call_that_is_dropped_leaves_its_place() {
        let (now, waker) = (Instant::now(), noop_waker());
        let mut queue = Queue::default();
        let places: Vec<_> =
            (0..3).filter_map(|n| Some(queue.add(now + ms(n), &waker)?.0)).collect();
        queue.remove(places[1]);
        assert_eq!(queue.deadlines.len(), 3, "behind one that waits");
        queue.remove(places[0]);
        assert_eq!(queue.deadlines.len(), 1, "and with it");
        let (due, next) = queue.pass(now + ms(9));
        assert_eq!((due.len(), next), (1, None));
        assert!(queue.is_due(places[2], &waker));
        queue.remove(places[2]);
        assert!(queue.is_idle());
    }

    /// Whoever keeps the queue sleeps until the deadline of a call that has ended.
    #[test]
    fn a_deadline_before_the_next_look_is_not_told_late() {
        let (now, waker) = (Instant::now(), noop_waker());
        let mut queue = Queue::default();
        let (place, _) = queue.add(now + ms(5), &waker).expect("the first");
        assert_eq!(queue.pass(now).1, Some(now + ms(5)));
        queue.remove(place);
        assert_eq!(queue.add(now + ms(1), &waker), None, "it has a timer of its own");
        assert!(queue.add(now + ms(5), &waker).is_some());
    }

    proptest! {
        /// Against a list of who waits until when.
        #[test]
        fn whoever_waits_is_told_in_time(
            steps in proptest::collection::vec((0..3u8, 0..40u64), 1..200),
        ) {
            let (began, waker) = (Instant::now(), noop_waker());
            let (mut queue, mut waiting) = (Queue::default(), Vec::new());
            let mut now = began;
            for (step, number) in steps {
                match step {
                    0 => {
                        let deadline = now + ms(number);
                        let last = queue.deadlines.back().map(|(last, _)| *last).max(queue.told_next);
                        let place = queue.add(deadline, &waker).map(|(place, _)| place);
                        prop_assert_eq!(place.is_none(), last.is_some_and(|last| last > deadline));
                        waiting.extend(place.map(|place| (place, deadline)));
                    }
                    1 if !waiting.is_empty() => {
                        let (place, _) = waiting.remove(number as usize % waiting.len());
                        queue.remove(place);
                    }
                    _ => {
                        now += ms(number);
                        let (due, next) = queue.pass(now);
                        let told = waiting.iter().filter(|(_, at)| *at <= now).count();
                        prop_assert!(due.len() <= told);
                        prop_assert!(next.is_none_or(|next| next > now));
                        let first = waiting.iter().map(|(_, at)| *at).filter(|at| *at > now).min();
                        prop_assert!(first.is_none() || next <= first && next.is_some());
                    }
                }
                for (place, _) in &waiting {
                    let due = matches!(queue.places[*place], Waiting::Due);
                    let (_, at) = waiting.iter().find(|(known, _)| known == place).expect("waits");
                    prop_assert!(!due || *at <= now, "not before");
                }
                let places: std::collections::HashSet<_> = waiting.iter().map(|(p, _)| p).collect();
                prop_assert_eq!(places.len(), waiting.len(), "one each");
            }
            let (_, next) = queue.pass(now + ms(100));
            prop_assert_eq!(next, None);
            for (place, _) in waiting {
                prop_assert!(queue.is_due(place, &waker));
                queue.remove(place);
            }
            prop_assert!(queue.is_idle());
        }
    }
}
