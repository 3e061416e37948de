//! Signs of life of the replicas, kept in Redis by its own clock.
//!
//! One sorted set holds the replicas by the time of their last sign. A sign is one script: it
//! adds this replica, drops those that are silent for too long and counts the rest.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use redis::{RedisError, Script, aio::ConnectionLike};

/// How long a sign of life counts; they come every second.
pub const SIGN_LIVES: Duration = Duration::from_secs(10);

/// This replica's sign of life.
pub struct SignOfLife {
    /// As random as two replicas need to have names of their own, and new with each start.
    name: String,
    script: Script,
}

impl SignOfLife {
    /// Of a replica that has left none yet.
    pub fn new() -> Self {
        let name = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        Self { name, script: Script::new(include_str!("replicas.lua")) }
    }

    /// What this replica is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where signs are left.
    pub fn key(key_prefix: &str) -> String {
        format!("{key_prefix}replicas")
    }

    /// Leaves the sign; how many replicas are alive, this one included.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn sign(
        &self,
        key_prefix: &str,
        connection: &mut impl ConnectionLike,
    ) -> Result<u32, RedisError> {
        let mut call = self.script.key(Self::key(key_prefix));
        call.arg(&self.name).arg(SIGN_LIVES.as_millis() as u64);
        call.invoke_async(connection).await
    }

    /// Takes the sign back, so that a replica that takes this one's place is not one more.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn take_back(
        &self,
        key_prefix: &str,
        connection: &mut impl ConnectionLike,
    ) -> Result<(), RedisError> {
        let mut call = redis::cmd("ZREM");
        call.arg(Self::key(key_prefix)).arg(&self.name).query_async(connection).await
    }
}

impl Default for SignOfLife {
    fn default() -> Self {
        Self::new()
    }
}
