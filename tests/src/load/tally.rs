//! What came of a run: latencies, verdicts by class over time, and the most that one counter
//! admitted in one window of one second.
//!
//! ```text
//!  second of the wall clock   |      w       |     w+1      |
//!  sent ─── answered             ●───●                        surely decided in w
//!                                         ●────●              w or w+1: counted apart
//! ```
//! A counter that admitted more than its limit among the sure ones has over-admitted.
//!
//! Where classes share a counter, most important first, an inversion is a request that was let
//! through after a more important class had been refused in the same second: sent after that
//! refusal was answered, so that no race can excuse it. Near the edges of a second they are counted
//! apart: a replica's clock is that of Redis give or take some milliseconds, and what is kept for a
//! class melts with the window, so that at its end the first to ask takes what has melted. For the
//! same reason they are counted apart in a second in which the load itself stood still: while nobody
//! asks, what is kept for the more important classes melts, and the first to ask afterwards takes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use super::wire::Verdict;

/// The width of one step of the time line.
pub const STEP: Duration = Duration::from_millis(100);
/// The longest time line: what comes later is counted in the last step.
const STEPS_MAX: usize = 36_000;
/// How much of a second, at both ends, is its edge.
const EDGE_NANOS: u32 = 50_000_000;
/// Sent this much after its time, a request shows that the load stood still for as long.
const STILL: Duration = Duration::from_millis(50);
/// Servers that inversions are told apart for; more are counted with the last.
const SERVERS_MAX: usize = 64;
/// A wait from here on is kept as it was.
pub const SLOW: Duration = Duration::from_millis(5);
/// The most slow waits kept.
const SLOW_MAX: usize = 1_000_000;
/// Latencies are kept from 1 ns to this, with three digits.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// Counts of one class in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub sent: u64,
    /// Let through.
    pub admitted: u64,
    /// Refused.
    pub refused: u64,
}

/// One class over a whole run.
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// All of the run.
    pub total: Counts,
    /// Nanoseconds from the intended time to the answer.
    pub latency: Histogram<u64>,
    /// Steps of [`STEP`], by the time of the answer.
    pub steps: Vec<Counts>,
    /// The longest latency of each step.
    pub longest: Vec<Duration>,
    /// Seconds of the wall clock, from the one in which the run began.
    pub seconds: Vec<Counts>,
}

/// What one request was, and when.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Its class.
    pub class: usize,
    /// The counter it met.
    pub counter: usize,
    /// The server it met.
    pub server: usize,
    /// When it should have gone out, from the start of the run.
    pub intended: Duration,
    /// When it did.
    pub sent: Duration,
    /// When the answer was there.
    pub answered: Duration,
    /// The answer.
    pub verdict: Verdict,
}

/// The refusals of one class by one server in one second.
#[derive(Clone, Copy, Debug)]
struct Refused {
    second: usize,
    /// When the first was there.
    first: Duration,
    /// The same without those at the edges.
    inner: Option<Duration>,
}

/// By class, of the last second that had some.
type Refusals = Vec<Option<Refused>>;

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    second: usize,
    sure: u64,
    total: u64,
}

/// Requests that were let through after a more important class was refused, in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranks {
    /// By the same server.
    pub inversions: u64,
    /// By any server.
    pub between: u64,
    /// By the same server, where one of the two was sent within 50 ms of the second's edge, which is
    /// not in the others.
    pub at_edges: u64,
    /// Requests went out 50 ms after their time and more: what was let through says nothing.
    pub stood_still: bool,
}

/// The outcome of one run.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By class.
    pub classes: Vec<Class>,
    /// Requests that went out more than 1 ms after their time.
    pub late: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// From when to when each request waited that took [`SLOW`] or longer.
    pub slow: Vec<(Duration, Duration)>,
    /// CPU of the generator.
    pub own_cpu: Duration,
    /// The most that one counter surely admitted in one second of the wall clock.
    pub sure_most: u64,
    /// The same with the requests that may belong to the next second.
    pub total_most: u64,
    /// Seconds of the wall clock, from the one in which the run began.
    pub ranks: Vec<Ranks>,
    counters: Vec<Window>,
    refusals: Vec<Refusals>,
    began: Duration,
}

