//! Reads recordings and lets worlds decide them: a thread reads ahead, the old quotas are decided beside
//! the new ones, and what came of both is added up in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::limits::quotas::Quotas;
use crate::record::hashed::KnownValues;
use crate::record::reader::{Problems, Second, Traffic};
use crate::record::shape::Shape;
use crate::simulate::shapes::Shapes;
use crate::simulate::tally::{OldSide, Tally};
use crate::simulate::world::{RowAnswer, World};
use crate::simulate::{Scenario, notes};

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
        notes.extend(notes::on_hashes(&named(question), &hashed, known.is_some()));
    }
    let all_shapes = Shapes::default();
    let shapes = &all_shapes;
    let mut new = World::new(&question.new, &question.scenario);
    let mut old = question.old.as_deref().map(|old| World::new(old, &question.scenario));
    let mut tally = Tally::new();
    let problems = std::thread::scope(|scope| {
        let (send, receive) = sync_channel(BATCHES_AHEAD);
        let reader = scope.spawn(move || read(traffic, &send));
        while let Some(batch) = next(&receive) {
            for shape in batch.new_shapes {
                shapes.push(match &known {
                    Some(known) => find_again(shape, known),
                    None => shape,
                });
            }
            let seconds = &batch.seconds;
            let (of_new, of_old) = match &mut old {
                None => (decide(&mut new, seconds, shapes), None),
                Some(old) => std::thread::scope(|both| {
                    let old = both.spawn(|| decide(old, seconds, shapes));
                    let new = decide(&mut new, seconds, shapes);
                    (new, old.join().ok())
                }),
            };
            for (at, second) in seconds.iter().enumerate() {
                let side = match &of_old {
                    Some(answers) => OldSide::Quotas(&answers[at]),
                    None => OldSide::Recorded,
                };
                tally.add(second, shapes, &of_new[at], &side);
            }
            let decisions = new.decisions + old.as_ref().map_or(0, |old| old.decisions);
            progress(Progress { part: batch.part, decisions });
        }
        reader.join().map_err(|_| "reading the recordings failed".to_owned())
    })?;
    tally.finish(shapes, &new);
    let evictions = new.evictions() + old.as_ref().map_or(0, World::evictions);
    if evictions > 0 {
        notes.push(format!("{evictions} counters were dropped for want of room, and began anew"));
    }
    let decisions = new.decisions + old.as_ref().map_or(0, |old| old.decisions);
    drop((new, old));
    let shapes = all_shapes.into_vec();
    notes.extend(notes::on_domains(&tally, &shapes, &question.new));
    notes.extend(notes::on_rules(&tally, &question.new));
    if question.old.is_none() {
        notes.extend(notes::on_rules_gone(&tally, &question.new));
    }
    notes.extend(notes::on_outage(&tally, &question.scenario.counting));
    Ok(Answer { tally, shapes, problems, notes, decisions })
}

/// Lets a world decide some seconds.
fn decide<'a>(
    world: &mut World<'a>,
    seconds: &[Second],
    shapes: &'a Shapes,
) -> Vec<Vec<RowAnswer>> {
    seconds.iter().map(|second| world.second(second, shapes)).collect()
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

/// Keys and values that the quotas of both sides name.
fn named(question: &Question) -> Vec<(String, String)> {
    let both = [Some(&question.new), question.old.as_ref()];
    both.into_iter().flatten().flat_map(|quotas| notes::named(quotas)).collect()
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
