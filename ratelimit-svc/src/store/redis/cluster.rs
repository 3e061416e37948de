//! The primaries of a Redis cluster: one connection and one breaker for each, and who has which
//! slot. Counts nothing.
//!
//! ```text
//! request ─► slot ─► node ─► its connection           a lost node costs its own keys, no others
//!                     └ MOVED, lost, no such node ─► repair, one at a time
//! repair: ask any node for the slots ─► connect what is not connected ─► prove it by writing
//! ```
//!
//! Not the cluster client of the redis crate: that one sends a call again when its answer was
//! lost, which counts it twice, and lets calls to all nodes wait while it looks for one.

mod epochs;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;

use super::claimed::Marks;
use super::connections::Connections;
use super::link::{Address, Connector, Endpoint, HostPort, Login, PROBE_TIMEOUT, classify, prove};
use super::slots::{SlotMap, slot_of};
use crate::clock::Clock;
use crate::outage::breaker::{Breaker, Change, Permit};
use crate::store::StoreError;

/// The shortest time between two repairs that requests ask for.
pub const REPAIR_PAUSE: Duration = Duration::from_millis(100);
/// The most nodes in use that are asked for the slots at once.
const ASKED_MAX: usize = 3;
/// The most nodes of one cluster.
pub const NODES_MAX: usize = 1000;

/// A cluster.
pub struct Cluster {
    connector: Connector,
    login: Login,
    seeds: Vec<HostPort>,
    probe_key: String,
    clock: Arc<Clock>,
    budget: Duration,
    marks: Marks,
    threads: usize,
    /// Where repairs run, whoever asks for them: what they connect outlives the thread of a request.
    home: Handle,
    map: ArcSwap<Map>,
    repairing: AtomicBool,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Map {
    slots: SlotMap,
    nodes: Vec<Arc<Node>>,
}

impl Map {
    /// Whether the slot is the node's.
    fn has(&self, node: &Arc<Node>, slot: u16) -> bool {
        let owner = self.slots.node(slot);
        owner.is_some_and(|owner| Arc::ptr_eq(&self.nodes[usize::from(owner)], node))
    }
}

/// A primary.
pub struct Node {
    at: HostPort,
    connections: ArcSwapOption<Connections>,
    breaker: Mutex<Breaker>,
}

impl Node {
    fn new(at: HostPort) -> Self {
        let breaker = Mutex::new(Breaker::new(Instant::now()));
        Self { at, connections: ArcSwapOption::empty(), breaker }
    }

    /// Its connection on this thread, and leave to use it.
    ///
    /// # Errors
    /// While it is out of reach.
    pub fn connection(&self) -> Result<(MultiplexedConnection, Permit), StoreError> {
        let permit = self.breaker().permit(Instant::now()).ok_or_else(out_of_reach)?;
        let connections = self.connections.load();
        Ok((connections.as_ref().ok_or_else(out_of_reach)?.here(), permit))
    }

    /// A permitted call succeeded, or was refused by a living server.
    pub fn answered(&self, permit: Permit) {
        self.breaker().succeeded(permit);
    }

