//! What a stage measured, when, of which program and on which machine; and what becomes of that when the
//! stage runs again. Pure.
//!
//! ```text
//! cost      taken 21:04 of 9b75676  ─► runs again ─► taken 23:12 of 1c0ffee
//! ingest    taken 21:09 of 9b75676  ─► fails      ─► taken 21:09 of 9b75676, failed 23:13: no Kafka
//! path      taken 21:11 of 9b75676  ─► is cut     ─► taken 21:11 of 9b75676
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::results::{Aim, Results, Row, targets};
use super::stage::Stage;

/// How long all stages may take together on a machine that does nothing else, s.
pub const WHOLE_MAX: f64 = 15.0 * 60.0;
/// The same for quick ones.
pub const QUICK_MAX: f64 = 5.0 * 60.0;

/// The conditions of one run of one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// The commit that was checked out, with `+` where files differed from it.
    pub commit: String,
    /// When it began, in seconds since 1970.
    pub unix_time: u64,
    /// Load averages when it began.
    pub load: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What the hypervisor gave to others meanwhile, in seconds of all processors.
    pub stolen_seconds: f64,
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Where.
    pub machine: Machine,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Processors that are ours.
    pub processors: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// The kernel's version.
    pub kernel: String,
    /// The version of Tidegate.
    pub version: String,
}

impl Machine {
    /// One sentence without its full stop.
    pub fn text(&self) -> String {
        let gib = self.memory_mib as f64 / 1024.0;
        let Self { processor, processors, kernel, .. } = self;
        format!("{processors} x {processor}, {gib:.1} GiB, Linux {kernel}")
    }
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// Its conditions.
    pub taken: Taken,
    /// Why.
    pub why: String,
}

/// The newest figures of a stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Which stage.
    pub stage: String,
    /// Where its figures come from; none if it never ran to its end.
    pub taken: Option<Taken>,
    /// The last run, if it failed.
    pub failed: Option<Failed>,
    /// Figures, in the order in which they were measured.
    pub rows: Vec<Row>,
    /// Remarks on what was left out or shortened.
    pub notes: Vec<String>,
    /// Pictures, as HTML.
    pub pictures: Vec<String>,
    /// Latency histograms by name.
    pub histograms: Map<String, Value>,
    /// Every sample behind a minimum or a median, by the name of the figure.
    pub samples: Map<String, Value>,
    /// What classes on one limit wanted and were given, second by second.
    pub seconds: Map<String, Value>,
}

impl Measured {
    /// What is known of a stage after it ran: its new figures, or those from before and why there are no newer ones.
    pub fn after(
        before: Option<Self>,
        stage: Stage,
        taken: Taken,
        outcome: Result<Results, String>,
    ) -> Self {
        let stage = stage.name().to_owned();
        let results = match outcome {
            Ok(results) => results,
            Err(why) => {
                let failed = Some(Failed { taken, why });
                return match before {
                    Some(before) => Self { failed, ..before },
                    None => Self { failed, ..Self::of(stage, None, Results::default()) },
                };
            }
        };
        Self::of(stage, Some(taken), results)
    }

    fn of(stage: String, taken: Option<Taken>, results: Results) -> Self {
        let Results { rows, notes, plots, histograms, samples, seconds } = results;
        let pictures = plots.iter().map(super::plot::Plot::html).collect();
        Self { stage, taken, failed: None, rows, notes, pictures, histograms, samples, seconds }
    }
}

/// All figures, and behind them how long each stage took.
pub fn rows(all: &[Measured]) -> Vec<Row> {
    let mut rows: Vec<Row> = all.iter().flat_map(|one| one.rows.iter().cloned()).collect();
    let mut took = Results::default();
    let (mut sum, mut quick) = (0.0, false);
    let taken = || all.iter().filter_map(|one| Some((one, one.taken.as_ref()?)));
    for (one, taken) in taken() {
        took.add(format!("run/{}", one.stage), taken.seconds, "s", Aim::None);
        sum += taken.seconds;
        quick |= taken.quick;
    }
    if taken().count() == Stage::all().len() {
        let most = if quick { QUICK_MAX } else { WHOLE_MAX };
        took.add("run/all stages", sum, "s", Aim::AtMost(most));
    }
    rows.extend(took.rows);
    rows
}

