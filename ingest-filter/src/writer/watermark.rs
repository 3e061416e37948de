//! Up to which time of their own the points of each tenant are in the target. Pure.
//!
//! ```text
//! points of acme, by their timestamps    10:00  10:02  10:01  | 10:03 (still queued)
//! watermark of acme                                10:02      ▲ written up to here
//! ```
//!
//! The newest point counts, whatever comes late behind it. A timestamp in the future counts as
//! now, so that one wrong clock does not hide a tenant that has fallen behind.

use std::collections::BTreeMap;

/// The tenant of all that have no watermark of their own.
pub const OTHER: &str = "other";

/// The newest time written, by tenant, for the first so many tenants; all others share one.
#[derive(Debug)]
pub struct Watermarks {
    tenants_max: usize,
    newest_ns: BTreeMap<String, i64>,
}

impl Watermarks {
    /// For `tenants_max` tenants and all others together.
    pub fn new(tenants_max: usize) -> Self {
        Self { tenants_max, newest_ns: BTreeMap::new() }
    }

    /// Points up to `newest_ns` are written; gives under which name they count, and the watermark.
    pub fn wrote<'a>(&mut self, tenant: &'a str, newest_ns: i64, now_ns: i64) -> (&'a str, i64) {
        let own = self.newest_ns.keys().filter(|name| *name != OTHER).count();
        let known = self.newest_ns.contains_key(tenant);
        let tenant = if known || own < self.tenants_max { tenant } else { OTHER };
        let newest_ns = newest_ns.min(now_ns);
        let mark = self.newest_ns.entry(tenant.to_owned()).or_insert(newest_ns);
        *mark = newest_ns.max(*mark);
        (tenant, *mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_counts_and_the_future_is_now() {
        let mut marks = Watermarks::new(1);
        assert_eq!(marks.wrote("acme", 20, 100), ("acme", 20));
        assert_eq!(marks.wrote("acme", 10, 100), ("acme", 20), "late points change nothing");
        assert_eq!(marks.wrote("acme", 500, 100), ("acme", 100));
        assert_eq!(marks.wrote("acme", 101, 102), ("acme", 101), "time goes on");
    }

    #[test]
    fn no_more_tenants_than_the_bound_are_named() {
        let mut marks = Watermarks::new(2);
        assert_eq!(marks.wrote("a", 1, 9).0, "a");
        assert_eq!(marks.wrote("b", 1, 9).0, "b");
        assert_eq!(marks.wrote("c", 3, 9), (OTHER, 3));
        assert_eq!(marks.wrote("d", 2, 9), (OTHER, 3));
        assert_eq!(marks.wrote("a", 5, 9), ("a", 5), "who was named stays so");
        assert_eq!(marks.newest_ns.len(), 3);
        assert_eq!(Watermarks::new(0).wrote("a", 1, 9), (OTHER, 1));
    }
}
