//! When enough rounds were run: a ratio of two costs is known once the interval that holds it with 95 % is
//! narrow. Pure.
//!
//! ```text
//! rounds   1   2   3   4        5   6        7   8      …   most
//!          └─ at least ─┘ narrow? └─ A B, B A ┘ narrow?     done
//! ```
//!
//! Whoever looks again and again stops a little too early now and then: the interval is a measure of
//! when to stop, and not one of what is written down.

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopping {
    /// Rounds in any case.
    pub least: usize,
    /// Rounds after which no more are run.
    pub most: usize,
    /// How far the ratio may be from what was found, in shares of it.
    pub width: f64,
}

impl Stopping {
    /// So many rounds, whatever they find.
    pub fn after(rounds: usize) -> Self {
        Self { least: rounds, most: rounds, width: 0.0 }
    }

    /// Whether another round is wanted for a ratio that was so in each round so far. Rounds come in pairs,
    /// there and back again.
    pub fn wants_more(&self, ratios: &[f64]) -> bool {
        match ratios.len() {
            few if few < self.least => true,
            many if many >= self.most => false,
            odd if odd % 2 == 1 => true,
            _ => half_width(ratios) > self.width,
        }
    }
}

/// Half of the interval that holds the mean of such ratios with 95 %, in shares of it: by Student's t on their
/// logarithms. Infinite for fewer than two, and where one is no positive number.
pub fn half_width(ratios: &[f64]) -> f64 {
    let count = ratios.len() as f64;
    let is_bad = |ratio: &f64| !(ratio.is_finite() && *ratio > 0.0);
    if ratios.len() < 2 || ratios.iter().any(is_bad) {
        return f64::INFINITY;
    }
    let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / count;
    let squares = ratios.iter().map(|ratio| (ratio.ln() - mean).powi(2)).sum::<f64>();
    let deviation = (squares / (count - 1.0)).sqrt();
    (student(ratios.len() - 1) * deviation / count.sqrt()).exp_m1()
}

/// Student's t for 95 %, both sides, by degrees of freedom.
fn student(freedom: usize) -> f64 {
    const T: [f64; 15] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131,
    ];
    T.get(freedom.saturating_sub(1)).copied().unwrap_or(2.131)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Stopping = Stopping { least: 4, most: 8, width: 0.01 };

    #[test]
    fn a_narrow_ratio_stops_and_a_wide_one_goes_on() {
        let check = |ratios: &[f64], expected: bool| {
            assert_eq!(RULE.wants_more(ratios), expected, "{ratios:?}");
        };
        check(&[], true);
        check(&[1.0, 1.0], true);
        check(&[1.0, 1.001, 0.999, 1.0], false);
        check(&[1.0, 1.1, 0.9, 1.0], true);
        // Half of a pair says nothing.
        check(&[1.0, 1.001, 0.999, 1.0, 1.0], true);
        check(&[1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.2], false);
        check(&[1.0, f64::NAN, 1.0, 1.0], true);
    }

    #[test]
    fn so_many_rounds_are_so_many() {
        let three = Stopping::after(3);
        assert!(three.wants_more(&[1.0, 2.0]) && !three.wants_more(&[1.0, 2.0, 3.0]));
    }

    #[test]
    fn the_interval_is_students() {
        // Logarithms -0.01 and 0.01: deviation 0.0141, divided by √2, times 12.706.
        let two = [(-0.01_f64).exp(), 0.01_f64.exp()];
        assert!((half_width(&two) - 0.127_06_f64.exp_m1()).abs() < 1e-9);
        assert_eq!(half_width(&[3.0; 5]), 0.0);
        // The same ratios in another unit are as wide.
        let wide = [1.0, 1.02, 0.99, 1.01];
        let scaled = wide.map(|ratio| ratio * 7.0);
        assert!((half_width(&wide) - half_width(&scaled)).abs() < 1e-12);
        assert_eq!(half_width(&[1.0]), f64::INFINITY);
        assert_eq!(half_width(&[1.0, -1.0]), f64::INFINITY);
    }

    #[test]
    fn more_rounds_of_the_same_are_narrower() {
        let round = [0.98, 1.02];
        let widths = (1..12).map(|times| half_width(&round.repeat(times)));
        assert!(widths.collect::<Vec<_>>().is_sorted_by(|wider, narrower| wider > narrower));
    }
}
