//! What is known of the brokers of one topic: which answer, and where its partitions are.
//!
//! ```text
//! every half second: leaders that have confirmed nothing meanwhile are asked
//!   some leave three questions unanswered ──► what needs them is refused
//!   all leave five unanswered             ──► Kafka is away
//! ```
//!
//! Brokers that are frozen, or cut off, report nothing. They are asked also while nobody writes, so
//! that the first to write does not wait for them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::journal::kafka::placement::{BrokerId, Placement, Silence, led};
use crate::journal::kafka::producer::Producer;
use crate::journal::kafka::ticket::Tickets;
use crate::journal::kafka::topic::{TopicError, Topics};

/// How often brokers are looked at.
pub(super) const PERIOD: Duration = Duration::from_millis(500);
/// A leader that confirmed a record within this time need not be asked.
const QUIET_AFTER: Duration = PERIOD;
/// A broker that leaves so many questions in a row unanswered is silent. A pause of a second is
/// waited for.
const SILENT_AFTER: u32 = 3;
/// Where all brokers leave so many unanswered, Kafka is away.
const AWAY_AFTER: u32 = 5;

/// What is known at present.
pub(super) struct Brokers {
    pub placements: Vec<Placement>,
    in_sync_min: u64,
    silence: Silence,
    /// Nobody is silent and no partition held.
    is_well: bool,
}

impl Brokers {
    /// Those of a topic that was just looked up, and how many copies must be in sync.
    pub fn new(placements: Vec<Placement>, in_sync_min: u64) -> Self {
        Self { placements, in_sync_min, silence: Silence::default(), is_well: true }
    }

    /// The topic was looked up again.
    pub fn found(&mut self, placements: Vec<Placement>, in_sync_min: u64) {
        (self.placements, self.in_sync_min) = (placements, in_sync_min);
    }

    /// Asks those of which nothing was heard, and where something is wrong also where the partitions
    /// are now. Takes half a second at most.
    pub async fn look(&mut self, topics: &Topics, producer: &Producer, tickets: &Tickets) {
        let topic = producer.topic();
        let asked = {
            let (progress, now) = (tickets.progress(), Instant::now());
            let busy =
                |partition: i32| progress.is_busy(partition.unsigned_abs(), QUIET_AFTER, now);
            led(&self.placements, busy)
        };
        let was_well = self.is_well;
        let moved = async {
            // Leaders move, and the producer must learn where to.
            match was_well {
                true => None,
                false => {
                    let both = tokio::join!(producer.placements(PERIOD), topics.placements(topic));
                    both.1.ok().or(both.0)
                }
            }
        };
        let (answered, moved) = tokio::join!(topics.answering(topic, &asked), moved);
        self.silence.heard(&asked.into_keys().collect(), &answered);
        if let Some(placements) = moved {
            self.placements = placements;
        }
        self.note(tickets);
    }

    /// Whether no leader answers any more.
    pub fn are_away(&self) -> bool {
        let leaders: BTreeSet<BrokerId> =
            self.placements.iter().filter_map(|one| one.leader).collect();
        !leaders.is_empty() && leaders.is_subset(&self.silence.silent(AWAY_AFTER))
    }

    /// They are back.
    pub fn are_back(&mut self, tickets: &Tickets) {
        self.silence = Silence::default();
        tickets.progress().trust();
    }

    /// Whether any broker answers.
    pub async fn reach(&self, topics: &Topics, topic: &str) -> Result<(), TopicError> {
        let asked = led(&self.placements, |_| false);
        let (answered, reached) =
            tokio::join!(topics.answering(topic, &asked), topics.reach(topic));
        if answered.is_empty() { reached } else { Ok(()) }
    }

    /// Has records refused, or taken again, by what is known.
    pub fn note(&mut self, tickets: &Tickets) {
        let silent = self.silence.silent(SILENT_AFTER);
        let now = Instant::now();
        let mut progress = tickets.progress();
        progress.told(&self.placements, self.in_sync_min, &silent, now);
        self.is_well = progress.held(now).is_empty() && self.silence.silent(1).is_empty();
    }
}
