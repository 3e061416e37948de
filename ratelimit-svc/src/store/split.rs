//! Counting one request in several places, none of which knows of the others: the slots of a
//! cluster, a Redis of its own for windows of a second. Decides what is asked of each place and
//! what is given back; asks nobody itself.
//!
//! ```text
//! all-or-nothing     a ┬ takes what fits ─┐
//!                    b ┴ takes what fits ─┴ refused? ─ no ──► done, then refunds
//!                                             └─ yes ─► a, b give back what they took
//! ```
//!
//! Hits on trial count for everybody, so no limit is ever passed; until they are given back others
//! find less room than there is. What cannot be given back is lost until its window ends.

use std::future::Future;

use futures_util::future::join_all;

use crate::store::{Count, Hit, Mode, Role};

/// Why a place did not count.
pub trait Failure {
    /// Whether it may have counted all the same.
    fn was_asked(&self) -> bool;

    /// The same, of a request that other places may have counted.
    fn partly(self) -> Self;
}

/// Counts `hits` where `place` says, by `count`; the answers are in the order of the hits. What
/// one place took for nothing is handed to `give_back` as refunds.
///
/// # Errors
/// When a place does not answer. What others took is given back then.
pub async fn count_apart<P, E, F>(
    hits: &[Hit],
    mode: Mode,
    place: impl Fn(&Hit) -> P,
    count: impl Fn(P, Vec<Hit>, Mode) -> F,
    give_back: impl AsyncFnOnce(Vec<Hit>),
) -> Result<Vec<Count>, E>
where
    P: PartialEq + Clone,
    E: Failure,
    F: Future<Output = Result<Vec<Count>, E>>,
{
    let everything: Vec<usize> = (0..hits.len()).collect();
    let parts = parts(hits, &everything, place);
    if let [(place, _)] = &parts[..] {
        return count(place.clone(), hits.to_vec(), mode).await;
    }
    if mode == Mode::CountAll {
        let answers = ask(hits, &parts, mode, Hit::clone, &count).await;
        let counted = answers.iter().any(|(_, answer)| answer.is_ok());
        let answered = together(answers, hits.len());
        return answered.map_err(|error| if counted { error.partly() } else { error });
    }
    let tried = ask(hits, &parts, mode, on_trial, &count).await;
    let taken = took(hits, &tried);
    let answered = together(tried, hits.len());
    let refund = |at: &usize| Hit { is_refund: true, ..on_trial(&hits[*at]) };
    let refunds = || taken.iter().map(refund).collect();
    let mut counts = match answered {
        Ok(counts) => counts,
        Err(error) => {
            give_back(refunds()).await;
            return Err(error);
        }
    };
    if is_refused(hits, &counts) {
        give_back(refunds()).await;
        undo(hits, &taken, &mut counts);
        return Ok(counts);
    }
    let refunds: Vec<usize> = (0..hits.len()).filter(|at| hits[*at].is_refund).collect();
    let refunds = parts_of(&parts, &refunds);
    for (part, answer) in ask(hits, &refunds, mode, Hit::clone, &count).await {
        for (at, count) in part.into_iter().zip(answer.map_err(Failure::partly)?) {
            counts[at] = count;
        }
    }
    Ok(counts)
}

/// Hits by place, in the order of their first.
type Parts<P> = Vec<(P, Vec<usize>)>;
/// What each part was answered.
type Answers<E> = Vec<(Vec<usize>, Result<Vec<Count>, E>)>;

fn parts<P: PartialEq>(hits: &[Hit], of: &[usize], place: impl Fn(&Hit) -> P) -> Parts<P> {
    let mut parts: Parts<P> = Vec::new();
    for &at in of {
        let place = place(&hits[at]);
        match parts.iter_mut().find(|(known, _)| *known == place) {
            Some((_, part)) => part.push(at),
            None => parts.push((place, vec![at])),
        }
    }
    parts
}

/// The parts with no more than these hits in them.
fn parts_of<P: Clone>(parts: &Parts<P>, of: &[usize]) -> Parts<P> {
    let only = |part: &Vec<usize>| part.iter().copied().filter(|at| of.contains(at)).collect();
    let parts = parts.iter().map(|(place, part)| (place.clone(), only(part)));
    parts.filter(|(_, part): &(P, Vec<usize>)| !part.is_empty()).collect()
}

async fn ask<P: Clone, E, F: Future<Output = Result<Vec<Count>, E>>>(
    hits: &[Hit],
    parts: &Parts<P>,
    mode: Mode,
    as_asked: impl Fn(&Hit) -> Hit,
    count: &impl Fn(P, Vec<Hit>, Mode) -> F,
) -> Answers<E> {
    let asked = parts.iter().map(|(place, part)| {
        count(place.clone(), part.iter().map(|at| as_asked(&hits[*at])).collect(), mode)
    });
    let answers = join_all(asked).await;
    parts.iter().map(|(_, part)| part.clone()).zip(answers).collect()
}

/// A hit that takes what fits and refuses nothing; a refund only looks for now.
fn on_trial(hit: &Hit) -> Hit {
    let amount = if hit.is_refund { 0 } else { hit.amount };
    Hit { amount, is_refund: false, role: Role::Observer, ..hit.clone() }
}

/// All answers, or the error that says most: of a place that may have counted, if there is one.
fn together<E: Failure>(answers: Answers<E>, len: usize) -> Result<Vec<Count>, E> {
    let mut counts: Vec<Option<Count>> = vec![None; len];
    let mut failure: Option<E> = None;
    for (part, answer) in answers {
        match answer {
            Ok(answer) => {
                for (at, count) in part.into_iter().zip(answer) {
                    counts[at] = Some(count);
                }
            }
            Err(error) if failure.as_ref().is_none_or(|known| !known.was_asked()) => {
                failure = Some(error);
            }
            Err(_) => {}
        }
    }
    failure.map_or_else(|| Ok(counts.into_iter().flatten().collect()), Err)
}

/// The hits that are counted now.
fn took<E>(hits: &[Hit], answers: &Answers<E>) -> Vec<usize> {
    let counted = answers.iter().filter_map(|(part, answer)| Some((part, answer.as_ref().ok()?)));
    let mut taken: Vec<usize> = counted
        .flat_map(|(part, counts)| part.iter().zip(counts))
        .filter(|(at, count)| count.moved && !hits[**at].is_refund && hits[**at].amount > 0)
        .map(|(at, _)| *at)
        .collect();
    taken.sort_unstable();
    taken
}

/// The same judgement as in `decide::settle`.
fn is_refused(hits: &[Hit], counts: &[Count]) -> bool {
    let vetoes = |(hit, count): &(&Hit, &Count)| count.over && !hit.is_refund;
    let mut of_quota = hits.iter().zip(counts).filter(|(hit, _)| hit.role == Role::Quota);
    let quota = of_quota.clone().next().is_some() && of_quota.all(|pair| vetoes(&pair));
    let mut enforced = hits.iter().zip(counts).filter(|(hit, _)| hit.role == Role::Enforced);
    quota || enforced.any(|pair| vetoes(&pair))
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
