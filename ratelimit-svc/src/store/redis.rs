//! Counters in Redis: one server, a master that sentinels watch over, or a cluster.
//!
//! Counting every hit is a pipeline of `INCRBY`, with `SET NX EX` in front for a counter that this
//! process meets for the first time.
//! All-or-nothing, refunds and the other algorithms are a Lua script, a cheaper one where all
//! windows are fixed. Each is one round trip.
//!
//! ```text
//! SET k 0 EX ttl NX, INCRBY k 1 → 2      first hit here
//! INCRBY k 1 → 3                         has its expiry, see `expiry`
//! INCRBY k 1 → 1                         Redis lost it meanwhile: EXPIRE at once
//! ```

mod answer;
mod backend;
pub mod connection;
pub mod expiry;
mod loss;
pub mod replicas;
mod script;
pub mod topology;

use std::sync::Arc;
use std::time::Duration;

use redis::{Script, Value};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::decide::algorithm::{State, lives_seconds};
use crate::decide::hit::{Count, Hit, Mode};
use crate::decide::settle::Settled;
use crate::limits::algorithm::Algorithm;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::over_cache::OverCache;
use crate::store::redis::replicas::SignOfLife;
use crate::store::split::{count_in_parts, merge_refused, merge_remembered};
use answer::number;
use connection::asking::Way;
use connection::refusal::classify;
use connection::tls::TlsError;
use expiry::{Known, jitter};
use loss::restore;
use script::settle::Scripts;
use topology::give_back::GiveBack;
use topology::link::LinkSettings;
use topology::part::Call;
use topology::servers::Servers;
use topology::side::{Side, is_of_a_second};

/// How much longer than they are of use counters live: by as much the clocks of replicas may differ.
pub const EXPIRY_MARGIN_SECONDS: u64 = 5;

/// Counters in Redis.
pub struct Redis {
    /// Has all counters, or all but those of `per_second`.
    main: Servers,
    /// Has the windows of a second, where there are two.
    per_second: Option<Servers>,
    clock: Arc<Clock>,
    settings: RedisSettings,
    scripts: Scripts,
    restoring: Script,
    over: OverCache,
    known: Known,
    back: GiveBack,
    life: SignOfLife,
}

/// What of a request is counted in one step.
#[derive(Clone, PartialEq)]
struct Step {
    is_per_second: bool,
    /// Where there are several servers.
    slot: Option<u16>,
    /// A counter that is counted by itself.
    alone: Option<Box<[u8]>>,
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
    /// How many threads serve requests, each over connections of its own.
    pub threads: usize,
}

impl Redis {
    /// A store without a connection; [`probe`](crate::store::backend::Backend::probe) makes one, and corrects `clock` by it.
    ///
    /// # Errors
    /// When the TLS files are not what they should be.
    pub fn new(
        link: LinkSettings,
        settings: RedisSettings,
        clock: Arc<Clock>,
    ) -> Result<Self, TlsError> {
        let main = servers(link, &settings, clock.clone())?;
        Ok(Self::over(main, None, settings, clock))
    }

    /// A store that counts windows of a second in a Redis of their own. The time is that of the main one.
    ///
    /// # Errors
    /// As [`Redis::new`].
    pub fn pair(
        main: LinkSettings,
        per_second: LinkSettings,
        settings: RedisSettings,
        clock: Arc<Clock>,
    ) -> Result<Self, TlsError> {
        let per_second = servers(per_second, &settings, Arc::default())?;
        let main = servers(main, &settings, clock.clone())?.of_pair(Side::of_all_else());
        Ok(Self::over(main, Some(per_second.of_pair(Side::of_seconds())), settings, clock))
    }

