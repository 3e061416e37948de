//! Two Redis: one for windows of a second, one for all else. Each is lost and found alone, so that
//! one out of reach costs the other nothing.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::decide::hit::{Count, Hit, Mode};
use crate::store::backend::{Backend, ServerState};
use crate::store::breaker::Permit;
use crate::store::error::StoreError;
use crate::store::redis::Redis;
use crate::store::redis::topology::cluster::REPAIR_PAUSE;
use crate::store::redis::topology::give_back::GiveBack;
use crate::store::redis::topology::part::{Part, REPORT_EVERY, Reach};
use crate::store::split::count_in_parts;

/// The longest look for one of them, so that the other need not wait for it.
const LOOK_TIMEOUT: Duration = Duration::from_millis(300);

/// The two.
pub struct Pair {
    main: Side,
    per_second: Side,
    back: GiveBack,
    /// One is lost.
    amiss: Notify,
}

/// One of them.
struct Side {
    name: &'static str,
    /// Boxed: a store that holds stores.
    store: Box<Redis>,
    gate: Part,
}

impl Pair {
    /// Windows of a second go to `per_second`. [`Pair::tend`] looks after both.
    pub fn new(main: Redis, per_second: Redis) -> Self {
        let side = |name, store| Side { name, store: Box::new(store), gate: Part::new() };
        let (main, per_second) = (side("main", main), side("per_second", per_second));
        Self { main, per_second, back: GiveBack::default(), amiss: Notify::new() }
    }

    /// Counts each hit where it belongs, in both at once.
    ///
    /// # Errors
    /// When one that is needed is out of reach.
    // Boxed: a store that holds stores.
    pub fn count<'a>(
        &'a self,
        hits: &'a [Hit],
        mode: Mode,
        now: Duration,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Vec<Count>, StoreError>> {
        let is_second = |hit: &Hit| hit.window.seconds == 1;
        let count = move |is_second, hits: Vec<Hit>, mode| async move {
            let side = if is_second { &self.per_second } else { &self.main };
            let ask = |store: &'a Redis| {
                let hits = &hits;
                async move { store.ask(hits, mode, now, deadline).await }
            };
            self.at(side, &hits, ask).await
        };
        let give_back = move |hits| self.back.by(deadline, hits, now);
        count_in_parts(hits, mode, is_second, count, give_back).boxed()
    }

    /// A call to where a counter is, that needs no leave of the counter's own.
    ///
    /// # Errors
    /// As the call, and while it is out of reach.
    pub async fn at_home_of<'a, T, F: Future<Output = Result<T, StoreError>>>(
        &'a self,
        hit: &Hit,
        call: impl FnOnce(&'a Redis) -> F,
    ) -> Result<T, StoreError> {
        self.at(self.side_of(hit), &[], call).await
    }

    /// A call to one of the two: its failure is that one's alone.
    async fn at<'a, T, F: Future<Output = Result<T, StoreError>>>(
        &'a self,
        side: &'a Side,
        hits: &[Hit],
        call: impl FnOnce(&'a Redis) -> F,
    ) -> Result<T, StoreError> {
        let Some(permit) = side.gate.permit(hits) else {
            self.amiss.notify_one();
            return Err(StoreError::Part(Box::new(StoreError::NotConnected)));
        };
        let answer = call(&side.store).await;
        let Some(lost) = side.judge(permit, answer.as_ref().err()) else { return answer };
        if lost {
            self.amiss.notify_one();
        }
        answer.map_err(|error| StoreError::Part(Box::new(error)))
    }

    fn side_of(&self, hit: &Hit) -> &Side {
        if hit.window.seconds == 1 { &self.per_second } else { &self.main }
    }

    /// Whether the counter of a hit is in one that is lost.
    pub fn is_lost(&self, hit: &Hit) -> bool {
        let side = self.side_of(hit);
        side.gate.is_lost() || side.store.is_lost_to(std::slice::from_ref(hit))
    }

    /// Gives back, and looks for one that is lost. Never ends.
    pub fn tend(&self, budget: Duration) -> BoxFuture<'_, ()> {
        let give_back = move |hit, now| async move {
            let deadline = Instant::now() + budget;
            self.count(&[hit], Mode::CountAll, now, deadline).await
        };
        let repairs = async move {
            loop {
                self.amiss.notified().await;
                join_all(self.sides().map(Side::mend)).await;
                tokio::time::sleep(REPAIR_PAUSE).await;
            }
        };
        let news = async move {
            loop {
                tokio::time::sleep(REPORT_EVERY).await;
                self.sides().into_iter().for_each(Side::report);
            }
        };
        async move {
            let both = async { tokio::join!(self.main.store.tend(), self.per_second.store.tend()) };
            tokio::join!(self.back.run(give_back), repairs, news, both);
        }
        .boxed()
    }

    /// The servers of both.
    pub fn servers(&self) -> Vec<ServerState> {
        let of_side = |side: &Side| {
            let (part, lost) = (Some(side.name), side.gate.lost_for());
            let servers = side.store.servers().into_iter();
            servers
                .map(|one| ServerState { part, lost_for: one.lost_for.max(lost), ..one })
                .collect::<Vec<_>>()
        };
        self.sides().into_iter().flat_map(of_side).collect()
    }

    /// The one for all else.
    pub fn main(&self) -> &Redis {
        &self.main.store
    }

    /// The one for windows of a second.
    pub fn per_second(&self) -> &Redis {
        &self.per_second.store
    }

    /// Looks for those that are lost.
    ///
    /// # Errors
    /// When both are out of reach.
    pub fn repair(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            let (main, per_second) = tokio::join!(self.main.mend(), self.per_second.mend());
            main.or(per_second)
        }
        .boxed()
    }

    /// Checks on those that are in use; one that is lost is left to a task of its own.
    ///
    /// # Errors
    /// When both are out of reach.
    pub fn look(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            let (main, per_second) = tokio::join!(self.main.check(), self.per_second.check());
            if self.sides().iter().any(|side| side.gate.is_lost()) {
                self.amiss.notify_one();
            }
            main.or(per_second)
        }
        .boxed()
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.main, &self.per_second]
    }
}

