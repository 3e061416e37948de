//! Conditions under which a simulation fails: `newly_refused > 0.1 %`, `refused[background] >= 5`.
//!
//! ```text
//! FIGURE [ '[' CLASS ']' ] ( '>' | '>=' | '<' | '<=' ) NUMBER [ '%' ]
//! ```

use std::fmt;
use std::str::FromStr;

use crate::simulate::tally::{Both, Tally};

type Figure = fn(&Both) -> u64;

/// What can be asked of.
const FIGURES: [(&str, Figure); 4] = [
    ("requests", |both| both.requests),
    ("refused", |both| both.new_refused),
    ("newly_refused", |both| both.newly_refused),
    ("newly_admitted", |both| both.newly_admitted),
];

/// Requests that were recorded and could not be simulated.
const NOT_SIMULATED: &str = "not_simulated";
/// Requests that meet no rule of the new quotas.
const WITHOUT_RULE: &str = "without_rule";

/// A condition under which a simulation fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    figure: String,
    class: Option<String>,
    comparison: Comparison,
    bound: f64,
    is_percent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// What is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// No sign.
    #[error("has none of > >= < <=")]
    NoComparison,
    /// A figure that does not exist.
    #[error(
        "'{0}' is none of requests, refused, newly_refused, newly_admitted, not_simulated, without_rule"
    )]
    UnknownFigure(String),
    /// What stands at the right.
    #[error("'{0}' is not a number or a percentage")]
    NoNumber(String),
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let at = text.find(['>', '<']).ok_or(ConditionError::NoComparison)?;
        let (left, right) = text.split_at(at);
        let (comparison, right) = match (right.strip_prefix(">="), right.strip_prefix("<=")) {
            (Some(rest), _) => (Comparison::AtLeast, rest),
            (_, Some(rest)) => (Comparison::AtMost, rest),
            _ if right.starts_with('>') => (Comparison::Above, &right[1..]),
            _ => (Comparison::Below, &right[1..]),
        };
        let (figure, class) = match left.trim().split_once('[') {
            Some((figure, class)) => (figure.trim(), Some(class.trim_end_matches(']').trim())),
            None => (left.trim(), None),
        };
        let is_known = FIGURES.iter().any(|(name, _)| *name == figure);
        let is_of_all = [NOT_SIMULATED, WITHOUT_RULE].contains(&figure) && class.is_none();
        if !is_known && !is_of_all {
            return Err(ConditionError::UnknownFigure(left.trim().to_owned()));
        }
        let right = right.trim();
        let number = right.strip_suffix('%').unwrap_or(right).trim();
        let bound = number.parse().ok().filter(|bound: &f64| bound.is_finite());
        Ok(Self {
            text: text.trim().to_owned(),
            figure: figure.to_owned(),
            class: class.map(str::to_owned),
            comparison,
            bound: bound.ok_or_else(|| ConditionError::NoNumber(right.to_owned()))?,
            is_percent: right.ends_with('%'),
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// The class that it is about, if it is about one.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// Whether it holds, and what its figure is, for people.
    pub fn verdict(&self, tally: &Tally) -> (bool, String) {
        let (holds, figure) = self.holds(tally);
        let figure =
            if self.is_percent { format!("{figure:.3} %") } else { format!("{figure:.0}") };
        (holds, figure)
    }

    /// Whether it holds, with the figure that it is about.
    pub fn holds(&self, tally: &Tally) -> (bool, f64) {
        let nothing = Both::default();
        let both = match &self.class {
            None => &tally.total,
            Some(class) => tally.classes.get(class.as_str()).unwrap_or(&nothing),
        };
        let figure = FIGURES.iter().find(|(name, _)| *name == self.figure);
        let (figure, of) = match figure {
            Some((_, figure)) => (figure(both), both.requests),
            None if self.figure == WITHOUT_RULE => (tally.without_rule, tally.total.requests),
            None => {
                let missing = tally.other.0 + tally.left_out + tally.errors;
                (missing, tally.total.requests + tally.other.0 + tally.left_out)
            }
        };
        let figure = match self.is_percent {
            true if of == 0 => 0.0,
            true => figure as f64 / of as f64 * 100.0,
            false => figure as f64,
        };
        let holds = match self.comparison {
            Comparison::Above => figure > self.bound,
            Comparison::AtLeast => figure >= self.bound,
            Comparison::Below => figure < self.bound,
            Comparison::AtMost => figure <= self.bound,
        };
        (holds, figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_or_not() {
        let mut tally = Tally::new();
        tally.total = Both::of(1000, 10, 15);
        tally.classes.insert("background".into(), Both::of(100, 0, 5));
        tally.other = (1000, 0);
        tally.without_rule = 30;
        for (text, expected) in [
            ("newly_refused > 0.4 %", true),
            ("newly_refused>0.5%", false),
            ("newly_refused >= 0.5 %", true),
            ("refused > 14", true),
            ("refused[background] >= 5 %", true),
            ("refused[ingest] > 0", false),
            ("requests < 1", false),
            ("requests <= 1000", true),
            ("newly_admitted > 0", false),
            ("not_simulated > 49%", true),
            ("without_rule >= 3 %", true),
        ] {
            let condition: Condition = text.parse().expect(text);
            assert_eq!(condition.holds(&tally).0, expected, "{text}");
        }
        let verdict = |text: &str| text.parse::<Condition>().expect(text).verdict(&tally).1;
        assert_eq!(
            (verdict("refused > 3 %"), verdict("refused > 3")),
            ("1.500 %".into(), "15".into())
        );
    }

    #[test]
    fn what_is_no_condition_says_why() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Condition>().expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("newly_refused", "none of > >=");
        check("newly > 1", "'newly' is none of");
        check("not_simulated[a] > 1", "is none of");
        check("without_rule[a] > 1", "is none of");
        check("refused > many", "'many' is not a number");
        check("refused > inf", "not a number");
    }
}
