//! When requests go out. Pure: told the time since the start.
//!
//! ```text
//!  open loop   intended   0    i    2i    3i    4i        an absolute schedule: a server that
//!              sent       0    i         3i,3i' 4i        stalls does not slow the clients down,
//!              latency    └ from intended, not from sent  and its stall is in every latency
//!  closed loop            each answer is followed by the next request
//! ```

use std::time::Duration;

/// A request sent more than this after its time is counted as late.
pub const LATE: Duration = Duration::from_millis(1);

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as answers come.
    Closed,
    /// So many a second, whatever the answers do.
    Open(f64),
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many requests.
    Requests(u64),
    /// As many as fit.
    Time(Duration),
}

/// The requests of one run.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    amount: Amount,
    sent: u64,
}

impl Schedule {
    /// The schedule of a run.
    pub fn new(pace: Pace, amount: Amount) -> Self {
        Self { pace, amount, sent: 0 }
    }

    /// The time for which the next request was intended, from the start of the run; none after the
    /// last one. May lie in the future.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        let intended = match self.pace {
            Pace::Closed => now,
            Pace::Open(per_second) => Duration::from_secs_f64(self.sent as f64 / per_second),
        };
        let more = match self.amount {
            Amount::Requests(requests) => self.sent < requests,
            Amount::Time(time) => intended < time,
        };
        more.then_some(intended)
    }

    /// The next request has gone out.
    pub fn advance(&mut self) {
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_keeps_its_times_whatever_happens() {
        let mut schedule = Schedule::new(Pace::Open(1000.0), Amount::Requests(3));
        let mut times = Vec::new();
        // The clock stands at one minute: the server was stuck.
        while let Some(intended) = schedule.next(Duration::from_secs(60)) {
            times.push(intended.as_micros());
            schedule.advance();
        }
        assert_eq!(times, [0, 1000, 2000]);
    }

    #[test]
    fn ends_with_its_time() {
        let mut schedule = Schedule::new(Pace::Open(100.0), Amount::Time(Duration::from_secs(2)));
        let mut sent = 0;
        while schedule.next(Duration::ZERO).is_some() {
            schedule.advance();
            sent += 1;
        }
        assert_eq!(sent, 200);
        let closed = Schedule::new(Pace::Closed, Amount::Time(Duration::from_secs(2)));
        assert_eq!(closed.next(Duration::from_secs(1)), Some(Duration::from_secs(1)));
        assert_eq!(closed.next(Duration::from_secs(2)), None);
    }
}
