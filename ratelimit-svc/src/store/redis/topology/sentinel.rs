//! Finding the master that sentinels watch over. Asks them; decides by their majority.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::store::error::StoreError;
use crate::store::redis::connection::address::{HostPort, Login};
use crate::store::redis::connection::connector::{Connector, PROBE_TIMEOUT};
use crate::store::redis::connection::refusal::classify;

/// The longest wait for the sentinels: those that are silent must cost the master nothing, which is
/// looked at together with them.
pub const SENTINELS_TIMEOUT: Duration = Duration::from_millis(150);

/// The sentinels of one master.
pub struct Sentinels {
    master: String,
    addresses: Vec<HostPort>,
    login: Login,
    /// Connections that are kept, since the sentinels are asked every second.
    kept: Mutex<HashMap<HostPort, MultiplexedConnection>>,
}

impl Sentinels {
    /// The sentinels at `addresses`, which watch over `master`.
    pub fn new(master: String, addresses: Vec<HostPort>, login: Login) -> Self {
        Self { master, addresses, login, kept: Mutex::default() }
    }

    /// A connection to the master. A server that does not call itself one is not taken: sentinels
    /// that were cut off name a master of the past.
    ///
    /// # Errors
    /// When no sentinel names a server that is one.
    pub async fn connect(
        &self,
        connector: &Connector,
        login: &Login,
    ) -> Result<(MultiplexedConnection, HostPort), StoreError> {
        let (ballot, mut problem) = self.ask(connector).await;
        for at in ballot.by_votes() {
            match verified(connector, &at, login).await {
                Ok(connection) => return Ok((connection, at)),
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or(StoreError::NoMaster))
    }

    /// The server that more than half of the sentinels name, if they say so soon.
    pub async fn agreed(&self, connector: &Connector) -> Option<HostPort> {
        let asked = tokio::time::timeout(SENTINELS_TIMEOUT, self.ask(connector)).await;
        asked.ok()?.0.elected().cloned()
    }

    /// Asks all sentinels at once, until enough agree or the others are silent for too long; also the
    /// last that went wrong.
    async fn ask(&self, connector: &Connector) -> (Ballot, Option<StoreError>) {
        let mut ballot = Ballot::new(self.addresses.len());
        let mut problem = None;
        let mut asked: FuturesUnordered<_> =
            self.addresses.iter().map(|at| self.ask_one(connector, at)).collect();
        let until = Instant::now() + SENTINELS_TIMEOUT;
        loop {
            let answer = match ballot.votes.is_empty() {
                true => asked.next().await,
                false => tokio::time::timeout_at(until, asked.next()).await.ok().flatten(),
            };
            let Some(answer) = answer else { break };
            match answer {
                Ok(Some(at)) => ballot.add(at),
                Ok(None) => problem = Some(StoreError::NoMaster),
                Err(error) => problem = Some(error),
            }
            if ballot.elected().is_some() {
                break;
            }
        }
        (ballot, problem)
    }

    async fn ask_one(
        &self,
        connector: &Connector,
        at: &HostPort,
    ) -> Result<Option<HostPort>, StoreError> {
        let kept = self.kept().get(at).cloned();
        let mut connection = match kept {
            Some(connection) => connection,
            None => connector.tcp(at, &self.login).await?,
        };
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.master);
        let answer = question.query_async::<Option<HostPort>>(&mut connection);
        let answer = match tokio::time::timeout(PROBE_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(classify),
            Err(_) => Err(StoreError::TimedOut),
        };
        match &answer {
            Ok(_) => drop(self.kept().insert(at.clone(), connection)),
            Err(_) => drop(self.kept().remove(at)),
        }
        answer
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<HostPort, MultiplexedConnection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn verified(
    connector: &Connector,
    at: &HostPort,
    login: &Login,
) -> Result<MultiplexedConnection, StoreError> {
    let mut connection = connector.tcp(at, login).await?;
    let role = redis::cmd("ROLE");
    let role = tokio::time::timeout(PROBE_TIMEOUT, role.query_async::<Value>(&mut connection));
    let role = role.await.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
    match is_master(&role) {
        true => Ok(connection),
        false => Err(StoreError::NoMaster),
    }
}

fn is_master(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    match parts.first() {
        Some(Value::BulkString(role)) => role == b"master",
        Some(Value::SimpleString(role)) => role == "master",
        _ => false,
    }
}

/// What the sentinels said.
struct Ballot {
    voters: usize,
    votes: Vec<(HostPort, usize)>,
}

impl Ballot {
    fn new(voters: usize) -> Self {
        Self { voters, votes: Vec::new() }
    }

    fn add(&mut self, at: HostPort) {
        match self.votes.iter_mut().find(|(known, _)| *known == at) {
            Some((_, votes)) => *votes += 1,
            None => self.votes.push((at, 1)),
        }
    }

    /// Whom more than half of the voters named.
    fn elected(&self) -> Option<&HostPort> {
        self.votes.iter().find(|(_, votes)| votes * 2 > self.voters).map(|(at, _)| at)
    }

    /// Everyone named, the most votes first.
    fn by_votes(mut self) -> Vec<HostPort> {
        self.votes.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        self.votes.into_iter().map(|(at, _)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_of_all_sentinels_elect() {
        let at = |port| ("redis".to_owned(), port);
        let mut ballot = Ballot::new(3);
        assert_eq!(ballot.elected(), None);
        ballot.add(at(1));
        assert_eq!(ballot.elected(), None, "one of three, whatever the others say");
        ballot.add(at(2));
        assert_eq!(ballot.elected(), None);
        ballot.add(at(2));
        assert_eq!(ballot.elected(), Some(&at(2)));
        assert_eq!(ballot.by_votes(), [at(2), at(1)]);
        let mut alone = Ballot::new(1);
        alone.add(at(7));
        assert_eq!(alone.elected(), Some(&at(7)));
    }

    #[test]
    fn only_a_master_calls_itself_one() {
        let role = |name: &str| Value::Array(vec![Value::BulkString(name.into()), Value::Int(0)]);
        assert!(is_master(&role("master")));
        assert!(!is_master(&role("slave")) && !is_master(&role("sentinel")));
        assert!(!is_master(&Value::Nil) && !is_master(&Value::Array(vec![])));
    }
}
