//! A shape as it is planned: for as long as no window of its counters ends, so that most seconds find it
//! planned already.
//!
//! ```text
//! second ─► planned before, and its windows go on? ─ yes ─► the hits of this row
//!                                                  └ no ──► plan ─► keep, for the seconds to come
//! ```

use std::ops::Range;

use crate::decide::hit::Hit;
use crate::decide::plan::{Line, Plan, plan};
use crate::decide::request::RequestError;
use crate::decide::settings::Settings;
use crate::decide::settle::PerHit;
use crate::decide::trial::{Tried, has_trials, planned};
use crate::limits::quotas::Quotas;
use crate::record::reader::TrafficRow;
use crate::record::shape::Shape;
use crate::simulate::arrivals::share;

/// Plans that are kept, about 64 MB of them; shapes beyond are planned in each second.
pub const PLANS_MAX: usize = 65_536;

/// A shape with its plan.
pub struct Planned<'a> {
    /// Its plan, or why it has none.
    pub plan: Result<Plan<'a>, RequestError>,
    /// Limits that are tried on it.
    pub tried: Vec<Tried<'a>>,
    /// The seconds that are in the windows of all its counters.
    seconds: Range<u64>,
    /// Which descriptors brought no hits: that decides how they are planned.
    idle: PerHit<bool>,
}

impl<'a> Planned<'a> {
    /// Plans a row at a second.
    pub fn of(
        row: &TrafficRow,
        shape: &'a Shape,
        quotas: &'a Quotas,
        settings: &Settings,
        second: u64,
    ) -> Self {
        let requests = row.requests.max(1);
        let request = shape.request(|at| share(row.hits[at], requests, 0));
        let plan = plan(&request, quotas, settings, second);
        let tried = match &plan {
            Ok(plan) if has_trials(plan) => planned(&request, plan, quotas, settings, second),
            _ => Vec::new(),
        };
        let hits = plan.iter().flat_map(|plan| &plan.hits);
        let windows = hits.chain(tried.iter().map(|tried| &tried.hit)).map(|hit| hit.window);
        let seconds = windows.fold(0..u64::MAX, |all, window| {
            all.start.max(window.start)..all.end.min(window.end())
        });
        let idle = row.hits.iter().map(|hits| *hits == 0).collect();
        Self { plan, tried, seconds, idle }
    }

    /// Whether the plan is also that of another row of the shape at this second.
    pub fn fits(&self, row: &TrafficRow, second: u64) -> bool {
        let alike = row.hits.iter().zip(&self.idle).all(|(hits, idle)| (*hits == 0) == *idle);
        alike && self.seconds.contains(&second)
    }

    /// Makes the hits those of the `n`th request of a row; not where there is no plan.
    pub fn set_hits(&mut self, row: &TrafficRow, n: u64) -> bool {
        let Ok(Plan { lines, hits: planned, .. }) = &mut self.plan else { return false };
        let set = |hit: &mut Hit, hits: u64| {
            let amount = share(hits, row.requests, n);
            // Whether there are any decides how they are planned, and is the same for the whole row.
            if hit.amount > 0 && amount > 0 {
                hit.amount = amount;
            }
        };
        for (line, hits) in lines.iter().zip(&row.hits) {
            if let Line::Counted(counted) = line {
                set(&mut planned[counted.hit], *hits);
            }
        }
        for tried in &mut self.tried {
            set(&mut tried.hit, row.hits[tried.descriptor]);
        }
        true
    }
}

/// Plans by shape.
#[derive(Default)]
pub struct Plans<'a> {
    by_shape: Vec<Option<Box<Planned<'a>>>>,
    kept: usize,
}

impl<'a> Plans<'a> {
    /// Takes out the plan of a row's shape, if there is one that fits.
    pub fn take(&mut self, row: &TrafficRow, second: u64) -> Option<Box<Planned<'a>>> {
        let planned = self.by_shape.get_mut(row.shape)?.take()?;
        self.kept -= 1;
        Some(planned).filter(|planned| planned.fits(row, second))
    }

    /// Keeps the plan of a shape, if there is room.
    pub fn keep(&mut self, shape: usize, planned: Box<Planned<'a>>) {
        if self.kept >= PLANS_MAX {
            return;
        }
        if self.by_shape.len() <= shape {
            self.by_shape.resize_with(shape + 1, || None);
        }
        // A second may have several rows of a shape.
        self.kept += usize::from(self.by_shape[shape].is_none());
        self.by_shape[shape] = Some(planned);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::limits::quotas::Library;
    use crate::record::shape::ShapeDescriptor;

    fn quotas() -> Quotas {
        let text = "domain: edge\ndescriptors:\n  - {key: a, rate_limit: {unit: minute, requests_per_unit: 5}}\n  \
                    - {key: b, rate_limit: {unit: second, requests_per_unit: 5}}\n";
        let contents = [(PathBuf::from("a.yaml"), Ok(text.as_bytes().to_vec()))].into();
        Library::default().update(&contents).quotas
    }

    fn shape(keys: &[&str]) -> Shape {
        let descriptor = |key: &&str| ShapeDescriptor {
            entries: vec![((*key).to_owned(), "x".to_owned())],
            ..ShapeDescriptor::default()
        };
        let descriptors = keys.iter().map(descriptor).collect();
        Shape { domain: "edge".to_owned(), class: String::new(), descriptors }
    }

    fn row(shape: usize, hits: &[u64]) -> TrafficRow {
        let (hits, refusals) = (hits.to_vec(), vec![]);
        TrafficRow { shape, requests: 1, hits, milliseconds: (0, 0), refusals }
    }

    #[test]
    fn a_plan_lasts_as_long_as_its_shortest_window() {
        let (quotas, settings) = (quotas(), Settings::default());
        let check = |keys: &[&str], second: u64, expected: [bool; 4]| {
            let shape = shape(keys);
            let one = row(0, &vec![1; keys.len()]);
            let planned = Planned::of(&one, &shape, &quotas, &settings, second);
            let fits = [second, second + 1, second + 59, second + 60];
            assert_eq!(fits.map(|second| planned.fits(&one, second)), expected, "{keys:?}");
        };
        check(&["a"], 600, [true, true, true, false]);
        check(&["a", "b"], 600, [true, false, false, false]);
        check(&["none"], 600, [true; 4]);
        let shape = shape(&["a"]);
        let planned = Planned::of(&row(0, &[1]), &shape, &quotas, &settings, 600);
        assert!(planned.fits(&row(0, &[7]), 600), "how many hits there are is of the row");
        assert!(!planned.fits(&row(0, &[0]), 600), "that there are none is of the plan");
        assert!(!planned.fits(&row(0, &[1]), 599), "a clock that went back");
    }

    #[test]
    fn so_many_plans_are_kept() {
        let (quotas, settings, shape) = (quotas(), Settings::default(), shape(&["a"]));
        let mut plans = Plans::default();
        for at in 0..PLANS_MAX + 5 {
            let planned = Planned::of(&row(at, &[1]), &shape, &quotas, &settings, 600);
            plans.keep(at, Box::new(planned));
        }
        assert_eq!(plans.kept, PLANS_MAX);
        assert!(plans.take(&row(PLANS_MAX, &[1]), 600).is_none(), "there was no room");
        let first = plans.take(&row(0, &[1]), 601).expect("kept");
        assert!(plans.take(&row(0, &[1]), 601).is_none(), "it is out");
        plans.keep(0, first);
        assert!(plans.take(&row(0, &[1]), 700).is_none(), "its window is over");
        assert_eq!(plans.kept, PLANS_MAX - 1);
    }
}
