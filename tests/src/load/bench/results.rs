//! What was measured, beside what was aimed at: the table, `results.json`, and the raw material of
//! the report. Pure but for the writing of its files.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::plot::Plot;
use crate::load::table::{columns, number};

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// For the record.
    None,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `stage/subject/what`.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit; empty for a ratio.
    pub unit: &'static str,
    /// What it should be, as `<= 1.1`.
    pub target: Option<String>,
    /// Whether it is; absent without a target.
    pub met: Option<bool>,
    /// The target's number.
    #[serde(skip)]
    pub bound: Option<f64>,
}

/// Everything of one run.
#[derive(Default)]
pub struct Results {
    /// The figures, in the order in which they were measured.
    pub rows: Vec<Row>,
    /// Stages that could not be measured, and why.
    pub failures: Vec<(String, String)>,
    /// Remarks on what was left out or shortened.
    pub notes: Vec<String>,
    /// Pictures for the report.
    pub plots: Vec<Plot>,
    /// Latency histograms by name.
    pub histograms: serde_json::Map<String, Value>,
    /// Every sample behind a minimum or a median, by the name of the figure.
    pub samples: serde_json::Map<String, Value>,
    /// What classes on one limit wanted and were given, second by second.
    pub seconds: serde_json::Map<String, Value>,
}

impl Results {
    /// Adds a figure.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, aim: Aim) {
        let (sign, bound, met) = match aim {
            Aim::AtMost(most) => ("<=", Some(most), Some(value <= most)),
            Aim::AtLeast(least) => (">=", Some(least), Some(value >= least)),
            Aim::None => ("", None, None),
        };
        let target = bound.map(|bound| format!("{sign} {}", number(bound)));
        self.rows.push(Row { name: name.into(), value, unit, target, met, bound });
    }

    /// Adds the minimum and the median of samples, and keeps them all.
    pub fn add_samples(&mut self, name: &str, samples: &[f64], unit: &'static str) {
        self.add(format!("{name} (min)"), min(samples), unit, Aim::None);
        self.add(format!("{name} (median)"), median(samples), unit, Aim::None);
        self.samples.insert(name.to_owned(), json!(samples));
    }

    /// Takes over what a stage has measured.
    pub fn append(&mut self, stage: Self) {
        self.rows.extend(stage.rows);
        self.failures.extend(stage.failures);
        self.notes.extend(stage.notes);
        self.plots.extend(stage.plots);
        self.histograms.extend(stage.histograms);
        self.samples.extend(stage.samples);
        self.seconds.extend(stage.seconds);
    }

    /// The table for a terminal.
    pub fn table(&self) -> String {
        let mut rows = vec![HEAD.map(str::to_owned).into()];
        rows.extend(self.rows.iter().map(cells));
        let mut text = columns(&rows);
        for note in &self.notes {
            text += &format!("note: {note}\n");
        }
        for (stage, error) in &self.failures {
            text += &format!("FAILED {stage}: {error}\n");
        }
        let missed = self.rows.iter().filter(|row| row.met == Some(false)).count();
        let aimed = self.rows.iter().filter(|row| row.met.is_some()).count();
        let failed = match self.failures.len() {
            0 => String::new(),
            stages => format!("; stages that FAILED: {stages}"),
        };
        text + &format!("{} of {aimed} targets met{failed}\n", aimed - missed)
    }

    /// Writes `results.json`, `samples.json`, `seconds.json`, `histograms.json` and `notes.json`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let write =
            |name: &str, value: &Value| std::fs::write(dir.join(name), format!("{value:#}\n"));
        write("results.json", &json!(self.rows))?;
        write("samples.json", &Value::Object(self.samples.clone()))?;
        std::fs::write(dir.join("histograms.json"), json!(self.histograms).to_string())?;
        write("seconds.json", &Value::Object(self.seconds.clone()))?;
        write("notes.json", &json!({ "notes": self.notes, "failures": self.failures }))?;
        Ok(())
    }
}

