//! Requests of all classes at a steady rate through an edge, and what their clients noticed: for what
//! becomes of requests while parts stop, die or hang. How fast an edge is, `load` measures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::edge::Edge;
use crate::http::Http;
use crate::wait::{DEADLINE, wait_for};

/// How many requests may be under way at a time. What becomes of them changes nothing for a measurement; of
/// unoptimised services that share two processors with other tests no more is asked than they can do.
const UNDER_WAY_MAX: usize = if cfg!(debug_assertions) { 50 } else { Semaphore::MAX_PERMITS };

/// The classes that ship, highest first.
pub const CLASSES: [&str; 4] = ["system-node-critical", "platform-core", "ingest", "background"];

/// Requests of all classes by turns at a steady rate, whatever becomes of the ones before.
pub struct SteadyLoad {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    task: JoinHandle<Result<Noticed>>,
}

/// What the clients noticed.
#[derive(Debug, Default)]
pub struct Noticed {
    /// Requests that were sent.
    pub sent: usize,
    /// Requests that were not answered 204, by class and answer.
    pub failed: BTreeMap<(&'static str, String), usize>,
    /// From the sending of a request to its answer.
    pub longest_wait: Duration,
}

impl Noticed {
    /// Requests that were not answered 204.
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// The same of one class.
    pub fn failures_of(&self, class: &str) -> usize {
        self.failed.iter().filter(|((of, _), _)| *of == class).map(|(_, count)| count).sum()
    }
}

impl SteadyLoad {
    /// Issues a key of each class for a tenant, waits until every replica knows them, and begins.
    ///
    /// # Errors
    /// When a key is not issued.
    pub async fn start(edge: &Edge, tenant: &str, per_second: u64) -> Result<Self> {
        Ok(Self::with_keys(edge, keys(edge, tenant).await?, per_second))
    }

    /// Begins with keys that are known already.
    pub fn with_keys(edge: &Edge, keys: Vec<(&'static str, String)>, per_second: u64) -> Self {
        let url = edge.url("/api/v2/write");
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(send(url, keys, per_second, Arc::clone(&stop), Arc::clone(&sent)));
        Self { stop, sent, task }
    }

    /// Waits until this many more requests were sent.
    ///
    /// # Errors
    /// When they are not sent in time.
    pub async fn go_on(&self, more: usize) -> Result<()> {
        let goal = self.sent.load(Ordering::Relaxed) + more;
        wait_for("requests to be sent", DEADLINE, async || {
            (self.sent.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await
    }

    /// Ends, and waits for every answer.
    ///
    /// # Errors
    /// When a task of it panicked.
    pub async fn finish(self) -> Result<Noticed> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// A live key of each class for a tenant.
///
/// # Errors
/// When one is not issued.
pub async fn keys(edge: &Edge, tenant: &str) -> Result<Vec<(&'static str, String)>> {
    let mut keys = Vec::new();
    for class in CLASSES {
        keys.push((class, edge.issue_live_key(tenant, class).await?));
    }
    Ok(keys)
}

async fn send(
    url: String,
    keys: Vec<(&'static str, String)>,
    per_second: u64,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
) -> Result<Noticed> {
    let http = Arc::new(Http::new());
    let mut ticks = tokio::time::interval(Duration::from_nanos(1_000_000_000 / per_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut requests = Vec::new();
    for (class, key) in keys.into_iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        let turn = Arc::clone(&under_way).acquire_owned().await?;
        let (http, url, token) = (Arc::clone(&http), url.clone(), format!("Token {key}"));
        sent.fetch_add(1, Ordering::Relaxed);
        requests.push(tokio::spawn(async move {
            let began = Instant::now();
            let reply = http.post(&url, &[("authorization", &token)], "replicas f=1").await;
            let answer = match reply {
                Ok(reply) => format!("{} {}", reply.status.as_u16(), reply.text()),
                Err(error) => format!("{error:#}"),
            };
            drop(turn);
            (class, answer, began.elapsed())
        }));
    }
    let mut noticed = Noticed { sent: requests.len(), ..Noticed::default() };
    for request in requests {
        let (class, answer, waited) = request.await?;
        noticed.longest_wait = noticed.longest_wait.max(waited);
        if !answer.starts_with("204") {
            *noticed.failed.entry((class, answer)).or_default() += 1;
        }
    }
    Ok(noticed)
}
