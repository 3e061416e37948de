//! Counters in one Redis server.
//!
//! Counting every hit is a pipeline of `INCRBY`, with `EXPIRE` only for a counter that is new.
//! All-or-nothing, refunds and the other algorithms are a Lua script, a cheaper one where all
//! windows are fixed. Each is one round trip.
//! Time comes from our clock, so all replicas need clocks that agree to well within a window.
//!
//! ```text
//! INCRBY k 1 → 1      new: EXPIRE follows, off the request's path
//! INCRBY k 1 → 2      has its EXPIRE
//! no answer           unsure whether new: EXPIRE when Redis is back
//! ```

mod packed;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script, Value};

use crate::decide::algorithm::State;
use crate::decide::settle::Settled;
use crate::limits::algorithm::Algorithm;
use crate::outage::guard::Backend;
use crate::store::key::usage_key;
use crate::store::over_cache::OverCache;
use crate::store::{Count, Hit, Mode, Role, Store, StoreError};

/// The longest attempt to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest wait for the probe that decides whether a connection is of use.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(250);
/// The most counters whose expiry is unsure after a failure.
pub const UNSURE_MAX: usize = 4096;

/// How much longer than they are of use counters without a window live: by as much the clocks of
/// replicas may differ.
pub const EXPIRY_MARGIN_SECONDS: u64 = 5;

const SETTLE: &str = include_str!("redis/settle.lua");
/// The same for requests of fixed windows alone: a third cheaper, and most are.
const SETTLE_FIXED: &str = include_str!("redis/settle_fixed.lua");

/// Counters in Redis.
pub struct Redis {
    client: Client,
    settings: RedisSettings,
    connection: ArcSwapOption<MultiplexedConnection>,
    script: Script,
    script_fixed: Script,
    over: OverCache,
    unsure: Arc<Unsure>,
}

/// How counters are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// The longest wait for an answer.
    pub call_budget: Duration,
    /// In front of every key.
    pub key_prefix: String,
    /// Counters live up to this much longer than their window, so that not all end at once.
    pub expiration_jitter_max_seconds: u64,
    /// Memory for counters that are over, 0 for none.
    pub local_cache_bytes: usize,
}

