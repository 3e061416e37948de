//! Whose turn it is to decode a long body. As many are decoded at once as the machine has use for,
//! and half of them of one tenant, so that the bodies of one do not keep those of others waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Long bodies that are decoded at once, for each core: one works while one waits for memory.
const CONVERSIONS_A_CORE: usize = 2;

/// From so many tenants on, those that decode and wait for nothing are forgotten.
const TENANTS_KEPT_MAX: usize = 1024;

/// The turns of all tenants.
#[derive(Debug)]
pub struct Conversions {
    all: Arc<Semaphore>,
    of_tenant_max: usize,
    tenants: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _all: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

impl Conversions {
    /// As many as this machine has use for.
    pub fn of_this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self::new(cores * CONVERSIONS_A_CORE)
    }

    /// So many at once, at least two.
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.max(2);
        let all = Arc::new(Semaphore::new(at_once));
        Self { all, of_tenant_max: at_once / 2, tenants: Mutex::default() }
    }

    /// Waits for a turn of this tenant: first for those of the tenant itself, in order, so that
    /// what waits for a turn of all is never more than its part.
    pub async fn turn(&self, tenant: &str) -> Turn {
        let never_closed = "no semaphore is ever closed";
        let own = self.tenant(tenant).acquire_owned().await.expect(never_closed);
        let all = self.all.clone().acquire_owned().await.expect(never_closed);
        Turn { _all: all, _tenant: own }
    }

    fn tenant(&self, name: &str) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tenants.get(name) {
            return known.clone();
        }
        if tenants.len() >= TENANTS_KEPT_MAX {
            // Whoever has a turn or waits for one holds the semaphore too.
            tenants.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let new = || Arc::new(Semaphore::new(self.of_tenant_max));
        tenants.entry(name.to_owned()).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// The turn of a tenant, if there is one now.
    fn now(conversions: &Conversions, tenant: &str) -> Option<Turn> {
        let turn = pin!(conversions.turn(tenant));
        match turn.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_tenant_has_half_of_the_turns_however_many_it_waits_for() {
        let conversions = Conversions::new(4);
        let mut held = vec![now(&conversions, "a").expect("free")];
        held.push(now(&conversions, "a").expect("free"));
        assert!(now(&conversions, "a").is_none(), "its half");
        held.push(now(&conversions, "b").expect("the other half"));
        held.push(now(&conversions, "c").expect("the other half"));
        assert!(now(&conversions, "d").is_none(), "all are taken");
        held.remove(0);
        assert!(now(&conversions, "d").is_some());
        assert!(now(&conversions, "a").is_some(), "one that gave up waiting takes nothing");
    }

    #[test]
    fn tenants_that_wait_for_nothing_are_forgotten() {
        let conversions = Conversions::new(1);
        let held = now(&conversions, "a").expect("free");
        for number in 0..2 * TENANTS_KEPT_MAX {
            drop(now(&conversions, &number.to_string()).expect("free"));
        }
        let kept = conversions.tenants.lock().expect("no panic").len();
        assert!(kept <= TENANTS_KEPT_MAX, "{kept}");
        assert!(now(&conversions, "a").is_none(), "not forgotten while it decodes");
        drop(held);
    }
}
