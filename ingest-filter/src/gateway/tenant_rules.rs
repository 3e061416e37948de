//! The rules of tenants while the gateway runs: files that are followed, what is remembered of
//! each tenant, and what people are shown of both. The decisions are in [`crate::rules`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use chassis::readiness::{Condition, Readiness};
use chassis::reload::{self, ReloadStatus, Snapshot, Source};
use dashmap::{DashMap, Entry};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::gateway::admission::Admission;
use crate::gateway::refusal::{Cap, Refusal};
use crate::rules::guard::{Guard, TenantState};
use crate::rules::library::Library;
use crate::rules::mapping::{DATABASE_BYTES_MAX, Named};
use crate::rules::series::{TENANT_BYTES, Tracked};
use crate::rules::{Book, FieldTypes, Rules};

/// Tenants of which something is remembered; those beyond share one memory.
pub const TENANTS_MAX: usize = 100_000;

/// So much room for tenants may stay empty.
const SPARE_CAPACITY_MAX: usize = 4096;

/// Tenants that have a label of their own in metrics, and a place in `/config`.
pub const TENANTS_SHOWN_MAX: usize = 100;

/// How often tenants that write no more are forgotten, and their series.
const FORGET_PERIOD: Duration = Duration::from_secs(60);

/// The label of all other tenants.
const OTHER: &str = "other";

/// The name of the warning beside readiness.
const WARNING: &str = "tenant rules";

/// The rules in force, and what they are applied to.
pub struct TenantRules {
    source: Option<Source>,
    readiness: Readiness,
    condition: Option<Condition>,
    book: RwLock<Arc<Book>>,
    files: Mutex<Files>,
    tenants: DashMap<String, Arc<TenantState>>,
    others: Arc<TenantState>,
    /// The memory of all that is remembered.
    tracked: Arc<Tracked>,
    metrics: RulesMetrics,
}

#[derive(Default)]
struct Files {
    library: Library,
    status: ReloadStatus,
    errors: Vec<String>,
    /// The newest state that was looked at.
    seen: Option<u64>,
    was_good: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    tenant: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoadLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Default)]
struct RulesMetrics {
    refused: Family<RefusedLabels, Counter>,
    loads: Family<LoadLabels, Counter>,
    files_refused: Gauge,
    untracked: Counter,
}

/// The rules for one request.
#[derive(Clone, Debug)]
pub struct Ruled {
    rules: Arc<Rules>,
    state: Arc<TenantState>,
    named: Named,
}

impl TenantRules {
    /// Reads the directory, if there is one; what is remembered is taken from `tracked`. Until its
    /// files were good once, the gateway is not ready.
    pub fn new(
        directory: Option<PathBuf>,
        tracked: Tracked,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> Self {
        let metrics = RulesMetrics::register(registry);
        let source = directory.map(|path| Source::Directory { path, ignore_dotfiles: true });
        let unread = "the rules of tenants were not read yet";
        let condition = source.as_ref().map(|_| readiness.condition(WARNING, unread));
        let this = Self {
            source,
            readiness: readiness.clone(),
            condition,
            book: RwLock::default(),
            files: Mutex::default(),
            tenants: DashMap::new(),
            others: Arc::default(),
            tracked: Arc::new(tracked),
            metrics,
        };
        if let Some(source) = &this.source {
            this.apply(&source.read());
        }
        this
    }

    /// Follows the files, and forgets series and tenants that are active no more. Never ends.
    pub async fn follow(&self) {
        let Some(source) = self.source.clone() else { return std::future::pending().await };
        let files = reload::follow(source, reload::PERIOD, |snapshot| {
            self.apply(&snapshot);
            std::future::ready(())
        });
        let series = async {
            loop {
                tokio::time::sleep(FORGET_PERIOD).await;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                self.forget(now.map_or(0, |now| now.as_secs() as i64));
            }
        };
        tokio::join!(files, series);
    }

    fn forget(&self, now_seconds: i64) {
        self.tenants.retain(|_, tenant| {
            let is_idle = tenant.forget(now_seconds, &self.tracked);
            // A request that is under way holds the state too.
            let is_kept = !is_idle || Arc::strong_count(tenant) > 1;
            if !is_kept {
                self.tracked.give_back(TENANT_BYTES);
            }
            is_kept
        });
        self.others.forget(now_seconds, &self.tracked);
        if self.tenants.capacity() > SPARE_CAPACITY_MAX.max(4 * self.tenants.len()) {
            self.tenants.shrink_to_fit();
        }
    }

    /// The rules for a request of this tenant; `None` where they change nothing.
    pub fn of(&self, tenant: &str, named: Named) -> Option<Ruled> {
        let rules = {
            let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
            book.of(tenant).clone()
        };
        if rules.is_nothing() {
            return None;
        }
        Some(Ruled { rules, state: self.state(tenant), named })
    }

    /// What the points of a request must pass.
    pub fn guard(&self, ruled: &Ruled, admitted_at_ns: i64) -> Guard {
        let (rules, state) = (ruled.rules.clone(), ruled.state.clone());
        let tags = rules.mapping.tags(&ruled.named);
        Guard::new(rules, state, self.tracked.clone(), admitted_at_ns, tags)
    }

    /// Counts what the rules refused of a request of this tenant.
    pub fn refused<'f>(
        &self,
        tenant: &str,
        ruled: &Ruled,
        faults: impl IntoIterator<Item = (&'f Fault, &'f u64)>,
    ) {
        for (fault, times) in faults {
            if ruled.state.count(*fault, *times) {
                let tenant = self.label(tenant).to_owned();
                let labels = RefusedLabels { tenant, reason: fault.label() };
                self.metrics.refused.get_or_create(&labels).inc_by(*times);
            }
        }
    }