/// What is to be said of stages beside their figures: notes, failures, and which have none.
pub fn remarks(all: &[Measured]) -> Vec<String> {
    let mut remarks = Vec::new();
    for one in all {
        remarks.extend(one.notes.iter().map(|note| format!("note: {note}")));
        if let Some(failed) = &one.failed {
            let kept = match &one.taken {
                Some(taken) => format!("; its figures are those of {}", taken.commit),
                None => String::new(),
            };
            remarks.push(format!("FAILED {}: {}{kept}", one.stage, failed.why));
        }
    }
    remarks
}

/// How many targets were met of how many.
pub fn met(all: &[Measured]) -> (usize, usize) {
    let each = all.iter().map(|one| targets(&one.rows));
    each.fold((0, 0), |(met, of), one| (met + one.0, of + one.1))
}

/// Tests, and values for those of other files.
#[cfg(test)]
pub mod tests {
    use super::*;

    /// Conditions of a run of that commit.
    pub fn taken(commit: &str) -> Taken {
        Taken {
            commit: commit.to_owned(),
            unix_time: 1_800_000_000,
            load: "0.10 0.20 0.30".to_owned(),
            seconds: 60.0,
            stolen_seconds: 0.0,
            quick: false,
            machine: Machine {
                processor: "P".to_owned(),
                processors: 2,
                memory_mib: 2048,
                kernel: "6".to_owned(),
                version: "1".to_owned(),
            },
        }
    }

    /// One figure.
    pub fn results(name: &str, value: f64) -> Results {
        let mut results = Results::default();
        results.add(name, value, "us", Aim::AtMost(1.5));
        results.notes.push(format!("of {name}"));
        results
    }

    #[test]
    fn a_stage_that_runs_again_has_its_new_figures_only() {
        let first = Measured::after(None, Stage::Cost, taken("a"), Ok(results("x", 1.0)));
        let again = Measured::after(Some(first), Stage::Cost, taken("b"), Ok(results("y", 2.0)));
        let names: Vec<_> = again.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!((names, again.notes.len()), (vec!["y"], 1));
        assert_eq!(again.taken.map(|taken| taken.commit).as_deref(), Some("b"));
    }

    #[test]
    fn a_stage_that_fails_keeps_what_it_had_and_says_so() {
        let failure = || Err("no Kafka".to_owned());
        let first = Measured::after(None, Stage::Ingest, taken("a"), Ok(results("x", 1.0)));
        let failed = Measured::after(Some(first), Stage::Ingest, taken("b"), failure());
        assert_eq!((failed.rows.len(), failed.taken.as_ref()), (1, Some(&taken("a"))));
        let remarks_of = |one: &Measured| remarks(std::slice::from_ref(one)).pop();
        let expected = "FAILED ingest: no Kafka; its figures are those of a";
        assert_eq!(remarks_of(&failed).as_deref(), Some(expected));
        // Once it runs again, nothing is left of it.
        let again = Measured::after(Some(failed), Stage::Ingest, taken("c"), Ok(results("x", 1.0)));
        assert_eq!(again.failed, None);
        let never = Measured::after(None, Stage::Ingest, taken("b"), failure());
        assert_eq!((never.rows.len(), never.taken.as_ref()), (0, None));
        assert_eq!(remarks_of(&never).as_deref(), Some("FAILED ingest: no Kafka"));
    }

    #[test]
    fn the_time_of_all_stages_is_told_once_all_have_run() {
        let of = |stage: &Stage| Measured::after(None, *stage, taken("a"), Ok(results("x", 1.0)));
        let mut all: Vec<Measured> = Stage::all().iter().map(of).collect();
        let last = rows(&all).pop().expect("there are some");
        assert_eq!((last.name.as_str(), last.value), ("run/all stages", all.len() as f64 * 60.0));
        assert_eq!(met(&all), (all.len(), all.len()));
        all.pop();
        assert_eq!(rows(&all).pop().expect("there are some").name, "run/path");
    }

    #[test]
    fn what_was_written_is_read() {
        let one = Measured::after(None, Stage::Cost, taken("a"), Ok(results("x", f64::NAN)));
        let text = serde_json::to_string(&one).expect("a value");
        let read: Measured = serde_json::from_str(&text).expect("the same");
        assert!(read.rows[0].value.is_nan());
        assert_eq!((read.stage, read.taken, read.notes), (one.stage, one.taken, one.notes));
    }
}
