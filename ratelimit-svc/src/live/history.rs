//! How many requests were admitted and refused, by class, in each ten seconds of the last hour. Pure:
//! the time and the counts come from the caller.
//!
//! ```text
//! 360 points of 10 s, oldest first; the last is the one being filled
//! ```

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use crate::limits::stats::{ClassCounts, RuleCounts};

/// The length of a point, seconds.
pub const POINT_SECONDS: u64 = 10;
/// Points that are kept: an hour.
pub const POINTS_MAX: usize = 360;

/// What became of requests of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Admitted.
    pub admitted: u64,
    /// Refused.
    pub refused: u64,
}

/// One class in the last hour.
#[derive(Clone, Debug)]
struct Line {
    class: Box<str>,
    /// Its counts when the point being filled began.
    before: Decided,
    points: VecDeque<Decided>,
}

/// The last hour.
#[derive(Debug, Default)]
pub struct History {
    /// Which point is being filled, since 1970.
    point: Option<u64>,
    lines: Vec<Line>,
}

/// The counts of each class so far.
pub fn totals(counts: &RuleCounts) -> Vec<(&str, Decided)> {
    let of = |class: &ClassCounts, over: usize| {
        class.decided.iter().map(|reason| reason[over].load(Ordering::Relaxed)).sum()
    };
    let both = |class| Decided { admitted: of(class, 0), refused: of(class, 1) };
    counts.classes().map(|class| (&*class.name, both(class))).collect()
}

impl History {
    /// Takes the counts so far in, at `now_seconds`.
    pub fn observe(&mut self, totals: &[(&str, Decided)], now_seconds: u64) {
        let point = now_seconds / POINT_SECONDS;
        let passed = self.point.map_or(0, |last| point.saturating_sub(last));
        // A clock that goes back goes on filling the same point.
        self.point = self.point.max(Some(point));
        for (class, now) in totals {
            let known = self.lines.iter().position(|line| *line.class == **class);
            let at = known.unwrap_or_else(|| {
                let before = Decided::default();
                let points = VecDeque::from([Decided::default()]);
                self.lines.push(Line { class: (*class).into(), before, points });
                self.lines.len() - 1
            });
            self.lines[at].turn(passed, *now);
        }
    }

    /// Each class with its points, oldest first; all end now.
    pub fn lines(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = Decided>)> {
        self.lines.iter().map(|line| (&*line.class, line.points.iter().copied()))
    }
}

impl Line {
    fn turn(&mut self, passed: u64, now: Decided) {
        let since = Decided {
            admitted: now.admitted.saturating_sub(self.before.admitted),
            refused: now.refused.saturating_sub(self.before.refused),
        };
        if let Some(last) = self.points.back_mut() {
            *last = since;
        }
        if passed > 0 {
            self.before = now;
            for _ in 0..passed.min(POINTS_MAX as u64) {
                self.points.push_back(Decided::default());
            }
            let surplus = self.points.len().saturating_sub(POINTS_MAX);
            self.points.drain(..surplus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(history: &History) -> Vec<(u64, u64)> {
        let (_, points) = history.lines().next().expect("a class");
        points.map(|point| (point.admitted, point.refused)).collect()
    }

    #[test]
    fn counts_become_points_of_ten_seconds() {
        let mut history = History::default();
        let at = |admitted, refused| [("ingest", Decided { admitted, refused })];
        history.observe(&at(1, 0), 100);
        history.observe(&at(5, 1), 109);
        assert_eq!(points(&history), [(5, 1)]);
        history.observe(&at(6, 1), 110);
        history.observe(&at(9, 4), 111);
        assert_eq!(points(&history), [(6, 1), (3, 3)]);
        history.observe(&at(9, 4), 145);
        assert_eq!(points(&history), [(6, 1), (3, 3), (0, 0), (0, 0), (0, 0)]);
        // A clock that is set back, and one that leaps a year.
        history.observe(&at(10, 4), 100);
        assert_eq!(points(&history).last(), Some(&(1, 0)));
        history.observe(&at(10, 4), 40_000_000);
        assert_eq!(points(&history).len(), POINTS_MAX);
        assert!(points(&history).iter().all(|point| *point == (0, 0)));
    }
}
