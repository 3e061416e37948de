//! Finding out which data each server holds, and taking in what was found; see `epoch`.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::lease::loss::{Finding, Whose};
use crate::store::error::StoreError;
use crate::store::redis::topology::servers::Servers;
use crate::store::redis::{Redis, epoch_key};

impl Redis {
    /// Reads which data each server holds that is in reach.
    // Boxed: a store that holds stores.
    pub(in crate::store::redis) fn read_epochs(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            match &self.servers {
                Servers::One(link) => {
                    let key = epoch_key(&self.settings);
                    self.epochs.read(&mut link.connection()?, key, Whose::all()).await
                }
                Servers::Cluster(cluster) => cluster.read_epochs().await,
                Servers::Pair(pair) => {
                    let (main, per_second) =
                        tokio::join!(pair.main().read_epochs(), pair.per_second().read_epochs());
                    main.and(per_second)
                }
            }
        }
        .boxed()
    }

    /// What was found out of the data of the servers.
    pub(in crate::store::redis) fn take_findings(&self, take_in: &mut dyn FnMut(Finding)) {
        match &self.servers {
            Servers::Pair(pair) => {
                for (store, is_of_seconds) in [(pair.main(), false), (pair.per_second(), true)] {
                    store.take_findings(&mut |Finding { whose, state }| {
                        let whose = Whose::new(move |hit| {
                            (hit.window.seconds == 1) == is_of_seconds && whose.has(hit)
                        });
                        take_in(Finding { whose, state });
                    });
                }
            }
            Servers::One(_) | Servers::Cluster(_) => self.epochs.take(take_in),
        }
    }
}
