//! Reads recordings and lets worlds decide them: a thread reads ahead, the old quotas are decided beside
//! the new ones, and what came of both is added up in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::limits::quotas::Quotas;
use crate::record::hashed::KnownValues;
use crate::record::reader::{Problems, Second, Traffic};
use crate::record::shape::Shape;
use crate::simulate::Scenario;
use crate::simulate::tally::{OldSide, Tally};
use crate::simulate::world::{RowAnswer, World};

/// Requests after which a batch is full; it holds whole seconds.
const BATCH_REQUESTS: u64 = 50_000;
/// Batches that are read ahead.
const BATCHES_AHEAD: usize = 2;

/// What is simulated.
pub struct Question {
    /// Recordings: files and directories.
    pub traffic: Vec<PathBuf>,
    /// The quotas to be tried.
    pub new: Arc<Quotas>,
    /// Those to hold them against; none for what was recorded.
    pub old: Option<Arc<Quotas>>,
    /// Everything else.
    pub scenario: Scenario,
    /// The salt of values that were hashed, if it is known.
    pub salt: Option<String>,
}

/// What came of it.
pub struct Answer {
    /// The figures.
    pub tally: Tally,
    /// All shapes.
    pub shapes: Vec<Shape>,
    /// What could not be used.
    pub problems: Problems,
    /// What to know when reading the figures.
    pub notes: Vec<String>,
    /// Decisions made, on both sides.
    pub decisions: u64,
}

/// How far a simulation is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Of the recordings, from 0 to 1.
    pub part: f64,
    /// Decisions so far.
    pub decisions: u64,
}

/// Seconds that are decided together.
struct Batch {
    seconds: Vec<Second>,
    new_shapes: Vec<Shape>,
    part: f64,
}

/// Simulates, and says now and then how far it is.
///
/// # Errors
/// When there is no recording to be used.
pub fn run(question: &Question, progress: &mut dyn FnMut(Progress)) -> Result<Answer, String> {
    let traffic = Traffic::open(&question.traffic)?;
    let mut notes = Vec::new();
    let hashed = traffic.hashed_keys.clone();
    let known = question.salt.as_ref().map(|salt| known_values(salt, question));
    if !hashed.is_empty() {
        notes.extend(note_on_hashes(question, &hashed, known.is_some()));
    }
    let mut new = World::new(question.new.clone(), &question.scenario);
    let mut old = question.old.clone().map(|old| World::new(old, &question.scenario));
    let mut tally = Tally::new();
    let mut shapes: Vec<Shape> = Vec::new();
    let problems = std::thread::scope(|scope| {
        let (send, receive) = sync_channel(BATCHES_AHEAD);
        let reader = scope.spawn(move || read(traffic, &send));
        while let Some(batch) = next(&receive) {
            let renamed = batch.new_shapes.into_iter().map(|shape| match &known {
                Some(known) => find_again(shape, known),
                None => shape,
            });
            shapes.extend(renamed);
            let seconds = &batch.seconds;
            let decide = |world: &mut World| -> Vec<Vec<RowAnswer>> {
                seconds.iter().map(|second| world.second(second, &shapes)).collect()
            };
            let (of_new, of_old) = match &mut old {
                None => (decide(&mut new), None),
                Some(old) => std::thread::scope(|both| {
                    let old = both.spawn(|| decide(old));
                    let new = decide(&mut new);
                    (new, old.join().ok())
                }),
            };
            for (at, second) in seconds.iter().enumerate() {
                let side = match &of_old {
                    Some(answers) => OldSide::Quotas(&answers[at]),
                    None => OldSide::Recorded,
                };
                tally.add(second, &shapes, &of_new[at], &side);
            }
            let decisions = new.decisions + old.as_ref().map_or(0, |old| old.decisions);
            progress(Progress { part: batch.part, decisions });
        }
        reader.join().map_err(|_| "reading the recordings failed".to_owned())
    })?;
    tally.finish(&shapes, &new);
    let evictions = new.evictions() + old.as_ref().map_or(0, World::evictions);
    if evictions > 0 {
        notes.push(format!("{evictions} counters were dropped for want of room, and began anew"));
    }
    if old.is_none() {
        notes.extend(note_on_rules(&tally, question));
    }
    let decisions = new.decisions + old.as_ref().map_or(0, |old| old.decisions);
    Ok(Answer { tally, shapes, problems, notes, decisions })
}

