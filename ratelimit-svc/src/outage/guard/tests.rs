//! The guard over a store that does as it is told, on a clock that stands still.

use prometheus_client::registry::Registry;

use super::*;
use crate::decide::hit::Role;
use crate::lease::LeaseSettings;
use crate::limiter::leases::Leases;
use crate::limits::algorithm::Algorithm;
use crate::limits::unit::{Unit, Window};
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::breaker::FAILURES_TO_OPEN;
use crate::store::memory::Memory;
use crate::store::pace::CLAIMS_MIN;

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
    signs: AtomicUsize,
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
        self.signs.fetch_add(1, Ordering::Relaxed);
        self.call(self.alive).await
    }

    async fn farewell(&self) -> Result<(), StoreError> {
        self.call(()).await
    }
}

fn guard() -> Arc<Guard<Fake>> {
    let does = Mutex::new(Does::Answer);
    let fake = Fake {
        does,
        memory: Memory::default(),
        calls: Mutex::default(),
        alive: 3,
        signs: AtomicUsize::new(0),
    };
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
    if let Err(lost) = &counted {
        guard.local.count(&[hit(key)], guard.share(), Mode::CountAll, now, lost);
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
            while !guard.is_in_reach() {
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
    ask(&guard, COUNTERS).await;
    for key in 0..COUNTERS {
        assert_eq!(ask(&guard, key).await.1, Duration::ZERO);
    }
    guard.set(Does::Answer);
    while !guard.is_in_reach() {
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
async fn a_silent_store_is_given_up_within_50_ms_though_nobody_asks_again() {
    let (guard, running) = started().await;
    guard.set(Does::Hang);
    let (counted, _) = ask(&guard, 0).await;
    assert!(!counted && !guard.is_open());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(guard.is_open());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn one_answer_that_is_late_is_no_outage() {
    let (guard, running) = started().await;
    guard.set(Does::Hang);
    let _ = ask(&guard, 0).await;
    guard.set(Does::Answer);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!guard.is_open());
    }
    running.abort();
}

/// Requests for counters at random, 1000 a second, for so many ms: the hits that the store was
/// sent in each of them.
async fn load(guard: &Guard<Fake>, random: &mut u64, counters: u64, ms: usize) -> Vec<usize> {
    guard.backend.calls.lock().expect("not poisoned").clear();
    let began = Instant::now();
    for _ in 0..ms {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ask(guard, (*random >> 33) as usize % counters as usize).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut sent = vec![0; ms];
    for (at, hits) in guard.backend.calls.lock().expect("not poisoned").iter() {
        let at = (*at - began).as_millis() as usize;
        sent[at.min(ms - 1)] += hits;
    }
    sent
}

fn peak(sent: &[usize]) -> usize {
    sent.windows(100).map(|some| some.iter().sum()).max().expect("longer than that")
}

#[tokio::test(start_paused = true)]
async fn no_100_ms_after_an_outage_have_more_than_twice_the_work() {
    const COUNTERS: u64 = 3000;
    let (guard, running) = started().await;
    let mut random = 1;
    let steady = peak(&load(&guard, &mut random, COUNTERS, 1000).await);
    guard.set(Does::Break);
    load(&guard, &mut random, COUNTERS, 5000).await;
    let owed = guard.local.owed().len();
    assert!(owed > COUNTERS as usize / 2, "{owed}");
    guard.set(Does::Answer);
    let after = load(&guard, &mut random, COUNTERS, 10_000).await;
    assert!(peak(&after) <= 2 * steady, "{} after {steady}", peak(&after));
    assert!(guard.is_in_reach() && guard.local.owed().is_empty());
    assert!(after[1000..1100].iter().sum::<usize>() >= 90, "all requests ask again after 1 s");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn leases_that_all_ended_in_an_outage_are_claimed_in_turn() {
    const COUNTERS: u64 = 3000;
    let (guard, running) = started().await;
    let (wall, began) = (crate::clock::wall(), Instant::now());
    let now = move || wall + began.elapsed();
    let settings = LeaseSettings { limit_min: 1, ..LeaseSettings::default() };
    let leases = Arc::new(Leases::new(&settings, BUDGET, guard.metrics.clone()));
    let claims = tokio::spawn({
        let (guard, leases) = (guard.clone(), leases.clone());
        async move { leases.claim(&guard, now).await }
    });
    let mut random = 1u64;
    // Three requests in each of so many ms: the longest wait, and how many were counted in Redis.
    let mut load = async |ms: u32| {
        guard.backend.calls.lock().expect("not poisoned").clear();
        let (mut longest, mut leased) = (Duration::ZERO, 0);
        for _ in 0..ms {
            for _ in 0..3 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let window = Unit::Minute.window(now().as_secs());
                let key = format!("{}|m{}", (random >> 33) % COUNTERS, window.start / 60);
                let hit = Hit { key: key.into_bytes().into(), limit: 1000, window, ..hit(0) };
                let asked = Instant::now();
                let taken = leases.take(&guard, &[hit], now).await;
                longest = longest.max(asked.elapsed());
                leased += u32::from(taken.is_ok());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut sent = vec![0; ms as usize * 2];
        let calls = guard.backend.calls.lock().expect("not poisoned");
        let first = calls.first().map(|(at, _)| *at);
        for (at, hits) in calls.iter() {
            let at = (*at - first.expect("there is one")).as_millis() as usize;
            sent[at] += hits;
        }
        (longest, leased, sent)
    };
    load(8_000).await;
    guard.set(Does::Hang);
    let (longest, _, _) = load(1_000).await;
    assert!(longest <= BUDGET + Duration::from_millis(1), "{longest:?}");
    // All windows end.
    tokio::time::sleep(Duration::from_secs(70)).await;
    guard.set(Does::Answer);
    let (longest, _, sent) = load(5_000).await;
    assert!(longest <= BUDGET + Duration::from_millis(1), "{longest:?}");
    let most = CLAIMS_MIN * 6;
    assert!(peak(&sent[..1000]) <= most, "{} claims in 100 ms", peak(&sent[..1000]));
    let (_, leased, _) = load(1_000).await;
    assert_eq!(leased, 3_000, "all is as before");
    for task in [running, claims] {
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_returns_first_tells_what_it_owes() {
    let (guard, running) = started().await;
    guard.set(Does::Break);
    ask(&guard, 9).await;
    for _ in 0..3 {
        ask(&guard, 1).await;
    }
    guard.set(Does::Answer);
    while guard.is_open() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let value = async || {
        let counted = guard.count(&[hit(1)], Mode::CountAll, crate::clock::wall()).await;
        counted.map(|counts| counts[0].value).ok()
    };
    let mut first = value().await;
    while first.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        first = value().await;
    }
    assert_eq!((first, value().await), (Some(4), Some(5)));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_told_is_told_later_and_what_may_have_been_is_not() {
    let (guard, running) = started().await;
    guard.local.bypass(&[hit(1)], guard.share(), crate::clock::wall(), &Unavailable::NOT_ASKED);
    guard.set(Does::Break);
    let _ = ask(&guard, 1).await;
    assert_eq!(guard.local.owed().len(), 1, "nothing was sent");
    guard.set(Does::Answer);
    while !guard.is_in_reach() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    guard.set(Does::Hang);
    let _ = ask(&guard, 1).await;
    assert_eq!(guard.local.take_owed_of(&[hit(1)], crate::clock::wall()), [], "it may be counted");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_told_what_fits() {
    let (guard, running) = started().await;
    let bucket = |amount| Hit { amount, algorithm: Algorithm::TokenBucket { burst: 9 }, ..hit(1) };
    let now = crate::clock::wall();
    guard.backend.memory.count_now(&[bucket(6)], Mode::CountAll, now);
    for _ in 0..5 {
        guard.local.bypass(&[bucket(1)], guard.share(), now, &Unavailable::NOT_ASKED);
    }
    tokio::time::sleep(CHECK_EVERY * 2).await;
    assert!(guard.local.owed().is_empty());
    assert_eq!(guard.backend.memory.count_now(&[bucket(0)], Mode::CountAll, now)[0].value, 9);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_leaves_gives_no_more_signs() {
    let (guard, running) = started().await;
    let signs = || guard.backend.signs.load(Ordering::Relaxed);
    tokio::time::sleep(CHECK_EVERY * 3).await;
    let before = signs();
    assert!(before >= 3);
    guard.leave().await;
    tokio::time::sleep(CHECK_EVERY * 3).await;
    assert_eq!(signs(), before);
    running.abort();
}

/// Lines of the log at WARN and above, of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().expect("not poisoned"));
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_many_calls_is_one_line_and_its_end_another() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber alone, the first thread to pass a place in the code decides for all whether
    // it is of interest, and tests beside this one have no subscriber. With two, each is asked.
    let _beside = tracing::Dispatch::new(tracing_subscriber::registry());
    let _log = tracing::subscriber::set_default(log);
    let (guard, running) = started().await;
    lines.take();
    let mut random = 1;
    guard.set(Does::Hang);
    load(&guard, &mut random, 100, 3000).await;
    let said = lines.take();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("ERROR") && said[0].contains("store out of reach"), "{said:?}");
    // It comes and goes: that is one outage.
    for _ in 0..5 {
        guard.set(Does::Answer);
        while guard.is_open() {
            load(&guard, &mut random, 100, 1).await;
        }
        guard.set(Does::Break);
        load(&guard, &mut random, 100, 400).await;
        assert!(guard.is_open());
    }
    assert_eq!(lines.take(), Vec::<String>::new());
    guard.set(Does::Answer);
    load(&guard, &mut random, 100, 3000).await;
    let said = lines.take();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("WARN") && said[0].contains("store in reach"), "{said:?}");
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

#[tokio::test(start_paused = true)]
async fn what_redis_was_being_told_when_the_caller_hung_up_is_in_doubt() {
    let (guard, running) = started().await;
    let now = crate::clock::wall();
    let owed = [Hit { amount: 4, ..hit(0) }];
    guard.dropped(guard.local.owe(&owed, guard.share(), now));
    guard.set(Does::Hang);
    let hits = [hit(0)];
    let call = guard.count(&hits, Mode::CountAll, now);
    tokio::time::timeout(BUDGET / 2, call).await.expect_err("hangs up before there is an answer");
    let settled = |result| guard.metrics.settled_so_far(result);
    assert_eq!((settled("unsure"), settled("repaid"), settled("dropped")), (4, 0, 0));
    assert_eq!(guard.repaying.load(Ordering::Relaxed), 0);
    assert!(guard.local.take_owed(9, now).is_empty(), "it may have been counted");
    running.abort();
}
