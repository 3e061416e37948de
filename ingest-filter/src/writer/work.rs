//! What to do next with a batch, given what the database said. Pure: no clock, no I/O, no
//! randomness of its own.
//!
//! ```text
//! pending (a stack, first points on top)      answer            then
//! │ 0..8 │                                    400            ─► split
//! │ 0..4 │ 4..8 │                             204, 400       ─► go on, split
//! │ 4..6 │ 6..8 │ … │ 5..6 │                  400 on one     ─► dead letter
//! ```
//!
//! Halves stay in order, so a series is written in order even while a batch is taken apart.
//! Refusals split at once. Failures (a 5xx, a connection that breaks, a time-out, an answer of
//! somebody in between) say nothing about the points, until the database has failed on the same
//! ones several times and is well otherwise: then they are suspects and are split too. One point
//! is given up only when the database failed on it between two writes of another point that it
//! took: a database that just came back would otherwise convict whatever it was given while it
//! was away.
//!
//! A point that was refused is condemned. Once the database took another point after it, it is
//! tried again by itself, and given up when it is refused once more and the database takes another
//! after that too:
//!
//! ```text
//! refused ─► another is taken ─► refused again ─► another is taken ─► dead letter
//!        └► none is taken: the batch    └► taken: the refusals were not about
//!           begins anew                    points, what follows it begins anew
//! ```
//!
//! So a database that refuses everything, or a proxy that speaks like one, costs no point, and
//! neither does one that is well again in the middle of a batch. What begins anew is written in
//! order, as later points of a series may have been written meanwhile.

mod class;

use std::ops::Range;
use std::time::Duration;

use crate::journal::dead_letter::Cause;
use crate::target::answer::Answer;
use crate::writer::config::RetryConfig;

pub use class::Class;

/// The shortest pause before another try.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The first back-off is drawn from up to this much.
const BACKOFF_BASE: Duration = Duration::from_millis(200);
/// The longest pause while the target cannot be reached: a connection that is refused costs it
/// nothing, and the points have waited long enough when it is back.
pub const UNREACHABLE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A `Retry-After` is not followed beyond this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// So many points may be refused before the database must show that it takes another one.
pub const CONDEMNED_MAX: usize = 16;

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write these points.
    Write(Range<usize>),
    /// Find out whether the database is well; [`Work::well`] takes the answer.
    Ping,
    /// Find out whether the database takes a point it should take: this one of the batch, or
    /// else any that was written before. [`Work::well`] takes the answer.
    Canary(Option<usize>),
    /// All points are written or dead.
    Done,
}

/// What to do before asking for what is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    GoOn,
    /// Wait this long.
    Wait(Duration, Class),
    /// Create the database if that is allowed, else wait this long.
    CreateDatabase(Duration),
}

/// Points that are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Which points of the batch.
    pub lines: Range<usize>,
    /// Why.
    pub cause: Cause,
    /// The database's last status, 0 without one.
    pub status: u16,
    /// The database's last words.
    pub message: String,
    /// How often the points were tried as they are.
    pub attempts: u32,
}

/// A batch on its way.
#[derive(Debug)]
pub struct Work {
    config: RetryConfig,
    /// The next part is the last element.
    pending: Vec<Part>,
    /// A point of this batch that the database took.
    good: Option<usize>,
    dead: Vec<Dead>,
    /// Refused, and the database has not taken a point since; in the order of the batch.
    condemned: Vec<Condemned>,
    /// How many points there are.
    lines: usize,
    /// Pauses since something last went well.
    pauses: u32,
}

#[derive(Debug)]
struct Part {
    lines: Range<usize>,
    /// The database failed on these very points so many times.
    failures: u32,
    standing: Standing,
    last: (u16, String),
}

/// A single point that was refused.
#[derive(Debug)]
struct Condemned {
    dead: Dead,
    /// It was refused before, and the database took another point in between.
    again: bool,
}

/// What is held against a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing.
    Clear,
    /// The database failed on the part it comes from: split at the first failure.
    Suspect,
    /// Failed too often: the database's health decides what becomes of it.
    OnTrial,
    /// The database took another point, so the next failure is about this one.
    LastTry,
    /// That failure has come; it counts when the database takes the other point once more.
    Failed,
    /// It was refused, and the database took another point since.
    Refused,
}