    fn over(
        main: Servers,
        per_second: Option<Servers>,
        settings: RedisSettings,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            main,
            per_second,
            clock,
            scripts: Scripts::default(),
            restoring: restore::script(),
            over: OverCache::new(settings.local_cache_bytes),
            known: Known::default(),
            back: GiveBack::default(),
            life: SignOfLife::new(),
            settings,
        }
    }

    /// The Redis that has the counter of a hit.
    fn servers_of(&self, hit: &Hit) -> &Servers {
        self.per_second.as_ref().filter(|_| is_of_a_second(hit)).unwrap_or(&self.main)
    }

    fn all(&self) -> impl Iterator<Item = &Servers> {
        [&self.main].into_iter().chain(&self.per_second)
    }

    fn key(&self, hit: &Hit) -> Vec<u8> {
        [self.settings.key_prefix.as_bytes(), &hit.key].concat()
    }

    /// Seconds a new counter lives: to the end of its window, which may not have begun where it is
    /// claimed ahead, and some jitter. Counters without a window are given their time anew with each
    /// hit, so theirs needs no jitter.
    fn ttl(&self, hit: &Hit, now: Duration) -> u64 {
        let lives = lives_seconds(hit, now) + EXPIRY_MARGIN_SECONDS;
        if !hit.algorithm.has_windows() {
            return lives;
        }
        let jitter = jitter(self.settings.expiration_jitter_max_seconds);
        lives.max(hit.window.seconds).saturating_add(jitter)
    }

    /// Counts by `deadline`, however many steps it takes, each where its counters are. What a script
    /// decides is decided together as far as it is in one slot; plain increments are sent for each
    /// counter of a cluster by itself, since a node may have some of them and send on for others while a
    /// slot moves.
    async fn ask(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
        deadline: Instant,
    ) -> Result<Vec<Count>, StoreError> {
        if self.per_second.is_none() && self.main.is_one() {
            return self.count_at(hits, mode, now, deadline).await;
        }
        let plain = is_plain(hits, mode);
        let step_of = |hit: &Hit| {
            let slot = self.servers_of(hit).slot(|| self.key(hit));
            let alone = slot.filter(|_| plain).map(|_| hit.key.clone());
            Step { is_per_second: self.per_second.is_some() && is_of_a_second(hit), slot, alone }
        };
        let count = |_, hits: Vec<Hit>, mode| async move {
            self.count_at(&hits, mode, now, deadline).await
        };
        let give_back = |hits| self.back.by(deadline, hits, now);
        count_in_parts(hits, mode, step_of, count, give_back).await
    }

    /// Counts hits of one step where they belong.
    async fn count_at(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
        deadline: Instant,
    ) -> Result<Vec<Count>, StoreError> {
        let Some(first) = hits.first() else { return Ok(Vec::new()) };
        let step = |mut way: Way| async move { self.step(&mut way, hits, mode, now).await };
        self.servers_of(first).call(|| self.key(first), Call::Count, deadline, step).await
    }

    /// Gives back what steps took in vain, each counter's hits with a budget of their own. Never ends.
    async fn give_back(&self) {
        let give_back = |hit, now| async move {
            let deadline = Instant::now() + self.settings.call_budget;
            self.count_at(&[hit], Mode::CountAll, now, deadline).await
        };
        self.back.run(give_back).await;
    }

    /// Counts over one connection, in one round trip.
    async fn step(
        &self,
        connection: &mut Way,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        match is_plain(hits, mode) {
            true => self.count_all(connection, hits, now).await,
            false => self.settle(connection, hits, mode, now).await,
        }
    }

    async fn count_all(
        &self,
        connection: &mut Way,
        hits: &[Hit],
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let mut pipe = redis::pipe();
        // Of each hit whether its counter is given an expiry first: a second answer, which says nothing.
        let mut is_met = Vec::with_capacity(hits.len());
        for hit in hits {
            let key = self.key(hit);
            is_met.push(hit.amount > 0 && !self.known.has(&key));
            if is_met.last() == Some(&true) {
                let ttl = self.ttl(hit, now);
                pipe.cmd("SET").arg(&key).arg(0).arg("EX").arg(ttl).arg("NX");
            }
            match hit.amount {
                // A look must not make a counter.
                0 => pipe.cmd("GET").arg(key),
                amount => pipe.cmd("INCRBY").arg(key).arg(amount),
            };
        }
        // What the server refuses of one says nothing of the others.
        pipe.ignore_errors();
        let values: Vec<Value> = pipe.query_async(connection).await.map_err(classify)?;
        let commands = hits.len() + is_met.iter().filter(|met| **met).count();
        if values.len() != commands {
            return Err(StoreError::Unexpected);
        }
        let mut values = values.into_iter();
        let mut new = Vec::new();
        let (mut counts, mut refused) = (Vec::with_capacity(hits.len()), Vec::new());
        for (at, hit) in hits.iter().enumerate() {
            if is_met[at] {
                values.next();
            }
            let value = match values.next().ok_or(StoreError::Unexpected)? {
                Value::ServerError(error) => {
                    refused.push((at, classify(error.into())));
                    continue;
                }
                value => number(&value)?,
            };
            if is_met[at] {
                self.known.add(&self.key(hit));
            } else if hit.amount > 0 && value == hit.amount {
                new.push(hit);
            }
            let over = value > u64::from(hit.limit);
            let state = State::Fixed(value);
            let settled = Settled { state, over, moved: true, withheld: 0, usage: None };
            counts.push(settled.count(hit, now));
        }
        if !new.is_empty() {
            self.expire(connection, &new, now).await;
        }
        merge_refused(counts, refused)
    }

    /// Gives counters an expiry that had one before the server lost them.
    async fn expire(&self, connection: &mut Way, hits: &[&Hit], now: Duration) {
        let mut pipe = redis::pipe();
        for hit in hits {
            pipe.cmd("EXPIRE").arg(self.key(hit)).arg(self.ttl(hit, now)).ignore();
        }
        if let Err(error) = pipe.query_async::<()>(connection).await.map_err(classify) {
            // They are counted, whatever became of this.
            let cause = chassis::telemetry::error_chain(&error);
            tracing::debug!(cause, "a counter that redis had lost may have no expiry");
        }
    }
}

/// The servers of one Redis, not connected yet.
fn servers(
    link: LinkSettings,
    settings: &RedisSettings,
    clock: Arc<Clock>,
) -> Result<Servers, TlsError> {
    let RedisSettings { key_prefix, call_budget, threads, .. } = settings;
    Servers::new(link, key_prefix, clock, *call_budget, *threads)
}

/// Whether plain increments do: nothing is held back, and nothing goes down.
fn is_plain(hits: &[Hit], mode: Mode) -> bool {
    let fixed = |hit: &Hit| {
        hit.algorithm == Algorithm::FixedWindow && !hit.is_refund && hit.share.is_none()
    };
    mode == Mode::CountAll && hits.iter().all(fixed)
}

impl Store for Redis {
    async fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let deadline = Instant::now() + self.settings.call_budget;
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
            let asked = self.ask(&open, mode, now, deadline).await;
            merge_remembered(remembered, asked)?
        } else {
            self.ask(hits, mode, now, deadline).await?
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
