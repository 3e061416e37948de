//! Parts of something bounded, one for each tenant, so that the requests of one do not take those of
//! others: threads that decode, room in the journal.

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gateway::tenants::Tenants;

/// As many units for each tenant.
#[derive(Debug)]
pub struct Shares {
    of_tenant: u32,
    /// Whoever has something or waits for it holds the semaphore too.
    tenants: Tenants<Semaphore>,
}

/// What a request has of the share of its tenant, until this is dropped.
pub type Share = OwnedSemaphorePermit;

impl Shares {
    /// So many units for each tenant.
    pub fn new(of_tenant: u32) -> Self {
        Self { of_tenant, tenants: Tenants::default() }
    }

    /// Waits for so many units of a tenant, or for all it has if that is less, in the order of asking.
    pub async fn take(&self, tenant: &str, units: u32) -> Share {
        let share = self.tenants.get(tenant, || Semaphore::new(self.of_tenant as usize));
        let taken = share.acquire_many_owned(units.min(self.of_tenant)).await;
        taken.expect("no semaphore is ever closed")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::gateway::tenants::KEPT_MAX;

    #[test]
    fn a_tenant_has_its_share_and_no_more() {
        let shares = Shares::new(10);
        let now = |tenant, units| shares.take(tenant, units).now_or_never();
        let most = now("a", 9).expect("free");
        assert!(now("a", 2).is_none());
        let rest = now("a", 1).expect("the last, as one that gave up waiting takes nothing");
        let all = now("b", 11).expect("all that there are, where more is asked for");
        assert!(now("b", 1).is_none());
        drop((most, all));
        assert!(now("b", 1).is_some() && now("a", 10).is_none());
        drop(rest);
        assert!(now("a", 10).is_some());
    }

    #[test]
    fn tenants_that_wait_for_nothing_are_forgotten() {
        let shares = Shares::new(1);
        let held = shares.take("a", 1).now_or_never().expect("free");
        for number in 0..2 * KEPT_MAX {
            drop(shares.take(&number.to_string(), 1).now_or_never().expect("free"));
        }
        let kept = shares.tenants.count();
        assert!(kept <= KEPT_MAX, "{kept}");
        assert!(shares.take("a", 1).now_or_never().is_none(), "not forgotten while it has a share");
        drop(held);
    }
}
