//! Counting one request in several parts, none of which knows of the others: the slots of a
//! cluster, a Redis of its own for windows of a second. Decides what is asked of each part and
//! what is given back; asks nobody itself.
//!
//! ```text
//! all-or-nothing     a ┬ takes what fits ─┐
//!                    b ┴ takes what fits ─┴ refused? ─ no ──► done, then refunds
//!                                             └─ yes ─► a, b give back what they took
//! ```
//!
//! What a class asked for on trial is demand of its class until it is known that another part
//! refuses the request; it is taken back with the hits.
//!
//! Hits on trial count for everybody, so no limit is ever passed; until they are given back others
//! find less room than there is. What cannot be given back is lost until its window ends.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;

use crate::decide::hit::{Count, Hit, Mode, Outcome, Role};
use crate::decide::refusal::Refusals;
use crate::store::error::StoreError;

/// Counts `hits` in the part that `part_of` says, by `count`; the answers are in the order of the hits. What
/// one part took for nothing is handed to `give_back` as refunds.
///
/// # Errors
/// When a part does not answer: it says what became of each hit. What others took on trial is given
/// back then, and is not counted.
///
/// `give_back` takes refunds at once, and is waited for. What was taken on trial is handed to it as
/// well if nobody waits for the answer any more; of parts that had not answered by then nothing is
/// known, and a hit that was not taken must not be given back.
pub async fn count_in_parts<P, F, G>(
    hits: &[Hit],
    mode: Mode,
    part_of: impl Fn(&Hit) -> P,
    count: impl Fn(P, Vec<Hit>, Mode) -> F,
    give_back: impl Fn(Vec<Hit>) -> G,
) -> Result<Vec<Count>, StoreError>
where
    P: PartialEq + Clone,
    F: Future<Output = Result<Vec<Count>, StoreError>>,
    G: Future<Output = ()>,
{
    let everything: Vec<usize> = (0..hits.len()).collect();
    let parts = parts(hits, &everything, part_of);
    if let [(name, _)] = &parts[..] {
        return count(name.clone(), hits.to_vec(), mode).await;
    }
    let unanswered = vec![Outcome::NotCounted; hits.len()];
    if mode == Mode::CountAll {
        return merge(unanswered, ask(hits, &parts, mode, Hit::clone, &count, &|_, _| {}).await);
    }
    let trial = Trial { hits, taken: Mutex::default(), give_back: &give_back };
    let took = |part: &[usize], answer: &Answer| trial.took(part, answer);
    let tried = ask(hits, &parts, mode, on_trial, &count, &took).await;
    let taken = trial.over();
    let mut counts = match merge(unanswered, tried) {
        Ok(counts) => counts,
        Err(error) => {
            give_back(refunds(hits, &taken, &taken)).await;
            let given_back = |outcome| match outcome {
                Outcome::Counted(_) => Outcome::NotCounted,
                other => other,
            };
            let outcomes = error.outcomes(hits.len()).into_iter().map(given_back).collect();
            return Err(error.with_outcomes(outcomes));
        }
    };
    let refusals = Refusals::of(hits, |at| counts[at].over);
    if refusals.any() {
        give_back(refunds(hits, &taken, &no_demand(hits, &counts, &refusals))).await;
        undo(hits, &taken, &mut counts);
        return Ok(counts);
    }
    let asked: Vec<usize> = (0..hits.len()).filter(|at| hits[*at].is_refund).collect();
    let asked = parts_of(&parts, &asked);
    let admitted = counts.into_iter().map(Outcome::Counted).collect();
    merge(admitted, ask(hits, &asked, mode, Hit::clone, &count, &|_, _| {}).await)
}

/// Hits by part, in the order of their first.
type Parts<P> = Vec<(P, Vec<usize>)>;
/// What each part was answered.
type Answers = Vec<(Vec<usize>, Answer)>;
type Answer = Result<Vec<Count>, StoreError>;

/// Hits on trial, of which those that were taken are given back unless the trial ends before.
struct Trial<'a, B: Fn(Vec<Hit>) -> G, G> {
    hits: &'a [Hit],
    taken: Mutex<Vec<usize>>,
    give_back: &'a B,
}

