//! For some destinations a point that was taken there: writing it again changes nothing, and
//! shows that the target still takes points.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::destination::Destination;

/// Of how many destinations a point is remembered, by all lanes of a writer together.
pub const DESTINATIONS_MAX: usize = 1000;
/// A longer point is not remembered.
pub const POINT_BYTES_MAX: usize = 1 << 10;

/// A point of our own that any database should take, at the minute.
pub fn probe(now_ns: i64) -> Bytes {
    let minute = now_ns / 60_000_000_000 * 60;
    Bytes::from(format!("tidegate_writer_probe ok=true {minute}000000000\n"))
}

/// At most one point for each destination.
#[derive(Default)]
pub struct GoodPoints(Mutex<HashMap<Destination, Bytes>>);

impl GoodPoints {
    /// The point was taken there.
    pub fn insert(&self, at: &Destination, point: Bytes) {
        if point.len() > POINT_BYTES_MAX {
            return;
        }
        let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if points.len() >= DESTINATIONS_MAX && !points.contains_key(at) {
            points.clear();
        }
        points.insert(at.clone(), point);
    }

    /// The point was not taken this time.
    pub fn remove(&self, at: &Destination) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(at);
    }

    /// A point that was taken there.
    pub fn of(&self, at: &Destination) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_remembered_up_to_both_bounds() {
        let to = |number: usize| Destination { name: number.to_string(), tags: String::new() };
        let points = GoodPoints::default();
        points.insert(&to(0), Bytes::from(vec![b'x'; POINT_BYTES_MAX + 1]));
        assert_eq!(points.of(&to(0)), None);
        for number in 0..DESTINATIONS_MAX {
            points.insert(&to(number), Bytes::from_static(b"m v=1 1"));
        }
        assert!(points.of(&to(0)).is_some());
        points.remove(&to(0));
        assert_eq!(points.of(&to(0)), None);
        points.insert(&to(0), Bytes::from_static(b"m v=1 1"));
        points.insert(&to(DESTINATIONS_MAX), Bytes::from_static(b"m v=1 1"));
        assert_eq!((points.of(&to(1)), points.0.lock().map_or(0, |all| all.len())), (None, 1));
    }
}