    /// A permitted call was not answered. Whether the node is given up.
    pub fn failed(&self, permit: Permit, error: &StoreError) -> bool {
        let fatal = error.needs_reconnect();
        let change = self.breaker().failed(permit, fatal, Instant::now(), 0.5);
        let lost = change == Some(Change::Opened);
        if lost {
            let cause = chassis::telemetry::error_chain(error);
            tracing::error!(host = self.at.0, port = self.at.1, cause, "node out of reach");
        }
        lost
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn out_of_reach() -> StoreError {
    StoreError::Part(Box::new(StoreError::NotConnected))
}

impl Cluster {
    /// A cluster of which `seeds` are some nodes; [`Cluster::repair`] finds the others. It is looked
    /// after on the runtime that this is called on.
    pub fn new(
        connector: Connector,
        login: Login,
        seeds: Vec<HostPort>,
        probe_key: String,
        clock: Arc<Clock>,
        budget: Duration,
        threads: usize,
    ) -> Self {
        Self {
            connector,
            login,
            seeds,
            probe_key,
            clock,
            budget,
            threads,
            marks: Marks::default(),
            home: Handle::current(),
            map: ArcSwap::default(),
            repairing: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The same, with `marks` to tell the data of its nodes apart.
    pub fn marked(self, marks: Marks) -> Self {
        Self { marks, ..self }
    }

    /// The node that has a slot.
    ///
    /// # Errors
    /// When none has.
    pub fn node(&self, slot: u16) -> Result<Arc<Node>, StoreError> {
        let map = self.map.load();
        let node = map.slots.node(slot).and_then(|node| map.nodes.get(usize::from(node)));
        node.cloned().ok_or_else(out_of_reach)
    }

    /// The node at an address that another node told.
    ///
    /// # Errors
    /// When it is not known yet.
    pub fn node_at(&self, at: &HostPort) -> Result<Arc<Node>, StoreError> {
        let map = self.map.load();
        map.nodes.iter().find(|node| node.at == *at).cloned().ok_or_else(out_of_reach)
    }

    /// Has the cluster looked at soon; at once, unless that was just done.
    pub fn repair_soon(self: &Arc<Self>) {
        if self.repairing.swap(true, Ordering::AcqRel) {
            return;
        }
        let cluster = self.clone();
        self.home.spawn(async move {
            if let Err(error) = cluster.repair().await {
                let cause = chassis::telemetry::error_chain(&error);
                tracing::debug!(cause, "cluster not repaired");
            }
            tokio::time::sleep(REPAIR_PAUSE).await;
            cluster.repairing.store(false, Ordering::Release);
        });
    }

    /// Learns who has which slot, and connects to those that are not connected.
    ///
    /// # Errors
    /// When nobody tells, or not one node counts.
    pub async fn repair(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let ranges = self.slots().await?;
        let map = self.learn(ranges);
        // In force before it is connected: what is connected serves already.
        self.map.store(map.clone());
        let mut lost = None;
        let mend = async |node| {
            // Those that answer must not wait for one that hangs.
            let mended = tokio::time::timeout(PROBE_TIMEOUT, self.mend(&map, node)).await;
            mended.unwrap_or(Err(StoreError::TimedOut))
        };
        for answer in join_all(map.nodes.iter().map(mend)).await {
            lost = answer.err().or(lost);
        }
        let serves = map.nodes.iter().any(|node| node.connection().is_ok());
        if serves { Ok(()) } else { Err(lost.unwrap_or(StoreError::NotConnected)) }
    }

    /// Asks who has which slot: some of the nodes in use, and where none of those answers the
    /// listed ones, all at once. The first answer counts, so nobody waits for a node that hangs.
    async fn slots(&self) -> Result<Vec<(u16, u16, HostPort)>, StoreError> {
        let map = self.map.load_full();
        let in_use = map.nodes.iter().filter_map(|node| Some((node, node.connection().ok()?)));
        let asked = in_use.take(ASKED_MAX).map(|(node, (connection, permit))| async move {
            let answer = ask_slots(connection, &node.at).await;
            answer.inspect_err(|error| {
                node.failed(permit, error);
            })
        });
        if let Ok(ranges) = first(asked).await {
            return Ok(ranges);
        }
        let listed = self.seeds.iter().map(|seed| async move {
            let connection = self.connector.tcp(seed, &self.login).await?;
            ask_slots(connection, seed).await
        });
        first(listed).await
    }

    fn learn(&self, ranges: Vec<(u16, u16, HostPort)>) -> Arc<Map> {
        let old = self.map.load();
        let mut known: HashMap<&HostPort, &Arc<Node>> = HashMap::new();
        known.extend(old.nodes.iter().map(|node| (&node.at, node)));
        let mut map = Map::default();
        for (first, last, at) in ranges {
            let number = map.nodes.iter().position(|node| node.at == at);
            let number = number.unwrap_or_else(|| {
                let node = known.get(&at).map(|node| Arc::clone(node));
                map.nodes.push(node.unwrap_or_else(|| Arc::new(Node::new(at))));
                map.nodes.len() - 1
            });
            map.slots.assign(first, last, u16::try_from(number).expect("at most NODES_MAX"));
        }
        Arc::new(map)
    }

    /// Connects to a node that is out of reach and finds out whether it counts. The node that has
    /// the probe's own slot tells the time, so that all replicas ask the same one.
    async fn mend(&self, map: &Arc<Map>, node: &Arc<Node>) -> Result<(), StoreError> {
        let owns = |key: &str| map.has(node, slot_of(key.as_bytes()));
        let clock = owns(&self.probe_key).then_some(&*self.clock);
        let usable = node.connection();
        let same_server = usable.is_ok();
        let endpoint = || {
            let (connector, login) = (self.connector.clone(), self.login.clone());
            Endpoint { connector, login, at: Address::Tcp(node.at.clone()) }
        };
        let mut connection = match usable {
            Ok((connection, _)) if clock.is_some() => connection,
            Ok(_) => return Ok(()),
            // Certificates are read for each node: not for one after the other.
            Err(_) => endpoint().connect_aside().await?,
        };
        // One in three finds it in a cluster of three; a prefix with braces of its own never may.
        let tries = (0..1000).map(|n| format!("{}{{{n}}}", self.probe_key));
        let key = [self.probe_key.clone()].into_iter().chain(tries).find(|key| owns(key));
        let proved = prove(&mut connection, key.as_deref(), clock, same_server, self.budget).await;
        if same_server {
            if let (Err(error), Ok((_, permit))) = (&proved, node.connection()) {
                node.failed(permit, error);
            }
            return proved;
        }
        proved?;
        // Before anything is counted it is known whether these are the same data.
        self.read_epoch(&mut connection, map, node).await?;
        // A node that does not have a key says so: no need for a witness.
        let connections = Connections::new(endpoint(), connection, self.threads, None);
        node.connections.store(Some(connections));
        if node.breaker().probe_succeeded(Instant::now()).is_some() {
            tracing::info!(host = node.at.0, port = node.at.1, "node in reach");
        }
        Ok(())
    }
}

/// The first that succeeds, or the last failure.
async fn first<T>(
    asked: impl Iterator<Item = impl Future<Output = Result<T, StoreError>>>,
) -> Result<T, StoreError> {
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut problem = StoreError::NotConnected;
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

async fn ask_slots(
    mut connection: MultiplexedConnection,
    asked: &HostPort,
) -> Result<Vec<(u16, u16, HostPort)>, StoreError> {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    let answer = question.query_async::<Value>(&mut connection);
    let answer = tokio::time::timeout(PROBE_TIMEOUT, answer).await;
    let answer = answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
    ranges(&answer, asked).ok_or(StoreError::Unexpected)
}

/// First slot, last slot and primary of each range; none when the answer is not of that form.
fn ranges(answer: &Value, asked: &HostPort) -> Option<Vec<(u16, u16, HostPort)>> {
    let Value::Array(ranges) = answer else { return None };
    let range = |range: &Value| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &range[..] else {
            return None;
        };
        let [host, Value::Int(port), ..] = &primary[..] else { return None };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?.to_owned(),
            Value::SimpleString(host) => host.clone(),
            Value::Nil => String::new(),
            _ => return None,
        };
        // A node that does not know its own name says nothing: it is where it was asked.
        let host = if host.is_empty() { asked.0.clone() } else { host };
        let number = |number: &i64| u16::try_from(*number).ok();
        Some((number(first)?, number(last)?, (host, number(port)?)))
    };
    let ranges: Option<Vec<_>> = ranges.iter().map(range).collect();
    let mut primaries: Vec<&HostPort> = ranges.iter().flatten().map(|(_, _, at)| at).collect();
    primaries.sort_unstable();
    primaries.dedup();
    let fits = (1..=NODES_MAX).contains(&primaries.len());
    ranges.filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let replica = Value::Array(vec![Value::BulkString("r".into()), Value::Int(9)]);
        let primary = Value::Array(vec![host, Value::Int(port), Value::BulkString("id".into())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_node_that_hangs() {
        let began = tokio::time::Instant::now();
        let answer = |after_ms: Option<u64>, is_good: bool| async move {
            match after_ms {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
            if is_good { Ok(after_ms) } else { Err(StoreError::TimedOut) }
        };
        let asked = [answer(None, true), answer(Some(1), false), answer(Some(2), true)];
        assert_eq!(first(asked.into_iter()).await.ok(), Some(Some(2)));
        assert_eq!(began.elapsed(), Duration::from_millis(2));
        let failed = first([answer(Some(1), false)].into_iter()).await;
        assert!(matches!(failed, Err(StoreError::TimedOut)));
    }

    #[test]
    fn the_answer_of_a_node_is_read() {
        let asked = ("seed".to_owned(), 1);
        let host = Value::BulkString("a".into());
        let answer = vec![range(0, 99, host.clone(), 7), range(100, 16383, Value::Nil, 8)];
        let expected = [(0, 99, ("a".to_owned(), 7)), (100, 16383, ("seed".to_owned(), 8))];
        assert_eq!(ranges(&Value::Array(answer), &asked).as_deref(), Some(&expected[..]));
        for absurd in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(-1, 5, host.clone(), 7)]),
            Value::Array(vec![range(0, 5, host.clone(), 70_000)]),
            Value::Array(vec![range(0, 5, Value::Int(1), 7)]),
            Value::Array((0..1001).map(|n| range(n, n, host.clone(), n + 1)).collect()),
        ] {
            assert_eq!(ranges(&absurd, &asked), None, "{absurd:?}");
        }
    }
}
