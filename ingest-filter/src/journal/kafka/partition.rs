//! Which partition a record goes to. Pure.
//!
//! A tenant uses only some of the partitions (a shuffle shard), so that a tenant that floods the
//! journal delays few others. They are chosen by rendezvous hashing: every partition draws a
//! number for the tenant and the highest win; when partitions are added, a tenant moves only to
//! new ones. Within its partitions a tenant's virtual shards are dealt out in turn, so a series
//! stays where it is.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The partition of a tenant's virtual shard, below `partitions`.
pub fn partition(tenant: &str, shard: u32, partitions: u32, per_tenant: u32) -> u32 {
    let share = per_tenant.clamp(1, partitions.max(1)) as usize;
    let draw = |partition: u32| xxh3_64_with_seed(tenant.as_bytes(), u64::from(partition));
    let mut drawn: Vec<(u64, u32)> = (0..partitions.max(1)).map(|p| (draw(p), p)).collect();
    let place = shard as usize % share;
    let (_, chosen, _) = drawn.select_nth_unstable_by(place, |a, b| b.cmp(a));
    chosen.1
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::record::SHARDS;

    fn share(tenant: &str, partitions: u32, per_tenant: u32) -> BTreeSet<u32> {
        (0..SHARDS).map(|shard| partition(tenant, shard, partitions, per_tenant)).collect()
    }

    proptest! {
        #[test]
        fn a_tenant_uses_exactly_its_share(
            tenant in "\\PC{0,20}", partitions in 1_u32..100, per_tenant in 1_u32..8,
        ) {
            let used = share(&tenant, partitions, per_tenant);
            prop_assert_eq!(used.len() as u32, per_tenant.min(partitions));
            prop_assert!(used.iter().all(|partition| *partition < partitions));
        }

        #[test]
        fn new_partitions_take_over_and_old_ones_do_not_swap(
            tenant in "\\PC{0,20}", partitions in 4_u32..50,
        ) {
            let before = share(&tenant, partitions, 4);
            let after = share(&tenant, partitions + 1, 4);
            prop_assert!(after.difference(&before).all(|new| *new == partitions));
        }
    }

    #[test]
    fn tenants_are_spread_evenly() {
        let mut load: BTreeMap<u32, u32> = BTreeMap::new();
        for tenant in 0..2000 {
            for partition in share(&format!("tenant-{tenant}"), 16, 4) {
                *load.entry(partition).or_default() += 1;
            }
        }
        assert_eq!(load.len(), 16);
        assert!(load.values().all(|tenants| (400..600).contains(tenants)), "{load:?}");
    }

    #[test]
    fn no_partitions_is_no_panic() {
        assert_eq!(partition("a", 5, 0, 0), 0);
    }
}
