//! What the service asks of Redis, each with a time limit.

use std::future::Future;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Value, from_redis_value};

use super::connect::{ANSWER_TIMEOUT, ConnectError};
use super::scripts::ACKNOWLEDGE;
use super::settings::Names;
use super::wire::{Entry, WireError};
use super::worded::worded;
use crate::check::feed::{Distrust, Position};

/// How many records are asked for at a time.
const SCAN_COUNT: usize = 1_000;
/// How many changes are read at a time.
const CHANGES_AT_ONCE: usize = 1_000;

/// Why Redis could not be followed further.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It refused, broke off, or answered nonsense.
    #[error("answered with an error: {}", worded(.0))]
    Redis(#[from] RedisError),
    /// What it answered is not what was asked for.
    #[error("answered nonsense: {0}")]
    Nonsense(#[from] redis::ParsingError),
    /// It does not answer.
    #[error("does not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// It takes no writes, as a replica that was a primary before: it may lag.
    #[error("is read-only: it is not the primary, or not any more")]
    ReadOnly,
    /// What it says of itself cannot be believed.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// It has less than it says.
    #[error("has {found} of its {count} records: it lost the others")]
    Incomplete {
        /// How many there are.
        found: usize,
        /// How many there must be.
        count: usize,
    },
    /// A set looks as if it were cut.
    #[error(
        "has {found} keys and lacks {missing} of the {present} in force, as one that lost its data \
         does; if that is meant, 'keys load' the whole set"
    )]
    Cut {
        /// How many there are.
        found: usize,
        /// How many of those in force are not among them.
        missing: usize,
        /// How many are in force.
        present: usize,
    },
    /// A set that cannot be in force.
    #[error("{0}")]
    Refused(String),
    /// An entry of the stream is none.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Redis as the service sees it.
pub struct Server {
    connection: MultiplexedConnection,
    names: Names,
}

/// What Redis says of its set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where it is, if there ever was one.
    pub position: Option<Position>,
    /// How many records it must have.
    pub count: usize,
    /// Whether all keys were put in at once, on purpose.
    pub is_loaded: bool,
}

impl Server {
    /// Behind a connection.
    pub fn new(connection: MultiplexedConnection, names: Names) -> Self {
        Self { connection, names }
    }

    /// Says up to where this replica is, and hears where the set is.
    ///
    /// # Errors
    /// When Redis does not answer. Where it only refuses to write, the position is still heard, and
    /// what was refused is the second value.
    pub async fn acknowledge(
        &mut self,
        replica: &str,
        at: &Position,
    ) -> Result<(Option<Position>, Option<String>), FollowError> {
        let mut script = ACKNOWLEDGE.key(&self.names.state);
        script.key(&self.names.replicas).arg(replica).arg(&at.epoch).arg(at.generation);
        let said = within(script.invoke_async::<(String, u64)>(&mut self.connection)).await;
        match said {
            Ok((epoch, generation)) => {
                let position = (!epoch.is_empty()).then_some(Position { epoch, generation });
                Ok((position, None))
            }
            Err(FollowError::Redis(error)) if error.code() == Some("READONLY") => {
                Err(FollowError::ReadOnly)
            }
            // A full disk or full memory: nobody can change anything, so nothing is missed.
            Err(FollowError::Redis(error)) if matches!(error.code(), Some("MISCONF" | "OOM")) => {
                let problem = format!("takes no writes: {error}");
                Ok((self.state().await?.position, Some(problem)))
            }
            Err(error) => Err(error),
        }
    }

    /// What Redis says of its set.
    ///
    /// # Errors
    /// When it does not answer, or with nonsense.
    pub async fn state(&mut self) -> Result<Told, FollowError> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.names.state).arg(&["epoch", "generation", "count", "origin"]);
        type State = (Option<String>, Option<u64>, Option<usize>, Option<String>);
        let answer: State = self.ask(&command).await?;
        let (epoch, generation, count, origin) = answer;
        let position = epoch.map(|epoch| Position { epoch, generation: generation.unwrap_or(0) });
        let is_loaded = origin.as_deref() == Some("load");
        Ok(Told { position, count: count.unwrap_or(0), is_loaded })
    }

    /// Calls `each` with all records by key id; some may come twice.
    ///
    /// # Errors
    /// When Redis does not answer, or with nonsense.
    pub async fn records(&mut self, mut each: impl FnMut(&str, &str)) -> Result<(), FollowError> {
        let records = self.names.records.clone();
        self.scan(&records, &mut each).await
    }

    /// Calls `each` with all tenants and their status.
    ///
    /// # Errors
    /// When Redis does not answer, or with nonsense.
    pub async fn tenants(&mut self, mut each: impl FnMut(&str, &str)) -> Result<(), FollowError> {
        let tenants = self.names.tenants.clone();
        self.scan(&tenants, &mut each).await
    }

    async fn scan(
        &mut self,
        hash: &str,
        each: &mut impl FnMut(&str, &str),
    ) -> Result<(), FollowError> {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(hash).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let (next, page): (u64, Vec<(String, String)>) = self.ask(&command).await?;
            for (name, value) in &page {
                each(name, value);
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// The changes after a generation, at most [`CHANGES_AT_ONCE`]; waits for the first for as long
    /// as `wait` says.
    ///
    /// # Errors
    /// When Redis does not answer, or with nonsense.
    pub async fn changes(&mut self, after: u64, wait: Duration) -> Result<Vec<Entry>, FollowError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(CHANGES_AT_ONCE);
        if !wait.is_zero() {
            command.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        command.arg("STREAMS").arg(&self.names.changes).arg(format!("{after}-0"));
        // Of each stream its name and its entries, of each entry its id and its fields.
        let streams: Option<Vec<Value>> = self.ask(&command).await?;
        let mut changes = Vec::new();
        for stream in streams.unwrap_or_default() {
            let (_, entries) = from_redis_value::<(String, Vec<Value>)>(stream)?;
            for entry in entries {
                let (id, fields) = from_redis_value::<(String, Vec<String>)>(entry)?;
                let pairs = fields.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                changes.push(Entry::parse(&id, pairs.collect())?);
            }
        }
        Ok(changes)
    }

    /// Takes this replica off the list of those that acknowledge.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn leave(&mut self, replica: &str) -> Result<(), FollowError> {
        let mut command = redis::cmd("HDEL");
        command.arg(&self.names.replicas).arg(replica);
        self.ask::<Value>(&command).await.map(drop)
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, FollowError> {
        within(command.query_async(&mut self.connection)).await
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, FollowError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(FollowError::TimedOut),
    }
}
