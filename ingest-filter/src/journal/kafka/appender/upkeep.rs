//! Keeps an eye on the brokers and the topic of an appender, and on its producer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use chassis::readiness::Vital;
use tokio::task::{JoinError, JoinHandle};

use super::Shared;
use crate::journal::kafka::brokers::{Brokers, PERIOD};
use crate::journal::kafka::placement::Placement;
use crate::journal::kafka::taking::Taking;
use crate::journal::kafka::topic::TopicError;

/// How often brokers that are away are asked again.
const AWAY_PERIOD: Duration = Duration::from_millis(250);
/// How often a topic that cannot be used is tried again.
const TOPIC_PERIOD: Duration = Duration::from_secs(1);
/// The longest that readiness is held back after a refusal that lasts.
const LASTING_HOLD_MAX: Duration = Duration::from_secs(60);
/// After so many looks the topic is checked again, whatever they saw: a partition that is in doubt stays so
/// until a record comes for it, and none may come.
const CHECK_EVERY: u32 = 10;

/// What a check finds: where the partitions are, and how many copies must be in sync.
type Check = JoinHandle<Result<(Vec<Placement>, u64), TopicError>>;

/// Never ends.
pub(super) async fn run(shared: Arc<Shared>, _vital: Vital) {
    let mut brokers = shared.find_topic().await;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut looks, mut check) = (0, None);
    loop {
        tokio::select! {
            () = shared.no_connection.notified() => shared.wait_while_away(&mut brokers).await,
            // One that is slow to answer then is not away: it is asked as often as at any other time.
            () = shared.look.notified() => {}
            _ = ticks.tick() => {}
        }
        brokers.look(&shared.topics, &shared.producer, &shared.tickets).await;
        if brokers.are_away() {
            shared.wait_while_away(&mut brokers).await;
        }
        shared.report();
        if let Some(hold) = shared.mend() {
            tokio::time::sleep(hold).await;
            brokers = shared.find_topic().await;
            continue;
        }
        if let Some(done) = check.take_if(|check: &mut Check| check.is_finished()) {
            shared.checked(done.await, &mut brokers).await;
        }
        looks += 1;
        if looks >= CHECK_EVERY && check.is_none() {
            (looks, check) = (0, Some(shared.check()));
        }
    }
}

impl Shared {
    /// Waits until the topic can be used, and says so.
    async fn find_topic(&self) -> Brokers {
        loop {
            match self.topics.durable_records(&self.config.topic).await {
                Ok((placements, in_sync_min)) => {
                    let mut brokers = Brokers::new(placements, in_sync_min);
                    self.open(&mut brokers);
                    return brokers;
                }
                Err(error) => {
                    self.standing.lost(error.to_string());
                    self.intake.set(Taking::Nothing(error.to_string()));
                    tokio::time::sleep(TOPIC_PERIOD).await;
                }
            }
        }
    }

    fn open(&self, brokers: &mut Brokers) {
        self.partitions.store(brokers.placements.len() as u32, Ordering::Relaxed);
        brokers.note(&self.tickets);
        self.standing.met();
        self.report();
    }

    /// Looks whether the topic still does. Brokers are looked at meanwhile, as the one that is asked
    /// may be frozen.
    fn check(self: &Arc<Self>) -> Check {
        let shared = self.clone();
        tokio::spawn(async move { shared.topics.durable_records(&shared.config.topic).await })
    }

    async fn checked(
        &self,
        found: Result<Result<(Vec<Placement>, u64), TopicError>, JoinError>,
        brokers: &mut Brokers,
    ) {
        match found {
            Ok(Ok((placements, in_sync_min))) => {
                brokers.found(placements, in_sync_min);
                self.open(brokers);
            }
            Ok(Err(error @ (TopicError::Unsound { .. } | TopicError::Missing(_)))) => {
                tracing::error!(%error, "the journal's topic does not do");
                *brokers = self.find_topic().await;
            }
            // Whether brokers are away is found out by asking each.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    /// Says what is refused, where that has changed.
    fn report(&self) {
        let (held, none) = {
            let progress = self.tickets.progress();
            (progress.held(Instant::now()), progress.none_is_taken())
        };
        self.intake.set(match none {
            Some(hold) => Taking::UnderWay(hold.to_string()),
            None => Taking::All,
        });
        let partitions = i64::try_from(held.len()).unwrap_or(i64::MAX);
        let before = self.refused_partitions.set(partitions);
        match held.first() {
            Some(reason) => {
                self.standing
                    .warn(format!("partitions refused: {partitions}, the first as {reason}"));
            }
            None => self.standing.all_well(),
        }
        match held.first() {
            _ if before == partitions => {}
            Some(reason) => {
                tracing::warn!(partitions, %reason, "records of some partitions are refused");
            }
            None => tracing::info!("records of all partitions are taken again"),
        }
    }

    /// To be called where brokers seem to be away, as the producer has no connection or they left too
    /// many questions unanswered: one more decides.
    ///
    /// While no broker answers, records are refused at once, also those that wait already, and
    /// nothing of them stays in the client: sent again, they would be stored twice. Readiness
    /// stays, as other gateways have no more of Kafka than this one.
    async fn wait_while_away(&self, brokers: &mut Brokers) {
        let mut was_away = false;
        while let Err(error) = brokers.reach(&self.topics, &self.config.topic).await {
            let reason = format!("no broker answers: {error}");
            let before = self.intake.set(Taking::Nothing(reason.clone()));
            self.standing.warn(reason.clone());
            if !matches!(before, Taking::Nothing(_)) {
                tracing::error!(reason, "Kafka is away, records are refused until it is back");
                self.replace_producer();
            }
            was_away = true;
            tokio::time::sleep(AWAY_PERIOD).await;
        }
        if was_away {
            tracing::info!("Kafka is back");
            brokers.are_back(&self.tickets);
            self.intake.set(Taking::All);
            self.standing.all_well();
        }
    }

    fn replace_producer(&self) {
        if let Err(error) = self.producer.replace() {
            tracing::error!(%error, "no new Kafka producer could be created");
        }
    }

    /// What keeps records out until a person or a new producer mends it; `None` when all is well.
    /// Gives how long readiness is held back at least, so that a fault that lasts is seen as one
    /// and not as many: where we may not produce, only a record can find that out.
    fn mend(&self) -> Option<Duration> {
        let lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reason) = lasting {
            tracing::error!(reason, "the journal refuses records");
            self.standing.lost(reason);
            let mut hold = self.lasting_hold.lock().unwrap_or_else(PoisonError::into_inner);
            let now = *hold;
            *hold = (now * 2).min(LASTING_HOLD_MAX);
            return Some(now);
        }
        let reason = self.producer.fatal_error()?;
        tracing::error!(reason, "the Kafka producer failed for good, replacing it");
        self.standing.lost(reason);
        self.replace_producer();
        Some(TOPIC_PERIOD)
    }
}