fn next(batches: &Receiver<Batch>) -> Option<Batch> {
    batches.recv().ok()
}

/// Sends all batches; what could not be used.
fn read(mut traffic: Traffic, send: &std::sync::mpsc::SyncSender<Batch>) -> Problems {
    let mut sent_shapes = 0;
    let (mut seconds, mut requests) = (Vec::new(), 0_u64);
    loop {
        let second = traffic.next_second();
        let is_end = second.is_none();
        if let Some(second) = second {
            let of_second = second.rows.iter().map(|row| row.requests);
            requests = of_second.fold(requests, u64::saturating_add);
            seconds.push(second);
        }
        if is_end || requests >= BATCH_REQUESTS {
            let new_shapes = traffic.shapes[sent_shapes..].to_vec();
            sent_shapes = traffic.shapes.len();
            let (all, done) = traffic.bytes;
            let part = if is_end { 1.0 } else { done as f64 / all.max(1) as f64 };
            let batch = Batch { seconds: std::mem::take(&mut seconds), new_shapes, part };
            requests = 0;
            if send.send(batch).is_err() || is_end {
                return traffic.problems;
            }
        }
    }
}

/// Keys and literal values that the quotas name.
fn named(question: &Question) -> Vec<(String, String)> {
    let mut named = Vec::new();
    for quotas in [Some(&question.new), question.old.as_ref()].into_iter().flatten() {
        for rule in quotas.domains().iter().flat_map(|domain| domain.root.rules()) {
            for step in &rule.steps {
                let value = step.value.as_deref().unwrap_or_default();
                named.push((step.key.to_string(), value.to_owned()));
            }
        }
    }
    named
}

fn known_values(salt: &str, question: &Question) -> KnownValues {
    let named = named(question);
    let literals = named.iter().filter(|(_, value)| !value.is_empty() && !value.contains('*'));
    KnownValues::new(salt, literals.map(|(key, value)| (&**key, &**value)))
}

fn find_again(mut shape: Shape, known: &KnownValues) -> Shape {
    for (key, value) in shape.descriptors.iter_mut().flat_map(|one| &mut one.entries) {
        if let Some(found) = known.value(key, value) {
            *value = found.to_owned();
        }
    }
    shape
}

fn note_on_hashes(
    question: &Question,
    hashed: &std::collections::BTreeSet<String>,
    has_salt: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    let named = named(question);
    let of_hashed = |has: fn(&str) -> bool| {
        let mut keys: Vec<&str> = named
            .iter()
            .filter(|(key, value)| hashed.contains(key) && has(value))
            .map(|(key, _)| key.as_str())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.join(", ")
    };
    let patterns = of_hashed(|value| value.contains('*'));
    if !patterns.is_empty() {
        notes.push(format!("values of {patterns} are hashed: patterns match none of them"));
    }
    let literals = of_hashed(|value| !value.is_empty() && !value.contains('*'));
    if !literals.is_empty() && !has_salt {
        notes.push(format!(
            "values of {literals} are hashed: without --salt-file rules for one value match none of them"
        ));
    }
    notes
}

/// Rules that refused when it was recorded, and that nothing here has.
fn note_on_rules(tally: &Tally, question: &Question) -> Vec<String> {
    let is_known = |domain: &str, rule: &str| {
        let domain = question.new.domain(domain);
        domain.is_some_and(|domain| {
            domain.root.rules().iter().any(|known| *known.id == *rule || known.is_dynamic())
        })
    };
    let gone = tally.rules.iter().filter(|((domain, rule), figures)| {
        !figures.old.is_empty() && figures.requests == 0 && !is_known(domain, rule)
    });
    gone.map(|((domain, rule), figures)| {
        let refused: u64 = figures.old.values().sum();
        format!(
            "{refused} requests were refused by {domain}.{rule}, which the new quotas do not have"
        )
    })
    .collect()
}
