//! What a person sees of a run: what will be run and about how long it takes, then each stage as it begins and
//! ends, by the clock of the run.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::measured::Measured;
use super::results::targets;
use super::stage::Stage;
use crate::load::print::say;

/// The progress of one run.
pub struct Progress {
    began: Instant,
    /// On a terminal, what is done at present.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn begin(plan: &[(Stage, Duration)]) -> Result<Self> {
        say(&plan_text(plan))?;
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Ok(Self { began: Instant::now(), bar })
    }

    /// Says what is done now: on a terminal in the place of what was done before.
    pub fn step(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => {
                // A reader that has gone must not end a measurement.
                let _ = say(&line(self.began.elapsed(), &format!("  {what}")));
            }
        }
    }

    /// A line that stays.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn say(&self, what: &str) -> Result<()> {
        let text = line(self.began.elapsed(), what);
        match &self.bar {
            Some(bar) => bar.suspend(|| say(&text)),
            None => say(&text),
        }
    }

    /// Ends.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// About how long a stage takes: as long as the last time.
pub fn expected(stage: Stage, quick: bool, before: Option<&Measured>) -> Duration {
    let last = before.and_then(|before| before.taken.as_ref());
    match last.filter(|taken| taken.quick == quick) {
        Some(taken) => Duration::from_secs_f64(taken.seconds.max(0.0)),
        None => stage.about(quick),
    }
}

/// How a stage has ended, in a few words.
pub fn outcome(stage: Stage, measured: &Measured, took: Duration) -> String {
    let (name, took) = (stage.name(), took.as_secs_f64());
    match &measured.failed {
        Some(failed) => format!("{name} FAILED after {took:.0} s: {}", failed.why),
        None => {
            let (met, of) = targets(&measured.rows);
            let figures = measured.rows.len();
            format!("{name} took {took:.0} s: {figures} figures, {met} of {of} targets met")
        }
    }
}

fn line(at: Duration, what: &str) -> String {
    format!("{:>4} s  {what}\n", at.as_secs())
}

fn plan_text(plan: &[(Stage, Duration)]) -> String {
    let all: Duration = plan.iter().map(|(_, about)| *about).sum();
    let (seconds, stages) = (all.as_secs(), plan.len());
    let mut text = format!("{stages} stages, about {} min {:02} s:", seconds / 60, seconds % 60);
    for (at, (stage, about)) in plan.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing into a String cannot fail.
        let _ = write!(text, "{comma} {} {} s", stage.name(), about.as_secs());
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::measured::tests::{results, taken};
    use super::*;

    #[test]
    fn a_run_says_what_it_will_do() {
        let plan =
            [(Stage::Cost, Duration::from_secs(75)), (Stage::Rules, Duration::from_secs(20))];
        assert_eq!(plan_text(&plan), "2 stages, about 1 min 35 s: cost 75 s, rules 20 s\n");
        assert_eq!(line(Duration::from_millis(7_900), "cost"), "   7 s  cost\n");
    }

    #[test]
    fn a_stage_takes_as_long_as_the_last_time() {
        let stage = Stage::Cost;
        let before = Measured::after(None, stage, taken("a"), Ok(results("x", 1.0)));
        let check = |quick, before, seconds| {
            assert_eq!(expected(stage, quick, before), Duration::from_secs(seconds));
        };
        check(false, Some(&before), 60);
        check(true, Some(&before), stage.about(true).as_secs());
        check(false, None, stage.about(false).as_secs());
    }

    #[test]
    fn how_a_stage_ended_is_one_line() {
        let (stage, took) = (Stage::Cost, Duration::from_secs(61));
        let good = Measured::after(None, stage, taken("a"), Ok(results("x", 1.0)));
        let expected = "cost took 61 s: 1 figures, 1 of 1 targets met";
        assert_eq!(outcome(stage, &good, took), expected);
        let bad = Measured::after(Some(good), stage, taken("a"), Err("gone".to_owned()));
        assert_eq!(outcome(stage, &bad, took), "cost FAILED after 61 s: gone");
    }
}
