//! Hits that were admitted without the store, to be repaid when it is back.
//!
//! Each is repaid once or not at all: an answer that is lost may have been to a count that was not,
//! so it is not repaid again. Windows that have ended need not be repaid. A bucket refills all the
//! time, so what is owed of one melts at this replica's share of its rate; what is owed of a
//! sliding window leaves it as time goes on:
//!
//! ```text
//! owed   ▁▃▆█▇▆▅▄▃▂▁ ▁▂▁          hits that are not refilled yet, never more than `burst`
//!         └ hits └ refilled
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::decide::algorithm::{State, apply, read, rolled};
use crate::decide::hit::Hit;
use crate::limits::unit::Window;

/// The most counters that are owed hits; those of more are not repaid.
pub const OWED_MAX: usize = 1 << 16;
/// The most counters looked at for those that are still to be repaid, so that nobody waits for long
/// while they are.
pub const LOOKS_MAX: usize = 1024;
/// The most looked at to make room for one more.
const ROOM_LOOKS_MAX: usize = 16;

/// Hits by counter, the counters that are owed for longest first.
#[derive(Debug, Default)]
pub struct Owed {
    /// Those that were repaid out of turn are there with nothing, until their turn.
    debts: HashMap<Box<[u8]>, Debt>,
    /// The same counters.
    order: VecDeque<Box<[u8]>>,
}

#[derive(Debug)]
struct Debt {
    /// With all that is owed.
    hit: Hit,
    /// Of a counter that has no windows of its own: how what is owed fades, and how much it is.
    fading: Option<(Hit, State)>,
}

impl Debt {
    /// Of nothing yet. `share_limit` is this replica's part of the limit.
    fn new(hit: &Hit, share_limit: u32) -> Self {
        let fading = match hit.algorithm.has_windows() {
            true => None,
            // A bucket refills at this replica's share of the rate.
            false => {
                let fades = Hit { limit: share_limit, share: None, ..hit.clone() };
                let nothing = rolled(&fades, None, Duration::ZERO);
                Some((fades, nothing))
            }
        };
        // They passed: no class may keep them from being counted.
        Self { hit: Hit { amount: 0, is_refund: false, share: None, ..hit.clone() }, fading }
    }

    fn add(&mut self, hit: &Hit, now: Duration) {
        if let Some((fades, state)) = &mut self.fading {
            let one = Hit { amount: hit.amount, is_refund: hit.is_refund, ..fades.clone() };
            // What is more than a bucket holds is not owed.
            *state = rolled(fades, Some(apply(&one, Some(*state), now).0), now);
            return;
        }
        self.hit.amount = match hit.is_refund {
            true => self.hit.amount.saturating_sub(hit.amount),
            false => self.hit.amount.saturating_add(hit.amount),
        };
    }

    /// How much is owed at `now`.
    fn amount(&self, now: Duration) -> u64 {
        match &self.fading {
            Some((fades, state)) => read(fades, *state, false, 0, now).value,
            None if self.hit.window.end() > now.as_secs() => self.hit.amount,
            None => 0,
        }
    }

    /// What is owed at `now`; from then on nothing is.
    fn take(&mut self, now: Duration) -> Option<Hit> {
        let amount = self.amount(now);
        let mut window = self.hit.window;
        if let Some((fades, state)) = &mut self.fading {
            *state = rolled(fades, None, now);
            // Told now, it counts from now: what is left of an earlier window may stay too long.
            let (seconds, now) = (window.seconds.max(1), now.as_secs());
            window = Window { start: now - now % seconds, ..window };
        }
        self.hit.amount = 0;
        (amount > 0).then(|| Hit { amount, window, ..self.hit.clone() })
    }
}

impl Owed {
    /// Adds a hit, which has its whole limit, of which `share_limit` is this replica's part.
    /// Whether there was room for it.
    pub fn add(&mut self, hit: &Hit, share_limit: u32, now: Duration) -> bool {
        if hit.amount == 0 {
            return true;
        }
        if let Some(debt) = self.debts.get_mut(&hit.key) {
            debt.add(hit, now);
            return true;
        }
        // Given back is at most what was taken here.
        if hit.is_refund {
            return true;
        }
        if self.debts.len() >= OWED_MAX && !self.make_room(now) {
            return false;
        }
        let mut debt = Debt::new(hit, share_limit);
        debt.add(hit, now);
        self.debts.insert(hit.key.clone(), debt);
        self.order.push_back(hit.key.clone());
        true
    }

