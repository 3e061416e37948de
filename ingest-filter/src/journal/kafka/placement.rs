//! Where the partitions of a topic are: which broker leads each, and which have all of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The number of a broker.
pub type BrokerId = i32;

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Its number.
    pub partition: i32,
    /// Who leads it; nobody while its leader is dead and no other may follow.
    pub leader: Option<BrokerId>,
    /// How many copies it has.
    pub copies: usize,
    /// The brokers that must confirm a record before it counts as stored.
    pub in_sync: Vec<BrokerId>,
}

/// A partition for each broker that leads one of them: who is asked about it must answer. Those of
/// the partitions that are `busy` are left out, as they answer already.
pub fn led(placements: &[Placement], busy: impl Fn(i32) -> bool) -> BTreeMap<BrokerId, i32> {
    let led = |placement: &Placement| Some((placement.leader?, placement.partition));
    let answering: BTreeSet<BrokerId> = placements
        .iter()
        .filter(|placement| busy(placement.partition))
        .filter_map(|placement| placement.leader)
        .collect();
    let all = placements.iter().filter_map(led);
    all.filter(|(leader, _)| !answering.contains(leader)).collect()
}

/// Brokers that do not answer, and how often in a row each did not.
#[derive(Debug, Default)]
pub struct Silence {
    unanswered: BTreeMap<BrokerId, u32>,
}

impl Silence {
    /// Those of `asked` that are in `answered` are not silent; who was not asked either.
    pub fn heard(&mut self, asked: &BTreeSet<BrokerId>, answered: &BTreeSet<BrokerId>) {
        self.unanswered.retain(|broker, _| asked.contains(broker));
        for broker in asked {
            match answered.contains(broker) {
                true => _ = self.unanswered.remove(broker),
                false => *self.unanswered.entry(*broker).or_default() += 1,
            }
        }
    }

    /// Those that left so many questions in a row unanswered.
    pub fn silent(&self, questions: u32) -> BTreeSet<BrokerId> {
        let silent = self.unanswered.iter().filter(|(_, times)| **times >= questions);
        silent.map(|(broker, _)| *broker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(partition: i32, leader: BrokerId) -> Placement {
        Placement { partition, leader: Some(leader), copies: 1, in_sync: vec![leader] }
    }

    #[test]
    fn each_leader_is_asked_about_one_partition_unless_it_answers_anyway() {
        let none = Placement { partition: 4, ..Placement::default() };
        let all = [placement(0, 1), placement(1, 2), placement(2, 1), placement(3, 3), none];
        assert_eq!(led(&all, |_| false), BTreeMap::from([(1, 2), (2, 1), (3, 3)]));
        assert_eq!(led(&all, |partition| partition == 0), BTreeMap::from([(2, 1), (3, 3)]));
    }

    #[test]
    fn a_broker_is_silent_after_so_many_questions_in_a_row() {
        let (both, first, none) = (BTreeSet::from([1, 2]), BTreeSet::from([1]), BTreeSet::new());
        let mut silence = Silence::default();
        silence.heard(&both, &first);
        silence.heard(&both, &none);
        assert_eq!((silence.silent(1), silence.silent(2)), (both.clone(), BTreeSet::from([2])));
        silence.heard(&both, &both);
        assert_eq!(silence.silent(1), none);
        silence.heard(&both, &none);
        silence.heard(&first, &none);
        assert_eq!(silence.silent(1), first, "who needs not be asked confirms records");
    }
}
