//! The primaries of a Redis cluster: one connection and one breaker for each, and who has which
//! slot. Counts nothing.
//!
//! ```text
//! request ─► slot ─► node ─► its connection           a lost node costs its own keys, no others
//!                     └ MOVED, lost, no such node ─► repair, by a task of its own
//! repair: ask any node for the slots ─► connect what is not connected ─► prove it by writing
//! look:   ask any node for the slots, once a second; waits for no node that is lost
//! ```
//!
//! Not the cluster client of the redis crate: that one sends a call again when its answer was
//! lost, which counts it twice, and lets calls to all nodes wait while it looks for one.

mod epochs;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, Notify};

use crate::clock::Clock;
use crate::store::backend::ServerState;
use crate::store::breaker::Permit;
use crate::store::error::StoreError;
use crate::store::redis::connection::address::{Address, HostPort, Login};
use crate::store::redis::connection::connections::Connections;
use crate::store::redis::connection::connector::{Connector, Endpoint, PROBE_TIMEOUT, prove};
use crate::store::redis::loss::epoch::Marks;
use crate::store::redis::topology::part::{Call, Part, REPORT_EVERY, Reach};
use crate::store::redis::topology::ranges::ask_slots;
use crate::store::redis::topology::slots::{SLOTS, SlotMap, slot_of};

/// The shortest time between two repairs that requests ask for.
pub const REPAIR_PAUSE: Duration = Duration::from_millis(100);
/// The most nodes in use that are asked for the slots at once.
const ASKED_MAX: usize = 3;
/// How long they are waited for before the listed ones are asked, too.
const SEEDS_AFTER: Duration = Duration::from_millis(100);

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
    map: ArcSwap<Map>,
    /// Something is amiss.
    amiss: Notify,
    /// One asks for the slots at a time.
    asking: Mutex<()>,
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
    part: Part,
    /// One connects at a time.
    mending: Mutex<()>,
}

impl Node {
    fn new(at: HostPort, part: Part) -> Self {
        Self { at, connections: ArcSwapOption::empty(), part, mending: Mutex::default() }
    }

    /// Its connection on this thread, and leave for a call over it.
    ///
    /// # Errors
    /// While it is out of reach, and to count before its start.
    pub fn connection(&self, call: Call) -> Result<(MultiplexedConnection, Permit), StoreError> {
        let permit = self.part.permit(call).ok_or_else(out_of_reach)?;
        let connections = self.connections.load();
        Ok((connections.as_ref().ok_or_else(out_of_reach)?.here(), permit))
    }

    /// The host that it was found at.
    pub fn host(&self) -> &str {
        &self.at.0
    }

    /// A permitted call succeeded, or was refused by a living server.
    pub fn answered(&self, permit: Permit) {
        self.part.answered(permit);
    }

    fn is_lost(&self) -> bool {
        self.part.is_lost()
    }
}

fn out_of_reach() -> StoreError {
    StoreError::Part(Box::new(StoreError::NotConnected))
}