impl<B: Fn(Vec<Hit>) -> G, G> Trial<'_, B, G> {
    /// A part answered.
    fn took(&self, part: &[usize], answer: &Answer) {
        let taken = part.iter().zip(answer.iter().flatten());
        let taken = taken.filter(|(at, count)| {
            count.moved && !self.hits[**at].is_refund && self.hits[**at].amount > 0
        });
        self.taken().extend(taken.map(|(at, _)| *at));
    }

    /// Everybody answered: what was taken, in the order of the hits.
    fn over(&self) -> Vec<usize> {
        let mut taken = std::mem::take(&mut *self.taken());
        taken.sort_unstable();
        taken
    }

    fn taken(&self) -> MutexGuard<'_, Vec<usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Fn(Vec<Hit>) -> G, G> Drop for Trial<'_, B, G> {
    fn drop(&mut self) {
        let taken = self.over();
        if !taken.is_empty() {
            // Nobody waits for it.
            drop((self.give_back)(refunds(self.hits, &taken, &taken)));
        }
    }
}

/// Gives back the hits that were `taken`, and the demand of those that are none after all.
fn refunds(hits: &[Hit], taken: &[usize], no_demand: &[usize]) -> Vec<Hit> {
    let refund = |at: usize| {
        let amount = if taken.contains(&at) { hits[at].amount } else { 0 };
        let mut refund = Hit { amount, is_refund: true, ..on_trial(&hits[at]) };
        if let Some(share) = &mut refund.share
            && no_demand.contains(&at)
        {
            share.asked = Some(hits[at].amount);
        }
        refund
    };
    let concerned = |at: &usize| taken.contains(at) || no_demand.contains(at);
    (0..hits.len()).filter(concerned).map(refund).collect()
}

/// Hits whose demand was noted on trial although another limit refuses their request: no part knows
/// what another refuses. The same judgement as in `decide::settle`.
fn no_demand(hits: &[Hit], counts: &[Count], refusals: &Refusals) -> Vec<usize> {
    let was_noted = |hit: &Hit| {
        let is_possible = hit.amount <= u64::from(hit.capacity());
        hit.forecasts() && !hit.is_refund && hit.amount > 0 && is_possible
    };
    let is_none =
        |at: &usize| was_noted(&hits[*at]) && refusals.by_others(&hits[*at], counts[*at].over);
    (0..hits.len()).filter(is_none).collect()
}

fn parts<P: PartialEq>(hits: &[Hit], of: &[usize], part_of: impl Fn(&Hit) -> P) -> Parts<P> {
    let mut parts: Parts<P> = Vec::new();
    for &at in of {
        let name = part_of(&hits[at]);
        match parts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, part)) => part.push(at),
            None => parts.push((name, vec![at])),
        }
    }
    parts
}

/// The parts with no more than these hits in them.
fn parts_of<P: Clone>(parts: &Parts<P>, of: &[usize]) -> Parts<P> {
    let only = |part: &Vec<usize>| part.iter().copied().filter(|at| of.contains(at)).collect();
    let parts = parts.iter().map(|(name, part)| (name.clone(), only(part)));
    parts.filter(|(_, part): &(P, Vec<usize>)| !part.is_empty()).collect()
}

async fn ask<P: Clone, F: Future<Output = Result<Vec<Count>, StoreError>>>(
    hits: &[Hit],
    parts: &Parts<P>,
    mode: Mode,
    as_asked: impl Fn(&Hit) -> Hit,
    count: &impl Fn(P, Vec<Hit>, Mode) -> F,
    answered: &impl Fn(&[usize], &Answer),
) -> Answers {
    let asked = parts.iter().map(|(name, part)| {
        let call = count(name.clone(), part.iter().map(|at| as_asked(&hits[*at])).collect(), mode);
        async move {
            let answer = call.await;
            answered(part, &answer);
            answer
        }
    });
    let answers = join_all(asked).await;
    parts.iter().map(|(_, part)| part.clone()).zip(answers).collect()
}

