//! Quotas while the service runs: each new state is checked, and what is good is in force at
//! once. Counters are not touched. Files stand on their own; a control plane speaks for all of its
//! resources at once, so there it is all or nothing. Quotas are read on threads of their own: a large
//! file takes a moment, and whoever claims hits or looks after Redis must not wait for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chassis::config::ConfigError;
use chassis::readiness::Condition;
use chassis::reload::{self, ReloadStatus, Snapshot, Source};
use serde_json::json;

use crate::limits::quotas::{Contents, Library, Quotas};
use crate::metrics::Metrics;

/// The most faults of a file that `/config` and the log name.
pub const FAULTS_NAMED_MAX: usize = 20;
/// Of a larger file the first alone: to find the others takes a while, in which no newer file is read.
/// A ConfigMap holds no more.
pub const NAMED_BYTES_MAX: usize = 1 << 20;

/// Puts quotas in force.
pub struct Reloader {
    merge_domains: bool,
    quotas: Arc<ArcSwapOption<Quotas>>,
    state: Mutex<State>,
    condition: Condition,
    metrics: Arc<Metrics>,
}

struct State {
    library: Library,
    status: ReloadStatus,
    /// What is wrong, and with how many files or resources.
    errors: Vec<String>,
    refused: usize,
    /// Why nothing new can come.
    source_error: Option<String>,
    seen: Option<u64>,
    /// Whether all files were good at some moment; from then on a bad one costs no readiness.
    was_good: bool,
}

impl Reloader {
    /// A reloader that has read nothing; `condition` is met when all files are good.
    pub fn new(
        merge_domains: bool,
        quotas: Arc<ArcSwapOption<Quotas>>,
        condition: Condition,
        metrics: Arc<Metrics>,
    ) -> Self {
        let state = State {
            library: Library::new(merge_domains),
            status: ReloadStatus::default(),
            errors: Vec::new(),
            refused: 0,
            source_error: None,
            seen: None,
            was_good: false,
        };
        Self { merge_domains, quotas, state: Mutex::new(state), condition, metrics }
    }

    /// Reads the files as they are now.
    pub async fn load(self: &Arc<Self>, source: Source) {
        // What goes wrong is told where it goes wrong.
        let _ = self.aside(move |this| this.apply(&source, &source.read())).await;
    }

    /// Follows the files. Never ends.
    pub async fn follow(self: Arc<Self>, source: Source, period: Duration) {
        let apply = |snapshot| {
            let (this, source) = (self.clone(), source.clone());
            async move {
                let _ = this.aside(move |this| this.apply(&source, &snapshot)).await;
            }
        };
        reload::follow(source.clone(), period, apply).await;
    }

    /// Puts these quotas in force in place of all others, or changes nothing.
    ///
    /// # Errors
    /// What is wrong with them, without positions: nobody has the text they are from.
    pub async fn apply_whole(self: &Arc<Self>, contents: Contents) -> Result<(), String> {
        self.aside(move |this| this.replace(&contents)).await.flatten()
    }

    fn replace(&self, contents: &Contents) -> Result<(), String> {
        if contents.is_empty() {
            let reason = "no rate limit configuration in the response";
            self.refuse_whole(reason);
            return Err(reason.to_owned());
        }
        let update = Library::new(self.merge_domains).update(contents);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !update.errors.is_empty() {
            let text = |error: &ConfigError| format!("{}: {}", error.path.display(), error.message);
            state.errors = update.errors.iter().map(text).collect();
            state.refused = state.errors.len();
            self.refuse(&mut state);
            return Err(state.errors.join("; "));
        }
        state.errors.clear();
        state.refused = 0;
        let hash = reload::hash(contents);
        if state.seen.replace(hash) == Some(hash) {
            // As after a reconnect, or a bad response taken back: nothing new is in force.
            state.status.last_error = None;
            state.status.last_error_at_seconds = None;
            self.condition.all_well();
            self.metrics.config_unchanged();
            return Ok(());
        }
        self.quotas.store(Some(Arc::new(update.quotas)));
        state.status.loaded(hash);
        self.accepted(&mut state);
        Ok(())
    }

