//! A Redis that lost its data: how that is found out, and how it is told what replicas had claimed.
//! What that means is `lease::loss`.
//!
//! One key holds a random number that the first replica to find none has set. It dies with the data
//! and is read once a second, and before a Redis that was out of reach is used again.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use redis::aio::ConnectionLike;
use redis::{Script, Value};

use super::link::{PROBE_TIMEOUT, classify};
use super::number::number;
use super::servers::Servers;
use super::{Redis, StoreError, epoch_key};
use crate::lease::loss::Assertion;

/// Numbers that Lua, a double and a count can hold.
const EPOCH_BITS: u32 = 52;

/// Which data Redis holds.
pub struct Epoch {
    last: AtomicU64,
    script: Script,
}

impl Default for Epoch {
    fn default() -> Self {
        let script = Script::new(include_str!("claimed.lua"));
        Self { last: AtomicU64::new(0), script }
    }
}

impl Epoch {
    /// Another number means other data; 0 as long as none was read.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }
}

impl Redis {
    /// Reads which data this is, and marks it where nobody has.
    pub(super) async fn read_epoch(&self) -> Result<(), StoreError> {
        let key = epoch_key(&self.settings);
        let mut connection = self.servers.connection(key.as_bytes())?;
        let random = RandomState::new().hash_one(0) >> (64 - EPOCH_BITS) | 1;
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(&key).arg(random).arg("NX").ignore().cmd("GET").arg(&key);
        let asked = pipe.query_async::<Vec<Value>>(&mut connection);
        let answer = tokio::time::timeout(PROBE_TIMEOUT, asked).await;
        let values = answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
        let value = values.last().ok_or(StoreError::Unexpected)?;
        self.epoch.last.store(number(value)?, Ordering::Release);
        Ok(())
    }

    /// Tells counters what this replica had claimed of them; where each stands.
    pub(super) async fn tell_claimed(
        &self,
        assertions: &[Assertion],
    ) -> Result<Vec<u64>, StoreError> {
        // Only one server takes keys of several slots in one call.
        let size = if matches!(self.servers, Servers::One(_)) { assertions.len() } else { 1 };
        let calls = assertions.chunks(size.max(1)).map(|part| async move {
            let connection = match &self.servers {
                Servers::Apart(apart) => apart.connection(&part[0].hit)?,
                servers => servers.connection(&self.key(&part[0].hit))?,
            };
            let told = self.tell_claimed_over(connection, part);
            let answer = tokio::time::timeout(self.settings.call_budget, told).await;
            answer.map_err(|_| StoreError::TimedOut)?
        });
        let answers = join_all(calls).await;
        Ok(answers.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    async fn tell_claimed_over(
        &self,
        mut connection: impl ConnectionLike + Send,
        assertions: &[Assertion],
    ) -> Result<Vec<u64>, StoreError> {
        let mut call = self.epoch.script.prepare_invoke();
        call.arg(self.life.name());
        for Assertion { hit, taken, .. } in assertions {
            let counter = self.key(hit);
            let granted = [&*counter, b"|granted"].concat();
            call.key(counter).key(granted);
            call.arg(hit.amount).arg(*taken).arg(self.ttl(hit, self.clock.now()));
        }
        let counts: Vec<u64> = call.invoke_async(&mut connection).await.map_err(classify)?;
        match counts.len() == assertions.len() {
            true => Ok(counts),
            false => Err(StoreError::Unexpected),
        }
    }
}