impl Side {
    /// Takes in how a permitted call ended; whether it failed, and if so, whether that is why the
    /// side is given up. What is known of single counters or nodes says nothing of the whole.
    fn judge(&self, permit: Permit, error: Option<&StoreError>) -> Option<bool> {
        match error {
            Some(error) if error.is_partial() => None,
            Some(error) if !error.is_of_a_counter() => Some(self.gate.failed(permit, error)),
            _ => {
                self.gate.answered(permit);
                None
            }
        }
    }

    /// Finds out whether it is still there, unless it is lost.
    async fn check(&self) -> Result<(), StoreError> {
        let permit = self.gate.permit(&[]).ok_or(StoreError::NotConnected)?;
        let checked = tokio::time::timeout(LOOK_TIMEOUT, self.store.check()).await;
        let checked = checked.unwrap_or(Err(StoreError::TimedOut));
        self.judge(permit, checked.as_ref().err());
        checked
    }

    /// Finds it, if it is lost.
    async fn mend(&self) -> Result<(), StoreError> {
        if !self.gate.is_lost() {
            return Ok(());
        }
        let found = tokio::time::timeout(LOOK_TIMEOUT, self.store.probe()).await;
        match found.unwrap_or(Err(StoreError::TimedOut)) {
            Ok(()) => {
                self.gate.found();
                Ok(())
            }
            Err(error) => {
                self.gate.missed(&error);
                Err(error)
            }
        }
    }

    fn report(&self) {
        let redis = self.name;
        match self.gate.unreported() {
            Some(Reach::Lost(cause)) => tracing::error!(redis, cause, "redis out of reach"),
            Some(Reach::Found) => tracing::info!(redis, "redis in reach"),
            None => {}
        }
    }
}