    /// Drops a counter that is owed nothing any more, if one is soon found.
    fn make_room(&mut self, now: Duration) -> bool {
        for _ in 0..ROOM_LOOKS_MAX {
            let Some(key) = self.order.pop_front() else { return false };
            if self.debts.get(&key).is_none_or(|debt| debt.amount(now) == 0) {
                self.debts.remove(&key);
                return true;
            }
            self.order.push_back(key);
        }
        false
    }

    /// Takes what is owed at `now` to up to `max` counters.
    pub fn take(&mut self, max: usize, now: Duration) -> Vec<Hit> {
        let mut owed = Vec::new();
        for _ in 0..LOOKS_MAX {
            if owed.len() >= max {
                break;
            }
            let Some(key) = self.order.pop_front() else { break };
            owed.extend(self.debts.remove(&key).and_then(|mut debt| debt.take(now)));
        }
        owed
    }

    /// Takes what is owed at `now` to the counters of these hits, out of turn.
    pub fn take_of(&mut self, hits: &[Hit], now: Duration) -> Vec<Hit> {
        let debts = &mut self.debts;
        hits.iter().filter_map(|hit| debts.get_mut(&hit.key)?.take(now)).collect()
    }

    /// Counters that are owed hits.
    pub fn len(&self) -> usize {
        self.debts.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.debts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::hit::Role;
    use crate::limits::algorithm::Algorithm;
    use crate::limits::unit::Window;

    fn hit(key: usize, amount: u64) -> Hit {
        Hit {
            key: key.to_string().into_bytes().into(),
            amount,
            is_refund: false,
            limit: 10,
            window: Window { start: 60, seconds: 60 },
            algorithm: Algorithm::FixedWindow,
            role: Role::Enforced,
            share: None,
        }
    }

    const NOW: Duration = Duration::from_secs(119);

    fn owe(owed: &mut Owed, hit: &Hit) -> bool {
        owed.add(hit, hit.limit, NOW)
    }

    #[test]
    fn hits_add_up_and_are_told_once() {
        let mut owed = Owed::default();
        for amount in [1, 0, 4] {
            assert!(owe(&mut owed, &hit(1, amount)));
        }
        owe(&mut owed, &Hit { is_refund: true, ..hit(1, 2) });
        owe(&mut owed, &Hit { is_refund: true, ..hit(2, 2) });
        assert_eq!(owed.take(9, NOW), [hit(1, 3)]);
        assert_eq!(owed.take(9, NOW), []);
    }

    #[test]
    fn they_are_told_in_turn_or_when_they_are_asked_for() {
        let mut owed = Owed::default();
        for key in [3, 1, 2] {
            owe(&mut owed, &hit(key, 1));
        }
        assert_eq!(owed.take_of(&[hit(9, 1), hit(1, 7)], NOW), [hit(1, 1)]);
        assert_eq!(owed.take_of(&[hit(1, 7)], NOW), [], "repaid");
        owe(&mut owed, &hit(1, 5));
        assert_eq!(owed.take(2, NOW), [hit(3, 1), hit(1, 5)]);
        owe(&mut owed, &hit(3, 1));
        assert_eq!(owed.take(9, NOW), [hit(2, 1), hit(3, 1)]);
        assert!(owed.is_empty() && owed.order.is_empty());
    }

    #[test]
    fn ended_windows_are_not_repaid() {
        let mut owed = Owed::default();
        owe(&mut owed, &hit(1, 1));
        assert_eq!(owed.take(9, NOW + Duration::from_secs(1)), []);
        assert!(owed.is_empty());
    }

    #[test]
    fn a_bucket_is_owed_what_is_not_refilled() {
        // 10 a minute, of which this replica has 3: one every 20 s.
        let (burst, share) = (Algorithm::TokenBucket { burst: 6 }, 3);
        let bucket = |amount| Hit { algorithm: burst, ..hit(1, amount) };
        let after = |seconds| NOW + Duration::from_secs(seconds);
        for (amount, seconds, expected) in
            [(4, 0, 4), (4, 20, 3), (4, 40, 2), (4, 79, 1), (4, 80, 0), (9, 0, 6), (900, 20, 5)]
        {
            let mut owed = Owed::default();
            owed.add(&bucket(amount), share, NOW);
            let repaid: u64 = owed.take(9, after(seconds)).iter().map(|hit| hit.amount).sum();
            assert_eq!(repaid, expected, "of {amount} after {seconds} s");
            assert!(owed.is_empty());
        }
        let mut owed = Owed::default();
        owed.add(&bucket(3), share, NOW);
        owed.add(&bucket(2), share, after(20));
        owed.add(&Hit { is_refund: true, ..bucket(1) }, share, after(20));
        let window = Window { start: 120, seconds: 60 };
        assert_eq!(owed.take_of(&[bucket(1)], after(20)), [Hit { window, ..bucket(3) }]);
        assert_eq!(owed.take(9, after(20)), [], "repaid");
    }

    #[test]
    fn a_sliding_window_is_owed_what_it_still_covers() {
        let sliding = |amount| Hit { algorithm: Algorithm::SlidingWindow, ..hit(1, amount) };
        let at = |second| Duration::from_secs(second);
        // 8 hits in the window from 60, 2 in the one from 120.
        for (second, expected, start) in
            [(90, 8, 60), (120, 8, 120), (150, 4, 120), (181, 0, 180), (240, 0, 240)]
        {
            let mut owed = Owed::default();
            owed.add(&sliding(8), 10, at(90));
            let repaid = owed.take(9, at(second));
            let window = Window { start, seconds: 60 };
            let all = Hit { window, ..sliding(expected) };
            assert_eq!(repaid, if expected > 0 { vec![all] } else { vec![] }, "at {second}");
        }
        let mut owed = Owed::default();
        owed.add(&sliding(8), 10, at(90));
        owed.add(&sliding(2), 10, at(150));
        let window = Window { start: 120, seconds: 60 };
        assert_eq!(owed.take_of(&[sliding(1)], at(150)), [Hit { window, ..sliding(6) }]);
        // What is owed again has the window of its own time.
        owed.add(&sliding(3), 10, at(190));
        let window = Window { start: 180, seconds: 60 };
        assert_eq!(owed.take(9, at(190)), [Hit { window, ..sliding(3) }]);
    }

    #[test]
    fn ended_windows_make_room() {
        let mut owed = Owed::default();
        let long =
            |key, amount| Hit { window: Window { start: 0, seconds: 3600 }, ..hit(key, amount) };
        for key in 0..OWED_MAX {
            let one = if key % 8 == 0 { long(key, 1) } else { hit(key, 1) };
            assert!(owe(&mut owed, &one));
        }
        assert!(!owe(&mut owed, &hit(OWED_MAX, 1)), "all of them last");
        let later = NOW + Duration::from_secs(1);
        for key in 0..1000 {
            assert!(owed.add(&long(OWED_MAX + key, 1), 10, later), "{key}");
        }
        assert_eq!((owed.len(), owed.order.len()), (OWED_MAX, OWED_MAX));
        let mut repaid = 0;
        while !owed.is_empty() {
            repaid += owed.take(usize::MAX, later).len();
        }
        assert_eq!(repaid, OWED_MAX / 8 + 1000, "none that lasts was dropped");
    }

    #[test]
    fn they_are_bounded() {
        let mut owed = Owed::default();
        assert!((0..OWED_MAX).all(|key| owe(&mut owed, &hit(key, 1))));
        assert!(!owe(&mut owed, &hit(OWED_MAX, 1)));
        assert!(owe(&mut owed, &hit(0, 1)), "what is owed already goes on");
        assert_eq!(owed.take(5, NOW).len(), 5);
        assert_eq!(owed.len(), OWED_MAX - 5);
        let later = NOW + Duration::from_secs(1);
        assert_eq!(owed.take(5, later), []);
        assert_eq!(owed.len(), OWED_MAX - 5 - LOOKS_MAX, "no long search");
    }
}
