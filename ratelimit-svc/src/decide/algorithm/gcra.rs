//! The generic cell rate algorithm, ITU-T I.371: a token bucket as one instant.
//!
//! ```text
//!             now                    tat      now + burst_tolerance
//!   ───────────┼──────────────────────┼─────────────────┼────► time
//!              └─ taken, in hits of ──┘└──── left ──────┘
//!                 emission_interval
//! ```
//!
//! The theoretical arrival time `tat` is when the bucket will be full again. A hit moves it by
//! one `emission_interval`, and is over when that takes it beyond `now + burst_tolerance`. On
//! any interval of length `t` at most `burst + rate × t` hits pass.
//!
//! Time is counted in ticks of 1/limit µs. Then the emission interval is a whole number, the
//! period in µs, whatever the limit, and nothing is rounded. Stores keep whole µs and the part.

use std::time::Duration;

use crate::decide::hit::Hit;
use crate::limits::algorithm::Algorithm;
use crate::limits::unit::micros;

/// An instant since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tat {
    /// Whole microseconds.
    pub micros: u64,
    /// The rest in 1/limit µs.
    pub part: u64,
}

/// A bucket without its content.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Ticks in a microsecond: the hits that one period refills.
    pub rate: u64,
    /// Tokens of a full bucket.
    pub burst: u64,
    /// Ticks that refill one token: the emission interval.
    pub(crate) period_micros: u64,
}

impl Bucket {
    /// The bucket of a hit. A limit of 0 is a bucket that holds nothing.
    pub fn of(hit: &Hit) -> Self {
        let burst = match hit.algorithm {
            Algorithm::TokenBucket { burst } if hit.limit > 0 => burst,
            _ => 0,
        };
        let period_micros = hit.window.seconds.max(1).saturating_mul(1_000_000);
        Self { rate: u64::from(hit.limit.max(1)), burst: u64::from(burst), period_micros }
    }

    /// How far so many hits move the instant. More hits than fit are as one more than fits.
    pub fn cost(&self, hits: u64) -> Tat {
        self.tat(u128::from(hits.min(self.burst + 1)) * u128::from(self.period_micros))
    }

    /// How far ahead of now the instant may be: the time a whole bucket takes to refill.
    pub fn burst_tolerance(&self) -> Tat {
        self.tat(u128::from(self.burst) * u128::from(self.period_micros))
    }

    /// The instant as it is at `now`: a bucket is never more than full, nor emptier than empty,
    /// as one would be that was filled under a larger burst or by a clock that was ahead.
    pub fn rolled(&self, tat: Option<Tat>, now: Duration) -> Tat {
        let now = self.now(now);
        let ticks = tat.map_or(now, |tat| self.ticks(tat));
        self.tat(ticks.clamp(now, now + self.ticks(self.burst_tolerance())))
    }

    /// The rolled instant after the hit, and whether that is over.
    pub fn apply(&self, tat: Tat, now: Duration, hit: &Hit) -> (Tat, bool) {
        let (now, cost) = (self.now(now), self.ticks(self.cost(hit.amount)));
        let after = match hit.is_refund {
            true => self.ticks(tat).saturating_sub(cost).max(now),
            false => self.ticks(tat) + cost,
        };
        (self.tat(after), after > now + self.ticks(self.burst_tolerance()))
    }

    /// Tokens taken, begun ones included.
    pub fn used(&self, tat: Tat, now: Duration) -> u64 {
        let taken = self.ticks(tat).saturating_sub(self.now(now));
        taken.div_ceil(u128::from(self.period_micros)) as u64
    }

    /// The same as a double, which a store without wide integers can compute as well.
    pub fn used_double(&self, tat: Tat, now: Duration) -> f64 {
        let ahead = tat.micros as f64 - micros(now) as f64;
        let (part, rate) = (tat.part as f64, self.rate as f64);
        ((ahead * rate + part) / self.period_micros as f64).ceil()
    }

    /// The bucket as a class sees it from which so much of it is withheld.
    pub fn withholding(self, withheld: u64) -> Self {
        Self { burst: self.burst.saturating_sub(withheld), ..self }
    }

    /// See [`super::Reading::reset`].
    pub fn reset(&self, tat: Tat, now: Duration, hit: &Hit, over: bool) -> Duration {
        if over && !hit.is_refund && hit.amount > self.burst {
            return Duration::from_micros(self.period_micros);
        }
        let until = match over && !hit.is_refund {
            true => {
                let after = self.ticks(tat) + self.ticks(self.cost(hit.amount));
                after.saturating_sub(self.ticks(self.burst_tolerance()))
            }
            false => self.ticks(tat),
        };
        let wait = until.saturating_sub(self.now(now)).div_ceil(u128::from(self.rate));
        Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    fn now(&self, now: Duration) -> u128 {
        u128::from(micros(now)) * u128::from(self.rate)
    }

    fn ticks(&self, tat: Tat) -> u128 {
        // A part from a larger limit is one that is all but over.
        u128::from(tat.micros) * u128::from(self.rate) + u128::from(tat.part.min(self.rate - 1))
    }

    fn tat(&self, ticks: u128) -> Tat {
        let rate = u128::from(self.rate);
        Tat { micros: u64::try_from(ticks / rate).unwrap_or(u64::MAX), part: (ticks % rate) as u64 }
    }
}
