//! Redis as a store that can be lost and found: probes, checks, signs of life, what is restored after a
//! loss of data, and what no request waits for. Counts nothing.

use futures_util::future::join_all;

use super::Redis;
use super::replicas::SignOfLife;
use crate::decide::hit::Hit;
use crate::lease::loss::{Finding, Restoration};
use crate::store::backend::{Backend, ServerState};
use crate::store::error::StoreError;
use crate::store::redis::connection::connector::PROBE_TIMEOUT;
use crate::store::redis::connection::refusal::classify;

impl Backend for Redis {
    /// Of two, one is enough.
    async fn probe(&self) -> Result<(), StoreError> {
        any(join_all(self.all().map(|servers| servers.find())).await)
    }

    /// Of two, one is enough.
    async fn check(&self) -> Result<(), StoreError> {
        any(join_all(self.all().map(|servers| servers.look())).await)
    }

    async fn sign_of_life(&self) -> Result<u32, StoreError> {
        let prefix = &self.settings.key_prefix;
        let mut connection = self.main.connection(SignOfLife::key(prefix).as_bytes())?;
        let sign = self.life.sign(prefix, &mut connection);
        let answer = tokio::time::timeout(self.settings.call_budget, sign).await;
        let alive = answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
        // Who is alive is known without it.
        for read in join_all(self.all().map(|servers| servers.read_epochs())).await {
            if let Err(error) = read {
                let cause = chassis::telemetry::error_chain(&error);
                tracing::debug!(cause, "not known which data redis holds");
            }
        }
        Ok(alive)
    }

    async fn farewell(&self) -> Result<(), StoreError> {
        let prefix = &self.settings.key_prefix;
        let mut connection = self.main.connection(SignOfLife::key(prefix).as_bytes())?;
        let farewell = self.life.take_back(prefix, &mut connection);
        let answer = tokio::time::timeout(PROBE_TIMEOUT, farewell).await;
        answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)
    }

    fn findings(&self, take_in: &mut dyn FnMut(Finding)) {
        self.all().for_each(|servers| servers.findings(take_in));
    }

    fn is_lost_to(&self, hits: &[Hit]) -> bool {
        hits.iter().any(|hit| self.servers_of(hit).is_lost(&self.key(hit)))
    }

    fn servers(&self) -> Vec<ServerState> {
        self.all().flat_map(|servers| servers.states()).collect()
    }

    async fn restore_claimed(&self, restorations: &[Restoration]) -> Vec<Result<u64, StoreError>> {
        Redis::restore_claimed(self, restorations).await
    }

    async fn tend(&self) {
        tokio::join!(join_all(self.all().map(|servers| servers.tend())), self.give_back());
    }
}

/// Success where there is any, and otherwise the first failure.
fn any(ended: Vec<Result<(), StoreError>>) -> Result<(), StoreError> {
    ended.into_iter().reduce(Result::or).unwrap_or(Err(StoreError::NotConnected))
}
