//! What time it is. The clock of this machine until Redis gave the time, and from then on the
//! clock of Redis, so that replicas agree on windows however far their own clocks are apart.
//!
//! ```text
//! steady    ├──────────┼──────────►   the monotonic clock: steps of the wall clock do not reach it
//! offset               └ Redis says how far off it is, once a second
//! now       = steady + offset
//! ```
//!
//! Redis is asked where it is probed and checked, never for a request. While it is away the last
//! offset holds: the monotonic clock drifts by microseconds a second.

pub mod offset;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use offset::{Offset, Sample};

/// A clock that is off by more than a quarter of the shortest window, a second, is reported.
pub const SKEW_MAX: Duration = Duration::from_millis(250);

const UNKNOWN: i64 = i64::MIN;

/// A clock that can be corrected.
pub struct Clock {
    wall: fn() -> Duration,
    began: Duration,
    started: Instant,
    samples: Mutex<Offset>,
    /// Microseconds to add to the steady clock, [`UNKNOWN`] before Redis gave the time.
    correction: AtomicI64,
    skewed: AtomicBool,
    skew: Gauge<f64, AtomicU64>,
    skews: Counter,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(wall, Gauge::default(), Counter::default())
    }
}

impl Clock {
    /// A clock that starts from `wall`, reports in `skew` by how many seconds that one is behind
    /// Redis, and counts in `skews` how often it was found off by more than [`SKEW_MAX`].
    pub fn new(wall: fn() -> Duration, skew: Gauge<f64, AtomicU64>, skews: Counter) -> Self {
        Self {
            wall,
            began: wall(),
            started: Instant::now(),
            samples: Mutex::default(),
            correction: AtomicI64::new(UNKNOWN),
            skewed: AtomicBool::new(false),
            skew,
            skews,
        }
    }

    /// The time since the epoch.
    pub fn now(&self) -> Duration {
        self.at(Instant::now())
    }

    /// The time since the epoch at an instant that was just read: whoever has one need not read
    /// another clock.
    pub fn at(&self, instant: Instant) -> Duration {
        match self.correction.load(Ordering::Relaxed) {
            UNKNOWN => (self.wall)(),
            correction => {
                let steady = self.began + instant.saturating_duration_since(self.started);
                offset::shifted(steady, correction)
            }
        }
    }

    /// A reading to take before and after Redis is asked for the time.
    pub fn steady(&self) -> Duration {
        self.began + self.started.elapsed()
    }

    /// Redis gave the time; a sample from another server than the last begins anew.
    pub fn correct(&self, sample: Sample, same_server: bool) {
        let correction = {
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            if !same_server {
                samples.forget();
            }
            samples.take(sample)
        };
        self.correction.store(correction, Ordering::Relaxed);
        self.watch(offset::between((self.wall)(), self.now()));
    }

    /// Tells of a machine whose clock is wrong, when that begins and when it ends.
    fn watch(&self, skew_micros: i64) {
        let seconds = skew_micros as f64 / 1e6;
        self.skew.set(seconds);
        let skewed = Duration::from_micros(skew_micros.unsigned_abs()) > SKEW_MAX;
        if skewed {
            self.skews.inc();
        }
        match (self.skewed.swap(skewed, Ordering::Relaxed), skewed) {
            (false, true) => {
                tracing::warn!(
                    behind_seconds = seconds,
                    "the clock of this machine is off, using Redis'"
                );
            }
            (true, false) => tracing::info!(behind_seconds = seconds, "the clock is right again"),
            _ => {}
        }
    }
}

/// The wall clock of this machine, since the epoch.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn an_hour_ahead() -> Duration {
        wall() + Duration::from_secs(3600)
    }

    #[test]
    fn it_follows_the_clock_of_redis() {
        let clock = Clock::new(an_hour_ahead, Gauge::default(), Counter::default());
        assert!(clock.now() >= wall() + Duration::from_secs(3599));
        let server = Duration::from_secs(1_000_000);
        let asked = clock.steady();
        clock.correct(Sample { asked, answered: asked, server }, false);
        let now = clock.now();
        assert!(now >= server && now < server + Duration::from_secs(60), "{now:?}");
        assert_eq!(clock.skews.get(), 1);
        assert!(clock.skew.get() < -3600.0, "we are ahead");
    }

    #[test]
    fn a_right_clock_is_not_told_of() {
        let clock = Clock::default();
        let asked = clock.steady();
        clock.correct(Sample { asked, answered: asked, server: asked }, false);
        assert_eq!(clock.skews.get(), 0);
        assert!(clock.skew.get().abs() < SKEW_MAX.as_secs_f64());
    }
}