impl Cluster {
    /// A cluster of which `seeds` are some nodes; [`Cluster::repair`] finds the others, and
    /// [`Cluster::tend`] looks after it: on one runtime, whoever asks for it, since what is connected
    /// outlives the thread of a request.
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
            map: ArcSwap::default(),
            amiss: Notify::new(),
            asking: Mutex::default(),
        }
    }

    /// The same, with `marks` to know the data of its nodes apart.
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

    /// The node at an address that another node named.
    ///
    /// # Errors
    /// When it is not known yet.
    pub fn node_at(&self, at: &HostPort) -> Result<Arc<Node>, StoreError> {
        let map = self.map.load();
        map.nodes.iter().find(|node| node.at == *at).cloned().ok_or_else(out_of_reach)
    }

    /// Whether the node that has a slot is lost.
    pub fn is_lost(&self, slot: u16) -> bool {
        self.node(slot).is_ok_and(|node| node.is_lost())
    }

    /// Its primaries, in the order of their slots.
    pub fn servers(&self) -> Vec<ServerState> {
        let map = self.map.load();
        let mut slots = vec![0; map.nodes.len()];
        let owners = (0..SLOTS as u16).filter_map(|slot| map.slots.node(slot));
        owners.for_each(|owner| slots[usize::from(owner)] += 1);
        let state = |(node, slots): (&Arc<Node>, usize)| ServerState {
            at: Some(Address::Tcp(node.at.clone()).to_string()),
            slots: Some(slots),
            lost_for: node.part.lost_for(),
            ..ServerState::default()
        };
        map.nodes.iter().zip(slots).map(state).collect()
    }

    /// A permitted call to a node was not answered.
    pub fn failed(&self, node: &Node, permit: Permit, error: &StoreError) {
        if node.part.failed(permit, error) {
            self.repair_soon();
        }
    }

    /// Has the cluster repaired soon; at once, unless that was just done.
    pub fn repair_soon(&self) {
        self.amiss.notify_one();
    }

    /// Repairs the cluster when something is amiss, and reports in the log. Never ends.
    pub async fn tend(&self) {
        let repairs = async {
            loop {
                self.amiss.notified().await;
                if let Err(error) = self.repair().await {
                    let cause = chassis::telemetry::error_chain(&error);
                    tracing::debug!(cause, "cluster not repaired");
                }
                tokio::time::sleep(REPAIR_PAUSE).await;
            }
        };
        let news = async {
            loop {
                tokio::time::sleep(REPORT_EVERY).await;
                self.map.load_full().nodes.iter().for_each(|node| report(node));
            }
        };
        tokio::join!(repairs, news);
    }

    /// Learns who has which slot, and connects to those that are not connected.
    ///
    /// # Errors
    /// When nobody answers, or not one node counts.
    pub async fn repair(&self) -> Result<(), StoreError> {
        let map = self.learn().await?;
        let mut problem = None;
        let mend = async |node| {
            // Those that answer must not wait for one that hangs.
            let mended = tokio::time::timeout(PROBE_TIMEOUT, self.mend(&map, node)).await;
            mended.unwrap_or(Err(StoreError::TimedOut)).inspect_err(|error| node.part.missed(error))
        };
        let lost = map.nodes.iter().filter(|node| node.connection(Call::Look).is_err());
        for answer in join_all(lost.map(mend)).await {
            problem = answer.err().or(problem);
        }
        serves(&map, problem)
    }

    /// Learns who has which slot, and what time it is. Nodes that are lost are left to a repair.
    ///
    /// # Errors
    /// As [`Cluster::repair`].
    pub async fn look(&self) -> Result<(), StoreError> {
        let (map, ()) = tokio::join!(self.learn(), self.set_clock());
        let map = map?;
        if map.nodes.iter().any(|node| node.is_lost()) {
            self.repair_soon();
        }
        serves(&map, None)
    }

    /// Asks the node that keeps the time. Where it is silent the look does not wait for it.
    async fn set_clock(&self) {
        let map = self.map.load_full();
        let Some(node) = self.owner(&map, &self.probe_key) else { return };
        let Ok((mut connection, permit)) = node.connection(Call::Look) else { return };
        let (key, clock) = (Some(&*self.probe_key), Some(&*self.clock));
        let proved = prove(&mut connection, key, clock, true, self.budget);
        if let Ok(Err(error)) = tokio::time::timeout(PROBE_TIMEOUT, proved).await {
            self.failed(node, permit, &error);
        }
    }

    /// Asks for the slots; or waits for the answer where somebody does.
    async fn learn(&self) -> Result<Arc<Map>, StoreError> {
        let Ok(_asking) = self.asking.try_lock() else {
            let _asked = self.asking.lock().await;
            return Ok(self.map.load_full());
        };
        let map = self.drawn(self.slots().await?);
        // In force before it is connected: what is connected serves already.
        self.map.store(map.clone());
        Ok(map)
    }

    /// Asks who has which slot: some of the nodes in use, and where none of those answers soon the
    /// listed ones, all at once. The first answer counts, so nobody waits for a node that hangs.
    async fn slots(&self) -> Result<Vec<(u16, u16, HostPort)>, StoreError> {
        let map = self.map.load_full();
        let in_use =
            map.nodes.iter().filter_map(|node| Some((node, node.connection(Call::Look).ok()?)));
        let in_use: Vec<_> = in_use.take(ASKED_MAX).collect();
        let pause = if in_use.is_empty() { Duration::ZERO } else { SEEDS_AFTER };
        let asked = in_use.into_iter().map(|(node, (connection, permit))| {
            let asked = async move {
                let answer = ask_slots(connection, &node.at).await;
                answer.inspect_err(|error| self.failed(node, permit, error))
            };
            asked.boxed()
        });
        let listed = self.seeds.iter().map(|seed| {
            let asked = async move {
                tokio::time::sleep(pause).await;
                let connection = self.connector.tcp(seed, &self.login).await?;
                ask_slots(connection, seed).await
            };
            asked.boxed()
        });
        first(asked.chain(listed)).await
    }

    /// A node that is new to a slot whose node is lost has taken over from that.
    fn drawn(&self, ranges: Vec<(u16, u16, HostPort)>) -> Arc<Map> {
        let old = self.map.load();
        let mut known: HashMap<&HostPort, &Arc<Node>> = HashMap::new();
        known.extend(old.nodes.iter().map(|node| (&node.at, node)));
        let mut map = Map::default();
        for (first, last, at) in ranges {
            let number = map.nodes.iter().position(|node| node.at == at);
            let number = number.unwrap_or_else(|| {
                let node = known.get(&at).map(|node| Arc::clone(node));
                map.nodes.push(node.unwrap_or_else(|| {
                    let before = old.slots.node(first).map(|node| &old.nodes[usize::from(node)]);
                    let part = before.map_or_else(Part::default, |node| node.part.successor());
                    Arc::new(Node::new(at, part))
                }));
                map.nodes.len() - 1
            });
            map.slots.assign(first, last, u16::try_from(number).expect("at most NODES_MAX"));
        }
        Arc::new(map)
    }

    /// Connects to a node that is out of reach and finds out whether it counts. The node that has
    /// the probe's own slot keeps the time, so that all replicas ask the same one.
    async fn mend(&self, map: &Arc<Map>, node: &Arc<Node>) -> Result<(), StoreError> {
        let _mending = node.mending.lock().await;
        if node.connection(Call::Look).is_ok() {
            return Ok(());
        }
        let owns = |key: &str| map.has(node, slot_of(key.as_bytes()));
        let clock = owns(&self.probe_key).then_some(&*self.clock);
        let (connector, login) = (self.connector.clone(), self.login.clone());
        let endpoint = Endpoint { connector, login, at: Address::Tcp(node.at.clone()) };
        // Certificates are read for each node: not for one after the other.
        let mut connection = endpoint.connect_aside().await?;
        // One in three finds it in a cluster of three; a prefix with braces of its own never may.
        let tries = (0..1000).map(|n| format!("{}{{{n}}}", self.probe_key));
        let key = [self.probe_key.clone()].into_iter().chain(tries).find(|key| owns(key));
        prove(&mut connection, key.as_deref(), clock, false, self.budget).await?;
        // Before anything is counted it is known whether these are the same data.
        self.read_epoch(&mut connection, map, node).await?;
        // A node that does not have a key says so: no need for a witness.
        let connections = Connections::new(endpoint, connection, self.threads, None);
        node.connections.store(Some(connections));
        node.part.found();
        Ok(())
    }

    fn owner<'m>(&self, map: &'m Map, key: &str) -> Option<&'m Arc<Node>> {
        map.slots.node(slot_of(key.as_bytes())).map(|owner| &map.nodes[usize::from(owner)])
    }
}

/// Whether a node is in reach.
fn serves(map: &Map, problem: Option<StoreError>) -> Result<(), StoreError> {
    match map.nodes.iter().any(|node| node.connection(Call::Look).is_ok()) {
        true => Ok(()),
        false => Err(problem.unwrap_or(StoreError::NotConnected)),
    }
}

fn report(node: &Node) {
    let (host, port) = &node.at;
    match node.part.unreported() {
        Some(Reach::Lost(cause)) => tracing::error!(host, port, cause, "node out of reach"),
        Some(Reach::Found) => tracing::info!(host, port, "node in reach"),
        None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
