//! Whose turn it is to decode a long body. As many are decoded at once as the machine has use for,
//! and half of them of one tenant, so that the bodies of one do not keep those of others waiting.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gateway::shares::{Share, Shares};

/// Long bodies that are decoded at once, for each core: one works while one waits for memory.
const CONVERSIONS_A_CORE: usize = 2;

/// The turns of all tenants.
#[derive(Debug)]
pub struct Conversions {
    all: Arc<Semaphore>,
    of_tenants: Shares,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _all: OwnedSemaphorePermit,
    _tenant: Share,
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
        let of_tenant = u32::try_from(at_once / 2).unwrap_or(u32::MAX);
        Self { all: Arc::new(Semaphore::new(at_once)), of_tenants: Shares::new(of_tenant) }
    }

    /// Waits for a turn of this tenant: first for those of the tenant itself, in order, so that
    /// what waits for a turn of all is never more than its part.
    pub async fn turn(&self, tenant: &str) -> Turn {
        let own = self.of_tenants.take(tenant, 1).await;
        let all = self.all.clone().acquire_owned().await.expect("no semaphore is ever closed");
        Turn { _all: all, _tenant: own }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn one_tenant_has_half_of_the_turns_however_many_it_waits_for() {
        let conversions = Conversions::new(4);
        let now = |tenant| conversions.turn(tenant).now_or_never();
        let mut held = vec![now("a").expect("free")];
        held.push(now("a").expect("free"));
        assert!(now("a").is_none(), "its half");
        held.push(now("b").expect("the other half"));
        held.push(now("c").expect("the other half"));
        assert!(now("d").is_none(), "all are taken");
        held.remove(0);
        assert!(now("d").is_some());
        assert!(now("a").is_some(), "one that gave up waiting takes nothing");
    }
}
