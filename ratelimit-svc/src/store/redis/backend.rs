//! Redis as a store that can be lost and found: probes, checks, signs of life, what is restored after a
//! loss of data, and what no request waits for. Counts nothing.

use super::replicas::SignOfLife;
use super::topology::servers::Servers;
use super::topology::slots::slot_of;
use super::{Redis, epoch_key};
use crate::decide::hit::Hit;
use crate::lease::loss::{Finding, Restoration, Whose};
use crate::store::backend::{Backend, ServerState};
use crate::store::error::StoreError;
use crate::store::redis::connection::connector::{PROBE_TIMEOUT, prove};
use crate::store::redis::connection::refusal::classify;

impl Backend for Redis {
    /// Connects anew and writes: a replica that lost its primary, a server that is loading or
    /// out of memory answers a ping but counts nothing.
    async fn probe(&self) -> Result<(), StoreError> {
        match &self.servers {
            Servers::One(link) => {
                let mut connected = link.connect().await?;
                let key = Some(&*self.probe_key);
                let budget = self.settings.call_budget;
                prove(&mut connected.connection, key, Some(&self.clock), false, budget).await?;
                // Before anything is counted it is known whether these are the same data.
                let key = epoch_key(&self.settings);
                self.epochs.read(&mut connected.connection, key, Whose::all()).await?;
                link.adopt(connected);
            }
            Servers::Cluster(cluster) => cluster.repair().await?,
            Servers::Pair(pair) => pair.repair().await?,
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), StoreError> {
        match &self.servers {
            Servers::One(link) if link.has_moved().await => self.probe().await,
            Servers::One(link) => {
                let key = Some(&*self.probe_key);
                let budget = self.settings.call_budget;
                prove(&mut link.connection()?, key, Some(&self.clock), true, budget).await
            }
            Servers::Cluster(cluster) => cluster.look().await,
            Servers::Pair(pair) => pair.look().await,
        }
    }

    async fn sign_of_life(&self) -> Result<u32, StoreError> {
        let prefix = &self.settings.key_prefix;
        let mut connection = self.servers.connection(SignOfLife::key(prefix).as_bytes())?;
        let sign = self.life.sign(prefix, &mut connection);
        let answer = tokio::time::timeout(self.settings.call_budget, sign).await;
        let alive = answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
        // Who is alive is known without it.
        if let Err(error) = self.read_epochs().await {
            let cause = chassis::telemetry::error_chain(&error);
            tracing::debug!(cause, "not known which data redis holds");
        }
        Ok(alive)
    }

    async fn farewell(&self) -> Result<(), StoreError> {
        let prefix = &self.settings.key_prefix;
        let mut connection = self.servers.connection(SignOfLife::key(prefix).as_bytes())?;
        let farewell = self.life.take_back(prefix, &mut connection);
        let answer = tokio::time::timeout(PROBE_TIMEOUT, farewell).await;
        answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)
    }

    fn findings(&self, take_in: &mut dyn FnMut(Finding)) {
        self.take_findings(take_in);
    }

    fn is_lost_to(&self, hits: &[Hit]) -> bool {
        match &self.servers {
            Servers::One(_) => false,
            Servers::Cluster(cluster) => {
                hits.iter().any(|hit| cluster.is_lost(slot_of(&self.key(hit))))
            }
            Servers::Pair(pair) => hits.iter().any(|hit| pair.is_lost(hit)),
        }
    }

    fn servers(&self) -> Vec<ServerState> {
        match &self.servers {
            Servers::One(link) => vec![link.server()],
            Servers::Cluster(cluster) => cluster.servers(),
            Servers::Pair(pair) => pair.servers(),
        }
    }

    async fn restore_claimed(&self, restorations: &[Restoration]) -> Vec<Result<u64, StoreError>> {
        Redis::restore_claimed(self, restorations).await
    }

    async fn tend(&self) {
        match &self.servers {
            Servers::One(_) => std::future::pending().await,
            Servers::Cluster(cluster) => {
                tokio::join!(self.give_back_in(cluster), cluster.tend());
            }
            Servers::Pair(pair) => pair.tend(self.settings.call_budget).await,
        }
    }
}
