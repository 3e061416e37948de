//! What one stage measured, beside what was aimed at, and the table of it. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `stage/subject/what`.
    pub name: String,
    /// The figure; NaN where it could not be taken, which JSON has as `null`.
    #[serde(deserialize_with = "or_nan")]
    pub value: f64,
    /// Its unit; empty for a ratio.
    pub unit: Cow<'static, str>,
    /// What it should be, as `<= 1.1`.
    pub target: Option<String>,
    /// Whether it is; absent without a target.
    pub met: Option<bool>,
    /// The target's number.
    pub bound: Option<f64>,
}

fn or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Everything that one stage measured.
#[derive(Default)]
pub struct Results {
    /// The figures, in the order in which they were measured.
    pub rows: Vec<Row>,
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
        self.rows.push(Row { name: name.into(), value, unit: unit.into(), target, met, bound });
    }

    /// Adds the minimum and the median of samples, and keeps them all.
    pub fn add_samples(&mut self, name: &str, samples: &[f64], unit: &'static str) {
        self.add(format!("{name} (min)"), min(samples), unit, Aim::None);
        self.add(format!("{name} (median)"), median(samples), unit, Aim::None);
        self.samples.insert(name.to_owned(), json!(samples));
    }
}

/// The table of figures for a terminal, and how many targets were met.
pub fn table(rows: &[Row]) -> String {
    let mut cells_of = vec![HEAD.map(str::to_owned).into()];
    cells_of.extend(rows.iter().map(cells));
    let (met, aimed) = targets(rows);
    columns(&cells_of) + &format!("{met} of {aimed} targets met\n")
}

/// How many targets were met, and how many there were.
pub fn targets(rows: &[Row]) -> (usize, usize) {
    let of = |met: bool| rows.iter().filter(|row| row.met == Some(met)).count();
    (of(true), of(true) + of(false))
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
    let (value, unit) = (number(row.value), row.unit.clone().into_owned());
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
        assert!(table(&results.rows).ends_with("2 of 3 targets met\n"), "{}", table(&results.rows));
        let json = serde_json::to_value(&results.rows[1]).unwrap();
        let expected = json!({"name": "b", "value": 1.2, "unit": "", "target": "<= 1.10", "met": false,
            "bound": 1.1});
        assert_eq!(json, expected);
    }

    #[test]
    fn a_figure_that_could_not_be_taken_meets_nothing() {
        let mut results = Results::default();
        results.add("a", min(&[]), "", Aim::AtMost(1.0));
        assert_eq!(results.rows[0].met, Some(false));
        let text = serde_json::to_string(&results.rows).unwrap();
        let read: Vec<Row> = serde_json::from_str(&text).unwrap();
        assert!(read[0].value.is_nan() && cells(&read[0])[5] == "not taken", "{text}");
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
    fn the_middle_and_the_least() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(min(&[3.0, 1.0, 2.0]), 1.0);
        assert!(median(&[]).is_nan());
    }
}
