//! A store that can be lost and found: what whoever guards it needs beside counting.

use std::future::Future;
use std::time::Duration;

use crate::decide::hit::Hit;
use crate::lease::loss::{Finding, Restoration};
use crate::store::Store;
use crate::store::error::StoreError;

/// One server of a store, as people are shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    /// Where it is, a host and a port or a socket; none while that is not known.
    pub at: Option<String>,
    /// Which of two Redis it belongs to.
    pub part: Option<&'static str>,
    /// How many slots of a cluster it has.
    pub slots: Option<usize>,
    /// How long it has been out of reach; none while it is in reach.
    pub lost_for: Option<Duration>,
}

/// A store that can be lost and found.
pub trait Backend: Store {
    /// Connects anew and finds out whether the store counts.
    fn probe(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Finds out whether the connection in use is still good.
    fn check(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Leaves this replica's sign of life; how many replicas left one of late.
    fn sign_of_life(&self) -> impl Future<Output = Result<u32, StoreError>> + Send;

    /// Hands over what was found out of the data of the servers since the last time. Whoever asks
    /// meanwhile waits until that is taken in.
    fn findings(&self, _take_in: &mut dyn FnMut(Finding)) {}

    /// Restores counters that lost data, as far as this replica had claimed of them; where each stands.
    fn restore_claimed(
        &self,
        restorations: &[Restoration],
    ) -> impl Future<Output = Vec<Result<u64, StoreError>>> + Send {
        let stand = restorations.iter().map(|lost| Ok(lost.hit.amount.max(lost.taken))).collect();
        std::future::ready(stand)
    }

    /// Whether a part of the store is lost that has the counter of one of these hits.
    fn is_lost_to(&self, _hits: &[Hit]) -> bool {
        false
    }

    /// Its servers, as far as they are known.
    fn servers(&self) -> Vec<ServerState> {
        Vec::new()
    }

    /// Takes the sign of life back: this replica ends.
    fn farewell(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Does what no request waits for. Never ends.
    fn tend(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}
