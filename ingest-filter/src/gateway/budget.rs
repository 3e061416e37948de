//! The memory that all requests together may hold, counted in bytes and never waited for. One
//! tenant may hold as much as it leaves free, whatever it sends on however many connections:
//!
//! ```text
//! tenants that take all they can    each holds      left for whoever comes
//! 1                                 half            half
//! 2                                 a third         a third
//! n                                 1 / (n + 1)     1 / (n + 1)
//! ```
//!
//! A reservation is taken before the memory is, grows with it, and gives everything back when it
//! is dropped. When nothing is left the request is refused at once: waiting would hold memory too.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;

use crate::gateway::hold_time::HoldTime;
use crate::gateway::tenants::Tenants;

/// The budget; clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: Arc<AtomicU64>,
    /// What each holds; whoever holds bytes holds its counter too.
    tenants: Tenants<AtomicU64>,
    /// A [`HoldTime`].
    hold_time: AtomicU64,
    /// Where the next wait stands in its range, in parts of 2⁶⁴.
    spread: AtomicU64,
    in_flight: Gauge<i64, AtomicI64>,
    peak: Gauge<i64, AtomicI64>,
}

/// Bytes taken from the budget.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    /// What the tenant holds in all.
    tenant: Arc<AtomicU64>,
    bytes: u64,
    since: Instant,
}

/// One part in so many of a tenant's share is for requests that have begun.
const BEGUN_PART: u64 = 8;

/// The golden ratio of 2⁶⁴: in steps of it few waits are spread as evenly as many.
const SPREAD_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Why bytes were not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Fewer are left, or the tenant holds its share; when other requests end there will be more.
    Exhausted {
        /// When that should be.
        retry_after: Duration,
    },
    /// One request may hold at most this much, half of the budget, even when it is alone.
    BeyondShare(usize),
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let (used, tenants, hold_time, spread, in_flight, peak) = Default::default();
        let limit = limit as u64;
        let shared = Shared { limit, used, tenants, hold_time, spread, in_flight, peak };
        Self { shared: Arc::new(shared) }
    }

    /// Takes bytes for a request that is no tenant's.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Denied> {
        self.reserve_for("", bytes)
    }

    /// Takes bytes for a request of `tenant`.
    ///
    /// # Errors
    /// When fewer are left, or the tenant has its share.
    pub fn reserve_for(&self, tenant: &str, bytes: usize) -> Result<Reservation, Denied> {
        let tenant = self.shared.tenants.get(tenant, AtomicU64::default);
        let (shared, since) = (self.shared.clone(), Instant::now());
        let mut reservation = Reservation { shared, tenant, bytes: 0, since };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// What is taken, and of how many bytes: for memory that outlives requests and is taken from
    /// the same budget.
    pub fn ledger(&self) -> (Arc<AtomicU64>, u64) {
        (self.shared.used.clone(), self.shared.limit)
    }

    /// The most that was ever taken at once, bytes.
    pub fn peak(&self) -> i64 {
        self.shared.peak.get()
    }

    /// When a request should come back that got what it needs too late: as one that found no
    /// memory, by how long requests hold theirs, and spread in the same way.
    pub fn retry_after(&self) -> Duration {
        self.shared.retry_after()
    }

    /// What is taken now, bytes.
    pub fn in_flight(&self) -> i64 {
        self.shared.in_flight.get()
    }

    /// The gauges of what is taken and of the most that was.
    pub fn gauges(&self) -> (Gauge, Gauge) {
        (self.shared.in_flight.clone(), self.shared.peak.clone())
    }
}

impl Shared {
    fn exhausted(&self) -> Denied {
        Denied::Exhausted { retry_after: self.retry_after() }
    }

    fn retry_after(&self) -> Duration {
        let step = self.spread.fetch_add(SPREAD_STEP, Relaxed);
        let hold_time = HoldTime::from_bits(self.hold_time.load(Relaxed));
        hold_time.retry_after(step as f64 / u64::MAX as f64)
    }
}

