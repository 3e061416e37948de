//! Whether a topic keeps what it confirms. Pure; knows no Kafka client.
//!
//! An acknowledgement is as true as the topic is durable: with one copy it ends with a disk, with
//! compaction a tenant keeps its newest record only, and what is larger than the topic takes can
//! never be stored.

use crate::journal::kafka::placement::Placement;

/// What must be true of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demands {
    /// Copies of each partition.
    pub replication_factor_min: usize,
    /// Copies that confirm a record.
    pub in_sync_min: u64,
    /// The largest message, bytes.
    pub message_bytes_max: u64,
    /// Whether everything must be kept for ever.
    pub forever: bool,
}

/// What the cluster says of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// Its partitions.
    pub partitions: Vec<Placement>,
    /// `cleanup.policy`; unknown where we may not ask.
    pub cleanup_policy: Option<String>,
    /// `min.insync.replicas`.
    pub min_in_sync: Option<u64>,
    /// `max.message.bytes`.
    pub message_bytes_max: Option<u64>,
    /// `retention.ms`; negative is for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; negative is without a bound.
    pub retention_bytes: Option<i64>,
}

/// Why a topic does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Old records of a key are thrown away.
    #[error("its cleanup.policy is '{0}', not 'delete': compaction would drop records")]
    Compacted(String),
    /// Records that we may send are too large for it.
    #[error("its max.message.bytes is {0}, less than journal.kafka.message_bytes_max, {1}")]
    MessagesTooLarge(u64, u64),
    /// It throws away what must be kept.
    #[error("its retention.ms and retention.bytes must both be -1: it may forget nothing")]
    Forgets,
    /// Too few copies.
    #[error("partition {partition} has {copies} copies of {needed}")]
    CopiesTooFew {
        /// The first such partition.
        partition: i32,
        /// How many it has.
        copies: usize,
        /// How many it should have.
        needed: usize,
    },
    /// It confirms what too few copies have.
    #[error("its min.insync.replicas is {0}, less than {1}")]
    ConfirmsTooEarly(u64, u64),
    /// Of every partition too few copies are in sync now.
    #[error(
        "partition {partition} has {in_sync} in-sync copies of {needed}, and no other has more"
    )]
    OutOfSync {
        /// The first partition.
        partition: i32,
        /// How many are in sync.
        in_sync: usize,
        /// How many must be.
        needed: u64,
    },
}

/// The first thing that is wrong with a topic.
pub fn problem(state: &TopicState, demands: &Demands) -> Option<Problem> {
    if let Some(policy) = state.cleanup_policy.as_ref().filter(|policy| *policy != "delete") {
        return Some(Problem::Compacted(policy.clone()));
    }
    let bytes = demands.message_bytes_max;
    if let Some(taken) = state.message_bytes_max.filter(|taken| *taken < bytes) {
        return Some(Problem::MessagesTooLarge(taken, bytes));
    }
    if let Some(min) = state.min_in_sync.filter(|min| *min < demands.in_sync_min) {
        return Some(Problem::ConfirmsTooEarly(min, demands.in_sync_min));
    }
    let bounded = |retention: Option<i64>| retention.is_some_and(|most| most >= 0);
    if demands.forever && (bounded(state.retention_ms) || bounded(state.retention_bytes)) {
        return Some(Problem::Forgets);
    }
    let copies_min = demands.replication_factor_min;
    if let Some(few) = state.partitions.iter().find(|one| one.copies < copies_min) {
        let (partition, copies) = (few.partition, few.copies);
        return Some(Problem::CopiesTooFew { partition, copies, needed: copies_min });
    }
    let needed = in_sync_needed(state, demands);
    let in_sync = |one: &Placement| one.in_sync.len();
    let best = state.partitions.iter().max_by_key(|one| in_sync(one))?;
    let (partition, in_sync) = (best.partition, in_sync(best));
    ((in_sync as u64) < needed).then_some(Problem::OutOfSync { partition, in_sync, needed })
}

/// How many copies of a partition must be in sync. One that has fewer confirms nothing, which holds
/// its own records up and those of no other.
pub fn in_sync_needed(state: &TopicState, demands: &Demands) -> u64 {
    state.min_in_sync.unwrap_or(0).max(demands.in_sync_min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_lose_records_is_seen() {
        let placement = |partition, copies, in_sync| Placement {
            partition,
            leader: Some(1),
            copies,
            in_sync: vec![1; in_sync],
        };
        let sound = TopicState {
            partitions: vec![placement(0, 3, 3), placement(1, 3, 2)],
            cleanup_policy: Some("delete".to_owned()),
            min_in_sync: Some(2),
            message_bytes_max: Some(1000),
            retention_ms: Some(-1),
            retention_bytes: Some(-1),
        };
        let demands = Demands {
            replication_factor_min: 3,
            in_sync_min: 2,
            message_bytes_max: 1000,
            forever: true,
        };
        assert_eq!(problem(&sound, &demands), None);
        let unknown = TopicState { partitions: vec![placement(0, 3, 2)], ..TopicState::default() };
        assert_eq!(problem(&unknown, &demands), None);
        type Change = dyn Fn(&mut TopicState);
        let cases: [(&Change, &str); 8] = [
            (&|t| t.cleanup_policy = Some("compact".to_owned()), "cleanup.policy is 'compact'"),
            (&|t| t.cleanup_policy = Some("compact,delete".to_owned()), "'compact,delete'"),
            (&|t| t.message_bytes_max = Some(999), "max.message.bytes is 999, less than"),
            (&|t| t.retention_ms = Some(604_800_000), "may forget nothing"),
            (&|t| t.retention_bytes = Some(0), "may forget nothing"),
            (&|t| t.min_in_sync = Some(1), "min.insync.replicas is 1, less than 2"),
            (&|t| t.partitions[1].copies = 1, "partition 1 has 1 copies of 3"),
            (
                &|t| t.partitions.iter_mut().for_each(|one| one.in_sync.truncate(1)),
                "has 1 in-sync copies of 2, and no other has more",
            ),
        ];
        for (change, expected) in cases {
            let mut topic = sound.clone();
            change(&mut topic);
            let problem = problem(&topic, &demands).expect(expected).to_string();
            assert!(problem.contains(expected), "{problem}");
        }
        let mut half = sound.clone();
        half.partitions[1].in_sync.truncate(1);
        assert_eq!(problem(&half, &demands), None, "a matter of that partition alone");
        let passing = TopicState { retention_ms: Some(1), ..sound.clone() };
        assert_eq!(problem(&passing, &Demands { forever: false, ..demands }), None);
        let strict = TopicState { min_in_sync: Some(4), ..sound };
        assert!(problem(&strict, &demands).is_some(), "the topic's own bound counts too");
    }
}
