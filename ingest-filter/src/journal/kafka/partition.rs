//! Which partition a record goes to. Pure.
//!
//! A tenant uses only some of the partitions (a shuffle shard), so that a tenant that floods the
//! journal delays few others. Its virtual shards are dealt out over that many slots, and a slot
//! is a partition. The slots are a random sample of the partitions, drawn as from a stream
//! (Vitter's algorithm R) with a hash of tenant and partition as the dice:
//!
//! ```text
//! the first partitions     0 1 2 3          each its slot
//! partition n after them   n ↘              with the chance slots/(n+1) it takes one of them over
//! ```
//!
//! So the slots are different partitions, all partitions are equally likely, and one more
//! partition changes nothing or gives one slot to the new partition: no shard ever moves between
//! partitions that were there before.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The partition of a tenant's virtual shard, below `partitions`.
pub fn partition(tenant: &str, shard: u32, partitions: u32, per_tenant: u32) -> u32 {
    let slots = per_tenant.clamp(1, partitions.max(1));
    let slot = shard % slots;
    let mut chosen = slot;
    for newer in slots..partitions {
        let dice = xxh3_64_with_seed(tenant.as_bytes(), u64::from(newer));
        // The high half decides between 0 and `newer`, evenly.
        let drawn = ((dice >> 32) * u64::from(newer + 1)) >> 32;
        if drawn == u64::from(slot) {
            chosen = newer;
        }
    }
    chosen
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
        fn more_partitions_move_no_shard_but_to_a_new_one(
            tenant in "\\PC{0,20}", partitions in 4_u32..50, more in 1_u32..20,
        ) {
            let mut moved = 0;
            for shard in 0..SHARDS {
                let before = partition(&tenant, shard, partitions, 4);
                let after = partition(&tenant, shard, partitions + more, 4);
                prop_assert!(after == before || after >= partitions, "{} to {}", before, after);
                moved += u32::from(after != before);
            }
            prop_assert!(more > 1 || moved == 0 || moved == SHARDS / 4, "one slot at most");
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