/// A hit that takes what fits and refuses nothing; a refund only looks for now.
fn on_trial(hit: &Hit) -> Hit {
    let amount = if hit.is_refund { 0 } else { hit.amount };
    Hit { amount, is_refund: false, role: Role::Observer, ..hit.clone() }
}

/// All counts; or, where a part failed, what became of each hit, which is `outcomes` for those that
/// nobody was asked about.
fn merge(mut outcomes: Vec<Outcome>, answers: Answers) -> Result<Vec<Count>, StoreError> {
    let mut cause = None;
    for (part, answer) in answers {
        let of_part = match answer {
            Ok(counts) => counts.into_iter().map(Outcome::Counted).collect(),
            Err(error) => {
                let of_part = error.outcomes(part.len());
                cause = Some(more_serious(cause, error));
                of_part
            }
        };
        for (at, outcome) in part.into_iter().zip(of_part) {
            outcomes[at] = outcome;
        }
    }
    counts_or_error(outcomes, cause)
}

/// The counts of the hits of one call, of which those in some parts were refused by themselves.
///
/// # Errors
/// When one was: it says what became of each hit.
pub fn merge_refused(
    counts: Vec<Count>,
    refused: Vec<(usize, StoreError)>,
) -> Result<Vec<Count>, StoreError> {
    if refused.is_empty() {
        return Ok(counts);
    }
    let len = counts.len() + refused.len();
    let mut counted = counts.into_iter().map(Outcome::Counted);
    let is_refused = |at: usize| refused.iter().any(|(known, _)| *known == at);
    let outcome = |at| if is_refused(at) { None } else { counted.next() };
    let outcomes = (0..len).map(outcome).map(|one| one.unwrap_or(Outcome::NotCounted)).collect();
    merge(outcomes, refused.into_iter().map(|(at, error)| (vec![at], Err(error))).collect())
}

/// An answer to those hits that nothing was remembered of, with what was of the others.
///
/// # Errors
/// The same error, of all hits.
pub fn merge_remembered(
    remembered: Vec<Option<Count>>,
    answer: Result<Vec<Count>, StoreError>,
) -> Result<Vec<Count>, StoreError> {
    let asked = remembered.iter().enumerate().filter(|(_, count)| count.is_none());
    let asked = asked.map(|(at, _)| at).collect();
    let known = remembered.into_iter();
    let known = known.map(|count| count.map_or(Outcome::NotCounted, Outcome::Counted)).collect();
    merge(known, vec![(asked, answer)])
}

fn counts_or_error(
    outcomes: Vec<Outcome>,
    cause: Option<StoreError>,
) -> Result<Vec<Count>, StoreError> {
    match cause {
        None => Ok(outcomes.into_iter().filter_map(Outcome::count).collect()),
        // Of one hit the error itself says all there is to say.
        Some(error) if outcomes.len() == 1 => Err(error),
        Some(error) => Err(error.with_outcomes(outcomes)),
    }
}

fn more_serious(known: Option<StoreError>, error: StoreError) -> StoreError {
    match known {
        Some(known) if Scope::of(&known) >= Scope::of(&error) => known,
        _ => error,
    }
}

/// How much of the store an error is about, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// One part or one counter, which was not asked.
    PartUnasked,
    /// One part or one counter.
    Part,
    /// All of it, which was not asked.
    WholeUnasked,
    /// All of it.
    Whole,
}

impl Scope {
    fn of(error: &StoreError) -> Self {
        let is_whole = !error.is_partial() && !error.is_of_a_counter();
        match (is_whole, error.was_asked()) {
            (false, false) => Self::PartUnasked,
            (false, true) => Self::Part,
            (true, false) => Self::WholeUnasked,
            (true, true) => Self::Whole,
        }
    }
}

/// The counts as if nothing had been taken.
fn undo(hits: &[Hit], taken: &[usize], counts: &mut [Count]) {
    for at in 0..hits.len() {
        let own = taken.iter().filter(|one| **one <= at && hits[**one].key == hits[at].key);
        let own: u64 = own.map(|one| hits[*one].amount).sum();
        counts[at].value = counts[at].value.saturating_sub(own);
        counts[at].moved = false;
        counts[at].over &= !hits[at].is_refund;
    }
}

#[cfg(test)]
mod tests;
