//! Starts again what has ended, for as long as the edge is wanted.
//!
//! ```text
//! ends ── wait 0.2 s ── starts ── ends ── wait 0.4 s ── starts ─ … at most 30 s
//!                          └── runs for a minute ──► the next wait is 0.2 s again
//! exit code 64 (settings that cannot work) ──► given up
//! ```
//!
//! What a part may do is decided by [`Restarts`], which knows no process and takes the time as an
//! argument.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Edge, Service};
use crate::child::Child;

/// The first pause before a part is started again; it doubles with each end.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A part that ran for so long has proved itself: its next pause is the first again.
const PROVED: Duration = Duration::from_secs(60);

/// The exit code for settings that cannot work, of all our services.
const BAD_SETTINGS: i32 = 64;

/// Everything of an edge that can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A replica of one of our services.
    Replica(Service, usize),
    /// The proxy.
    Envoy,
    /// Redis.
    Redis,
    /// Kafka.
    Kafka,
    /// InfluxDB.
    InfluxDb,
}

/// What has become of a part, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Runs since then.
    Runs(Instant),
    /// Is to be started then.
    Waits(Instant),
    /// Is never started again.
    GivenUp,
}

/// The pauses of one part.
#[derive(Debug)]
struct Restarts {
    state: State,
    pause: Duration,
}

impl Restarts {
    fn new(now: Instant) -> Self {
        Self { state: State::Runs(now), pause: PAUSE_MIN }
    }

    /// It has ended: the pause until it is started again, or none when it is given up.
    fn ended(&mut self, code: Option<i32>, now: Instant) -> Option<Duration> {
        if code == Some(BAD_SETTINGS) {
            self.state = State::GivenUp;
            return None;
        }
        if let State::Runs(since) = self.state
            && now.saturating_duration_since(since) >= PROVED
        {
            self.pause = PAUSE_MIN;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        self.state = State::Waits(now + pause);
        Some(pause)
    }

    fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waits(at) if at <= now)
    }

    fn started(&mut self, now: Instant) {
        self.state = State::Runs(now);
    }
}

/// Starts again the parts of one edge.
#[derive(Debug, Default)]
pub struct Supervisor {
    parts: BTreeMap<Part, Restarts>,
}

impl Supervisor {
    /// Looks at every part once. `say` hears one line of each part that has ended. Returns whether
    /// a process was started, which then has another id.
    pub fn poll(&mut self, edge: &mut Edge, mut say: impl FnMut(&str)) -> bool {
        let now = Instant::now();
        let mut started = false;
        for part in edge.parts() {
            let restarts = self.parts.entry(part).or_insert_with(|| Restarts::new(now));
            if let State::Runs(_) = restarts.state
                && let Some(end) = edge.end_of(part)
            {
                let code = end.status.code();
                say(&match restarts.ended(code, now) {
                    Some(pause) => format!(
                        "{} ended ({}): starting it again in {:.1} s",
                        end.name,
                        end.status,
                        pause.as_secs_f64()
                    ),
                    None => format!(
                        "{} ended ({}) over settings that cannot work, so it stays down: {}",
                        end.name, end.status, end.last_line
                    ),
                });
            }
            if restarts.is_due(now) {
                match edge.start_again(part) {
                    Ok(()) => {
                        restarts.started(now);
                        started = true;
                    }
                    Err(error) => {
                        restarts.ended(None, now);
                        say(&format!("{error:#}"));
                    }
                }
            }
        }
        started
    }
}

/// How a process ended.
struct End {
    name: String,
    status: ExitStatus,
    last_line: String,
}

impl Edge {
    /// Everything that runs or ran.
    fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = Service::ALL
            .into_iter()
            .flat_map(|service| {
                (0..self.replicas(service).len()).map(move |number| Part::Replica(service, number))
            })
            .collect();
        parts.extend(self.envoy.is_some().then_some(Part::Envoy));
        parts.extend(self.redis.is_some().then_some(Part::Redis));
        parts.extend(self.kafka.is_some().then_some(Part::Kafka));
        parts.extend(self.influxdb.is_some().then_some(Part::InfluxDb));
        parts
    }

    /// The process of a part.
    pub fn child(&self, part: Part) -> Option<&Child> {
        match part {
            Part::Replica(service, number) => self.replicas(service).get(number)?.child.as_ref(),
            Part::Envoy => Some(&self.envoy.as_ref()?.child),
            Part::Redis => Some(&self.redis.as_ref()?.child),
            Part::Kafka => Some(&self.kafka.as_ref()?.child),
            Part::InfluxDb => Some(&self.influxdb.as_ref()?.child),
        }
    }

    fn child_mut(&mut self, part: Part) -> Option<&mut Child> {
        match part {
            Part::Replica(service, number) => {
                self.replicas_mut(service).get_mut(number)?.child.as_mut()
            }
            Part::Envoy => Some(&mut self.envoy.as_mut()?.child),
            Part::Redis => Some(&mut self.redis.as_mut()?.child),
            Part::Kafka => Some(&mut self.kafka.as_mut()?.child),
            Part::InfluxDb => Some(&mut self.influxdb.as_mut()?.child),
        }
    }

    fn end_of(&mut self, part: Part) -> Option<End> {
        let child = self.child_mut(part)?;
        let status = child.ended()?;
        let output = child.output();
        let last_line = output.lines().next_back().unwrap_or("it printed nothing").to_owned();
        Some(End { name: child.name().to_owned(), status, last_line })
    }

    /// Starts a part on its old addresses and data, and does not wait for it.
    fn start_again(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Replica(service, number) => self.spawn(service, number)?,
            Part::Envoy => {
                if let Some(envoy) = &mut self.envoy {
                    envoy.spawn_again(&self.options.dir)?;
                }
            }
            Part::Redis => {
                if let Some(redis) = &mut self.redis {
                    redis.spawn_again(&self.options.dir, self.pki.as_ref())?;
                }
            }
            Part::Kafka => {
                if let Some(kafka) = &mut self.kafka {
                    kafka.spawn_again()?;
                }
            }
            Part::InfluxDb => {
                if let Some(influxdb) = &mut self.influxdb {
                    influxdb.spawn_again()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_a_good_run() {
        let mut now = Instant::now();
        let mut restarts = Restarts::new(now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let pause = restarts.ended(Some(1), now).expect("started again");
            assert!(!restarts.is_due(now) && restarts.is_due(now + pause));
            now += pause;
            restarts.started(now);
            assert!(!restarts.is_due(now + PAUSE_MAX));
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(restarts.ended(None, now + PROVED), Some(PAUSE_MIN), "killed by a signal");
    }

    #[test]
    fn settings_that_cannot_work_are_given_up() {
        let now = Instant::now();
        let mut restarts = Restarts::new(now);
        assert_eq!(restarts.ended(Some(BAD_SETTINGS), now), None);
        assert!(!restarts.is_due(now + PAUSE_MAX * 10));
    }
}