    /// Counts new series that were let through without being remembered.
    pub fn untracked(&self, series: u64) {
        self.metrics.untracked.inc_by(series);
    }

    /// What `/config` shows.
    pub fn describe(&self) -> Value {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner).clone();
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = book.tenants.keys().cloned().collect();
        names.extend(self.tenants.iter().map(|tenant| tenant.key().clone()));
        names.sort();
        names.dedup();
        let tenants = names.into_iter().take(TENANTS_SHOWN_MAX).map(|name| {
            let state = self.tenants.get(&name).map(|state| state.clone()).unwrap_or_default();
            let refused = state.refused().map(|(fault, count)| (fault.label(), count));
            let shown = json!({
                "rules": **book.of(&name),
                "series": state.series(),
                "requests_too_large": state.too_large(),
                "refused": refused.collect::<std::collections::BTreeMap<_, _>>(),
            });
            (name, shown)
        });
        json!({
            "files": files.status,
            "errors": files.errors,
            "default": *book.default,
            "tenants": tenants.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn apply(&self, snapshot: &Snapshot) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = reload::hash(snapshot);
        if files.seen.replace(hash) == Some(hash) {
            return;
        }
        let (library, errors) = files.library.update(snapshot);
        let mut errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        if snapshot.is_empty() {
            // Nobody lifts all limits on purpose by emptying a directory.
            let source = self.source.as_ref().map_or_else(String::new, ToString::to_string);
            errors.push(format!("{source}: holds no files of rules"));
        } else {
            *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(library.book());
            files.library = library;
            files.status.loaded(hash);
        }
        let result = if errors.is_empty() { "success" } else { "error" };
        self.metrics.loads.get_or_create(&LoadLabels { result }).inc();
        self.metrics.files_refused.set(i64::try_from(errors.len()).unwrap_or(i64::MAX));
        match errors.first() {
            None => {
                files.was_good = true;
                self.readiness.all_well(WARNING);
                self.condition.iter().for_each(Condition::met);
                tracing::info!(hash = files.status.hash.as_str(), "rules of tenants in force");
            }
            Some(first) => {
                errors.iter().for_each(|error| tracing::error!(error, "rules refused"));
                files.status.refused(first.clone());
                match files.was_good {
                    true => self.readiness.warn(WARNING, first.clone()),
                    false => self.condition.iter().for_each(|lost| lost.lost(first.clone())),
                }
            }
        }
        files.errors = errors;
    }

    fn state(&self, tenant: &str) -> Arc<TenantState> {
        if let Some(known) = self.tenants.get(tenant) {
            return known.clone();
        }
        if self.tenants.len() >= TENANTS_MAX || !self.tracked.take(TENANT_BYTES) {
            return self.others.clone();
        }
        match self.tenants.entry(tenant.to_owned()) {
            Entry::Vacant(new) => new.insert(Arc::default()).clone(),
            // Another request of the tenant was first.
            Entry::Occupied(known) => {
                self.tracked.give_back(TENANT_BYTES);
                known.get().clone()
            }
        }
    }

    /// The tenant itself for those whose rules are written down, up to a number of them.
    fn label<'t>(&self, tenant: &'t str) -> &'t str {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let is_shown = match book.tenants.len() <= TENANTS_SHOWN_MAX {
            true => book.tenants.contains_key(tenant),
            false => false,
        };
        if is_shown { tenant } else { OTHER }
    }
}

