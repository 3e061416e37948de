//! What all requests share, and the one way from points to the journal.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, timeout_at};
use tracing::Span;

use crate::destination::Destinations;
use crate::gateway::admission::Admission;
use crate::gateway::answers::Answers;
use crate::gateway::budget::Budget;
use crate::gateway::config::GatewayConfig;
use crate::gateway::confirmed::Confirmed;
use crate::gateway::conversions::Conversions;
use crate::gateway::inflate::BodyCaps;
use crate::gateway::intake::Converted;
use crate::gateway::metrics::GatewayMetrics;
use crate::gateway::pinning::{Pinned, Pinning};
use crate::gateway::refusal::Refusal;
use crate::gateway::shares::Shares;
use crate::gateway::stamps::{Stamp, Stamps};
use crate::gateway::tenant_metrics::TenantMetrics;
use crate::gateway::tenant_rules::{Ruled, TenantRules};
use crate::gateway::turns::Turns;
use crate::gateway::verdict::Verdict;
use crate::journal::{AppendError, Journal, Journals};
use crate::point::Chunker;
use crate::record::Record;
use crate::rules::FieldTypes;
use crate::signal::Signal;
use crate::types::{Pin, TooManyDatabases};

/// How many bytes of one tenant the journal is given at once. A journal keeps the order in which it
/// is asked, so without a bound all that a tenant has sent would come before the next write of
/// another. It is twice what shares one fsync at most.
pub const APPENDING_BYTES_MAX: u32 = 16 << 20;

/// The state of the gateway.
pub struct Edge {
    /// The settings in force.
    pub config: GatewayConfig,
    /// Which database a tenant's points go to.
    pub destinations: Destinations,
    /// The types that fields have.
    pub pinning: Pinning,
    /// The rules of tenants.
    pub rules: TenantRules,
    /// Where points go.
    pub journals: Journals,
    /// The memory of all requests.
    pub budget: Budget,
    /// The answers that are being sent.
    pub answers: Answers,
    /// What is counted.
    pub metrics: GatewayMetrics,
    /// What is counted of each tenant.
    pub tenants: TenantMetrics,
    /// Whose turn it is to work.
    pub turns: Turns,
    /// How many long bodies are decoded at once.
    pub conversions: Conversions,
    /// How many bytes of each tenant the journal is given at once.
    pub appending: Shares,
    /// The time of points that have none, also when they are sent again.
    pub stamps: Arc<Stamps>,
    /// What the journal has confirmed, for the books.
    pub confirmed: Arc<Mutex<Confirmed>>,
}

