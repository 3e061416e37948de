//! When each request of a second came, as far as a recording knows: the requests of a row are spread
//! evenly over the milliseconds between its first and its last.
//!
//! ```text
//! row 0, 4 requests, 0–999 ms   ├──0───────0───────0───────0──┤
//! row 1, 2 requests, 400–599 ms          ├─1──1─┤
//! order                            0   1 0 1   0    0
//! ```

use crate::record::reader::TrafficRow;

/// The most requests of one second that are simulated; a row beyond it is left out whole.
pub const REQUESTS_MAX: u64 = 8 << 20;

/// A request of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Microseconds within the second.
    pub micros: u32,
    /// Whose row.
    pub row: u32,
}

/// Puts the requests of a second into `order`, the first one first. Returns the requests of rows for which
/// there was no room.
pub fn arrivals(rows: &[TrafficRow], order: &mut Vec<Arrival>) -> u64 {
    order.clear();
    let mut left_out = 0;
    for (at, row) in rows.iter().enumerate() {
        if order.len() as u64 + row.requests > REQUESTS_MAX {
            left_out += row.requests;
            continue;
        }
        let (first, last) = row.milliseconds;
        let (from, span) = (u64::from(first) * 1000, u64::from(last - first + 1) * 1000);
        for n in 0..row.requests {
            let micros = from + span * (2 * n + 1) / (2 * row.requests);
            order.push(Arrival { micros: micros as u32, row: at as u32 });
        }
    }
    order.sort_unstable();
    left_out
}

/// The hits of the `n`th of all requests of a row, where they bring `hits` together.
pub fn share(hits: u64, requests: u64, n: u64) -> u64 {
    hits / requests + u64::from(n < hits % requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(requests: u64, milliseconds: (u16, u16)) -> TrafficRow {
        TrafficRow { shape: 0, requests, hits: vec![requests], milliseconds, refusals: vec![] }
    }

    #[test]
    fn requests_are_spread_and_in_order() {
        let mut order = Vec::new();
        assert_eq!(arrivals(&[row(4, (0, 999)), row(2, (400, 599))], &mut order), 0);
        let micros: Vec<(u32, u32)> = order.iter().map(|one| (one.row, one.micros)).collect();
        let expected =
            [(0, 125_000), (0, 375_000), (1, 450_000), (1, 550_000), (0, 625_000), (0, 875_000)];
        assert_eq!(micros, expected);
    }

    #[test]
    fn a_second_is_bounded() {
        let mut order = Vec::new();
        let rows = [row(REQUESTS_MAX + 1, (0, 0)), row(3, (0, 0)), row(u64::MAX / 2, (0, 0))];
        assert_eq!(arrivals(&rows, &mut order), REQUESTS_MAX + 1 + u64::MAX / 2);
        assert_eq!(order.len(), 3);
    }

    #[test]
    fn hits_are_shared_without_loss() {
        for (hits, requests) in [(10, 3), (2, 5), (0, 4), (9, 9)] {
            let all: u64 = (0..requests).map(|n| share(hits, requests, n)).sum();
            assert_eq!(all, hits);
        }
    }
}