impl Tally {
    /// An empty tally of a run that begins at `now`.
    pub fn new(classes: &[String], counters: usize, now: SystemTime) -> Self {
        let class = |name: &String| Class {
            name: name.clone(),
            total: Counts::default(),
            latency: Histogram::new_with_max(LATENCY_NANOS_MAX, 3)
                .expect("three digits up to a minute are in bounds"),
            steps: Vec::new(),
            longest: Vec::new(),
            seconds: Vec::new(),
        };
        Self {
            classes: classes.iter().map(class).collect(),
            late: 0,
            elapsed: Duration::ZERO,
            slow: Vec::new(),
            own_cpu: Duration::ZERO,
            sure_most: 0,
            total_most: 0,
            ranks: Vec::new(),
            counters: vec![Window::default(); counters],
            refusals: Vec::new(),
            began: now.duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Takes one answered request.
    pub fn record(&mut self, exchange: Exchange) {
        let second = |at: Duration| ((self.began + at).as_secs() - self.began.as_secs()) as usize;
        let (sent_second, second) = (second(exchange.sent), second(exchange.answered));
        let step = (exchange.answered.as_millis() / STEP.as_millis()) as usize;
        let latency = exchange.answered.saturating_sub(exchange.intended);
        let class = &mut self.classes[exchange.class];
        if latency >= SLOW && self.slow.len() < SLOW_MAX {
            self.slow.push((exchange.intended, exchange.answered));
        }
        class.latency.saturating_record(latency.as_nanos().max(1) as u64);
        let step = at(&mut class.steps, step, STEPS_MAX);
        count(step, exchange.verdict);
        let longest = at(
            &mut class.longest,
            (exchange.answered.as_millis() / STEP.as_millis()) as usize,
            STEPS_MAX,
        );
        *longest = (*longest).max(latency);
        count(at(&mut class.seconds, second, STEPS_MAX), exchange.verdict);
        count(&mut class.total, exchange.verdict);
        if exchange.sent > exchange.intended + super::schedule::LATE {
            self.late += 1;
        }
        if exchange.sent >= exchange.intended + STILL {
            at(&mut self.ranks, sent_second, STEPS_MAX).stood_still = true;
        }
        if exchange.verdict == Verdict::Admitted {
            self.admitted(exchange.counter, sent_second, second);
        }
        if sent_second == second && self.classes.len() > 1 {
            self.rank(&exchange, second);
        }
    }

    /// Looks for an inversion, or remembers what makes a later one.
    fn rank(&mut self, exchange: &Exchange, second: usize) {
        let into = (self.began + exchange.sent).subsec_nanos();
        let inner = (EDGE_NANOS..1_000_000_000 - EDGE_NANOS).contains(&into);
        if exchange.verdict == Verdict::Refused {
            let answered = exchange.answered;
            let refusals = at(&mut self.refusals, exchange.server, SERVERS_MAX);
            refusals.resize(self.classes.len(), None);
            let known = refusals[exchange.class].filter(|refused| refused.second == second);
            let mut refused = known.unwrap_or(Refused { second, first: answered, inner: None });
            if inner {
                refused.inner = refused.inner.or(Some(answered));
            }
            refusals[exchange.class] = Some(refused);
            return;
        }
        let passed_over = |refusals: &Refusals, when: fn(&Refused) -> Option<Duration>| {
            let higher = refusals.iter().take(exchange.class).flatten();
            let mut times = higher.filter(|refused| refused.second == second).filter_map(when);
            times.any(|answered| answered < exchange.sent)
        };
        let sure = |refusals: &Refusals| inner && passed_over(refusals, |refused| refused.inner);
        let here = self.refusals.get(exchange.server.min(SERVERS_MAX - 1));
        let ranks = at(&mut self.ranks, second, STEPS_MAX);
        if here.is_some_and(sure) {
            ranks.inversions += 1;
        } else if here.is_some_and(|here| passed_over(here, |refused| Some(refused.first))) {
            ranks.at_edges += 1;
        }
        ranks.between += u64::from(self.refusals.iter().any(sure));
    }

    fn admitted(&mut self, counter: usize, sent: usize, answered: usize) {
        let window = &mut self.counters[counter];
        // Answers come in the order of seconds, save a few around the turn.
        if answered > window.second {
            *window = Window { second: answered, ..Window::default() };
        }
        window.total += 1;
        window.sure += u64::from(sent == answered);
        self.sure_most = self.sure_most.max(window.sure);
        self.total_most = self.total_most.max(window.total);
    }

    /// Inversions of the seconds in which the load stood still, or else of all the others.
    pub fn ranks(&self, stood_still: bool) -> Ranks {
        let those = self.ranks.iter().filter(|ranks| ranks.stood_still == stood_still);
        those.fold(Ranks { stood_still, ..Ranks::default() }, |sum, one| Ranks {
            inversions: sum.inversions + one.inversions,
            between: sum.between + one.between,
            at_edges: sum.at_edges + one.at_edges,
            ..sum
        })
    }

    /// All classes together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for class in &self.classes {
            total.sent += class.total.sent;
            total.admitted += class.total.admitted;
            total.refused += class.total.refused;
        }
        total
    }

