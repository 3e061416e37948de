//! How many claims are made in a tenth of a second once the store is back: no more than twice as
//! many as usual. Not which ones, and nothing at other times.
//!
//! ```text
//! claims in 100 ms   ▃▄▃▃▄▃▃        ▆▆▅▄▃▃▄▃
//!                    usual    out   at most twice as many, for two seconds
//! ```

/// For so long after the store is back claims are bounded.
pub const BOUNDED_MICROS: u64 = 2_000_000;
/// So many are made in any case.
pub const CLAIMS_MIN: u64 = 8;

const TENTH_MICROS: u64 = 100_000;
/// The usual number is kept in parts of a claim, and moves by a part of what it is off.
const PARTS: u64 = 16;

/// Counts claims and bounds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    tenth: u64,
    made: u64,
    usual_parts: u64,
    bounded_until: u64,
}

impl Pace {
    /// The store is back: claims are bounded for a while.
    pub fn bound(&mut self, now_micros: u64) {
        self.bounded_until = now_micros.saturating_add(BOUNDED_MICROS);
    }

    /// How many of `max` claims may be made now.
    pub fn allows(&mut self, max: usize, now_micros: u64) -> usize {
        self.turn(now_micros);
        if now_micros >= self.bounded_until {
            return max;
        }
        // A little less than twice, for the usual is an average.
        let most = (self.usual_parts * 7 / 4 / PARTS).max(CLAIMS_MIN);
        max.min(usize::try_from(most.saturating_sub(self.made)).unwrap_or(max))
    }

    /// Claims were made.
    pub fn made(&mut self, claims: usize) {
        self.made += claims as u64;
    }

    /// A tenth of a second in which nothing is claimed says nothing of those in which something is.
    fn turn(&mut self, now_micros: u64) {
        let tenth = now_micros / TENTH_MICROS;
        if tenth == self.tenth {
            return;
        }
        if self.made > 0 && now_micros >= self.bounded_until {
            let usual = self.usual_parts;
            self.usual_parts = usual - usual / PARTS + self.made;
        }
        (self.tenth, self.made) = (tenth, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_at_most_twice_the_usual_once_the_store_is_back() {
        let mut pace = Pace::default();
        for tenth in 0..200 {
            let now = tenth * TENTH_MICROS;
            assert_eq!(pace.allows(1000, now), 1000, "unbounded");
            pace.made(50);
        }
        let back = 300 * TENTH_MICROS;
        pace.bound(back);
        let most = pace.allows(1000, back);
        assert!((75..=100).contains(&most), "{most}");
        pace.made(most);
        assert_eq!(pace.allows(1000, back + TENTH_MICROS / 2), 0, "the rest waits");
        assert_eq!(pace.allows(1000, back + TENTH_MICROS), most);
        assert_eq!(pace.allows(1000, back + BOUNDED_MICROS), 1000);
    }

    #[test]
    fn some_are_made_by_who_never_made_any() {
        let mut pace = Pace::default();
        pace.bound(0);
        assert_eq!(pace.allows(64, 1), CLAIMS_MIN as usize);
    }
}
