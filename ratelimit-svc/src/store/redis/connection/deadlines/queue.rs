//! Calls that wait, in the order of their deadlines, and who is due. Pure: its keeper gives
//! the time and wakes.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

/// The deadlines, in order. As many as calls of one budget.
#[derive(Default)]
pub struct Queue {
    /// When, and for the call in which position; also of calls that ended meanwhile.
    deadlines: VecDeque<(Instant, usize)>,
    positions: Vec<Waiting>,
    free: Vec<usize>,
    /// A task waits for the first.
    is_kept: bool,
    /// Until when it sleeps: a deadline before that would be noticed late.
    wakes_at: Option<Instant>,
}

/// A position. It is free once its call ended and its deadline left the queue.
enum Waiting {
    Call(Waker),
    Due,
    Ended,
    Free,
}

impl Queue {
    /// A position for a call, and whether somebody must be found to pass time to the queue; none when
    /// the deadline of a call before it is later,
    /// whether that call has ended or not.
    pub fn add(&mut self, deadline: Instant, waker: &Waker) -> Option<(usize, bool)> {
        let last = self.deadlines.back().map(|(last, _)| *last);
        if last.max(self.wakes_at).is_some_and(|last| last > deadline) {
            return None;
        }
        let waiting = Waiting::Call(waker.clone());
        let position = match self.free.pop() {
            Some(position) => {
                self.positions[position] = waiting;
                position
            }
            None => {
                self.positions.push(waiting);
                self.positions.len() - 1
            }
        };
        self.deadlines.push_back((deadline, position));
        Some((position, !std::mem::replace(&mut self.is_kept, true)))
    }

    /// Whether the deadline of a call passed; if not, `waker` is woken when it does.
    pub fn is_due(&mut self, position: usize, waker: &Waker) -> bool {
        match &mut self.positions[position] {
            Waiting::Call(known) => {
                known.clone_from(waker);
                false
            }
            _ => true,
        }
    }

    /// The call ended. Its waker is the caller's to drop: with it may go what uses this queue.
    pub fn remove(&mut self, position: usize) -> Option<Waker> {
        let waker = match std::mem::replace(&mut self.positions[position], Waiting::Ended) {
            Waiting::Call(waker) => Some(waker),
            _ => {
                self.release(position);
                None
            }
        };
        // Those at the front have waited for nothing else.
        while let Some(&(_, first)) = self.deadlines.front()
            && matches!(self.positions[first], Waiting::Ended)
        {
            self.deadlines.pop_front();
            self.release(first);
        }
        waker
    }

    /// Who is to be woken at `now`, and when the next is. With none, nobody keeps them any more.
    pub fn pass(&mut self, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        let mut due = Vec::new();
        while let Some(&(_, position)) =
            self.deadlines.front().filter(|(deadline, _)| *deadline <= now)
        {
            self.deadlines.pop_front();
            match std::mem::replace(&mut self.positions[position], Waiting::Due) {
                Waiting::Call(waker) => due.push(waker),
                _ => self.release(position),
            }
        }
        let next = self.deadlines.front().map(|(deadline, _)| *deadline);
        self.is_kept = next.is_some();
        self.wakes_at = next;
        (due, next)
    }

    /// Whether nobody waits and nothing is kept of anybody.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.deadlines.is_empty() && !self.is_kept && self.free.len() == self.positions.len()
    }

    fn release(&mut self, position: usize) {
        self.positions[position] = Waiting::Free;
        self.free.push(position);
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
    fn a_call_that_is_dropped_leaves_its_position() {
        let (now, waker) = (Instant::now(), noop_waker());
        let mut queue = Queue::default();
        let positions: Vec<_> =
            (0..3).filter_map(|n| Some(queue.add(now + ms(n), &waker)?.0)).collect();
        queue.remove(positions[1]);
        assert_eq!(queue.deadlines.len(), 3, "behind one that waits");
        queue.remove(positions[0]);
        assert_eq!(queue.deadlines.len(), 1, "and with it");
        let (due, next) = queue.pass(now + ms(9));
        assert_eq!((due.len(), next), (1, None));
        assert!(queue.is_due(positions[2], &waker));
        queue.remove(positions[2]);
        assert!(queue.is_idle());
    }

    /// Whoever keeps the queue sleeps until the deadline of a call that has ended.
    #[test]
    fn a_deadline_before_the_next_look_is_not_noticed_late() {
        let (now, waker) = (Instant::now(), noop_waker());
        let mut queue = Queue::default();
        let (position, _) = queue.add(now + ms(5), &waker).expect("the first");
        assert_eq!(queue.pass(now).1, Some(now + ms(5)));
        queue.remove(position);
        assert_eq!(queue.add(now + ms(1), &waker), None, "it has a timer of its own");
        assert!(queue.add(now + ms(5), &waker).is_some());
    }

    proptest! {
        /// Against a list of who waits until when.
        #[test]
        fn whoever_waits_is_woken_in_time(
            steps in proptest::collection::vec((0..3u8, 0..40u64), 1..200),
        ) {
            let (began, waker) = (Instant::now(), noop_waker());
            let (mut queue, mut waiting) = (Queue::default(), Vec::new());
            let mut now = began;
            for (step, number) in steps {
                match step {
                    0 => {
                        let deadline = now + ms(number);
                        let last = queue.deadlines.back().map(|(last, _)| *last).max(queue.wakes_at);
                        let position = queue.add(deadline, &waker).map(|(position, _)| position);
                        prop_assert_eq!(position.is_none(), last.is_some_and(|last| last > deadline));
                        waiting.extend(position.map(|position| (position, deadline)));
                    }
                    1 if !waiting.is_empty() => {
                        let (position, _) = waiting.remove(number as usize % waiting.len());
                        queue.remove(position);
                    }
                    _ => {
                        now += ms(number);
                        let (due, next) = queue.pass(now);
                        let woken = waiting.iter().filter(|(_, at)| *at <= now).count();
                        prop_assert!(due.len() <= woken);
                        prop_assert!(next.is_none_or(|next| next > now));
                        let first = waiting.iter().map(|(_, at)| *at).filter(|at| *at > now).min();
                        prop_assert!(first.is_none() || next <= first && next.is_some());
                    }
                }
                for (position, _) in &waiting {
                    let due = matches!(queue.positions[*position], Waiting::Due);
                    let (_, at) = waiting.iter().find(|(known, _)| known == position).expect("waits");
                    prop_assert!(!due || *at <= now, "not before");
                }
                let positions: std::collections::HashSet<_> = waiting.iter().map(|(p, _)| p).collect();
                prop_assert_eq!(positions.len(), waiting.len(), "one each");
            }
            let (_, next) = queue.pass(now + ms(100));
            prop_assert_eq!(next, None);
            for (position, _) in waiting {
                prop_assert!(queue.is_due(position, &waker));
                queue.remove(position);
            }
            prop_assert!(queue.is_idle());
        }
    }
}
