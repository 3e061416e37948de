//! How much of a shared limit a class may take at an instant: what the classes above it are not
//! expected to need, and what those below are promised. Only this; the count is `settle`'s.
//!
//! ```text
//!  0 ├──────── taken ────────┤                                               ├ capacity
//!    └──────────── cap of the class ─────────────┤ floors │ margin │ expected ┤
//!                                                  below    above    above, shrinks to nothing
//! ```
//!
//! A class is expected to go on as it did: at the average of its last windows or, if that is
//! more, at the rate of this one, which a counter that was idle has since its first hit. What is expected until a fixed window ends is kept; a sliding
//! window and a bucket are given room back meanwhile, so of them only what is expected beyond
//! that. Whatever is expected, a cap is never more than the capacity, so a forecast cannot break
//! the limit, and the cap of a class never depends on the classes below but for their floors.
//!
//! Numbers are doubles, and each sum is taken in the order of the ladder: the Lua script of the
//! Redis store computes the same, bit by bit.

use std::time::Duration;

use crate::decide::algorithm::{Outlook, outlook};
use crate::decide::hit::Hit;
use crate::limits::class::PerClass;
use crate::limits::sharing::{ClassShare, Guarantee, How};
use crate::limits::unit::micros;

/// Windows without demand, the present one aside, after which a class reserves nothing.
pub const IDLE_WINDOWS_MAX: f64 = 4.0;
/// Windows the figures of a counter are of use after the one they are from.
pub const WINDOWS_KEPT: u64 = 6;
/// How far each window moves the average demand.
pub const SMOOTHING: f64 = 0.25;
/// Demand further above the average than so many of its standard deviations is no chance: the
/// average begins anew there, lest an overload is believed in only after some windows.
pub const RISE_DEVIATIONS: f64 = 3.0;
/// The margin of a class, in standard deviations of a Poisson arrival.
pub const MARGIN_DEVIATIONS: f64 = 3.0;
/// The margins of all classes together are at most this part of the capacity.
pub const MARGIN_MAX: f64 = 0.1;
/// Before so much of a window has passed, its rate is that of a window so old: the first hit of a
/// window is no flood.
pub const ELAPSED_MIN: f64 = 0.125;
/// Yet a rate that so young a window shows beyond doubt counts at once: an overload begins with a
/// flood. Beyond doubt is what is asked for less its standard deviation.
pub const EARLY_MIN: f64 = 1.0 / 128.0;
/// Demand counts up to so many times what a window gives: more cannot be kept for it, and would keep
/// the classes below out long after the flood is over.
pub const DEMAND_MAX: f64 = 2.0;

/// What is known of one class of a shared counter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Hits admitted in the window.
    pub used: f64,
    /// Hits asked for in the window, refused ones included.
    pub demand: f64,
    /// The average demand of the windows before.
    pub average: f64,
    /// The number of the last window with demand.
    pub last: f64,
}

impl Figures {
    const NONE: Self = Self { used: 0.0, demand: 0.0, average: 0.0, last: -1.0 - IDLE_WINDOWS_MAX };
}

/// What is known of the classes of a shared counter.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// The window since the epoch that `used` and `demand` are of; in a window that begins
    /// idle, and the part of it that was over when the counter was asked for the first time.
    pub number: f64,
    /// Highest class first.
    pub classes: PerClass<Figures>,
}

impl Usage {
    fn new(number: f64, classes: usize) -> Self {
        Self { number, classes: PerClass::from_elem(Figures::NONE, classes) }
    }

    /// The window that the figures are of.
    fn window(&self) -> f64 {
        self.number.floor()
    }

    /// The first second, since the epoch, at which the figures are of no more use.
    pub fn ends_at(&self, hit: &Hit) -> u64 {
        (self.number as u64 + WINDOWS_KEPT).saturating_mul(hit.window.seconds.max(1))
    }

