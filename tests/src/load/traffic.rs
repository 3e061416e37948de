//! Which request goes out next: one of a set of encoded messages, chosen by popularity or by share.
//! Pure and repeatable: the same traffic every time.

/// One encoded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The message or body.
    pub message: Vec<u8>,
    /// The class its outcome is counted under.
    pub class: usize,
    /// The counter that it meets at the server, for admitted against limit.
    pub counter: usize,
}

/// How requests are chosen.
#[derive(Clone, Debug)]
enum Choice {
    /// One after the other.
    Cycle,
    /// By a cumulative distribution, at random.
    Random(Vec<f64>),
    /// By a cumulative distribution, as evenly as can be.
    Even(Vec<f64>),
}

/// A set of requests and the order they come in.
#[derive(Clone, Debug)]
pub struct Traffic {
    requests: Vec<Request>,
    classes: Vec<String>,
    choice: Choice,
    turn: u64,
    random: u64,
}

impl Traffic {
    fn new(requests: Vec<Request>, classes: Vec<String>, choice: Choice) -> Self {
        assert!(!requests.is_empty(), "traffic has requests");
        Self { requests, classes, choice, turn: 0, random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Messages in turn, all of one class, each with a counter of its own.
    pub fn cycle(messages: Vec<Vec<u8>>) -> Self {
        Self::new(each(messages), vec!["all".to_owned()], Choice::Cycle)
    }

    /// Messages by Zipf's law: the one at rank r is met in proportion to 1 / r^`exponent`; 0 makes
    /// all equally likely.
    pub fn zipf(messages: Vec<Vec<u8>>, exponent: f64) -> Self {
        let weights = (1..=messages.len()).map(|rank| (rank as f64).powf(-exponent));
        let choice = Choice::Random(cumulative(weights));
        Self::new(each(messages), vec!["all".to_owned()], choice)
    }

    /// One message for each class, by shares that need not add up to 1, evenly interleaved; all of
    /// them meet one counter.
    pub fn shares(classes: Vec<(String, Vec<u8>, f64)>) -> Self {
        let choice = Choice::Even(cumulative(classes.iter().map(|(_, _, share)| *share)));
        let names = classes.iter().map(|(name, _, _)| name.clone()).collect();
        let request = |(class, (_, message, _))| Request { message, class, counter: 0 };
        let requests = classes.into_iter().enumerate().map(request).collect();
        Self::new(requests, names, choice)
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The number of counters that the requests meet.
    pub fn counters(&self) -> usize {
        1 + self.requests.iter().map(|request| request.counter).max().unwrap_or_default()
    }

    /// The request of that index.
    pub fn request(&self, index: usize) -> &Request {
        &self.requests[index]
    }

    /// The index of the next request. It stays the same until [`Traffic::advance`].
    pub fn next(&self) -> usize {
        match &self.choice {
            Choice::Cycle => (self.turn % self.requests.len() as u64) as usize,
            Choice::Random(cumulative) => pick(cumulative, unit(mix(self.random))),
            // Multiples of the golden ratio are spread evenly over the unit interval.
            Choice::Even(cumulative) => {
                pick(cumulative, (self.turn as f64 * 0.618_033_988_749_894_9).fract())
            }
        }
    }

    /// Goes on to the next request.
    pub fn advance(&mut self) {
        self.turn += 1;
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
}

fn each(messages: Vec<Vec<u8>>) -> Vec<Request> {
    let request = |(counter, message)| Request { message, class: 0, counter };
    messages.into_iter().enumerate().map(request).collect()
}

fn cumulative(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sums: Vec<f64> = weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let total = sums.last().copied().unwrap_or(1.0);
    sums.iter_mut().for_each(|sum| *sum /= total);
    sums
}

fn pick(cumulative: &[f64], at: f64) -> usize {
    cumulative.partition_point(|sum| *sum <= at).min(cumulative.len() - 1)
}

/// splitmix64's finisher.
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(mut traffic: Traffic, turns: u32) -> Vec<u32> {
        let mut counts = vec![0; traffic.requests.len()];
        for _ in 0..turns {
            counts[traffic.next()] += 1;
            traffic.advance();
        }
        counts
    }

    fn messages(n: usize) -> Vec<Vec<u8>> {
        (0..n).map(|n| vec![n as u8]).collect()
    }

    #[test]
    fn zipf_follows_its_law() {
        let counts = count(Traffic::zipf(messages(10), 1.0), 100_000);
        let harmonic: f64 = (1..=10).map(|rank| 1.0 / f64::from(rank)).sum();
        for (at, count) in counts.iter().enumerate() {
            let expected = 100_000.0 / (at as f64 + 1.0) / harmonic;
            assert!((f64::from(*count) / expected - 1.0).abs() < 0.05, "{counts:?}");
        }
        let even = count(Traffic::zipf(messages(10), 0.0), 100_000);
        assert!(even.iter().all(|count| (9_500..10_500).contains(count)), "{even:?}");
    }

    #[test]
    fn shares_are_met_closely_in_every_stretch() {
        let classes = [("a", 0.3), ("b", 0.4), ("c", 0.6), ("d", 1.0)];
        let class = |(name, share): (&str, f64)| (name.to_owned(), vec![], share);
        let traffic = Traffic::shares(classes.map(class).to_vec());
        let counts = count(traffic, 2300);
        for (count, expected) in counts.iter().zip([300_u32, 400, 600, 1000]) {
            assert!(count.abs_diff(expected) <= 3, "{counts:?}");
        }
    }

    #[test]
    fn a_cycle_goes_round() {
        assert_eq!(count(Traffic::cycle(messages(3)), 7), [3, 2, 2]);
    }
}