impl Redis {
    /// A store without a connection; [`Backend::probe`] makes one.
    ///
    /// # Errors
    /// When the address cannot be one.
    pub fn new(
        address: impl redis::IntoConnectionInfo,
        settings: RedisSettings,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            client: Client::open(address)?,
            connection: ArcSwapOption::empty(),
            script: Script::new(SETTLE),
            script_fixed: Script::new(SETTLE_FIXED),
            over: OverCache::new(settings.local_cache_bytes),
            unsure: Arc::default(),
            settings,
        })
    }

    fn key(&self, hit: &Hit) -> Vec<u8> {
        [self.settings.key_prefix.as_bytes(), &hit.key].concat()
    }

    /// Seconds a new counter lives: the window and some jitter. Counters without a window are
    /// given their time anew with each hit, so theirs needs no jitter; a bucket's script adds the
    /// time until it is full.
    fn ttl(&self, hit: &Hit) -> u64 {
        match hit.algorithm {
            Algorithm::FixedWindow => {
                hit.window.seconds + jitter(self.settings.expiration_jitter_max_seconds)
            }
            Algorithm::SlidingWindow => 2 * hit.window.seconds + EXPIRY_MARGIN_SECONDS,
            Algorithm::TokenBucket { .. } => EXPIRY_MARGIN_SECONDS,
        }
    }

    async fn ask(&self, hits: &[Hit], mode: Mode, now: Duration) -> Result<Vec<Count>, StoreError> {
        let connection = self.connection.load_full().ok_or(StoreError::NotConnected)?;
        let mut connection = MultiplexedConnection::clone(&connection);
        let fixed = |hit: &Hit| {
            hit.algorithm == Algorithm::FixedWindow && !hit.is_refund && hit.share.is_none()
        };
        let plain = mode == Mode::CountAll && hits.iter().all(fixed);
        let call = async {
            match plain {
                true => self.count_all(&mut connection, hits, now).await,
                false => self.settle(&mut connection, hits, mode, now).await,
            }
        };
        let answer = tokio::time::timeout(self.settings.call_budget, call).await;
        let counts = answer.unwrap_or(Err(StoreError::TimedOut));
        match &counts {
            Ok(_) => self.settle_expiries(&connection),
            Err(_) if plain => {
                let moved = hits.iter().filter(|hit| hit.amount > 0);
                self.unsure.remember(moved.map(|hit| (self.key(hit), self.ttl(hit))));
            }
            // A script sets the expiry in the same step.
            Err(_) => {}
        }
        counts
    }

    async fn count_all(
        &self,
        connection: &mut MultiplexedConnection,
        hits: &[Hit],
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let mut pipe = redis::pipe();
        for hit in hits {
            match hit.amount {
                // A look must not make a counter.
                0 => pipe.cmd("GET").arg(self.key(hit)),
                amount => pipe.cmd("INCRBY").arg(self.key(hit)).arg(amount),
            };
        }
        let values: Vec<Value> = pipe.query_async(connection).await.map_err(classify)?;
        if values.len() != hits.len() {
            return Err(StoreError::Unexpected);
        }
        let mut new = Vec::new();
        let mut counts = Vec::with_capacity(hits.len());
        for (hit, value) in hits.iter().zip(values) {
            let value = number(&value)?;
            if hit.amount > 0 && value == hit.amount {
                new.push((self.key(hit), self.ttl(hit)));
            }
            let over = value > u64::from(hit.limit);
            let state = State::Fixed(value);
            let settled = Settled { state, over, moved: true, withheld: 0, usage: None };
            counts.push(settled.count(hit, now));
        }
        if !new.is_empty() {
            self.expire(connection, new);
        }
        Ok(counts)
    }

    /// Sends `EXPIRE` without keeping the request waiting.
    fn expire(&self, connection: &MultiplexedConnection, expiries: Vec<Expiry>) {
        let (mut connection, unsure) = (connection.clone(), self.unsure.clone());
        tokio::spawn(async move {
            let mut pipe = redis::pipe();
            for (key, seconds) in &expiries {
                pipe.cmd("EXPIRE").arg(key).arg(*seconds).ignore();
            }
            let sent = tokio::time::timeout(PROBE_TIMEOUT, pipe.query_async::<()>(&mut connection));
            if !matches!(sent.await, Ok(Ok(()))) {
                unsure.remember(expiries);
            }
        });
    }

    async fn settle(
        &self,
        connection: &mut MultiplexedConnection,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let fixed = |hit: &Hit| hit.algorithm == Algorithm::FixedWindow && hit.share.is_none();
        if hits.iter().all(fixed) {
            return self.settle_fixed(connection, hits, mode, now).await;
        }
        let mut call = self.script.prepare_invoke();
        call.arg(u8::from(mode == Mode::AllOrNothing));
        for hit in hits {
            call.key(self.key(hit)).arg(packed::hit(hit, now, self.ttl(hit)));
            if hit.forecasts() {
                call.key([self.settings.key_prefix.as_bytes(), &usage_key(hit)].concat());
            }
        }
        let answer: Value = call.invoke_async(connection).await.map_err(classify)?;
        let Value::BulkString(answer) = answer else { return Err(StoreError::Unexpected) };
        let settled = packed::answer(&answer, hits).ok_or(StoreError::Unexpected)?;
        Ok(hits.iter().zip(settled).map(|(hit, settled)| settled.count(hit, now)).collect())
    }

    async fn settle_fixed(
        &self,
        connection: &mut MultiplexedConnection,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let mut call = self.script_fixed.prepare_invoke();
        call.arg(u8::from(mode == Mode::AllOrNothing));
        for hit in hits {
            let role = match hit.role {
                Role::Enforced => 0,
                Role::Quota => 1,
                Role::Observer => 2,
            };
            call.key(self.key(hit));
            call.arg(hit.amount).arg(u8::from(hit.is_refund)).arg(hit.limit).arg(role);
            call.arg(self.ttl(hit));
        }
        let answer: Vec<u64> = call.invoke_async(connection).await.map_err(classify)?;
        if answer.len() != hits.len() * 3 {
            return Err(StoreError::Unexpected);
        }
        let count = |(hit, part): (&Hit, &[u64])| {
            let (state, over, moved) = (State::Fixed(part[0]), part[1] == 1, part[2] == 1);
            Settled { state, over, moved, withheld: 0, usage: None }.count(hit, now)
        };
        Ok(hits.iter().zip(answer.chunks_exact(3)).map(count).collect())
    }

    /// Gives the counters of failed calls, which may exist, their expiry.
    fn settle_expiries(&self, connection: &MultiplexedConnection) {
        let expiries = self.unsure.take();
        if !expiries.is_empty() {
            self.expire(connection, expiries);
        }
    }
}