    /// The figures as they are in the window of `terms`. Figures from a clock that is ahead stay
    /// where they are, one window ahead at most.
    pub fn rolled(usage: Option<&Self>, terms: &Terms) -> Self {
        let Some(usage) = usage.filter(|usage| usage.classes.len() == terms.classes) else {
            return Self::new(terms.number, terms.classes);
        };
        if usage.window() > terms.number + 1.0 {
            return Self::new(terms.number, terms.classes);
        }
        let classes = PerClass::from_slice(&usage.classes);
        let mut usage = Self { number: usage.number, classes };
        let windows = terms.number - usage.window();
        if windows <= 0.0 {
            return usage;
        }
        usage.number = terms.number;
        for class in &mut usage.classes {
            let rose = class.average + RISE_DEVIATIONS * class.average.sqrt();
            if class.average == 0.0 || class.demand > rose {
                class.average = class.demand;
            } else {
                class.average += (class.demand - class.average) * SMOOTHING;
            }
            let mut more = windows - 1.0;
            while more > 0.0 && more <= IDLE_WINDOWS_MAX {
                class.average -= class.average * SMOOTHING;
                more -= 1.0;
            }
            if terms.number - class.last > IDLE_WINDOWS_MAX {
                class.average = 0.0;
            }
            (class.used, class.demand) = (0.0, 0.0);
        }
        usage
    }
}

/// What the cap of a class follows from, but for the state of the counter.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The rank of the class on the ladder.
    pub rank: usize,
    /// How many classes there are.
    pub classes: usize,
    /// The window of the moment, since the epoch.
    pub number: f64,
    /// The part of it that is over, at least [`ELAPSED_MIN`].
    pub elapsed: f64,
    /// The same, at least [`EARLY_MIN`].
    pub early: f64,
    /// For how many windows the demand of higher classes is kept.
    pub horizon: f64,
    /// The arrivals of how many windows the margins cover.
    pub margin_horizon: f64,
    /// The largest margin of one class.
    pub margin_max: f64,
    /// What there is at all.
    pub capacity: f64,
    /// The most demand of one class that counts in a window.
    pub demand_max: f64,
    /// Room that comes back within the horizon.
    pub inflow: f64,
    /// The same, as a part of what the last window held.
    pub inflow_of_previous: f64,
    /// What each class is given whatever the forecast: floor and minimum, in hits.
    pub guarantees: Option<PerClass<(f64, f64)>>,
}

impl Terms {
    /// The terms of a hit that shares its limit by forecast.
    pub fn of(hit: &Hit, share: &ClassShare, now: Duration) -> Option<Self> {
        let How::Forecast { guarantees } = &share.how else { return None };
        let classes = usize::from(share.classes);
        let period = hit.window.seconds.max(1).saturating_mul(1_000_000);
        let now = micros(now);
        // A hit of a window that is over has nothing left to wait for.
        let (number, gone) = match hit.algorithm.has_windows() {
            true => {
                let start = hit.window.start.saturating_mul(1_000_000);
                (hit.window.start / hit.window.seconds.max(1), now.saturating_sub(start))
            }
            false => (now / period, now % period),
        };
        let left = period.saturating_sub(gone) as f64 / period as f64;
        let capacity = f64::from(hit.capacity());
        let Outlook { horizon, margin_horizon, inflow, inflow_of_previous, melting } =
            outlook(hit, left);
        let below = share.classes.saturating_sub(1).max(1);
        let guarantees = guarantees.as_ref().map(|guarantees| {
            let of = |given: &Guarantee| {
                // A bucket may hold more or less than a period refills.
                let floor = given.floor.of(hit.limit.min(hit.capacity()));
                (f64::from(floor), f64::from(given.reserve_min.of(hit.capacity())) * melting)
            };
            guarantees.iter().map(of).collect()
        });
        Some(Self {
            rank: usize::from(share.rank),
            classes,
            number: number as f64,
            elapsed: (1.0 - left).max(ELAPSED_MIN),
            early: (1.0 - left).max(EARLY_MIN),
            horizon,
            margin_horizon,
            margin_max: capacity * MARGIN_MAX / f64::from(below),
            capacity,
            demand_max: capacity.max(f64::from(hit.limit)) * DEMAND_MAX,
            inflow,
            inflow_of_previous,
            guarantees,
        })
    }