    /// Latencies of all classes together.
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = self.classes[0].latency.clone();
        for class in &self.classes[1..] {
            all.add(&class.latency).expect("the histograms have the same bounds");
        }
        all
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.total().sent as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The unix second in which the run began, and how far into it.
    pub fn began(&self) -> Duration {
        self.began
    }
}

fn at<T: Clone + Default>(steps: &mut Vec<T>, index: usize, most: usize) -> &mut T {
    let index = index.min(most - 1);
    if steps.len() <= index {
        steps.resize(index + 1, T::default());
    }
    &mut steps[index]
}

fn count(counts: &mut Counts, verdict: Verdict) {
    counts.sent += 1;
    match verdict {
        Verdict::Admitted => counts.admitted += 1,
        Verdict::Refused => counts.refused += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn exchange(intended: u64, sent: u64, answered: u64, verdict: Verdict) -> Exchange {
        Exchange {
            class: 0,
            counter: 0,
            server: 0,
            intended: MS(intended),
            sent: MS(sent),
            answered: MS(answered),
            verdict,
        }
    }

    fn tally() -> Tally {
        // 0.5 s into a second.
        Tally::new(&["a".to_owned()], 1, UNIX_EPOCH + MS(7_500))
    }

    #[test]
    fn latency_counts_from_the_intended_time() {
        let mut tally = tally();
        tally.record(exchange(10, 30, 31, Verdict::Admitted));
        assert_eq!(tally.late, 1);
        let p50 = tally.latency().value_at_quantile(0.5);
        assert!(p50.abs_diff(21_000_000) < 21_000, "{p50}");
        assert_eq!(tally.classes[0].longest[0], MS(21));
        tally.record(exchange(40, 40, 44, Verdict::Admitted));
        assert_eq!(tally.slow, [(MS(10), MS(31))]);
    }

    #[test]
    fn windows_follow_the_wall_clock() {
        let mut tally = tally();
        for at in [100, 200, 300] {
            tally.record(exchange(at, at, at, Verdict::Admitted));
        }
        // Sent in one second and answered in the next: not sure.
        tally.record(exchange(490, 490, 510, Verdict::Admitted));
        tally.record(exchange(520, 520, 520, Verdict::Admitted));
        tally.record(exchange(530, 530, 530, Verdict::Refused));
        assert_eq!((tally.sure_most, tally.total_most), (3, 3));
        let seconds = &tally.classes[0].seconds;
        assert_eq!((seconds[0].admitted, seconds[1].admitted, seconds[1].refused), (3, 2, 1));
        assert_eq!(tally.total(), Counts { sent: 6, admitted: 5, refused: 1 });
    }

    #[test]
    fn who_passes_after_a_higher_class_was_refused_is_an_inversion() {
        let names = ["high", "low"].map(str::to_owned);
        let of = |class, server, at, verdict| Exchange {
            class,
            server,
            ..exchange(at, at, at + 10, verdict)
        };
        let check = |exchanges: &[Exchange], same: u64, between: u64| {
            // The wall clock's second ends 500 ms after the start.
            let mut tally = Tally::new(&names, 1, UNIX_EPOCH + MS(7_500));
            exchanges.iter().for_each(|one| tally.record(*one));
            let found = tally.ranks(false);
            assert_eq!((found.inversions, found.between), (same, between));
            assert_eq!(tally.ranks(true), Ranks { stood_still: true, ..Ranks::default() });
        };
        let refused = of(0, 0, 100, Verdict::Refused);
        check(&[refused, of(1, 0, 120, Verdict::Admitted)], 1, 1);
        check(&[refused, of(1, 1, 120, Verdict::Admitted)], 0, 1);
        // On its way while the refusal was; the class itself; refused as well; the next second.
        check(&[refused, of(1, 0, 105, Verdict::Admitted)], 0, 0);
        check(&[refused, of(0, 0, 120, Verdict::Admitted)], 0, 0);
        check(&[refused, of(1, 0, 120, Verdict::Refused)], 0, 0);
        check(&[refused, of(1, 0, 620, Verdict::Admitted)], 0, 0);
        check(&[of(1, 0, 100, Verdict::Refused), of(0, 0, 120, Verdict::Admitted)], 0, 0);
        // Within 50 ms of an edge: the lower one, the higher one, and neither.
        check(&[refused, of(1, 0, 455, Verdict::Admitted)], 0, 0);
        let early = of(0, 0, 540, Verdict::Refused);
        check(&[early, of(1, 0, 620, Verdict::Admitted)], 0, 0);
        let later = of(0, 0, 560, Verdict::Refused);
        check(&[early, later, of(1, 0, 620, Verdict::Admitted)], 1, 1);
        check(&[refused, of(1, 0, 445, Verdict::Admitted)], 1, 1);
        // The first refusal of a second counts, not the last.
        let again = of(0, 0, 150, Verdict::Refused);
        check(&[refused, again, of(1, 0, 130, Verdict::Admitted)], 1, 1);
    }

    #[test]
    fn inversions_are_counted_apart_where_the_load_stood_still() {
        let names = ["high", "low"].map(str::to_owned);
        let check = |late: u64, counted: u64, apart: u64| {
            let mut tally = Tally::new(&names, 1, UNIX_EPOCH + MS(7_000));
            // The high class is refused, then nobody asks for a while, and it is a low one that
            // takes what has melted; in the second before, nobody was late.
            for second in [0, 1_000] {
                let late = if second == 0 { 0 } else { late };
                tally.record(exchange(second + 100, second + 100, second + 101, Verdict::Refused));
                let sent = second + 300 + late;
                let low = exchange(second + 300, sent, sent + 1, Verdict::Admitted);
                tally.record(Exchange { class: 1, ..low });
            }
            let (others, still) = (tally.ranks(false), tally.ranks(true));
            assert_eq!((others.inversions, others.between), (counted, counted), "{late} ms");
            assert_eq!((still.inversions, still.between), (apart, apart), "{late} ms");
        };
        check(0, 2, 0);
        check(49, 2, 0);
        check(50, 1, 1);
    }

    #[test]
    fn the_time_line_is_bounded() {
        let mut steps: Vec<u8> = Vec::new();
        *at(&mut steps, usize::MAX, 3) = 1;
        assert_eq!(steps, [0, 0, 1]);
    }
}
