//! The memory that all requests together may hold, counted in bytes and never waited for.
//!
//! A reservation is taken before the memory is, grows with it, and gives everything back when it
//! is dropped. When nothing is left the request is refused at once: waiting would hold memory too.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use prometheus_client::metrics::gauge::Gauge;

/// The budget; clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
    in_flight: Gauge<i64, AtomicI64>,
    peak: Gauge<i64, AtomicI64>,
}

/// Bytes taken from the budget.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

/// Why bytes were not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Fewer are left; when other requests end there will be more.
    Exhausted,
    /// One request may hold at most this much, half of the budget, even when it is alone.
    BeyondShare(usize),
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let (used, in_flight, peak) = Default::default();
        Self { shared: Arc::new(Shared { limit: limit as u64, used, in_flight, peak }) }
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Denied> {
        let mut reservation = Reservation { shared: self.shared.clone(), bytes: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// The most that was ever taken at once, bytes.
    pub fn peak(&self) -> i64 {
        self.shared.peak.get()
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

impl Reservation {
    /// Takes more bytes.
    ///
    /// # Errors
    /// When fewer are left, or one request would hold more than its share; the reservation is
    /// as before.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Denied> {
        let bytes = bytes as u64;
        let shared = &self.shared;
        let share = shared.limit / 2;
        if self.bytes.saturating_add(bytes) > share {
            return Err(Denied::BeyondShare(share as usize));
        }
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= shared.limit);
        let before =
            shared.used.fetch_update(Relaxed, Relaxed, fits).map_err(|_| Denied::Exhausted)?;
        shared.in_flight.inc_by(bytes as i64);
        shared.peak.inner().fetch_max((before + bytes) as i64, Relaxed);
        self.bytes += bytes;
        Ok(())
    }

    /// Moves what is held to a reservation of its own.
    pub fn take(&mut self) -> Reservation {
        let bytes = std::mem::take(&mut self.bytes);
        Reservation { shared: self.shared.clone(), bytes }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.used.fetch_sub(self.bytes, Relaxed);
        self.shared.in_flight.dec_by(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_limit_and_all_of_it_again() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(40).expect("fits");
        let second = budget.reserve(50).expect("fits");
        assert_eq!(budget.reserve(11).expect_err("too much"), Denied::Exhausted);
        assert_eq!(first.grow(10), Ok(()));
        assert_eq!((budget.in_flight(), budget.peak()), (100, 100));
        assert_eq!(first.grow(1), Err(Denied::BeyondShare(50)));
        assert_eq!(first.grow(usize::MAX), Err(Denied::BeyondShare(50)));
        let moved = first.take();
        drop(first);
        assert_eq!(budget.in_flight(), 100);
        drop((moved, second));
        assert_eq!((budget.in_flight(), budget.peak()), (0, 100));
        assert!(budget.reserve(50).is_ok());
    }
}
