//! How many points the journal has confirmed since this gateway started, by hour of admission and
//! tenant, for `ingest-filter audit totals`. Pure.
//!
//! Not metrics: tenants are no labels. Bounded: at the bound the oldest hour is forgotten, and the
//! page says from which hour on it is complete.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

/// Nanoseconds of an hour.
const HOUR_NS: i64 = 3_600_000_000_000;
/// Rows of tenants and hours at most: a thousand tenants for four days.
pub const ROWS_MAX: usize = 100_000;

/// The counts.
#[derive(Debug, Default)]
pub struct Confirmed {
    /// By hour since 1970.
    hours: BTreeMap<i64, HashMap<String, u64>>,
    rows: usize,
    /// Hours before this one are forgotten.
    complete_from: i64,
    /// Points that found no room in an hour that alone fills the bound.
    left_out: u64,
}

impl Confirmed {
    /// The journal has confirmed so many points, admitted then.
    pub fn add(&mut self, tenant: &str, admitted_at_ns: i64, points: u64) {
        let hour = admitted_at_ns.div_euclid(HOUR_NS);
        if hour < self.complete_from {
            return;
        }
        if let Some(count) = self.hours.get_mut(&hour).and_then(|hour| hour.get_mut(tenant)) {
            *count += points;
            return;
        }
        if self.rows >= ROWS_MAX && !self.forget_before(hour) {
            self.left_out += points;
            return;
        }
        self.hours.entry(hour).or_default().insert(tenant.to_owned(), points);
        self.rows += 1;
    }

    /// The page `/confirmed`.
    pub fn described(&self) -> Value {
        let hour_ms = HOUR_NS / 1_000_000;
        let hours = self.hours.iter();
        let hours =
            hours.map(|(hour, points)| json!({ "hour_ms": hour * hour_ms, "points": points }));
        json!({
            "complete_from_ms": self.complete_from * hour_ms,
            "left_out": self.left_out,
            "hours": hours.collect::<Vec<_>>(),
        })
    }

    /// Forgets the oldest hour, when it is before this one.
    fn forget_before(&mut self, hour: i64) -> bool {
        let Some(oldest) = self.hours.first_entry().filter(|oldest| *oldest.key() < hour) else {
            return false;
        };
        self.complete_from = oldest.key() + 1;
        self.rows -= oldest.remove().len();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_counted_by_hour_and_tenant() {
        let mut confirmed = Confirmed::default();
        confirmed.add("a", HOUR_NS, 2);
        confirmed.add("a", 2 * HOUR_NS - 1, 3);
        confirmed.add("b", 2 * HOUR_NS, 1);
        let expected = json!([
            { "hour_ms": 3_600_000, "points": { "a": 5 } },
            { "hour_ms": 7_200_000, "points": { "b": 1 } },
        ]);
        let page = confirmed.described();
        assert_eq!((&page["hours"], &page["complete_from_ms"]), (&expected, &json!(0)));
    }

    #[test]
    fn the_oldest_hour_makes_room_and_one_hour_alone_is_bounded() {
        let mut confirmed = Confirmed::default();
        confirmed.add("old", HOUR_NS, 1);
        for tenant in 0..ROWS_MAX {
            confirmed.add(&tenant.to_string(), 2 * HOUR_NS, 1);
        }
        assert_eq!((confirmed.rows, confirmed.complete_from, confirmed.left_out), (ROWS_MAX, 2, 0));
        confirmed.add("one more", 2 * HOUR_NS, 7);
        confirmed.add("5", 2 * HOUR_NS, 1);
        confirmed.add("old", HOUR_NS, 1);
        assert_eq!((confirmed.rows, confirmed.left_out), (ROWS_MAX, 7));
        assert_eq!(confirmed.hours[&2]["5"], 2);
    }
}
