//! Whether hits that are over their limits refuse their request, and which of them do. The one rule for
//! memory, leases and requests that are counted in several parts; the scripts of the Redis store
//! repeat it.

use crate::decide::hit::{Hit, Role};

/// The hits that refuse a request: each enforced one that is over, and the quota hits as one, if all
/// of them are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    enforced: usize,
    quota: bool,
}

impl Refusals {
    /// Of the hits of one request, of which `over` says whether the one at a position is over.
    /// A refund refuses nothing.
    pub fn of(hits: &[Hit], over: impl Fn(usize) -> bool) -> Self {
        let (mut enforced, mut quota, mut quota_over) = (0, 0, 0);
        for (at, hit) in hits.iter().enumerate() {
            let vetoes = over(at) && !hit.is_refund;
            match hit.role {
                Role::Enforced => enforced += usize::from(vetoes),
                Role::Quota => (quota, quota_over) = (quota + 1, quota_over + usize::from(vetoes)),
                Role::Observer => {}
            }
        }
        Self { enforced, quota: quota > 0 && quota == quota_over }
    }

    /// Whether the request is refused.
    pub fn any(&self) -> bool {
        self.enforced > 0 || self.quota
    }

    /// Whether others than this hit refuse the request.
    pub fn by_others(&self, hit: &Hit, over: bool) -> bool {
        let own = usize::from(hit.role == Role::Enforced && over && !hit.is_refund);
        self.enforced > own || (self.quota && hit.role != Role::Quota)
    }
}
