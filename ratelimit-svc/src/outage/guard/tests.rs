//! The guard over a store that does as it is told, on a clock that stands still.

use prometheus_client::registry::Registry;

use super::*;
use crate::limits::algorithm::Algorithm;
use crate::limits::unit::Window;
use crate::outage::breaker::FAILURES_TO_OPEN;
use crate::store::Role;
use crate::store::memory::Memory;

const BUDGET: Duration = Duration::from_millis(5);

/// What the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer,
    Hang,
    Break,
}

/// A store with the call budget of the real one.
struct Fake {
    does: Mutex<Does>,
    memory: Memory,
    calls: Mutex<Vec<(Instant, usize)>>,
    alive: u32,
}

impl Fake {
    async fn call<T>(&self, answer: T) -> Result<T, StoreError> {
        let does = *self.does.lock().expect("not poisoned");
        match does {
            Does::Answer => Ok(answer),
            Does::Hang => {
                let hang = std::future::pending::<T>();
                tokio::time::timeout(BUDGET, hang).await.map_err(|_| StoreError::TimedOut)
            }
            Does::Break => Err(StoreError::NotConnected),
        }
    }
}

impl Store for Fake {
    async fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        self.calls.lock().expect("not poisoned").push((Instant::now(), hits.len()));
        self.call(()).await?;
        Ok(self.memory.count_now(hits, mode, now))
    }
}

impl Backend for Fake {
    async fn probe(&self) -> Result<(), StoreError> {
        let does = *self.does.lock().expect("not poisoned");
        match does {
            // A connection that is never made: only the guard ends it.
            Does::Hang => std::future::pending().await,
            _ => self.call(()).await,
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.call(()).await
    }

    async fn sign_of_life(&self) -> Result<u32, StoreError> {
        self.call(self.alive).await
    }
}

fn guard() -> Arc<Guard<Fake>> {
    let does = Mutex::new(Does::Answer);
    let fake = Fake { does, memory: Memory::default(), calls: Mutex::default(), alive: 3 };
    let replicas = ReplicasSettings { fixed: None, min: 1 };
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    Arc::new(Guard::new(fake, ShareSettings { replicas, factor: 1.0 }, metrics))
}

impl Guard<Fake> {
    fn set(&self, does: Does) {
        *self.backend.does.lock().expect("not poisoned") = does;
    }
}

fn hit(key: usize) -> Hit {
    let now = crate::clock::wall();
    Hit {
        key: key.to_string().into_bytes().into(),
        amount: 1,
        is_refund: false,
        limit: 9,
        window: Window { start: now.as_secs() - 1, seconds: 3600 },
        algorithm: Algorithm::FixedWindow,
        role: Role::Enforced,
        share: None,
    }
}

async fn ask(guard: &Guard<Fake>, key: usize) -> (bool, Duration) {
    let began = Instant::now();
    let now = crate::clock::wall();
    let counted = guard.count(&[hit(key)], Mode::CountAll, now).await;
    if let Err(Unavailable { asked }) = counted {
        guard.local.count(&[hit(key)], guard.share(), Mode::CountAll, now, asked);
    }
    (counted.is_ok(), began.elapsed())
}

/// Supervised, and found by its first probe.
async fn started() -> (Arc<Guard<Fake>>, tokio::task::JoinHandle<()>) {
    let guard = guard();
    assert_eq!(guard.share().replicas, 1, "nobody was seen yet");
    let supervised = guard.clone();
    let running = tokio::spawn(async move { supervised.supervise(crate::clock::wall).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!guard.is_open());
    assert_eq!(guard.share().replicas, 3);
    (guard, running)
}

#[tokio::test(start_paused = true)]
async fn no_answer_waits_longer_than_the_budget_and_none_once_it_is_open() {
    let (guard, running) = started().await;
    guard.set(Does::Hang);
    for _ in 0..FAILURES_TO_OPEN {
        let (counted, took) = ask(&guard, 0).await;
        assert!(!counted && took <= BUDGET + Duration::from_millis(1), "{took:?}");
    }
    assert!(guard.is_open());
    let calls = guard.backend.calls.lock().expect("not poisoned").len();
    for _ in 0..1000 {
        assert_eq!(ask(&guard, 0).await, (false, Duration::ZERO));
    }
    assert_eq!(guard.backend.calls.lock().expect("not poisoned").len(), calls);
    assert_eq!(guard.share().replicas, 3, "what was last known");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn it_is_found_within_a_second_whenever_it_returns() {
    for outage_ms in (0..3000).step_by(37) {
        for does in [Does::Hang, Does::Break] {
            let (guard, running) = started().await;
            guard.set(does);
            while !guard.is_open() {
                ask(&guard, 0).await;
            }
            tokio::time::sleep(Duration::from_millis(outage_ms)).await;
            guard.set(Does::Answer);
            let returned = Instant::now();
            while guard.is_open() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let took = returned.elapsed();
            assert!(took < Duration::from_secs(1), "{does:?} {outage_ms} ms: {took:?}");
            running.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_is_told_little_by_little_and_once() {
    const COUNTERS: usize = 1000;
    /// Requests in each period.
    const STEADY: usize = 20;
    let (guard, running) = started().await;
    guard.set(Does::Break);
    ask(&guard, 0).await;
    for key in 0..COUNTERS {
        assert_eq!(ask(&guard, key).await.1, Duration::ZERO);
    }
    guard.set(Does::Answer);
    while guard.is_open() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    guard.backend.calls.lock().expect("not poisoned").clear();
    let found = Instant::now();
    while !guard.local.owed().is_empty() {
        ask(&guard, COUNTERS).await;
        tokio::time::sleep(SETTLE_EVERY / STEADY as u32).await;
        assert!(found.elapsed() < Duration::from_secs(60), "it ends");
    }
    let calls = guard.backend.calls.lock().expect("not poisoned").clone();
    for (start, _) in &calls {
        let period = calls.iter().filter(|(at, _)| (*start..*start + SETTLE_EVERY).contains(at));
        let counted: usize = period.map(|(_, hits)| hits).sum();
        assert!(counted <= 2 * STEADY + 2, "{counted} counters in one period");
    }
    let now = crate::clock::wall();
    for key in 0..COUNTERS {
        let look = [Hit { amount: 0, ..hit(key) }];
        let value = guard.backend.memory.count_now(&look, Mode::CountAll, now)[0].value;
        assert_eq!(value, 1, "counter {key}");
    }
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn probes_are_one_at_a_time_and_spread() {
    let (guard, running) = started().await;
    guard.set(Does::Break);
    ask(&guard, 0).await;
    let before = guard.metrics.store_errors("not_connected");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let probes = guard.metrics.store_errors("not_connected") - before;
    assert!((25..=200).contains(&probes), "{probes} probes in 10 s");
    running.abort();
}