impl Part {
    fn new(lines: Range<usize>, standing: Standing) -> Self {
        Self { lines, failures: 0, standing, last: (0, String::new()) }
    }
}

impl Work {
    /// The work of writing `lines` points.
    pub fn new(config: RetryConfig, lines: usize) -> Self {
        let pending =
            if lines == 0 { Vec::new() } else { vec![Part::new(0..lines, Standing::Clear)] };
        Self {
            config,
            pending,
            good: None,
            dead: Vec::new(),
            condemned: Vec::new(),
            lines,
            pauses: 0,
        }
    }

    /// What to do now.
    pub fn next(&self) -> Next {
        match self.pending.last() {
            None if self.condemned.is_empty() => Next::Done,
            None => Next::Canary(self.good),
            Some(part) => match part.standing {
                Standing::OnTrial if part.lines.len() > 1 => Next::Ping,
                Standing::OnTrial | Standing::Failed => Next::Canary(self.good),
                _ if self.condemned.len() >= CONDEMNED_MAX => Next::Canary(self.good),
                _ => Next::Write(part.lines.clone()),
            },
        }
    }

    /// Whether a failure of what is next would be held against its points: then nothing else
    /// should be written meanwhile.
    pub fn is_trying(&self) -> bool {
        let held_against =
            |part: &Part| !matches!(part.standing, Standing::Clear | Standing::Refused);
        self.pending.last().is_some_and(held_against)
    }

    /// The answer to a [`Next::Write`]. `random` is from 0 to 1.
    pub fn answered(&mut self, answer: Answer, random: f64) -> Then {
        match answer {
            Answer::Written => {
                self.written_part();
                Then::GoOn
            }
            Answer::Refused { status, message } => {
                self.split_or_condemn(Cause::of_refusal(&message), status, message)
            }
            Answer::TooLarge => {
                self.split_or_condemn(Cause::TooLarge, 413, "too large by itself".to_owned())
            }
            Answer::RetentionPolicyMissing { .. } => {
                self.wait(None, Class::RetentionPolicyMissing, random)
            }
            Answer::Unauthorized => self.wait(None, Class::Unauthorized, random),
            Answer::DatabaseMissing => match self.wait(None, Class::DatabaseMissing, random) {
                Then::Wait(pause, _) => Then::CreateDatabase(pause),
                then => then,
            },
            Answer::Busy { retry_after } => self.wait(retry_after, Class::Busy, random),
            Answer::Unreachable(_) => self.wait(None, Class::Unreachable, random),
            Answer::Failed { status, message } => {
                self.failed(status, message, Class::Failed, random)
            }
            Answer::Broken(message) => self.failed(0, message, Class::Broken, random),
        }
    }

    /// The answer to a [`Next::Ping`] or a [`Next::Canary`].
    pub fn well(&mut self, well: bool, random: f64) -> Then {
        let tried = self
            .pending
            .last_mut()
            .filter(|part| matches!(part.standing, Standing::OnTrial | Standing::Failed));
        let Some(part) = tried else { return self.condemned_heard(well, random) };
        let several = part.lines.len() > 1;
        if !well {
            if !several {
                // The database takes nothing now, so its failures were not about this point.
                part.failures = 0;
                part.standing = Standing::Clear;
                self.good = None;
            }
            return self.wait(None, Class::Failed, random);
        }
        if several {
            return self.split(Standing::Suspect);
        }
        if part.standing == Standing::OnTrial {
            part.standing = Standing::LastTry;
            self.confirm();
            return Then::GoOn;
        }
        self.bury()
    }

    /// The points that are given up, in the order of the batch.
    pub fn dead(&self) -> &[Dead] {
        &self.dead
    }

    /// How many points the database took.
    pub fn written(&self) -> usize {
        let pending: usize = self.pending.iter().map(|part| part.lines.len()).sum();
        let dead: usize = self.dead.iter().map(|dead| dead.lines.len()).sum();
        self.lines - pending - dead - self.condemned.len()
    }

