//! Following Redis: what it has comes into force as soon as it is there, and is believed for as long
//! as Redis is heard of often enough.
//!
//! ```text
//! connect ─► where is it? ─► all records ─► changes ─► acknowledge ─┐
//!    ▲            └── within the stream ──────▲   ▲─────────────────┘
//!    └── wait ◄── whatever went wrong: the keys in force stay
//! ```

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connect;
use super::server::{FollowError, Server, Told};
use super::settings::{Names, RedisSettings};
use super::unreadable::Unreadable;
use super::wire::{self, Entry};
use crate::check::builder::Builder;
use crate::check::digest::Peppers;
use crate::check::feed::{self, Position, Step};
use crate::check::key_set::KeySet;
use crate::key_file::Rules;
use crate::keys::{Keys, Origin};

/// How long a read of the stream waits for a change; as often at least Redis is heard of.
pub const WAIT: Duration = Duration::from_secs(1);
/// The first and the longest wait before another attempt.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often it is looked whether Redis was not heard of for too long.
const STALENESS_PERIOD: Duration = Duration::from_millis(100);

/// What operators are told about following Redis.
#[derive(Clone, Debug, Default)]
pub struct FeedStatus {
    /// Where we are, once something was read.
    pub position: Option<Position>,
    /// Whether Redis answers as it should.
    pub is_following: bool,
    /// Changes that came into force one by one.
    pub changes: u64,
    /// How many times all keys were read.
    pub resyncs: u64,
    /// Records and changes that cannot be used.
    pub unreadable: usize,
    /// When Redis last confirmed what is in force.
    pub confirmed_at: Option<Instant>,
}

/// Follows one Redis.
pub struct Follower {
    keys: Arc<Keys>,
    settings: RedisSettings,
    names: Names,
    priority_classes: Vec<String>,
    replica: String,
    status: Arc<Mutex<FeedStatus>>,
}

/// What is known, between two attempts as well.
struct Known {
    position: Option<Position>,
    unreadable: Unreadable,
    /// Those that the records were checked against.
    peppers: Arc<Peppers>,
}

impl Follower {
    /// A follower under the name of `replica`, which no other service on this Redis may have.
    pub fn new(
        keys: Arc<Keys>,
        settings: RedisSettings,
        priority_classes: Vec<String>,
        replica: String,
    ) -> Self {
        let names = Names::new(&settings.prefix);
        Self { keys, settings, names, priority_classes, replica, status: Arc::default() }
    }

    /// What `/config` and metrics show, now and later.
    pub fn status(&self) -> Arc<Mutex<FeedStatus>> {
        Arc::clone(&self.status)
    }

    /// Reads all keys and then follows the changes. Never ends.
    pub async fn follow(&self) -> Infallible {
        tokio::select! {
            never = self.sessions() => never,
            never = self.watch_staleness() => never,
        }
    }

    /// Takes this replica off the list of those that acknowledge, if Redis answers at once.
    pub async fn leave(&self) {
        let leave = async {
            let connection = connect::open(&self.settings).await?;
            Server::new(connection, self.names.clone()).leave(&self.replica).await
        };
        if let Err(error) = leave.await {
            tracing::warn!(%error, "could not leave the list of replicas in Redis");
        }
    }

    async fn sessions(&self) -> Infallible {
        let (peppers, unreadable) = (self.keys.peppers(), Unreadable::default());
        let mut known = Known { position: None, unreadable, peppers };
        let mut wait = RETRY.0;
        loop {
            let Err(error) = self.session(&mut known, &mut wait).await;
            self.report(|status| status.is_following = false);
            let at = self.settings.shown();
            self.keys.refuse(Origin::Redis, &format!("Redis at {at} {error}"));
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(RETRY.1);
        }
    }

    async fn watch_staleness(&self) -> Infallible {
        let began = Instant::now();
        loop {
            tokio::time::sleep(STALENESS_PERIOD).await;
            let heard_at = self.report(|status| status.confirmed_at).unwrap_or(began);
            if heard_at.elapsed() > self.settings.max_staleness {
                self.keys.expire(Origin::Redis);
            }
        }
    }

    async fn session(
        &self,
        known: &mut Known,
        wait: &mut Duration,
    ) -> Result<Infallible, FollowError> {
        let connection = connect::open(&self.settings).await?;
        let mut server = Server::new(connection, self.names.clone());
        let mut read_at = Instant::now();
        let mut told = server.state().await?.position;
        loop {
            let is_under_new_peppers =
                known.unreadable.count > 0 && !Arc::ptr_eq(&known.peppers, &self.keys.peppers());
            if is_under_new_peppers {
                known.position = None;
            }
            let step = feed::next(known.position.as_ref(), told.as_ref())?;
            let at = match (step, known.position.clone()) {
                (Step::Follow, Some(at)) => at,
                _ => self.load_all(&mut server, known).await?,
            };
            let sent_at = Instant::now();
            let (now_told, refused) = server.acknowledge(&self.replica, &at).await?;
            told = now_told;
            if feed::next(Some(&at), told.as_ref())? == Step::Follow {
                // Nothing is missing of what there was when this was asked for, or was last read.
                let is_newest = told.as_ref() == Some(&at);
                let current_at = if is_newest { sent_at } else { read_at };
                self.confirm(&at, known, refused.as_deref(), current_at);
                *wait = RETRY.0;
                read_at = Instant::now();
                self.read_changes(&mut server, known, &at, is_newest).await?;
                told = known.position.clone().or(told);
            }
        }
    }

