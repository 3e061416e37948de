//! What a simulation found, as text for people and as JSON for programs.

pub mod html;

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::simulate::gate::Condition;
use crate::simulate::instant::instant;
use crate::simulate::run::Answer;
use crate::simulate::tally::{Both, OfRule};

/// Those who asked that a report names.
pub const WHO_MAX: usize = 50;
/// Those of them that text shows.
const WHO_SHOWN: usize = 10;

/// What a report is made of.
pub struct Report<'a> {
    /// What came of the simulation.
    pub answer: &'a Answer,
    /// What the new quotas are held against, in words.
    pub against: &'a str,
    /// Conditions under which it fails.
    pub conditions: &'a [Condition],
}

/// `part` of `whole` in percent.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.3} %", part as f64 / whole as f64 * 100.0)
}

fn line(both: &Both) -> String {
    let Both { requests, old_refused, new_refused, newly_refused, newly_admitted } = *both;
    format!(
        "{requests:>12} {old_refused:>12} {new_refused:>12} {newly_refused:>12} {:>10} {newly_admitted:>12}",
        percent(newly_refused, requests)
    )
}

/// A rule of a domain; recordings of other sources do not know which it was.
fn rule_name(domain: &str, rule: &str) -> String {
    if rule.is_empty() {
        format!("{domain} (rule not recorded)")
    } else {
        format!("{domain}.{rule}")
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn reasons(figures: &std::collections::BTreeMap<&'static str, u64>) -> String {
    let parts: Vec<String> =
        figures.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

impl Report<'_> {
    /// As text; with colours for a terminal.
    pub fn text(&self, is_coloured: bool) -> String {
        let tally = &self.answer.tally;
        let mut text = String::new();
        let span = tally.span.map(|(from, to)| (instant(from), instant(to), to - from + 1));
        let (from, to, seconds) = span.unwrap_or_default();
        let _ = writeln!(text, "traffic  {from} to {to} ({seconds} s), against {}", self.against);
        let head = "    requests  old refused  new refused newly refused      share newly admitted";
        let _ = writeln!(text, "\n{:<28} {head}", "");
        let _ = writeln!(text, "{:<28} {}", "all", line(&tally.total));
        for (class, both) in &tally.classes {
            let _ = writeln!(text, "{:<28} {}", format!("class {class}"), line(both));
        }
        let _ = writeln!(text, "\nrules");
        for ((domain, rule), OfRule { requests, old, new, trial }) in &tally.rules {
            let _ = writeln!(
                text,
                "  {}: {requests} requests, old refused: {}, new refused: {}",
                rule_name(domain, rule),
                reasons(old),
                reasons(new)
            );
            if trial.requests > 0 {
                let _ = writeln!(
                    text,
                    "    its trial would refuse {} of {}: {} newly ({}), and newly admit {}",
                    trial.new_refused,
                    trial.requests,
                    trial.newly_refused,
                    percent(trial.newly_refused, trial.requests),
                    trial.newly_admitted
                );
            }
        }
        let who = tally.who(&self.answer.shapes);
        let hit: Vec<_> =
            who.iter().filter(|(_, both)| both.new_refused + both.old_refused > 0).collect();
        if !hit.is_empty() {
            let _ = writeln!(text, "\nhit hardest");
            for (name, both) in hit.iter().take(WHO_SHOWN) {
                let _ = writeln!(text, "{:<28} {}", format!("  {name}"), line(both));
            }
            if hit.len() > WHO_SHOWN {
                let _ = writeln!(text, "  and {} more", hit.len() - WHO_SHOWN);
            }
        }
        if let Some((t, both)) = tally.worst().filter(|(_, both)| both.new_refused > 0) {
            let _ = writeln!(
                text,
                "\nworst {}: from {}, {} of {} refused, {} newly",
                self.step_name(),
                instant(t),
                both.new_refused,
                both.requests,
                both.newly_refused
            );
        }
        let paint = |code: &str, text: &str| match is_coloured {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let notes = self.notes();
        if !notes.is_empty() {
            text.push('\n');
        }
        for note in notes {
            let _ = writeln!(text, "{} {note}", paint("1;36", "note:"));
        }
        for condition in self.conditions {
            let (holds, figure) = condition.verdict(tally);
            let verdict = if holds { paint("1;31", "FAILED") } else { paint("1;32", "passed") };
            let _ = writeln!(text, "{verdict}: --fail-if '{condition}', it is {figure}");
        }
        text
    }

    /// The length of a step in words.
    fn step_name(&self) -> String {
        match self.answer.tally.step_seconds {
            60 => "minute".to_owned(),
            seconds => format!("{seconds} s"),
        }
    }

    /// What was not simulated, and what to know.
    fn notes(&self) -> Vec<String> {
        let tally = &self.answer.tally;
        let (other, refused) = tally.other;
        let mut notes = Vec::new();
        if other > 0 {
            notes.push(format!(
                "{other} requests of the tail were counted together when recorded ({refused} refused) and are not simulated"
            ));
        }
        if tally.left_out > 0 {
            notes.push(format!("{} requests of crowded seconds are not simulated", tally.left_out));
        }
        if tally.errors > 0 {
            notes.push(format!("{} requests have no answer", tally.errors));
        }
        notes.extend(self.answer.notes.iter().cloned());
        let problems = &self.answer.problems;
        if problems.count > 0 {
            let parts = if problems.count == 1 { "part" } else { "parts" };
            let count = problems.count;
            notes.push(format!("{count} {parts} of the recordings could not be used:"));
            notes.extend(problems.named.iter().map(|named| format!("  {named}")));
        }
        notes
    }

    /// As one JSON object.
    pub fn json(&self) -> Json {
        let tally = &self.answer.tally;
        let figures = |both: &Both| {
            json!({
                "requests": both.requests,
                "old_refused": both.old_refused,
                "new_refused": both.new_refused,
                "newly_refused": both.newly_refused,
                "newly_admitted": both.newly_admitted,
            })
        };
        let with = |name: &str, value: Json, both: &Both| {
            let mut object = figures(both);
            object[name] = value;
            object
        };
        let rule = |((domain, rule), of_rule): (&(String, String), &OfRule)| {
            json!({
                "domain": domain, "rule": rule, "requests": of_rule.requests,
                "old_refused": of_rule.old, "new_refused": of_rule.new,
                "trial": (of_rule.trial.requests > 0).then(|| figures(&of_rule.trial)),
            })
        };
        let condition = |condition: &Condition| {
            let (fails, figure) = condition.holds(tally);
            json!({"condition": condition.to_string(), "fails": fails, "figure": figure})
        };
        let who = tally.who(&self.answer.shapes);
        let who =
            who.iter().take(WHO_MAX).map(|(name, both)| with("who", name.as_str().into(), both));
        json!({
            "against": self.against,
            "from": tally.span.map(|span| span.0),
            "to": tally.span.map(|span| span.1),
            "total": figures(&tally.total),
            "classes": tally.classes.iter()
                .map(|(class, both)| with("class", (&**class).into(), both)).collect::<Vec<_>>(),
            "rules": tally.rules.iter().map(rule).collect::<Vec<_>>(),
            "who": who.collect::<Vec<_>>(),
            "step_seconds": tally.step_seconds,
            "steps": tally.steps.iter()
                .map(|(t, both)| with("t", (*t).into(), both)).collect::<Vec<_>>(),
            "worst": tally.worst().map(|(t, both)| with("t", t.into(), &both)),
            "other": {"requests": tally.other.0, "refused": tally.other.1},
            "left_out": tally.left_out,
            "without_rule": tally.without_rule,
            "errors": tally.errors,
            "notes": self.answer.notes,
            "problems": {"count": self.answer.problems.count, "named": self.answer.problems.named},
            "conditions": self.conditions.iter().map(condition).collect::<Vec<_>>(),
        })
    }

    /// As Markdown, for a comment on a pull request.
    pub fn markdown(&self) -> String {
        let tally = &self.answer.tally;
        let failed = self.conditions.iter().any(|condition| condition.holds(tally).0);
        let mut text = String::from("### Quota simulation");
        text += if failed { ": failed\n\n" } else { "\n\n" };
        let (from, to) = tally.span.unwrap_or_default();
        let _ = writeln!(
            text,
            "Traffic from {} to {}, against {}.\n",
            instant(from),
            instant(to),
            self.against
        );
        let head = "| | requests | old refused | new refused | newly refused | newly admitted |";
        let _ = writeln!(text, "{head}\n|---|---:|---:|---:|---:|---:|");
        let mut row = |name: &str, both: &Both| {
            let cell = name.replace('|', "\\|");
            let _ = writeln!(
                text,
                "| {cell} | {} | {} | {} | {} ({}) | {} |",
                both.requests,
                both.old_refused,
                both.new_refused,
                both.newly_refused,
                percent(both.newly_refused, both.requests),
                both.newly_admitted
            );
        };
        row("all", &tally.total);
        for (class, both) in &tally.classes {
            row(&format!("class `{class}`"), both);
        }
        for (who, both) in tally.who(&self.answer.shapes).iter().take(WHO_SHOWN) {
            if both.newly_refused + both.newly_admitted > 0 {
                row(&format!("`{}`", who.replace('`', "'")), both);
            }
        }
        for ((domain, rule), of_rule) in &tally.rules {
            if of_rule.trial.requests > 0 {
                row(
                    &format!("trial of `{}`", format!("{domain}.{rule}").replace('`', "'")),
                    &of_rule.trial,
                );
            }
        }
        for condition in self.conditions {
            let (holds, figure) = condition.verdict(tally);
            let verdict = if holds { "**failed**" } else { "passed" };
            let _ = writeln!(text, "\n- `{condition}`: {verdict}, it is {figure}");
        }
        let notes = self.notes();
        if !notes.is_empty() {
            let _ = writeln!(text, "\n```\n{}\n```", notes.join("\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_read_at_a_glance() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (43_023_456, "43,023,456")]
        {
            assert_eq!(grouped(number), expected);
        }
    }
}