impl Edge {
    /// When a request that begins now must be answered.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.config.request_timeout
    }

    /// The caps of one body.
    pub fn caps(&self) -> BodyCaps {
        BodyCaps {
            wire: self.config.body_bytes_max,
            decoded: self.config.decoded_bytes_max,
            ratio: self.config.ratio_max,
        }
    }

    /// What cuts the points of a request into records; points without a time get `stamp_ns`.
    ///
    /// # Errors
    /// When the tenant writes to more databases than it may.
    pub fn chunker(
        &self,
        admission: &Admission,
        ruled: Option<&Ruled>,
        stamp_ns: i64,
    ) -> Result<Chunker, Refusal> {
        let Admission { tenant, database, .. } = admission;
        let destination = self.destinations.resolve(tenant, database);
        // To name the default database is to name none.
        let default = self.destinations.named("") == database;
        let database = if default { "" } else { database.as_str() };
        let types = self
            .pinning
            .types()
            .of(tenant, database, &destination.name)
            .map_err(|TooManyDatabases(max)| Refusal::DatabasesTooMany(max))?;
        let (tags, bytes_max) = (self.destinations.tags_added(), self.config.chunk_bytes_max);
        let chunker = Chunker::new(tags, stamp_ns, bytes_max);
        Ok(match ruled.map(Ruled::field_types).unwrap_or_default() {
            FieldTypes::Convert => chunker.typed(types),
            FieldTypes::Refuse => chunker.typed(types.strict()),
            FieldTypes::Off => chunker,
        })
    }

    /// Stores what a request was turned into, and returns what became of its points when the
    /// journal has all of them.
    ///
    /// # Errors
    /// When the journal did not confirm in time; some chunks may be stored all the same.
    pub async fn append(
        &self,
        admission: &Admission,
        converted: Converted,
        (signal, stamp): (Signal, &Stamp),
        deadline: Instant,
    ) -> Result<Verdict, Refusal> {
        let Converted { pins, chunks, verdict, stamped, reservation, untracked } = converted;
        self.rules.untracked(untracked);
        if chunks.is_empty() {
            return Ok(verdict);
        }
        if stamped {
            stamp.remember();
        }
        let journal = self.journals.of(signal);
        self.pin(pins, journal.as_ref(), deadline).await?;
        let traceparent =
            chassis::telemetry::traceparent(&Span::current(), admission.traceparent.as_deref());
        let points: u64 = chunks.iter().map(|chunk| u64::from(chunk.points)).sum();
        let bytes: usize = chunks.iter().map(|chunk| chunk.body.len()).sum();
        let records = chunks.into_iter().map(|chunk| Record {
            tenant: admission.tenant.clone(),
            database: admission.database.clone(),
            shard: chunk.shard,
            points: chunk.points,
            admitted_at_ns: admission.admitted_at_ns,
            request_id: admission.request_id.clone(),
            traceparent: traceparent.clone(),
            body: chunk.body,
        });
        let share =
            self.appending.take(&admission.tenant, u32::try_from(bytes).unwrap_or(u32::MAX));
        let Ok(share) = timeout_at(deadline, share).await else {
            return Err(Refusal::JournalUnavailable { retry_after: self.budget.retry_after() });
        };
        let started = Instant::now();
        let appended = timeout_at(deadline, journal.append(records.collect())).await;
        drop((share, reservation));
        self.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
        match appended {
            Ok(Ok(())) => {
                self.metrics.journaled(bytes);
                self.confirmed(admission, points);
                if stamped {
                    stamp.acknowledge();
                }
                Ok(verdict)
            }
            Ok(Err(AppendError::TooLarge { reason })) => {
                tracing::error!(reason, tenant = admission.tenant, "a record is too large");
                Err(Refusal::RecordTooLarge)
            }
            Ok(Err(AppendError::Unavailable { reason, retry_after })) => {
                tracing::warn!(reason, tenant = admission.tenant, "append was not confirmed");
                Err(Refusal::JournalUnavailable { retry_after })
            }
            Err(_) => {
                tracing::warn!(
                    tenant = admission.tenant,
                    "append took longer than the request may"
                );
                Err(Refusal::JournalUnavailable { retry_after: self.budget.retry_after() })
            }
        }
    }

    /// For the books.
    fn confirmed(&self, admission: &Admission, points: u64) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.add(&admission.tenant, admission.admitted_at_ns, points);
    }

    /// Pins the types of new fields, before any point of them is stored.
    async fn pin(
        &self,
        pins: Vec<Pin>,
        journal: &dyn Journal,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let pinned = tokio::select! {
            biased;
            pinned = self.pinning.pin(pins) => pinned,
            refused = journal.refusing() => {
                Pinned::Unavailable { retry_after: refused.retry_after() }
            }
            () = tokio::time::sleep_until(deadline) => Pinned::Full,
        };
        match pinned {
            Pinned::Ours => Ok(()),
            Pinned::Others => {
                Err(Refusal::TypeUndecided { retry_after: self.budget.retry_after() })
            }
            Pinned::Full => {
                Err(Refusal::JournalUnavailable { retry_after: self.budget.retry_after() })
            }
            Pinned::Unavailable { retry_after } => Err(Refusal::JournalUnavailable { retry_after }),
        }
    }
}
