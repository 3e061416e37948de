//! Whose turn it is to work, so that the requests of one tenant do not keep those of others waiting,
//! however many they are.
//!
//! The runtime runs what is ready in the order in which it became so: behind thousands of requests
//! of one tenant that are all ready, one of another would wait for all of them. So of each tenant as
//! many are ready at once as there are cores, and the others wait here, in order; those that have begun
//! come first.
//!
//! ```text
//!                    ┌ a ─► a a        ready, of each tenant at most one a core
//! woken by a body, ──┤      b     ───► runtime ─► works until it waits for something
//! a journal, a timer └ b
//! ```
//!
//! A turn lasts from when a request becomes ready until it waits for something else: a body, a long
//! body that is decoded on another thread, a journal. Nothing of that takes turns from anybody.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crowd::{Crowd, Stage};

use crate::gateway::tenants::Tenants;

pub mod crowd;

/// The turns of all tenants.
#[derive(Debug)]
pub struct Turns {
    at_once: usize,
    tenants: Tenants<Tenant>,
}

/// The requests of one tenant.
#[derive(Debug)]
struct Tenant {
    crowd: Mutex<Crowd<Arc<Member>>>,
}

/// One request. What locks both locks its tenant's crowd first.
#[derive(Debug)]
struct Member {
    tenant: Arc<Tenant>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// What makes the runtime run it.
    runtime: Waker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has not run yet.
    New,
    /// It waits for something that will wake it.
    Resting,
    /// It is ready, and waits for its turn.
    Waiting,
    /// It is its turn, and the runtime has been told.
    Called,
    /// It runs.
    Working,
    /// It runs, and has more to do.
    WorkingOn,
    /// It has ended.
    Gone,
}

/// What the runtime's call leads to.
enum Step {
    Work,
    /// It is its turn as soon as all that is ready now has run.
    Again,
    Wait,
}

/// A request that has ended when this is dropped.
struct Presence(Arc<Member>);

impl Turns {
    /// As many of each tenant at once as this machine has cores.
    pub fn of_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get))
    }

    /// So many of each tenant at once, at least one.
    pub fn new(at_once: usize) -> Self {
        Self { at_once, tenants: Tenants::default() }
    }

    /// Does the work of one request of `tenant`, in its turns. What it needs is made with its first
    /// turn, so that one that waits for that takes little memory.
    pub async fn take<W: Future>(&self, tenant: &str, work: impl FnOnce() -> W) -> W::Output {
        let presence = self.join(tenant);
        let member = &presence.0;
        let own = Waker::from(member.clone());
        let (mut make, mut made) = (Some(work), None);
        poll_fn(|context| match member.begin(context.waker()) {
            Step::Work => {
                if let Some(make) = make.take() {
                    made = Some(Box::pin(make()));
                }
                let work = made.as_mut().expect("made with the first turn");
                let polled = work.as_mut().poll(&mut Context::from_waker(&own));
                member.end();
                polled
            }
            Step::Again => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Wait => Poll::Pending,
        })
        .await
    }

    fn join(&self, name: &str) -> Presence {
        let new = || Tenant { crowd: Mutex::new(Crowd::new(self.at_once)) };
        // Each request holds its tenant.
        let tenant = self.tenants.get(name, new);
        lock(&tenant.crowd).join();
        let state = State { phase: Phase::New, runtime: Waker::noop().clone() };
        Presence(Arc::new(Member { tenant, state: Mutex::new(state) }))
    }
}

impl Member {
    /// The runtime runs it.
    fn begin(self: &Arc<Self>, runtime: &Waker) -> Step {
        let mut crowd = lock(&self.tenant.crowd);
        let mut state = lock(&self.state);
        state.runtime.clone_from(runtime);
        let is_new = state.phase == Phase::New;
        let stage = if is_new { Stage::New } else { Stage::Begun };
        let (phase, step) = match state.phase {
            Phase::New | Phase::Resting => match crowd.ask(stage, || self.clone()) {
                // Others of the tenant that are ready too are to see that it is not their turn.
                true if is_new && crowd.is_crowded() => (Phase::Called, Step::Again),
                true => (Phase::Working, Step::Work),
                false => (Phase::Waiting, Step::Wait),
            },
            Phase::Waiting => (Phase::Waiting, Step::Wait),
            Phase::Called | Phase::Working | Phase::WorkingOn | Phase::Gone => {
                (Phase::Working, Step::Work)
            }
        };
        state.phase = phase;
        step
    }

    /// It has run, and waits for something, or for its next turn if that is here already.
    fn end(self: &Arc<Self>) {
        let mut crowd = lock(&self.tenant.crowd);
        let mut state = lock(&self.state);
        state.phase = match state.phase {
            Phase::WorkingOn => {
                crowd.queue(self.clone());
                Phase::Waiting
            }
            _ => Phase::Resting,
        };
        drop(state);
        self.pass_on(crowd);
    }

    /// Its turn has ended: that of another begins.
    fn pass_on(&self, mut crowd: MutexGuard<'_, Crowd<Arc<Member>>>) {
        while let Some(next) = crowd.done() {
            let mut state = lock(&next.state);
            if state.phase == Phase::Gone {
                continue;
            }
            state.phase = Phase::Called;
            let runtime = state.runtime.clone();
            drop(state);
            drop(crowd);
            return runtime.wake();
        }
    }
}

impl Wake for Member {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut crowd = lock(&self.tenant.crowd);
        let mut state = lock(&self.state);
        state.phase = match state.phase {
            Phase::Resting => match crowd.ask(Stage::Begun, || self.clone()) {
                true => Phase::Called,
                false => Phase::Waiting,
            },
            Phase::Working => Phase::WorkingOn,
            Phase::New | Phase::Waiting | Phase::Called | Phase::WorkingOn | Phase::Gone => return,
        };
        if state.phase == Phase::Called {
            let runtime = state.runtime.clone();
            drop((state, crowd));
            runtime.wake();
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let member = &self.0;
        let mut crowd = lock(&member.tenant.crowd);
        crowd.leave();
        let before = std::mem::replace(&mut lock(&member.state).phase, Phase::Gone);
        if matches!(before, Phase::Called | Phase::Working | Phase::WorkingOn) {
            member.pass_on(crowd);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