/// Over the cells of a row.
pub const HEAD: [&str; 6] = ["figure", "value", "unit", "target", "met", "distance"];

/// The cells of a row, as text.
pub fn cells(row: &Row) -> Vec<String> {
    let met = match row.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    let target = row.target.clone().unwrap_or_default();
    let (value, unit) = (number(row.value), row.unit.to_owned());
    vec![row.name.clone(), value, unit, target, met.to_owned(), distance(row)]
}

/// How far a figure is from its target, in shares of the target; in the figure's unit where that
/// is 0.
fn distance(row: &Row) -> String {
    let Some(bound) = row.bound else { return String::new() };
    let apart = row.value - bound;
    match bound {
        _ if !row.value.is_finite() => "not taken".to_owned(),
        _ if apart == 0.0 => "0".to_owned(),
        0.0 => format!("{}{}", if apart > 0.0 { "+" } else { "" }, number(apart)),
        // More than tenfold is easier read as a factor.
        _ if row.value > 10.0 * bound => format!("{}x", number(row.value / bound)),
        _ => format!("{:+.1} %", apart / bound * 100.0),
    }
}

/// The smallest sample; NaN without any.
pub fn min(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::NAN, f64::min)
}

/// The sample in the middle; NaN without any.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_or_not() {
        let mut results = Results::default();
        results.add("a", 1.1, "", Aim::AtMost(1.1));
        results.add("b", 1.2, "", Aim::AtMost(1.1));
        results.add("c", 0.99, "", Aim::AtLeast(0.99));
        results.add("d", 5.0, "us", Aim::None);
        let met: Vec<_> = results.rows.iter().map(|row| row.met).collect();
        assert_eq!(met, [Some(true), Some(false), Some(true), None]);
        assert!(results.table().ends_with("2 of 3 targets met\n"), "{}", results.table());
        results.failures.push(("cost".to_owned(), "gone".to_owned()));
        assert!(results.table().ends_with("2 of 3 targets met; stages that FAILED: 1\n"));
        let json = serde_json::to_value(&results.rows[1]).unwrap();
        let expected =
            json!({"name": "b", "value": 1.2, "unit": "", "target": "<= 1.10", "met": false});
        assert_eq!(json, expected);
    }

    #[test]
    fn a_figure_that_could_not_be_taken_meets_nothing() {
        let mut results = Results::default();
        results.add("a", min(&[]), "", Aim::AtMost(1.0));
        assert_eq!(results.rows[0].met, Some(false));
    }

    #[test]
    fn a_figure_says_how_far_it_is_from_its_target() {
        let check = |value, aim, expected: &str| {
            let mut results = Results::default();
            results.add("a", value, "us", aim);
            assert_eq!(cells(&results.rows[0])[5], expected);
        };
        check(1.21, Aim::AtMost(1.1), "+10.0 %");
        check(0.55, Aim::AtMost(1.1), "-50.0 %");
        check(0.98, Aim::AtLeast(1.0), "-2.0 %");
        check(30.0, Aim::AtMost(1.0), "30.0x");
        check(7.0, Aim::AtMost(0.0), "+7.00");
        check(1.0, Aim::AtMost(1.0), "0");
        check(f64::NAN, Aim::AtMost(1.0), "not taken");
        check(1.0, Aim::None, "");
    }

    #[test]
    fn what_a_stage_measured_is_taken_over() {
        let (mut all, mut stage) = (Results::default(), Results::default());
        all.add("a", 1.0, "", Aim::None);
        stage.add_samples("b", &[1.0], "us");
        stage.notes.push("n".to_owned());
        all.append(stage);
        assert_eq!((all.rows.len(), all.samples.len(), all.notes.len()), (3, 1, 1));
    }

    #[test]
    fn the_middle_and_the_least() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(min(&[3.0, 1.0, 2.0]), 1.0);
        assert!(median(&[]).is_nan());
    }
}
