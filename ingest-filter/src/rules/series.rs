//! Which series of a tenant are active, as hashes: those written in this window or the last.
//!
//! ```text
//! window   ──────┬──────────────┬───────
//! previous  a b  │   c d        │          a series that is written again moves to `current`;
//! current   c d  │   a          │          what is left in `previous` at the next turn is gone
//! ```

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long a series is active after it was written, seconds; at most twice as long.
pub const WINDOW_SECONDS: i64 = 3600;

/// Series of all tenants that are remembered, at most; those beyond are let through.
pub const TRACKED_MAX: u64 = 4_000_000;

/// What a series takes in memory: its hash in sets that are half full at worst, once more where it
/// moved from one window to the next.
pub const SERIES_BYTES: u64 = 48;

/// What a tenant takes beside its series: its name, its state, their place in a map.
pub const TENANT_BYTES: u64 = 512;

/// Which part of the memory of requests all of that may take.
const PART_OF_MEMORY: u64 = 4;

/// The memory of what is remembered of all tenants: taken from that of requests, piece by piece.
#[derive(Debug)]
pub struct Tracked {
    /// What is taken of the whole memory, by requests too.
    used: Arc<AtomicU64>,
    /// All that may be.
    limit: u64,
    /// What is remembered.
    bytes: AtomicU64,
}

impl Tracked {
    /// Memory of which `used` says how much is taken, of `limit` bytes.
    pub fn new(used: Arc<AtomicU64>, limit: u64) -> Self {
        Self { used, limit, bytes: AtomicU64::new(0) }
    }

    /// What is remembered takes so many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes bytes; false when there are none for this.
    pub fn take(&self, bytes: u64) -> bool {
        let within =
            |limit: u64| move |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= limit);
        let most = (self.limit / PART_OF_MEMORY).min(TRACKED_MAX * SERIES_BYTES);
        let relaxed = Ordering::Relaxed;
        if self.bytes.fetch_update(relaxed, relaxed, within(most)).is_err() {
            return false;
        }
        let taken = self.used.fetch_update(relaxed, relaxed, within(self.limit)).is_ok();
        if !taken {
            self.bytes.fetch_sub(bytes, relaxed);
        }
        taken
    }

    /// Gives bytes back that were taken.
    pub fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What a tenant may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Active series.
    pub series_max: usize,
    /// New ones in a minute, and at once.
    pub new_per_minute: Option<u32>,
}

/// What a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Active, from now on too.
    Active,
    /// New, and one too many.
    TooMany,
    /// New, and too soon.
    TooFast,
    /// New, and not remembered, as there is no room for any tenant.
    Untracked,
}

/// The active series of one tenant.
#[derive(Debug, Default)]
pub struct Series {
    current: HashSet<u64, Hashed>,
    previous: HashSet<u64, Hashed>,
    turned_at: i64,
    /// New series that may still come, and since when that is so.
    tokens: f64,
    filled_at: Option<i64>,
}

impl Series {
    /// Notes that a series is written at `now`, in seconds, if it may be. `tracked` counts the
    /// series of all tenants.
    pub fn admit(&mut self, hash: u64, now: i64, limits: Limits, tracked: &Tracked) -> Seen {
        self.turn(now, tracked);
        if self.current.contains(&hash) {
            return Seen::Active;
        }
        if self.previous.remove(&hash) {
            self.current.insert(hash);
            return Seen::Active;
        }
        if self.active() >= limits.series_max {
            return Seen::TooMany;
        }
        if let Some(rate) = limits.new_per_minute
            && !self.take_token(now, f64::from(rate))
        {
            return Seen::TooFast;
        }
        if !tracked.take(SERIES_BYTES) {
            return Seen::Untracked;
        }
        self.current.insert(hash);
        Seen::Active
    }

    /// Forgets what is active no more, so that it makes room for other tenants though this one
    /// writes nothing.
    pub fn forget(&mut self, now: i64, tracked: &Tracked) {
        self.turn(now, tracked);
    }

    /// How many there are.
    pub fn active(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    fn turn(&mut self, now: i64, tracked: &Tracked) {
        let since = now.saturating_sub(self.turned_at);
        if since < WINDOW_SECONDS {
            return;
        }
        let mut gone = self.previous.len();
        self.previous = std::mem::take(&mut self.current);
        if since >= 2 * WINDOW_SECONDS {
            gone += self.previous.len();
            self.previous = HashSet::default();
        }
        tracked.give_back(gone as u64 * SERIES_BYTES);
        self.turned_at = now;
    }

    fn take_token(&mut self, now: i64, per_minute: f64) -> bool {
        // A clock that is set back brings none, and none twice.
        let at = self.filled_at.unwrap_or(now);
        let filled = match self.filled_at {
            Some(at) => self.tokens + now.saturating_sub(at).max(0) as f64 * per_minute / 60.0,
            None => per_minute,
        };
        (self.tokens, self.filled_at) = (filled.min(per_minute), Some(at.max(now)));
        let may = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(may));
        may
    }
}

