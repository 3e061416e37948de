//! How fast a counter is asked for, seen from this replica. Integers alone, so that a simulation
//! repeats exactly. Not a metric.

/// The stretch over which a rate is taken, and the demand a block covers, in microseconds.
pub const HORIZON_MICROS: u64 = 250_000;

/// Of news, one part in so many is taken for lasting.
const NEWS_PARTS: u64 = 4;

/// Hits per second, in thousandths.
pub type MilliRate = u64;

/// Counts hits and knows their rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Meter {
    hits: u64,
    since_micros: u64,
    settled: MilliRate,
}

impl Meter {
    /// A meter that starts at `now_micros`.
    pub fn new(now_micros: u64) -> Self {
        Self { hits: 0, since_micros: now_micros, settled: 0 }
    }

    /// Counts.
    pub fn add(&mut self, hits: u64, now_micros: u64) {
        self.settle(now_micros);
        self.hits = self.hits.saturating_add(hits);
    }

    /// The rate of the last stretches; of the running one as soon as that is higher.
    pub fn rate(&mut self, now_micros: u64) -> MilliRate {
        self.settle(now_micros);
        self.settled.max(per_second(self.hits, HORIZON_MICROS))
    }

    /// The same, but of what is new in the running stretch only one part in [`NEWS_PARTS`]: what is
    /// claimed for a rate that rises is then little, soon claimed again, and observed each time.
    pub fn cautious_rate(&mut self, now_micros: u64) -> MilliRate {
        let news = self.rate(now_micros).saturating_sub(self.settled);
        self.settled + news / NEWS_PARTS
    }

    fn settle(&mut self, now_micros: u64) {
        let elapsed = now_micros.saturating_sub(self.since_micros);
        if elapsed < HORIZON_MICROS && now_micros >= self.since_micros {
            return;
        }
        let measured = per_second(self.hits, elapsed.max(HORIZON_MICROS));
        // Old news weigh nothing, recent ones as much as new ones.
        self.settled = match elapsed > 4 * HORIZON_MICROS {
            true => measured,
            false => self.settled / 2 + measured / 2,
        };
        (self.hits, self.since_micros) = (0, now_micros);
    }
}

fn per_second(hits: u64, micros: u64) -> MilliRate {
    hits.saturating_mul(1_000_000_000) / micros.max(1)
}

/// Hits that come within `micros` at a rate, rounded down.
pub fn expected(rate: MilliRate, micros: u64) -> u64 {
    let hits = u128::from(rate) * u128::from(micros) / 1_000_000_000;
    u64::try_from(hits).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_forgotten() {
        let mut meter = Meter::new(0);
        for at in 0..2000 {
            meter.add(1, at * 1000);
        }
        let rate = meter.rate(2_000_000);
        assert!((950_000..=1_050_000).contains(&rate), "{rate}");
        assert!(meter.rate(60_000_000) < 1000, "a minute later it has gone");
    }

    #[test]
    fn a_burst_counts_at_once_and_a_clock_may_go_back() {
        let mut meter = Meter::new(5_000_000);
        meter.add(500, 5_000_001);
        assert_eq!(meter.rate(5_000_002), 2_000_000);
        meter.add(1, 1_000_000);
        assert!(meter.rate(1_000_001) > 0);
        meter.add(u64::MAX, 2_000_000);
        meter.add(u64::MAX, 2_000_000);
        assert!(meter.rate(2_000_000) > 0);
    }

    #[test]
    fn what_is_expected() {
        assert_eq!(expected(2_000_000, HORIZON_MICROS), 500);
        assert_eq!(expected(1000, 999_999), 0);
        assert_eq!(expected(u64::MAX, u64::MAX), u64::MAX);
    }
}
