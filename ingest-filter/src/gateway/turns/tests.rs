//! Tests of `gateway::turns`: a runtime of one thread that runs what is ready in the order in which
//! it became so, as the real one does.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use super::*;
use crate::gateway::tenants::KEPT_MAX;

type Ready = Arc<Mutex<VecDeque<usize>>>;
type Log = Arc<Mutex<Vec<&'static str>>>;

#[derive(Default)]
struct Runtime {
    tasks: Vec<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    ready: Ready,
}

struct Task {
    number: usize,
    ready: Ready,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&self.number) {
            ready.push_back(self.number);
        }
    }
}

impl Runtime {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> usize {
        let number = self.tasks.len();
        self.tasks.push(Some(Box::pin(task)));
        lock(&self.ready).push_back(number);
        number
    }

    /// Runs the next that is ready; whether there was one.
    fn step(&mut self) -> bool {
        let Some(number) = lock(&self.ready).pop_front() else { return false };
        let waker = Waker::from(Arc::new(Task { number, ready: self.ready.clone() }));
        let Some(task) = &mut self.tasks[number] else { return true };
        let polled =
            catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut Context::from_waker(&waker))));
        if !matches!(polled, Ok(Poll::Pending)) {
            self.tasks[number] = None;
        }
        true
    }

    fn run(&mut self) {
        while self.step() {}
    }
}

/// Ready again at once, once.
async fn again() {
    let mut was_polled = false;
    poll_fn(|context| match std::mem::replace(&mut was_polled, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// A request of `tenant` that works so many times.
async fn works(turns: Arc<Turns>, tenant: &'static str, times: usize, log: Log) {
    let work = async {
        for time in 0..times {
            lock(&log).push(tenant);
            if time + 1 < times {
                again().await;
            }
        }
    };
    turns.take(tenant, || work).await;
}

/// How often others worked before tenant `b` did for the last time.
fn others_before(log: &Log) -> usize {
    let log = lock(log);
    let last = log.iter().rposition(|tenant| *tenant == "b").expect("it worked");
    log[..last].iter().filter(|tenant| **tenant != "b").count()
}

/// A thousand requests of one tenant that are all ready, and then one of another, each of which
/// works three times.
fn flooded(at_once: usize) -> (Log, Runtime) {
    let (turns, log) = (Arc::new(Turns::new(at_once)), Log::default());
    let mut runtime = Runtime::default();
    for _ in 0..1000 {
        runtime.spawn(works(turns.clone(), "a", 3, log.clone()));
    }
    runtime.spawn(works(turns, "b", 3, log.clone()));
    (log, runtime)
}

#[test]
fn one_request_is_not_behind_a_thousand_of_another_tenant() {
    for at_once in [1, 2, 8] {
        let (log, mut runtime) = flooded(at_once);
        runtime.run();
        assert!(others_before(&log) <= 3 * at_once, "{} at {at_once}", others_before(&log));
        assert_eq!(lock(&log).len(), 3003, "everybody has worked");
    }
    // As it would be without turns.
    let (log, mut runtime) = flooded(usize::MAX);
    runtime.run();
    assert!(others_before(&log) >= 2000, "{}", others_before(&log));
}

#[test]
fn requests_that_have_begun_take_turns_and_come_before_new_ones() {
    let (turns, log) = (Arc::new(Turns::new(1)), Log::default());
    let _crowd = turns.join("a");
    let mut runtime = Runtime::default();
    let wakers = Arc::new(Mutex::new(Vec::new()));
    for name in ["first", "second"] {
        let (turns, log, wakers) = (turns.clone(), log.clone(), wakers.clone());
        runtime.spawn(async move {
            let work = async {
                let mut is_body_here = false;
                poll_fn(|context| match std::mem::replace(&mut is_body_here, true) {
                    true => Poll::Ready(()),
                    false => {
                        lock(&wakers).push(context.waker().clone());
                        Poll::Pending
                    }
                })
                .await;
                lock(&log).push(name);
                again().await;
                lock(&log).push(name);
            };
            turns.take("a", || work).await;
        });
    }
    runtime.run();
    // Both have begun, and are woken behind one that is new.
    runtime.spawn(works(turns.clone(), "new", 1, log.clone()));
    runtime.spawn(works(turns, "a", 1, log.clone()));
    lock(&wakers).drain(..).for_each(Waker::wake);
    runtime.run();
    assert_eq!(*lock(&log), ["new", "first", "second", "first", "second", "a"]);
}

#[test]
fn what_waits_for_something_else_takes_no_turn() {
    let (turns, log) = (Arc::new(Turns::new(1)), Log::default());
    let mut runtime = Runtime::default();
    for _ in 0..3 {
        let (turns, log) = (turns.clone(), log.clone());
        runtime.spawn(async move {
            let work = async {
                lock(&log).push("asks the journal");
                std::future::pending::<()>().await;
            };
            turns.take("a", || work).await;
        });
    }
    runtime.run();
    assert_eq!(lock(&log).len(), 3);
    runtime.spawn(works(turns, "a", 2, log.clone()));
    runtime.run();
    assert_eq!(lock(&log)[3..], ["a", "a"]);
}

#[test]
fn who_goes_away_or_panics_passes_its_turn_on() {
    let (turns, log) = (Arc::new(Turns::new(1)), Log::default());
    let _crowd = turns.join("a");
    let mut runtime = Runtime::default();
    let spoilt = turns.clone();
    runtime.spawn(async move { spoilt.take("a", async || panic!("for a test")).await });
    for _ in 0..4 {
        runtime.spawn(works(turns.clone(), "a", 1, log.clone()));
    }
    // Each has been run once: the first holds the turn, the others wait.
    for _ in 0..5 {
        assert!(runtime.step());
    }
    assert!(lock(&log).is_empty());
    runtime.tasks[2] = None;
    assert!(runtime.step(), "the first panics, and the second is called");
    runtime.tasks[1] = None;
    runtime.run();
    assert_eq!(lock(&log).len(), 2, "those that stayed");
    assert!(runtime.tasks.iter().all(Option::is_none));
    runtime.spawn(works(turns, "a", 1, log.clone()));
    runtime.run();
    assert_eq!(lock(&log).len(), 3, "no turn is lost");
}

#[test]
fn tenants_without_a_request_are_forgotten() {
    let turns = Turns::new(1);
    let kept = turns.join("kept");
    for number in 0..2 * KEPT_MAX {
        drop(turns.join(&number.to_string()));
    }
    let tenants = turns.tenants.count();
    assert!(tenants <= KEPT_MAX, "{tenants}");
    let again = turns.join("kept");
    assert!(Arc::ptr_eq(&kept.0.tenant, &again.0.tenant), "not forgotten while it has a request");
}