    fn written_part(&mut self) {
        let Some(part) = self.pending.pop() else { return };
        // The last one: written once more it takes the place of none that came after it.
        self.good = part.lines.clone().next_back();
        self.pauses = 0;
        self.confirm();
        if part.standing == Standing::Refused {
            self.begin_anew(part.lines.end);
        }
    }

    /// The database takes points, so those it refused again are given up, and those it refused once
    /// are tried again before all others.
    fn confirm(&mut self) {
        for Condemned { dead, again } in self.condemned.drain(..).rev() {
            match again {
                true => self.dead.push(dead),
                false => self.pending.push(Part::new(dead.lines, Standing::Refused)),
            }
        }
        self.dead.sort_by_key(|dead| dead.lines.start);
    }

    /// All points from here on, but those that are given up, are to be written in order.
    fn begin_anew(&mut self, from: usize) {
        self.condemned.clear();
        self.pending.clear();
        let mut end = self.lines;
        for dead in self.dead.iter().rev().take_while(|dead| dead.lines.end > from) {
            if dead.lines.end < end {
                self.pending.push(Part::new(dead.lines.end..end, Standing::Clear));
            }
            end = dead.lines.start;
        }
        if end > from {
            self.pending.push(Part::new(from..end, Standing::Clear));
        }
    }

    /// Whether the database took a point after those that it refused.
    fn condemned_heard(&mut self, well: bool, random: f64) -> Then {
        if well {
            self.confirm();
            return Then::GoOn;
        }
        self.begin_anew(0);
        self.good = None;
        self.wait(None, Class::Refusing, random)
    }

    fn split_or_condemn(&mut self, cause: Cause, status: u16, message: String) -> Then {
        match self.pending.last() {
            Some(part) if part.lines.len() > 1 => {
                let standing = part.standing;
                return self.split(standing);
            }
            Some(part) => {
                let again = part.standing == Standing::Refused;
                let attempts = part.failures.max(1) + u32::from(again);
                let dead = Dead { lines: part.lines.clone(), cause, status, message, attempts };
                self.condemned.push(Condemned { dead, again });
            }
            None => {}
        }
        self.pending.pop();
        Then::GoOn
    }

    fn split(&mut self, standing: Standing) -> Then {
        if let Some(part) = self.pending.pop() {
            let middle = part.lines.start + part.lines.len() / 2;
            self.pending.push(Part::new(middle..part.lines.end, standing));
            self.pending.push(Part::new(part.lines.start..middle, standing));
        }
        Then::GoOn
    }

    /// The database failed on this point between two that it took.
    fn bury(&mut self) -> Then {
        if let Some(part) = self.pending.pop() {
            let (status, message) = part.last;
            let attempts = part.failures.max(1);
            let cause = Cause::Poison;
            self.dead.push(Dead { lines: part.lines, cause, status, message, attempts });
            self.confirm();
            self.pauses = 0;
        }
        Then::GoOn
    }

    fn failed(&mut self, status: u16, message: String, class: Class, random: f64) -> Then {
        let attempts_max = self.config.poison_attempts;
        if let Some(part) = self.pending.last_mut() {
            part.failures += 1;
            part.last = (status, message);
            part.standing = match part.standing {
                Standing::Suspect if part.lines.len() > 1 => Standing::OnTrial,
                Standing::LastTry => Standing::Failed,
                _ if part.failures >= attempts_max => Standing::OnTrial,
                standing => standing,
            };
        }
        self.wait(None, class, random)
    }

    /// Full jitter: anything between nothing and the back-off, so that writers spread out.
    fn wait(&mut self, asked: Option<Duration>, class: Class, random: f64) -> Then {
        let ceiling = BACKOFF_BASE
            .saturating_mul(1_u32.checked_shl(self.pauses.min(30)).unwrap_or(u32::MAX))
            .min(self.config.backoff_max);
        let ceiling = match class {
            Class::Unreachable => ceiling.min(UNREACHABLE_PAUSE_MAX),
            _ => ceiling,
        };
        self.pauses = self.pauses.saturating_add(1);
        let pause = match asked {
            Some(asked) => asked.min(RETRY_AFTER_MAX),
            None => ceiling.mul_f64(random.clamp(0.0, 1.0)),
        };
        Then::Wait(pause.max(BACKOFF_MIN), class)
    }
}

#[cfg(test)]
mod tests;