    /// Changes nothing, because of `reason`.
    pub fn refuse_whole(&self, reason: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.errors = vec![reason.to_owned()];
        state.refused = 1;
        self.refuse(&mut state);
    }

    /// Where quotas come from is out of reach; what is in force stays.
    pub fn source_lost(&self, reason: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.was_good {
            self.condition.lost(reason.clone());
        }
        state.source_error = Some(reason);
        self.metrics.config_source_lost.set(1);
    }

    /// Where quotas come from is within reach.
    pub fn source_found(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.source_error.take().is_some() && !state.was_good {
            self.condition.lost("not read yet");
        }
        self.metrics.config_source_lost.set(0);
    }

    /// What `/config` tells.
    pub fn describe(&self) -> serde_json::Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let quotas = self.quotas.load();
        let quotas = quotas.as_deref();
        let domains = quotas.map(|quotas| {
            let rules = quotas.domains().into_iter();
            let rules = rules.map(|d| (d.name.to_string(), json!(d.root.rules().len())));
            serde_json::Value::Object(rules.collect())
        });
        let classes = quotas.map(|quotas| {
            let ladder = quotas.classes().ladder().iter();
            ladder.map(ToString::to_string).collect::<Vec<_>>()
        });
        json!({
            "quotas": state.status,
            "errors": state.errors,
            "source_error": state.source_error,
            "rules_by_domain": domains,
            "priority_classes": classes,
        })
    }

    /// Does what takes a moment beside the threads of the runtime. A fault in it is told, and what
    /// is in force stays.
    async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, String> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(|fault| {
            let reason = fault.to_string();
            self.refuse_whole(&reason);
            reason
        })
    }

    fn apply(&self, source: &Source, snapshot: &Snapshot) {
        let hash = reload::hash(snapshot);
        let library = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.seen.replace(hash) == Some(hash) {
                return;
            }
            if snapshot.is_empty() {
                self.refuse_empty(source, &mut state);
                return;
            }
            state.library.clone()
        };
        // Without the lock: `/config` answers meanwhile, and nobody else applies.
        let update = library.update(snapshot);
        let faults = update.faults(snapshot, FAULTS_NAMED_MAX, NAMED_BYTES_MAX);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.errors = faults.iter().map(ToString::to_string).collect();
        state.refused = update.errors.len();
        for warning in &update.warnings {
            tracing::warn!(warning = %warning, "quota setting without effect");
        }
        if update.library.is_empty() {
            // Nothing of this can be in force.
            self.refuse(&mut state);
            return;
        }
        // A bad file, or one that is good again as it was, changes nothing of what is in force.
        let in_force = update.library.hash();
        state.library = update.library;
        if state.status.hash != format!("{in_force:016x}") {
            self.quotas.store(Some(Arc::new(update.quotas)));
            state.status.loaded(in_force);
        }
        if state.errors.is_empty() {
            self.accepted(&mut state);
        } else {
            self.refuse(&mut state);
        }
    }

    fn accepted(&self, state: &mut State) {
        state.status.last_error = None;
        state.status.last_error_at_seconds = None;
        self.count(state);
        state.was_good = true;
        self.condition.met();
        let (version, hash) = (state.status.version, state.status.hash.as_str());
        tracing::info!(version, hash, "quotas in force");
    }

    /// Nobody takes all quotas away on purpose by emptying a directory: what is in force stays.
    fn refuse_empty(&self, source: &Source, state: &mut State) {
        state.errors = vec![format!("{source}: holds no quota files")];
        state.refused = 1;
        self.refuse(state);
    }

    fn refuse(&self, state: &mut State) {
        for error in &state.errors {
            tracing::error!(error, "quotas refused");
        }
        let first = state.errors.first().cloned().unwrap_or_default();
        state.status.refused(first.clone());
        self.count(state);
        match state.was_good {
            true => self.condition.warn(first),
            false => self.condition.lost(first),
        }
    }

    fn count(&self, state: &State) {
        let hash = u64::from_str_radix(&state.status.hash, 16).unwrap_or(0);
        self.metrics.config_loaded(&state.status, hash, state.refused);
    }
}
