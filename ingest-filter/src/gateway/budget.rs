//! The memory that all requests together may hold, counted in bytes and never waited for. Half of
//! it is the most that one tenant may hold, whatever it sends on however many connections.
//!
//! A reservation is taken before the memory is, grows with it, and gives everything back when it
//! is dropped. When nothing is left the request is refused at once: waiting would hold memory too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

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
    tenants: Mutex<HashMap<String, Arc<AtomicU64>>>,
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
}

/// From so many tenants on, those that hold nothing are forgotten.
const TENANTS_KEPT_MAX: usize = 1024;

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
        let (used, tenants, in_flight, peak) = Default::default();
        Self { shared: Arc::new(Shared { limit: limit as u64, used, tenants, in_flight, peak }) }
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
        let tenant = self.shared.tenant(tenant);
        let mut reservation = Reservation { shared: self.shared.clone(), tenant, bytes: 0 };
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

impl Shared {
    fn tenant(&self, name: &str) -> Arc<AtomicU64> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = tenants.get(name) {
            return held.clone();
        }
        if tenants.len() >= TENANTS_KEPT_MAX {
            // Whoever holds bytes holds its counter too.
            tenants.retain(|_, held| Arc::strong_count(held) > 1);
        }
        tenants.entry(name.to_owned()).or_default().clone()
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
        let within =
            |limit: u64| move |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        let of_tenant = self.tenant.fetch_update(Relaxed, Relaxed, within(share));
        of_tenant.map_err(|_| Denied::Exhausted)?;
        let Ok(before) = shared.used.fetch_update(Relaxed, Relaxed, within(shared.limit)) else {
            self.tenant.fetch_sub(bytes, Relaxed);
            return Err(Denied::Exhausted);
        };
        shared.in_flight.inc_by(bytes as i64);
        shared.peak.inner().fetch_max((before + bytes) as i64, Relaxed);
        self.bytes += bytes;
        Ok(())
    }

    /// Moves what is held to a reservation of its own.
    pub fn take(&mut self) -> Reservation {
        let bytes = std::mem::take(&mut self.bytes);
        Reservation { shared: self.shared.clone(), tenant: self.tenant.clone(), bytes }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.give_back((self.bytes as usize).saturating_sub(bytes));
    }

    /// Gives back `bytes`, or all there are.
    pub fn give_back(&mut self, bytes: usize) {
        let back = self.bytes.min(bytes as u64);
        self.bytes -= back;
        self.tenant.fetch_sub(back, Relaxed);
        self.shared.used.fetch_sub(back, Relaxed);
        self.shared.in_flight.dec_by(back as i64);
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

    #[test]
    fn a_tenant_has_half_of_it_however_many_its_requests() {
        let budget = Budget::new(100);
        let held: Vec<_> = (0..5).map(|_| budget.reserve_for("a", 10).expect("fits")).collect();
        assert_eq!(budget.reserve_for("a", 1).expect_err("its share"), Denied::Exhausted);
        let mut other = budget.reserve_for("b", 40).expect("the other half");
        other.shrink_to(15);
        other.shrink_to(20);
        assert_eq!(budget.in_flight(), 65);
        drop(held);
        assert!(budget.reserve_for("a", 50).is_ok());
        for number in 0..2 * TENANTS_KEPT_MAX {
            drop(budget.reserve_for(&number.to_string(), 1).expect("fits"));
        }
        let kept = budget.shared.tenants.lock().expect("no panic").len();
        assert!(kept <= TENANTS_KEPT_MAX, "{kept}");
        assert!(other.grow(36).is_err(), "not forgotten while it holds something");
        drop(other);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn never_more_than_the_limit_and_all_of_it_again() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(40).expect("fits");
        let second = budget.reserve_for("b", 50).expect("fits");
        assert_eq!(budget.reserve_for("c", 11).expect_err("too much"), Denied::Exhausted);
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
