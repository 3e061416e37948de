//! Leases under test: one slot and one table by example, all schedules of a small model, random
//! schedules of many replicas.

mod classes;
mod model;
mod openings;
mod simulation;
mod slots;
mod tables;

use crate::decide::hit::{Hit, Role};
use crate::lease::claim::{Claim, Grant, grant};
use crate::limits::algorithm::Algorithm;
use crate::limits::unit::{Period, Window};

/// A hit on the counter called `name` at a second.
fn hit(name: &str, seconds: u64, limit: u32, amount: u64, now_seconds: u64) -> Hit {
    let window = Period::try_new(seconds).expect("in bounds").window(now_seconds);
    let key = format!("{name}|{seconds}s{}", window.start / seconds);
    hit_in(key.into_bytes().into(), window, limit, amount)
}

/// A hit on the counter `key` of a window.
fn hit_in(key: Box<[u8]>, window: Window, limit: u32, amount: u64) -> Hit {
    Hit {
        key,
        amount,
        is_refund: false,
        limit,
        window,
        algorithm: Algorithm::FixedWindow,
        role: Role::Enforced,
        share: None,
    }
}

/// What a counter grants of a claim, and where it stands then.
fn answer(claim: &Claim, count: &mut u64) -> Grant {
    *count += claim.hit.amount;
    grant(claim.pool, claim.hit.amount, *count)
}
