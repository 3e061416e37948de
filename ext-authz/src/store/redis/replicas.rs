//! Who has a change in force, and waiting until all have.

use std::time::{Duration, Instant};

use super::RedisStore;
use crate::check::feed::Position;

/// How often it is looked who has acknowledged.
const WAIT_PERIOD: Duration = Duration::from_millis(10);
/// How long it is waited for a replica where none is known: a running one is heard of every second.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(3);
/// A replica that was not heard of for so long has ended without taking its leave.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What a replica says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its host and port.
    pub name: String,
    /// What it has in force.
    pub position: Position,
    /// How long ago it said so.
    pub silence: Duration,
}

impl Replica {
    /// Whether it has a change in force.
    pub fn has(&self, change: &Position) -> bool {
        self.position.epoch == change.epoch && self.position.generation >= change.generation
    }
}

impl RedisStore<'_> {
    /// The replicas that follow this Redis.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn replicas(&mut self) -> anyhow::Result<Vec<Replica>> {
        let mut pipe = redis::pipe();
        pipe.cmd("TIME").cmd("HGETALL").arg(&self.names.replicas);
        type Answer = ((u64, u64), Vec<(String, String)>);
        let ((now, _), said): Answer =
            pipe.query(&mut self.connection).map_err(|error| self.trouble(&error))?;
        let mut replicas: Vec<Replica> = said
            .into_iter()
            .filter_map(|(name, said)| {
                let mut words = said.split(' ');
                let epoch = words.next()?.to_owned();
                let generation = words.next()?.parse().ok()?;
                let silence = Duration::from_secs(now.saturating_sub(words.next()?.parse().ok()?));
                Some(Replica { name, position: Position { epoch, generation }, silence })
            })
            .filter(|replica| replica.silence < FORGOTTEN_AFTER)
            .collect();
        replicas.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(replicas)
    }

    /// Waits until every replica has a change in force, or for as long as that may take. Returns
    /// what all of them said last.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub fn wait(&mut self, change: &Position, most: Duration) -> anyhow::Result<Vec<Replica>> {
        let began = Instant::now();
        loop {
            let replicas = self.replicas()?;
            let most = if replicas.is_empty() { most.min(FIRST_WAIT_MAX) } else { most };
            let have_all = !replicas.is_empty() && replicas.iter().all(|other| other.has(change));
            if have_all || began.elapsed() >= most {
                return Ok(replicas);
            }
            std::thread::sleep(WAIT_PERIOD);
        }
    }
}
