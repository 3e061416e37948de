//! Pauses that double. Pure: the random number is handed in.

use std::time::Duration;

/// Pauses from `initial` to `max`, each about twice the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    random_factor: f64,
    next: Duration,
}

impl Backoff {
    /// Pauses moved by up to `random_factor`, from 0 to 1, of themselves either way.
    pub fn new(initial: Duration, max: Duration, random_factor: f64) -> Self {
        Self { initial, max, random_factor, next: initial.min(max) }
    }

    /// The next pause, with a number that spreads those of several replicas.
    pub fn next(&mut self, random: u64) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        let spread = 2.0 * (random as f64 / u64::MAX as f64) - 1.0;
        pause.mul_f64(1.0 + self.random_factor * spread)
    }

    /// Begins again with the first pause.
    pub fn reset(&mut self) {
        self.next = self.initial.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_last_and_start_anew() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(10), seconds(60), 0.0);
        for expected in [10, 20, 40, 60, 60] {
            assert_eq!(backoff.next(7), seconds(expected));
        }
        backoff.reset();
        assert_eq!(backoff.next(7), seconds(10));
        let mut backoff = Backoff::new(seconds(100), seconds(60), 0.5);
        assert_eq!(backoff.next(0), seconds(30));
        assert_eq!(backoff.next(u64::MAX), seconds(90));
    }
}