/// A counter and the seconds it lives.
type Expiry = (Vec<u8>, u64);

/// Counters that may exist without an expiry, because an answer was lost.
#[derive(Default)]
struct Unsure {
    expiries: Mutex<Vec<Expiry>>,
    any: AtomicBool,
}

impl Unsure {
    fn remember(&self, expiries: impl IntoIterator<Item = Expiry>) {
        let mut kept = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        let room = UNSURE_MAX.saturating_sub(kept.len());
        kept.extend(expiries.into_iter().take(room));
        self.any.store(!kept.is_empty(), Ordering::Relaxed);
    }

    fn take(&self) -> Vec<Expiry> {
        if !self.any.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut *self.expiries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Redis {
    async fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        // What a request gives back may be what its other hits need.
        let gives_back = hits.iter().any(|hit| hit.is_refund);
        let remembered: Vec<Option<Count>> = hits
            .iter()
            .map(|hit| if gives_back { None } else { self.over.is_over(hit, now) })
            .collect();
        let known = remembered.iter().flatten().count();
        if known == hits.len() {
            return Ok(remembered.into_iter().flatten().collect());
        }
        let counts = if known > 0 && mode == Mode::CountAll {
            let open = hits.iter().zip(&remembered).filter(|(_, count)| count.is_none());
            let open: Vec<Hit> = open.map(|(hit, _)| hit.clone()).collect();
            let mut asked = self.ask(&open, mode, now).await?.into_iter();
            remembered.into_iter().filter_map(|count| count.or_else(|| asked.next())).collect()
        } else {
            self.ask(hits, mode, now).await?
        };
        for (hit, count) in hits.iter().zip(&counts) {
            if hit.is_refund {
                self.over.forget(hit);
            } else if count.over && !count.remembered {
                self.over.remember(hit, count, now);
            }
        }
        Ok(counts)
    }
}

impl Backend for Redis {
    /// Connects anew and writes: a replica that lost its primary, a server that is loading or
    /// out of memory answers a ping but counts nothing.
    async fn probe(&self) -> Result<(), StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(PROBE_TIMEOUT));
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let mut connection = connection.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
        self.write(&mut connection).await?;
        self.settle_expiries(&connection);
        self.connection.store(Some(Arc::new(connection)));
        Ok(())
    }

    async fn check(&self) -> Result<(), StoreError> {
        let connection = self.connection.load_full().ok_or(StoreError::NotConnected)?;
        self.write(&mut MultiplexedConnection::clone(&connection)).await
    }
}

impl Redis {
    async fn write(&self, connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(format!("{}probe", self.settings.key_prefix)).arg(1).arg("EX").arg(60);
        let answer = tokio::time::timeout(PROBE_TIMEOUT, set.query_async::<()>(connection)).await;
        answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)
    }
}

fn classify(error: RedisError) -> StoreError {
    if error.is_timeout() {
        StoreError::TimedOut
    } else if error.is_unrecoverable_error() || error.is_connection_dropped() || error.is_io_error()
    {
        StoreError::Disconnected(error)
    } else {
        StoreError::Refused(error)
    }
}

fn number(value: &Value) -> Result<u64, StoreError> {
    match value {
        Value::Nil => Ok(0),
        Value::Int(number) => Ok(u64::try_from(*number).unwrap_or(0)),
        Value::BulkString(text) => {
            let text = std::str::from_utf8(text).map_err(|_| StoreError::Unexpected)?;
            let number: i64 = text.parse().map_err(|_| StoreError::Unexpected)?;
            Ok(u64::try_from(number).unwrap_or(0))
        }
        _ => Err(StoreError::Unexpected),
    }
}

/// A number below `max`, 0 when it is 0. Not secret, only spread.
fn jitter(max: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    if max == 0 { 0 } else { RandomState::new().hash_one(0) % max }
}