impl RulesMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("ingest_gateway_rules");
        let of = &metrics;
        registry.register("points_refused", "Points that a rule refused", of.refused.clone());
        registry.register("loads", "States of the rule files read", of.loads.clone());
        let help = "Rule files whose newest state is refused";
        registry.register("files_refused", help, of.files_refused.clone());
        let help = "New series let through without being remembered";
        registry.register("series_untracked", help, of.untracked.clone());
        metrics
    }
}

impl Ruled {
    /// The request as the rules have it: its database.
    ///
    /// # Errors
    /// When the database would be too long, or the organization cannot be part of one.
    pub fn admission(&self, admission: Admission) -> Result<Admission, Refusal> {
        let sign = |c: char| !c.is_control() && c != '\\';
        let organization = &self.named.organization;
        if organization.len() > DATABASE_BYTES_MAX || !organization.chars().all(sign) {
            let invalid = "the organization is longer than 128 bytes, or its name holds a control \
                           character or a backslash";
            return Err(Refusal::ParameterInvalid(invalid));
        }
        let too_long = "the database that the rules of the tenant make is longer than 128 bytes";
        let database = self.rules.mapping.database.render(&self.named);
        let database = database.ok_or(Refusal::ParameterInvalid(too_long))?;
        Ok(Admission { database, ..admission })
    }

    /// What a value of another type than its field's becomes.
    pub fn field_types(&self) -> FieldTypes {
        self.rules.field_types
    }

    /// Counts a refusal that is the doing of these rules.
    pub fn count(&self, refusal: Refusal) {
        if let Refusal::BodyTooLarge(Cap::Decoded(max)) = refusal
            && self.rules.request_bytes_max == Some(max)
        {
            self.state.count_too_large();
        }
    }

    /// The largest body after decompression, of at most `bytes_max`.
    pub fn decoded_bytes_max(&self, bytes_max: usize) -> usize {
        self.rules.request_bytes_max.map_or(bytes_max, |max| max.min(bytes_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::{FieldValue, Point};
    use crate::rules::series::SERIES_BYTES;

    const HOUR: i64 = 3600;

    fn rules(text: &str) -> (TenantRules, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("a.yaml"), text).expect("written");
        let path = Some(directory.path().to_owned());
        let tracked = Tracked::new(Arc::default(), 1 << 30);
        let registry = &mut Registry::default();
        (TenantRules::new(path, tracked, &Readiness::new(), registry), directory)
    }

    /// A request of a tenant at this second, with one point.
    fn write(rules: &TenantRules, tenant: &str, at: i64) -> Guard {
        let ruled = rules.of(tenant, Named::default()).expect("a rule");
        let mut guard = rules.guard(&ruled, at * 1_000_000_000);
        let mut point = Point {
            measurement: "cpu".into(),
            tags: Vec::new(),
            fields: vec![("v".into(), FieldValue::Integer(1))],
            timestamp_ns: None,
            ..Point::default()
        };
        assert_eq!(guard.admit(&mut point), Ok(()));
        assert_eq!(guard.admit_series(&point, 1), Ok(()));
        guard
    }

    #[test]
    fn tenants_that_write_no_more_are_forgotten() {
        let (rules, _directory) = rules("default: {series_max: 5}\ntenants: {b: {labels_max: 1}}");
        let start = 1000 * HOUR;
        for tenant in 0..5000 {
            write(&rules, &tenant.to_string(), start);
        }
        drop(write(&rules, "b", start));
        let held = write(&rules, "held", start);
        let kept = |at| {
            rules.forget(at);
            rules.tenants.len()
        };
        assert_eq!(kept(start + HOUR), 5002, "they may come back");
        write(&rules, "0", start + HOUR);
        assert_eq!(kept(start + 2 * HOUR), 2, "one wrote since, one is at work");
        assert_eq!(rules.tracked.bytes(), SERIES_BYTES + 2 * TENANT_BYTES);
        assert!(rules.tenants.capacity() <= SPARE_CAPACITY_MAX, "{}", rules.tenants.capacity());
        drop(held);
        assert_eq!(kept(start + 2 * HOUR), 1);
        assert_eq!(kept(start + HOUR), 1, "a clock that is set back forgets nobody");
        assert_eq!(kept(start + 4 * HOUR), 0);
    }

    #[test]
    fn tenants_beyond_the_bound_share_one_memory() {
        let (rules, _directory) = rules("default: {series_max: 1}");
        for tenant in 0..TENANTS_MAX {
            rules.state(&tenant.to_string());
        }
        assert!(Arc::ptr_eq(&rules.state("x"), &rules.state("y")));
        assert!(!Arc::ptr_eq(&rules.state("1"), &rules.state("2")));
        assert_eq!(rules.tenants.len(), TENANTS_MAX);
    }
}
