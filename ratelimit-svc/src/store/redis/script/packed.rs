//! What passes between the store and its script, as packed doubles: one text for each hit costs
//! the server less than a number each. The layout stands at the top of `settle.lua`.

use std::time::Duration;

use crate::decide::algorithm::State;
use crate::decide::algorithm::gcra::{Bucket, Tat};
use crate::decide::algorithm::sliding_window::{Counts, Slide};
use crate::decide::hit::{Hit, Role};
use crate::decide::reserve::{Terms, WINDOWS_KEPT};
use crate::decide::settle::Settled;
use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::How;
use crate::limits::unit::micros;

/// Doubles of the answer to one hit.
const ANSWER: usize = 6;
/// The whole of what there is is the class's.
const ALL: f64 = -1.0;
/// A forecast says what the class may take.
const FORECAST: f64 = -2.0;
/// A hit asks for what it takes.
const ITSELF: f64 = -1.0;

/// A hit as the script reads it; its counter lives so many seconds.
pub(in crate::store::redis) fn hit(hit: &Hit, now: Duration, lives_seconds: u64) -> Vec<u8> {
    let (kind, terms) = algorithm(hit, now);
    let role = match hit.role {
        Role::Enforced => 0.0,
        Role::Quota => 1.0,
        Role::Observer => 2.0,
    };
    let capacity = f64::from(hit.capacity());
    let refund = f64::from(u8::from(hit.is_refund));
    let mut packed = Vec::with_capacity(256);
    push(&mut packed, [kind, hit.amount as f64, refund, f64::from(hit.limit), capacity]);
    push(&mut packed, [role, lives_seconds as f64]);
    push(&mut packed, terms);
    match &hit.share {
        None => push(&mut packed, [ALL]),
        Some(share) => match (&share.how, Terms::of(hit, share, now)) {
            (How::UpTo(fraction), _) => push(&mut packed, [fraction.of(hit.capacity()).into()]),
            (_, Some(terms)) => {
                push(&mut packed, [FORECAST]);
                forecast(&mut packed, hit, &terms);
            }
            (How::Forecast { .. }, None) => push(&mut packed, [ALL]),
        },
    }
    packed
}

/// What the script answered, by hit; none where the answer is not one.
pub(in crate::store::redis) fn answer(packed: &[u8], hits: &[Hit]) -> Option<Vec<Settled>> {
    let numbers: Vec<f64> =
        packed.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    if packed.len() != hits.len() * ANSWER * 8 {
        return None;
    }
    let settled = |(hit, part): (&Hit, &[f64])| {
        let number = |at: usize| part[at] as u64;
        let state = match hit.algorithm {
            Algorithm::FixedWindow => State::Fixed(number(0)),
            Algorithm::SlidingWindow => State::Sliding(Counts {
                number: number(0),
                current: number(1),
                previous: number(2),
            }),
            Algorithm::TokenBucket { .. } => {
                State::Bucket(Tat { micros: number(0), part: number(1) })
            }
        };
        let (over, moved) = (part[3] == 1.0, part[4] == 1.0);
        Settled { state, over, moved, withheld: number(5), usage: None }
    };
    Some(hits.iter().zip(numbers.chunks_exact(ANSWER)).map(settled).collect())
}

fn algorithm(hit: &Hit, now: Duration) -> (f64, [f64; 6]) {
    match hit.algorithm {
        Algorithm::FixedWindow => (0.0, [0.0; 6]),
        Algorithm::SlidingWindow => {
            let window = Slide::of(hit, now);
            (1.0, [window.number as f64, window.weight as f64, 0.0, 0.0, 0.0, 0.0])
        }
        Algorithm::TokenBucket { .. } => {
            let bucket = Bucket::of(hit);
            let (cost, tolerance) = (bucket.cost(hit.amount), bucket.burst_tolerance());
            let times = [micros(now), cost.micros, cost.part, tolerance.micros, tolerance.part];
            let [now, a, b, c, d] = times.map(|time| time as f64);
            (2.0, [now, a, b, c, d, bucket.period_micros as f64])
        }
    }
}

fn forecast(packed: &mut Vec<u8>, hit: &Hit, terms: &Terms) {
    let lives = (WINDOWS_KEPT + 1).saturating_mul(hit.window.seconds);
    push(packed, [terms.rank as f64, terms.classes as f64, terms.number]);
    push(packed, [terms.elapsed, terms.early]);
    push(packed, [terms.horizon, terms.margin_horizon, terms.margin_max]);
    push(packed, [terms.inflow, terms.inflow_of_previous, lives as f64]);
    let asked = hit.share.as_ref().and_then(|share| share.asked);
    push(packed, [asked.map_or(ITSELF, |asked| asked as f64)]);
    push(packed, [f64::from(u8::from(terms.guarantees.is_some()))]);
    for (floor, minimum) in terms.guarantees.iter().flatten() {
        push(packed, [*floor, *minimum]);
    }
}

fn push<const N: usize>(packed: &mut Vec<u8>, numbers: [f64; N]) {
    packed.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}
