//! Which time the points of a request get that have none of their own: the time of admission, and
//! when the request is sent again the time that it got at first, so that its points are written
//! over themselves. Pure, but for its locks.
//!
//! ```text
//! first try   body, no answer ─► stamped 12:00:00.1, remembered
//! again       the same body   ─► stamped 12:00:00.1 too: the same points
//! ```
//!
//! A request is the same when its tenant, database and body are, and
//!
//! - it names itself in `Idempotency-Key`, or keeps its `x-request-id`: whatever became of it; or
//! - it was not answered with success: a client that got its 2xx and sends the same bytes again
//!   means a new point.
//!
//! What is remembered is bounded in time and in number, and a tenant pushes out only what stands
//! in its own bucket. Another gateway knows nothing of it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// How long a request is known again, nanoseconds.
pub const KNOWN_FOR_NS: i64 = 300 * 1_000_000_000;
/// Tenants share this many buckets.
const BUCKETS: usize = 64;
/// How many requests a bucket remembers.
const BUCKET_MAX: usize = 1024;

/// What was remembered of requests whose points got their time here.
#[derive(Debug)]
pub struct Stamps {
    buckets: Vec<Mutex<Bucket>>,
}

/// Requests by what they are, in the order in which they came.
#[derive(Debug, Default)]
struct Bucket {
    /// The time of its points, and when it came first.
    known: HashMap<u128, (i64, i64)>,
    order: VecDeque<(u128, i64)>,
}

/// The time for the points of one request.
#[derive(Debug)]
pub struct Stamp {
    stamps: Arc<Stamps>,
    bucket: usize,
    /// By its own name, where it has one.
    named: Option<u128>,
    /// By its content alone.
    content: u128,
    /// Nanoseconds since 1970.
    pub ns: i64,
    now_ns: i64,
}

/// What a request is known by.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// The database that it names.
    pub database: &'a str,
    /// `Idempotency-Key`, else `x-request-id`.
    pub name: Option<&'a str>,
    /// Its decoded body.
    pub body: &'a [u8],
}

impl Stamps {
    /// Nothing is remembered yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { buckets: (0..BUCKETS).map(|_| Mutex::default()).collect() })
    }

    /// The time for the points of a request that came at `now_ns`.
    pub fn of(self: &Arc<Self>, request: Identity<'_>, now_ns: i64) -> Stamp {
        let tenant = xxh3_64(request.tenant.as_bytes());
        let database = xxh3_64(request.database.as_bytes());
        let content = xxh3_128_with_seed(request.body, tenant ^ database.rotate_left(32));
        let named = request.name.map(|name| {
            let content = content.to_le_bytes();
            xxh3_128_with_seed(name.as_bytes(), xxh3_64(&content)) ^ 1
        });
        let bucket = tenant as usize % BUCKETS;
        let ns = {
            let mut known = self.bucket(bucket);
            known.forget_before(now_ns - KNOWN_FOR_NS);
            let found = named.and_then(|named| known.known.get(&named));
            found.or_else(|| known.known.get(&content)).map_or(now_ns, |(ns, _)| *ns)
        };
        Stamp { stamps: self.clone(), bucket, named, content, ns, now_ns }
    }

    fn bucket(&self, number: usize) -> MutexGuard<'_, Bucket> {
        self.buckets[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    /// The time is in use: a point got it. To be called before anything is stored.
    pub fn remember(&self) {
        let mut bucket = self.stamps.bucket(self.bucket);
        for key in self.named.into_iter().chain([self.content]) {
            bucket.insert(key, self.ns, self.now_ns);
        }
    }

    /// The client is told that its points are stored.
    pub fn acknowledge(&self) {
        self.stamps.bucket(self.bucket).known.remove(&self.content);
    }
}

impl Bucket {
    fn insert(&mut self, key: u128, ns: i64, now_ns: i64) {
        let Entry::Vacant(vacant) = self.known.entry(key) else { return };
        vacant.insert((ns, now_ns));
        self.order.push_back((key, now_ns));
        while self.order.len() > BUCKET_MAX {
            self.forget_first();
        }
    }

    fn forget_before(&mut self, ns: i64) {
        while self.order.front().is_some_and(|(_, came)| *came < ns) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((key, came)) = self.order.pop_front() else { return };
        // It may have been acknowledged, and have come anew.
        if self.known.get(&key).is_some_and(|(_, known)| *known == came) {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(tenant: &'a str, name: Option<&'a str>, body: &'a str) -> Identity<'a> {
        Identity { tenant, database: "", name, body: body.as_bytes() }
    }

    /// Comes at `now`; is answered with success or not.
    fn serve(stamps: &Arc<Stamps>, request: Identity<'_>, now: i64, answered: bool) -> i64 {
        let stamp = stamps.of(request, now);
        stamp.remember();
        if answered {
            stamp.acknowledge();
        }
        stamp.ns
    }

    #[test]
    fn a_request_that_failed_keeps_its_time_when_it_comes_again() {
        let stamps = Stamps::new();
        let sent = request("acme", None, "m f=1");
        assert_eq!(serve(&stamps, sent, 10, false), 10);
        assert_eq!(serve(&stamps, sent, 20, false), 10);
        assert_eq!(serve(&stamps, request("bolt", None, "m f=1"), 25, false), 25);
        assert_eq!(serve(&stamps, request("acme", None, "m f=2"), 26, false), 26);
        let other = Identity { database: "other", ..sent };
        assert_eq!(serve(&stamps, other, 27, false), 27);
        assert_eq!(serve(&stamps, sent, 30, true), 10);
        // It was acknowledged, so the same bytes are a new point.
        assert_eq!(serve(&stamps, sent, 40, true), 40);
        assert_eq!(serve(&stamps, sent, 50, false), 50);
        // That it was known before does not make it forgotten sooner.
        assert_eq!(serve(&stamps, sent, 49 + KNOWN_FOR_NS, false), 50);
        assert_eq!(serve(&stamps, sent, 51 + KNOWN_FOR_NS, false), 51 + KNOWN_FOR_NS);
    }

    #[test]
    fn a_request_with_a_name_keeps_its_time_after_success_too() {
        let stamps = Stamps::new();
        let sent = request("acme", Some("a"), "m f=1");
        assert_eq!(serve(&stamps, sent, 10, true), 10);
        assert_eq!(serve(&stamps, sent, 20, true), 10);
        assert_eq!(serve(&stamps, request("acme", Some("b"), "m f=1"), 30, true), 30);
        assert_eq!(serve(&stamps, request("acme", Some("a"), "m f=2"), 40, true), 40);
        assert_eq!(serve(&stamps, request("acme", None, "m f=1"), 50, true), 50);
        assert_eq!(serve(&stamps, sent, 60, true), 10);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let stamps = Stamps::new();
        let bodies: Vec<_> = (0..3 * BUCKET_MAX).map(|number| number.to_string()).collect();
        for body in &bodies {
            serve(&stamps, request("acme", Some("n"), body), 10, false);
            serve(&stamps, request("acme", None, body), 10, true);
        }
        let (known, order) = stamps.buckets.iter().fold((0, 0), |(known, order), bucket| {
            let bucket = bucket.lock().expect("no panic");
            (known + bucket.known.len(), order + bucket.order.len())
        });
        assert!(known <= BUCKET_MAX && order <= BUCKET_MAX, "{known} {order}");
        let last = request("acme", Some("n"), &bodies[bodies.len() - 1]);
        assert_eq!(stamps.of(last, 20).ns, 10);
        assert_eq!(stamps.of(request("acme", Some("n"), "0"), 20).ns, 20);
    }
}