impl Reservation {
    /// Takes more bytes.
    ///
    /// # Errors
    /// When fewer are left, or the tenant would hold more than what is free then, or the request
    /// more than half of all; the reservation is as before.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Denied> {
        self.grow_within(bytes, |left| left)
    }

    /// Takes more bytes, where the tenant then holds no more than `most` of what is free then.
    fn grow_within(&mut self, bytes: usize, most_of: fn(u64) -> u64) -> Result<(), Denied> {
        let bytes = bytes as u64;
        let shared = &self.shared;
        let most = shared.limit / 2;
        if self.bytes.saturating_add(bytes) > most {
            return Err(Denied::BeyondShare(most as usize));
        }
        let within =
            |limit: u64| move |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        // Those who take at the same moment may each go by what was free before.
        let left = shared.limit.saturating_sub(shared.used.load(Relaxed).saturating_add(bytes));
        let of_tenant = self.tenant.fetch_update(Relaxed, Relaxed, within(most_of(left)));
        of_tenant.map_err(|_| shared.exhausted())?;
        let Ok(before) = shared.used.fetch_update(Relaxed, Relaxed, within(shared.limit)) else {
            self.tenant.fetch_sub(bytes, Relaxed);
            return Err(shared.exhausted());
        };
        shared.in_flight.inc_by(bytes as i64);
        shared.peak.inner().fetch_max((before + bytes) as i64, Relaxed);
        self.bytes += bytes;
        Ok(())
    }

    /// How it is told that the system itself has no memory left.
    pub fn exhausted(&self) -> Denied {
        self.shared.exhausted()
    }

    /// As [`Budget::retry_after`].
    pub fn retry_after(&self) -> Duration {
        self.shared.retry_after()
    }

    /// Moves what is held to a reservation of its own.
    pub fn take(&mut self) -> Reservation {
        let bytes = std::mem::take(&mut self.bytes);
        let (shared, tenant) = (self.shared.clone(), self.tenant.clone());
        Reservation { shared, tenant, bytes, since: self.since }
    }

    /// Takes more bytes for a request that begins. A part of its tenant's share is left to those that
    /// have begun, so that they can be ended: in a flood all of it would else be taken by those that
    /// come, and each be refused before its end.
    ///
    /// # Errors
    /// As [`Reservation::grow`].
    pub fn grow_to_begin(&mut self, bytes: usize) -> Result<(), Denied> {
        self.grow_within(bytes, |left| left - left / BEGUN_PART)
    }

    /// Gives back what is held and takes `bytes` in its place, for a request that begins. Whoever is
    /// refused holds nothing, so of several that come for the last room one finds it.
    ///
    /// # Errors
    /// As [`Reservation::grow_to_begin`].
    pub fn exchange(mut self, bytes: usize) -> Result<Reservation, Denied> {
        self.shrink_to(0);
        self.since = Instant::now();
        self.grow_to_begin(bytes)?;
        Ok(self)
    }

    /// Moves what is held beyond `bytes` to a reservation of its own.
    pub fn split_off(&mut self, bytes: usize) -> Reservation {
        let mut rest = self.take();
        self.bytes = rest.bytes.min(bytes as u64);
        rest.bytes -= self.bytes;
        rest
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.give_back((self.bytes as usize).saturating_sub(bytes));
    }

    /// Gives back `bytes`, or all there are.
    pub fn give_back(&mut self, bytes: usize) {
        let back = self.bytes.min(bytes as u64);
        if back == 0 {
            return;
        }
        self.bytes -= back;
        self.tenant.fetch_sub(back, Relaxed);
        self.shared.used.fetch_sub(back, Relaxed);
        self.shared.in_flight.dec_by(back as i64);
        let (held, part) = (self.since.elapsed(), back as f64 / self.shared.limit as f64);
        let average = |bits| Some(HoldTime::from_bits(bits).given_back(held, part).to_bits());
        // It always has a value, so this cannot fail.
        let _ = self.shared.hold_time.fetch_update(Relaxed, Relaxed, average);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tenants::KEPT_MAX;

    fn is_exhausted(denied: Result<Reservation, Denied>) -> bool {
        matches!(denied, Err(Denied::Exhausted { .. }))
    }

    #[test]
    fn a_tenant_has_as_much_as_it_leaves_free_however_many_its_requests() {
        let budget = Budget::new(100);
        let held: Vec<_> = (0..5).map(|_| budget.reserve_for("a", 10).expect("fits")).collect();
        assert!(is_exhausted(budget.reserve_for("a", 1)), "half when it is alone");
        assert!(is_exhausted(budget.reserve_for("b", 26)), "not more than is left then");
        let mut other = budget.reserve_for("b", 25).expect("half of the rest");
        assert!(is_exhausted(budget.reserve_for("c", 13)));
        assert!(budget.reserve_for("c", 12).is_ok());
        other.shrink_to(15);
        other.shrink_to(20);
        assert_eq!(budget.in_flight(), 65);
        drop(held);
        assert!(budget.reserve_for("a", 42).is_ok());
        assert!(is_exhausted(budget.reserve_for("a", 43)));
        for number in 0..2 * KEPT_MAX {
            drop(budget.reserve_for(&number.to_string(), 1).expect("fits"));
        }
        let kept = budget.shared.tenants.count();
        assert!(kept <= KEPT_MAX, "{kept}");
        assert!(other.grow(36).is_err(), "not forgotten while it holds something");
        drop(other);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn tenants_that_take_all_they_can_leave_room_for_one_more() {
        let budget = Budget::new(1000);
        let mut held = Vec::new();
        for round in 0..1000 {
            let tenant = (round % 4).to_string();
            held.extend(budget.reserve_for(&tenant, 1).ok());
        }
        // A fifth each, and a fifth is free.
        assert_eq!(budget.in_flight(), 800);
        assert!(budget.reserve_for("new", 100).is_ok());
    }

    #[test]
    fn never_more_than_the_limit_and_all_of_it_again() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(40).expect("fits");
        let second = budget.reserve_for("b", 30).expect("fits");
        assert!(is_exhausted(budget.reserve_for("c", 31)), "more than there is");
        assert!(matches!(first.grow(1), Err(Denied::Exhausted { .. })), "more than is left then");
        assert_eq!((budget.in_flight(), budget.peak()), (70, 70));
        assert_eq!(first.grow(11), Err(Denied::BeyondShare(50)));
        assert_eq!(first.grow(usize::MAX), Err(Denied::BeyondShare(50)));
        let moved = first.take();
        drop(first);
        assert_eq!(budget.in_flight(), 70);
        drop((moved, second));
        assert_eq!((budget.in_flight(), budget.peak()), (0, 70));
        assert!(budget.reserve(50).is_ok());
    }

    #[test]
    fn of_those_who_come_for_the_last_room_one_finds_it() {
        let budget = Budget::new(100);
        let place = || budget.reserve_for("a", 4).expect("fits");
        let (first, second, third) = (place(), place(), place());
        // It would fit, but for the places of the others.
        assert!(is_exhausted(first.exchange(46)));
        assert!(is_exhausted(second.exchange(46)), "the third's place is in the way");
        let mut held = third.exchange(46).expect("the last finds what the others gave back");
        let rest = held.split_off(4);
        assert_eq!((held.bytes, rest.bytes, budget.in_flight()), (4, 42, 46));
        drop(rest);
        assert_eq!(budget.in_flight(), 4);
        assert_eq!(held.split_off(9).bytes, 0, "no more than there is");
    }

    #[test]
    fn what_begins_leaves_room_for_what_has_begun() {
        let budget = Budget::new(1000);
        let begin = || budget.reserve_for("a", 1).expect("fits").exchange(10);
        let mut begun: Vec<_> = std::iter::from_fn(|| begin().ok()).collect();
        // One more would be more than seven eighths of what it leaves.
        assert_eq!(budget.in_flight(), 460);
        assert!(begun[0].grow(40).is_ok(), "to the share, which is half");
        assert!(begun[1].grow(1).is_err());
    }

    #[test]
    fn those_who_are_refused_together_do_not_come_back_together() {
        let budget = Budget::new(10);
        let _all = budget.reserve(5).expect("fits");
        let mut seconds = [0; 4];
        for _ in 0..1000 {
            let Err(Denied::Exhausted { retry_after }) = budget.reserve(1) else {
                panic!("nothing is left");
            };
            seconds[retry_after.as_secs() as usize] += 1;
        }
        assert_eq!((seconds[0], seconds[3]), (0, 0), "{seconds:?}");
        assert!(seconds[1..3].iter().all(|count| (490..=510).contains(count)), "{seconds:?}");
    }
}