/// What is a hash already is not hashed again.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsItIs(u64);

type Hashed = BuildHasherDefault<AsItIs>;

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { series_max: 3, new_per_minute: None };

    /// Memory with room for so many series.
    fn room(series: u64) -> Tracked {
        Tracked::new(Arc::default(), series * SERIES_BYTES * PART_OF_MEMORY)
    }

    /// How many series are remembered, and take memory.
    fn remembered(tracked: &Tracked) -> u64 {
        assert_eq!(tracked.used.load(Ordering::Relaxed), tracked.bytes());
        tracked.bytes() / SERIES_BYTES
    }

    #[test]
    fn so_many_series_are_active_and_those_that_end_make_room() {
        let (mut series, tracked) = (Series::default(), room(100));
        let now = 10 * WINDOW_SECONDS;
        for hash in 1..=3 {
            assert_eq!(series.admit(hash, now, LIMITS, &tracked), Seen::Active);
        }
        assert_eq!(series.admit(4, now, LIMITS, &tracked), Seen::TooMany);
        assert_eq!(series.admit(1, now, LIMITS, &tracked), Seen::Active);
        let later = now + WINDOW_SECONDS;
        assert_eq!(series.admit(1, later, LIMITS, &tracked), Seen::Active);
        assert_eq!(series.admit(4, later, LIMITS, &tracked), Seen::TooMany, "2 and 3 are active");
        let later = later + WINDOW_SECONDS;
        assert_eq!(series.admit(4, later, LIMITS, &tracked), Seen::Active);
        assert_eq!((series.active(), remembered(&tracked)), (2, 2), "1 and 4");
        let long_after = later + 3 * WINDOW_SECONDS;
        assert_eq!(series.admit(9, long_after, LIMITS, &tracked), Seen::Active);
        assert_eq!((series.active(), remembered(&tracked)), (1, 1));
        // A clock that is set back turns nothing.
        assert_eq!(series.admit(9, now, LIMITS, &tracked), Seen::Active);
    }

    #[test]
    fn series_of_a_tenant_that_writes_no_more_make_room() {
        let (mut series, tracked) = (Series::default(), room(100));
        let now = 10 * WINDOW_SECONDS;
        assert_eq!(series.admit(1, now, LIMITS, &tracked), Seen::Active);
        series.forget(now + WINDOW_SECONDS, &tracked);
        assert_eq!((series.active(), remembered(&tracked)), (1, 1), "it may come back");
        series.forget(now + 2 * WINDOW_SECONDS, &tracked);
        assert_eq!((series.active(), remembered(&tracked)), (0, 0));
    }

    #[test]
    fn new_series_come_at_a_rate() {
        let limits = Limits { series_max: 1000, new_per_minute: Some(2) };
        let (mut series, tracked) = (Series::default(), room(100));
        let now = 10 * WINDOW_SECONDS;
        let mut admit = |hash, now| series.admit(hash, now, limits, &tracked);
        assert_eq!((admit(1, now), admit(2, now)), (Seen::Active, Seen::Active));
        assert_eq!((admit(3, now), admit(1, now)), (Seen::TooFast, Seen::Active));
        assert_eq!((admit(3, now + 29), admit(3, now + 31)), (Seen::TooFast, Seen::Active));
        assert_eq!(admit(4, now + 1), Seen::TooFast, "a clock that is set back brings none");
        let hour = now + 1800;
        assert_eq!((admit(5, hour), admit(6, hour)), (Seen::Active, Seen::Active));
        assert_eq!(admit(7, hour), Seen::TooFast, "no more than a minute's are saved up");
    }

    #[test]
    fn without_room_for_anybody_a_new_series_is_let_through() {
        let (mut series, tracked) = (Series::default(), room(2));
        let mut admit = |hash| series.admit(hash, 0, LIMITS, &tracked);
        assert_eq!((admit(1), admit(2), admit(3)), (Seen::Active, Seen::Active, Seen::Untracked));
        assert_eq!((series.active(), remembered(&tracked)), (2, 2));
    }

    #[test]
    fn what_requests_hold_is_no_room_for_series_nor_is_more_than_a_quarter() {
        let used = Arc::new(AtomicU64::new(395));
        let tracked = Tracked::new(used.clone(), 400);
        assert!(!tracked.take(6) && tracked.take(5) && !tracked.take(1));
        assert_eq!((tracked.bytes(), used.load(Ordering::Relaxed)), (5, 400));
        used.store(5, Ordering::Relaxed);
        assert!(tracked.take(95) && !tracked.take(1), "a quarter");
        tracked.give_back(100);
        assert_eq!((tracked.bytes(), used.load(Ordering::Relaxed)), (0, 0));
        let large = Tracked::new(Arc::default(), u64::MAX);
        assert!(large.take(TRACKED_MAX * SERIES_BYTES) && !large.take(1));
    }
}
