//! Recordings from the access logs of Envoy, for who has run nothing of ours yet: what each line would have
//! asked, by descriptor rules like those of Envoy's rate limit filter.
//!
//! ```text
//! log line ─► values by operator ─► descriptors ─► table of its second ─► files
//! ```

pub mod bootstrap;
pub mod instant;
pub mod operators;

use std::collections::BTreeMap;
use std::io;

use crate::decide::request::{Descriptor, Request};
use crate::import::instant::millis;
use crate::import::operators::{Broke, Log, Values};
use crate::limits::class::PRIORITY_KEY;
use crate::limits::stats::Reason;
use crate::record::segments::Segments;
use crate::record::table::{Refused, Table};

/// Lines that are shown with where they broke.
pub const SHOWN_MAX: usize = 10;
/// Seconds that wait for lines that come late; a log has requests in the order in which they ended.
const SECONDS_OPEN_MAX: usize = 600;
/// Shapes of one second.
const ROWS_MAX: usize = 16_384;

/// How one entry of a descriptor is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRule {
    /// The key.
    pub key: String,
    /// Where its value is.
    pub value: ValueRule,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueRule {
    /// It is always this.
    Text(String),
    /// What the log has for this operator, or else the text; without both there is no descriptor.
    Logged(String, Option<String>),
}

/// How one descriptor is made of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorRule {
    /// Its entries.
    pub entries: Vec<EntryRule>,
    /// Whether it only looks.
    pub is_look: bool,
}

/// How lines become requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The domain of all requests.
    pub domain: String,
    /// The descriptors of each.
    pub descriptors: Vec<DescriptorRule>,
    /// Status codes that are given before limits are asked.
    pub not_asked: Vec<u16>,
}

/// What became of the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that became requests.
    pub requests: u64,
    /// Of these, those that had been refused with 429.
    pub refused: u64,
    /// Lines that ask nothing: no descriptor can be made of them, or they were answered before.
    pub not_asked: u64,
    /// Lines that came more than ten minutes late.
    pub late: u64,
    /// Lines that do not match.
    pub broken: u64,
    /// The first of these: number, what is wrong, and the line.
    pub shown: Vec<(u64, String, String)>,
}

/// Lines on their way into files.
pub struct Import<'a> {
    log: &'a Log,
    rules: &'a Rules,
    open: BTreeMap<u64, Table>,
    /// Seconds up to here are written.
    written: Option<u64>,
    to: Segments,
    number: u64,
    /// What became of the lines so far.
    pub summary: Summary,
}

impl<'a> Import<'a> {
    /// Into these files.
    pub fn new(log: &'a Log, rules: &'a Rules, to: Segments) -> Self {
        let summary = Summary::default();
        Self { log, rules, open: BTreeMap::new(), written: None, to, number: 0, summary }
    }

    /// Takes a line.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.number += 1;
        if line.trim().is_empty() {
            return Ok(());
        }
        if let Err(broke) = self.try_line(line) {
            self.summary.broken += 1;
            if self.summary.shown.len() < SHOWN_MAX {
                let shown = line.chars().take(200).collect();
                self.summary.shown.push((self.number, broke.to_string(), shown));
            }
        }
        while self.open.len() > SECONDS_OPEN_MAX {
            self.write_first()?;
        }
        Ok(())
    }

    fn try_line(&mut self, line: &str) -> Result<(), Broke> {
        let values = self.log.read(line)?;
        let started = values.starting("START_TIME").ok_or(Broke::NoTime)?;
        let at = millis(started).ok_or_else(|| Broke::Time(started.to_owned()))?;
        let status = values.get("RESPONSE_CODE").and_then(|status| status.parse::<u16>().ok());
        let descriptors = self.descriptors(&values);
        let is_asked = !status.is_some_and(|status| self.rules.not_asked.contains(&status));
        if descriptors.is_empty() || !is_asked {
            self.summary.not_asked += 1;
            return Ok(());
        }
        let (second, millisecond) = (at / 1000, (at % 1000) as u16);
        if self.written.is_some_and(|written| second <= written) {
            self.summary.late += 1;
            return Ok(());
        }
        let request = Request { domain: &self.rules.domain, descriptors, hits_addend: 1 };
        let mut entries = request.descriptors.iter().flat_map(|one| &one.entries);
        let class = entries.find(|(key, _)| *key == PRIORITY_KEY).map_or("", |(_, value)| value);
        // The log does not say which rule it was.
        let refused = Refused { rule: "", reason: Reason::OverLimit };
        let refused = (status == Some(429)).then_some(refused);
        self.summary.requests += 1;
        self.summary.refused += u64::from(refused.is_some());
        let table = self.open.entry(second).or_insert_with(|| Table::new(ROWS_MAX));
        table.begin(second);
        table.add(&request, class, refused, millisecond);
        Ok(())
    }

    fn descriptors<'v>(&self, values: &'v Values<'_>) -> Vec<Descriptor<'v>>
    where
        'a: 'v,
    {
        let rules: &'a Rules = self.rules;
        let value = |rule: &'a ValueRule| -> Option<&'v str> {
            match rule {
                ValueRule::Text(text) => Some(text),
                ValueRule::Logged(operator, default) => values.get(operator).or(default.as_deref()),
            }
        };
        let descriptor = |rule: &'a DescriptorRule| {
            let entry = |entry: &'a EntryRule| Some((entry.key.as_str(), value(&entry.value)?));
            Some(Descriptor {
                entries: rule.entries.iter().map(entry).collect::<Option<_>>()?,
                hits_addend: rule.is_look.then_some(0),
                ..Descriptor::default()
            })
        };
        rules.descriptors.iter().filter_map(descriptor).collect()
    }

    fn write_first(&mut self) -> io::Result<()> {
        if let Some((second, table)) = self.open.pop_first() {
            self.written = Some(second);
            self.to.write(&[table])?;
        }
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn finish(mut self) -> io::Result<Summary> {
        while !self.open.is_empty() {
            self.write_first()?;
        }
        self.to.finish()?;
        Ok(self.summary)
    }
}

/// Reads `key=value,key=value`, where a value that is an operator in percent signs is the log's.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn descriptor_rule(text: &str) -> Result<DescriptorRule, String> {
    let entry = |entry: &str| {
        let (key, value) = entry
            .split_once('=')
            .ok_or_else(|| format!("'{entry}' is not of the form key=value"))?;
        let operator = value.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
        let value = match operator {
            Some(operator) => ValueRule::Logged(operator.to_owned(), None),
            None => ValueRule::Text(value.to_owned()),
        };
        Ok::<_, String>(EntryRule { key: key.to_owned(), value })
    };
    let entries = text.split(',').map(entry).collect::<Result<_, _>>()?;
    Ok(DescriptorRule { entries, is_look: false })
}

#[cfg(test)]
mod tests;