    /// The number of figures that begin now in a window; see [`Usage::number`].
    fn first(&self, window: f64) -> f64 {
        let is_within = self.early > EARLY_MIN && self.early < 1.0;
        if is_within { window + self.early } else { window }
    }

    /// How far the counter may be taken by the class, in whole hits: `value` is what is taken
    /// now, `previous` what the last window of a sliding one held.
    pub fn cap(&self, usage: &Usage, value: f64, previous: f64) -> f64 {
        let (mut expected, mut promised, mut margin, mut floors) = (0.0, 0.0, 0.0, 0.0);
        let early = (self.early - (usage.number - usage.window())).max(EARLY_MIN);
        for (at, class) in usage.classes.iter().enumerate() {
            let active = usage.window() - class.last <= IDLE_WINDOWS_MAX;
            let (floor, minimum) = self.guarantees.as_ref().map_or((0.0, 0.0), |list| list[at]);
            let unmet = if active { (floor - class.used).max(0.0) } else { 0.0 };
            if at < self.rank {
                let rate = if active { self.rate(class, early) } else { 0.0 };
                let guarantee = minimum.max(unmet);
                expected += (rate * self.horizon).max(guarantee);
                promised += guarantee;
                let deviation = (rate * self.margin_horizon).sqrt();
                margin += (MARGIN_DEVIATIONS * deviation).min(self.margin_max);
            }
            if at > self.rank {
                floors += unmet;
            }
        }
        let inflow = self.inflow + previous * self.inflow_of_previous;
        let need = (expected - inflow).max(promised);
        let cap = (self.capacity - need - margin - floors).floor().max(0.0);
        self.within_floor(usage, value).map_or(cap, |floor| floor.max(cap))
    }

    /// What a class is expected to ask for in a window.
    fn rate(&self, class: &Figures, early: f64) -> f64 {
        let certain = (class.demand - class.demand.sqrt()) / early;
        class.average.max(class.demand / self.elapsed).max(certain)
    }

    /// How far the class may take the counter on the strength of its own floor.
    fn within_floor(&self, usage: &Usage, value: f64) -> Option<f64> {
        let guarantees = self.guarantees.as_ref()?;
        let own = guarantees[self.rank].0 - usage.classes[self.rank].used;
        if own <= 0.0 {
            return None;
        }
        let mut others = 0.0;
        for (at, class) in usage.classes.iter().enumerate() {
            if at != self.rank && usage.window() - class.last <= IDLE_WINDOWS_MAX {
                others += (guarantees[at].0 - class.used).max(0.0);
            }
        }
        Some((value + own).min(self.capacity - others))
    }

    /// Notes that the class asked for hits.
    pub fn ask(&self, usage: &mut Usage, amount: f64) {
        let window = usage.window();
        if usage.classes.iter().all(|class| window - class.last > IDLE_WINDOWS_MAX) {
            usage.number = self.first(window);
        }
        let class = &mut usage.classes[self.rank];
        class.demand = (class.demand + amount).min(self.demand_max);
        class.last = class.last.max(window);
    }

    /// Notes that what the class asked for was no demand on this limit: another one refused it. A
    /// class without other demand is idle again. Of figures of a later window nothing is taken.
    pub fn withdraw(&self, usage: &mut Usage, amount: f64) {
        if usage.window() == self.number {
            let class = &mut usage.classes[self.rank];
            class.demand = (class.demand - amount).max(0.0);
            if class.demand == 0.0 && class.average == 0.0 {
                class.last = Figures::NONE.last;
            }
        }
    }

    /// Notes that the class was given hits, or gave them back.
    pub fn take(&self, usage: &mut Usage, amount: f64, is_refund: bool) {
        let class = &mut usage.classes[self.rank];
        class.used = if is_refund { (class.used - amount).max(0.0) } else { class.used + amount };
    }
}

#[cfg(test)]
mod tests;