    /// Reads the changes after a position; waits for some where there are none that are known of.
    async fn read_changes(
        &self,
        server: &mut Server,
        known: &mut Known,
        at: &Position,
        is_newest: bool,
    ) -> Result<(), FollowError> {
        let wait = if is_newest { WAIT } else { Duration::ZERO };
        let changes = server.changes(at.generation, wait).await?;
        let are_gone = changes.is_empty() && !is_newest;
        if are_gone || !feed::is_gapless(at.generation, changes.iter().map(|e| e.generation)) {
            tracing::warn!("the stream of changes was trimmed too far: reading all keys");
            known.position = None;
        } else {
            self.apply(known, at, &changes);
        }
        Ok(())
    }

    /// Reads all records, and puts them in force.
    async fn load_all(
        &self,
        server: &mut Server,
        known: &mut Known,
    ) -> Result<Position, FollowError> {
        let peppers = self.keys.peppers();
        let Told { position, count, is_loaded } = server.state().await?;
        let position = position.ok_or(feed::Distrust::Empty)?;
        let rules = Rules { peppers: &peppers, priority_classes: &self.priority_classes };
        let (files, present) = (self.keys.of(Origin::Files), self.keys.of(Origin::Redis));
        let mut builder = Builder::beside(present.as_deref(), count);
        let mut unreadable = Unreadable::default();
        let mut read = |id: &str, text: &str| {
            let record = wire::record(text, rules, &mut builder.shared);
            let put = record.and_then(|(record, _)| {
                let clash = files.as_ref().and_then(|files| files.clash_with(&record));
                Ok(clash.map_or_else(|| builder.put(record), Err)?)
            });
            if let Err(error) = put {
                unreadable.add(id, &error);
            }
        };
        server.records(&mut read).await?;
        server
            .tenants(|name, status| match wire::is_suspended(name, status) {
                Ok(is_suspended) => drop(builder.add_tenant(name.into(), is_suspended)),
                Err(error) => unreadable.add(name, &error),
            })
            .await?;
        let keys = builder.build();
        let found = keys.len() + unreadable.count;
        if found < count {
            return Err(FollowError::Incomplete { found, count });
        }
        if let Some(present) = present
            && !is_loaded
            && present.is_cut_by(&keys)
        {
            let (missing, present) = (present.missing_from(&keys), present.len());
            return Err(FollowError::Cut { found: keys.len(), missing, present });
        }
        if keys.is_empty() && count > 0 {
            return Err(FollowError::Refused(unreadable.problem().unwrap_or_default()));
        }
        self.keys
            .load(Origin::Redis, hash(&position), keys, None)
            .map_err(|refused| FollowError::Refused(refused.to_string()))?;
        self.report(|status| status.resyncs += 1);
        *known = Known { position: Some(position.clone()), unreadable, peppers };
        Ok(position)
    }

    /// Puts changes in force. What cannot be used is left out, and the others do not wait for it.
    fn apply(&self, known: &mut Known, at: &Position, changes: &[Entry]) {
        let (Some(last), Some(present)) = (changes.last(), self.keys.of(Origin::Redis)) else {
            return;
        };
        let files = self.keys.of(Origin::Files);
        let peppers = self.keys.peppers();
        let rules = Rules { peppers: &peppers, priority_classes: &self.priority_classes };
        let mut keys = KeySet::clone(&present);
        for entry in changes {
            for part in &entry.parts {
                if let Err(error) = part.apply(&mut keys, rules, files.as_deref()) {
                    known.unreadable.add(&format!("change {}", entry.generation), &error);
                }
            }
            tracing::info!(generation = entry.generation, event = entry.event, "keys changed");
        }
        self.keys.change(Origin::Redis, keys);
        known.position = Some(Position { generation: last.generation, ..at.clone() });
        self.report(|status| status.changes += changes.len() as u64);
    }

    fn confirm(&self, at: &Position, known: &Known, refused: Option<&str>, current_at: Instant) {
        let problem = refused.map(str::to_owned).or_else(|| known.unreadable.problem());
        let address = self.settings.shown();
        let problem = problem.map(|problem| format!("Redis at {address}: {problem}"));
        self.keys.confirm(Origin::Redis, problem.as_deref());
        self.report(|status| {
            status.position = Some(at.clone());
            status.is_following = true;
            status.unreadable = known.unreadable.count;
            status.confirmed_at = Some(current_at);
        });
    }

    fn report<T>(&self, change: impl FnOnce(&mut FeedStatus) -> T) -> T {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// For comparing replicas.
fn hash(position: &Position) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&position.epoch, position.generation).hash(&mut hasher);
    hasher.finish()
}
