//! How large a block is.
//!
//! ```text
//! b = min( max( what comes in 0.25 s, 2 % of the pool ÷ replicas ), what is left ÷ (2 × replicas) )
//! ```
//!
//! The first part covers a quarter of a second at the present rate, or the rest of the window, the
//! second keeps slow counters from asking too often (where classes share the pool a quarter of a
//! percent as the window begins, and less as it ends), the third halves blocks as the limit comes
//! near, so that no replica is refused while another holds much: some `2N ln(P / 2N) + 2N` claims use up a pool
//! `P` between `N` replicas. A replica holds less than two blocks of a class, for it claims anew
//! only when less than half of one is left, so tokens stranded in a window stay below
//! `N × (b + b/2)`, and `b` is at most [`BLOCK_MAX`] and at most `P ÷ 2N`, or one request.
//!
//! What a replica holds as it ends is lost until the window ends. Where that is an hour or more, a
//! block follows the rate, over two seconds, and all blocks together are at most one in [`LONG`] of the
//! pool; [`LONG_HITS`] are always in order. So a restart of all replicas costs less than 0.1 % of a limit,
//! or `24 N` hits where that is more.

/// The most hits of one block, whatever the rate; a request for more is claimed exactly.
pub const BLOCK_MAX: u64 = 65_536;

/// All replicas together claim at least this part of the pool at once: one in so many.
pub const ALONE: u64 = 50;
/// The same for each of the classes that share a pool, as the window begins: what a higher one holds
/// in vain is lost to those below.
pub const SHARED: u64 = 400;

/// Windows from this length on are long, in seconds.
pub const LONG_SECONDS: u64 = 3600;
/// All replicas and classes together hold at most so much of the pool of a long window: one in so many.
pub const LONG: u64 = 2000;
/// A block of a long window may have so many hits however small the limit, all classes together; and
/// it has no fewer where the limit is large.
pub const LONG_HITS: u64 = 16;

/// Hits to claim of a long window where so many are `coming`, and so many `classes` share a pool of
/// which `taken` is gone; 0 when all is.
pub fn size_of_long(
    coming: u64,
    (least, classes): (u64, u64),
    pool: u64,
    taken: u64,
    replicas: u32,
) -> u64 {
    let (replicas, classes) = (u64::from(replicas.max(1)), classes.max(1));
    let by_share = pool.div_ceil(least.max(1).saturating_mul(replicas)).min(LONG_HITS);
    let most = pool / LONG.saturating_mul(classes).saturating_mul(replicas);
    let most = most.max(LONG_HITS / classes).max(by_share);
    let by_rest = pool.saturating_sub(taken).div_ceil(2 * replicas);
    coming.clamp(by_share, most).min(by_rest).min(BLOCK_MAX)
}

/// Hits to claim where so many are `coming`, and at `least` one in so many of a pool of which
/// `taken` is gone; 0 when all is.
pub fn size(coming: u64, least: u64, pool: u64, taken: u64, replicas: u32) -> u64 {
    let replicas = u64::from(replicas.max(1));
    let by_rate = coming.saturating_add(1);
    let by_share = pool.div_ceil(least.max(1) * replicas);
    let by_rest = pool.saturating_sub(taken).div_ceil(2 * replicas);
    by_rate.max(by_share).min(by_rest).min(BLOCK_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_follow_rate_share_and_rest() {
        let check = |coming, pool, taken, replicas, expected| {
            assert_eq!(size(coming, ALONE, pool, taken, replicas), expected);
        };
        check(0, 1000, 0, 1, 20);
        check(0, 1000, 0, 3, 7);
        check(100, 1000, 0, 1, 101);
        check(100, 1000, 900, 1, 50);
        check(100, 1000, 999, 3, 1);
        check(100, 1000, 1000, 3, 0);
        check(100, 1000, 5000, 3, 0);
        check(0, 10, 0, 3, 1);
        check(0, 0, 0, 0, 0);
        check(u64::MAX, u64::MAX, 0, 1, BLOCK_MAX);
    }

    #[test]
    fn a_pool_is_used_up_in_few_claims() {
        let (pool, replicas, mut taken, mut claims) = (1000, 3, 0, 0);
        while taken < pool {
            taken += size(u64::MAX, ALONE, pool, taken, replicas);
            claims += 1;
        }
        // 2N ln(P / 2N) + 2N
        assert!(claims <= 37, "{claims}");
    }

    #[test]
    fn blocks_of_long_windows_follow_the_rate_within_bounds() {
        let check = |coming, (least, classes), pool, taken, replicas, expected| {
            assert_eq!(size_of_long(coming, (least, classes), pool, taken, replicas), expected);
        };
        check(0, (ALONE, 1), 1_000_000, 0, 1, LONG_HITS);
        check(100, (ALONE, 1), 1_000_000, 0, 1, 100);
        check(u64::MAX, (ALONE, 1), 1_000_000, 0, 1, 500);
        check(u64::MAX, (SHARED, 4), 1_000_000, 0, 1, 125);
        check(u64::MAX, (ALONE, 1), 1_000_000, 0, 5, 100);
        // Of small limits no more than in short windows, and a few hits at a time.
        check(0, (ALONE, 1), 1200, 0, 3, 8);
        check(u64::MAX, (ALONE, 1), 1200, 0, 3, LONG_HITS);
        check(u64::MAX, (SHARED, 4), 1200, 0, 3, 4);
        check(u64::MAX, (ALONE, 1), 1000, 990, 1, 5);
        check(u64::MAX, (ALONE, 1), 1000, 1000, 1, 0);
        check(0, (0, 0), 0, 0, 0, 0);
        check(u64::MAX, (ALONE, 1), u64::MAX, 0, 1, BLOCK_MAX);
    }

    proptest! {
        #[test]
        fn a_block_never_passes_what_is_left(
            rate in any::<u64>(), pool in 0..1u64 << 40, taken in 0..1u64 << 40, n in 0..100u32,
        ) {
            let b = size(rate, ALONE, pool, taken, n);
            prop_assert!(b <= pool.saturating_sub(taken) && b <= BLOCK_MAX);
            prop_assert_eq!(b == 0, taken >= pool, "something while there is something");
        }
    }
}
