//! One slot, step by step.

use std::sync::Arc;

use super::{answer, hit};
use crate::decide::hit::Hit;
use crate::lease::LeaseTerms;
use crate::lease::claim::{Claim, Grant};
use crate::lease::slot::{Slot, Taken};
use crate::limits::sharing::{ClassShare, Fraction, How};

const SECOND: u64 = 1_000_000;
const TERMS: LeaseTerms = LeaseTerms { replicas: 2, free_ppm: 0, free_replicas: 2 };

fn stem() -> Arc<[u8]> {
    Arc::from(&b"a|1s"[..])
}

/// A hit in the second that contains `now_micros`.
fn at(now_micros: u64, limit: u32, amount: u64) -> Hit {
    hit("a", 1, limit, amount, now_micros / SECOND)
}

/// What a request of `class` makes of the slot, and the claims it makes due.
fn ask(slot: &mut Slot, hit: &Hit, class: usize, now: u64) -> (Taken, Vec<Claim>) {
    let taken = slot.take(hit, class, false, now, &TERMS);
    let due = slot.due(class, taken == Taken::Short, now, &TERMS);
    let due = [(due.refill, false), (due.ahead, true)].into_iter().filter(|(due, _)| *due);
    let claims = due.filter_map(|(_, ahead)| slot.claim(&stem(), class, ahead, now, &TERMS));
    (taken, claims.collect())
}

fn is_spent(taken: Taken) -> bool {
    matches!(taken, Taken::Spent { .. })
}

#[test]
fn a_block_is_claimed_then_spent_then_claimed_early() {
    let (now, mut count) = (100 * SECOND, 0);
    let one = at(now, 1000, 1);
    let mut slot = Slot::new(&one, 0, 1, &TERMS);
    let (taken, claims) = ask(&mut slot, &one, 0, now);
    assert_eq!((taken, claims.len()), (Taken::Short, 1));
    assert_eq!(claims[0].hit.amount, 10, "two percent between two");
    assert_eq!(ask(&mut slot, &one, 0, now), (Taken::Short, vec![]), "one claim at a time");
    slot.granted(&claims[0], answer(&claims[0], &mut count), now);
    let mut refills = Vec::new();
    while refills.is_empty() {
        let (taken, claims) = ask(&mut slot, &one, 0, now);
        assert!(is_spent(taken), "claimed anew before the last is spent");
        refills = claims;
    }
    assert!(slot.held() > 0);
    assert_eq!(refills[0].hit.key, one.key);
}

/// Only a forecast takes in what was asked for, so only for one it is noted.
#[test]
fn a_forecast_begins_with_what_is_asked_from_then_on() {
    let now = 100 * SECOND;
    let shared = |how| {
        let share = ClassShare { rank: 1, classes: 2, how, asked: None };
        Hit { share: Some(share), ..at(now, 1000, 1) }
    };
    let steps = shared(How::UpTo(Fraction::try_new(0.5).expect("in bounds")));
    let forecast = shared(How::Forecast { guarantees: None });
    let mut slot = Slot::new(&steps, 0, 1, &TERMS);
    for _ in 0..100_000 {
        slot.take(&steps, 1, false, now, &TERMS);
    }
    let (taken, claims) = ask(&mut slot, &forecast, 1, now);
    assert_eq!((taken, claims.len()), (Taken::Short, 1));
    let told = |claims: &[Claim]| claims[0].hit.share.as_ref().and_then(|share| share.asked);
    assert_eq!(told(&claims), Some(1));
    // Requests without a class, between those of one, take nothing from what that asked for.
    let mut slot = Slot::new(&forecast, 0, 1, &TERMS);
    slot.take(&forecast, 1, false, now, &TERMS);
    slot.take(&at(now, 1000, 1), 1, false, now, &TERMS);
    let (_, claims) = ask(&mut slot, &forecast, 1, now);
    assert_eq!(told(&claims), Some(2));
}

/// A request that waits has asked; one that another limit refuses has not.
#[test]
fn who_waits_has_asked() {
    let now = 100 * SECOND;
    let share =
        ClassShare { rank: 0, classes: 2, how: How::Forecast { guarantees: None }, asked: None };
    let one = Hit { share: Some(share), ..at(now, 1000, 5) };
    for (refused, before) in [(false, 5), (true, 0)] {
        let (mut slot, mut count) = (Slot::new(&one, 0, 1, &TERMS), 0);
        let (_, claims) = ask(&mut slot, &one, 0, now);
        slot.granted(&claims[0], answer(&claims[0], &mut count), now);
        let Taken::Spent { source, .. } = slot.take(&one, 0, false, now, &TERMS) else {
            panic!("granted")
        };
        slot.give_back(0, 5, source, refused);
        let (mut asked, mut claims) = (before, Vec::new());
        while claims.is_empty() {
            asked += 5;
            claims = ask(&mut slot, &one, 0, now).1;
        }
        assert_eq!(claims[0].hit.share.as_ref().and_then(|share| share.asked), Some(asked));
    }
}

#[test]
fn tokens_are_of_one_window() {
    let now = 100 * SECOND;
    let one = at(now, 1000, 1);
    let mut slot = Slot::new(&one, 0, 1, &TERMS);
    let (_, claims) = ask(&mut slot, &one, 0, now);
    let next = now + SECOND;
    // Granted before the window ends and spent after it: lost.
    slot.granted(&claims[0], Grant { granted: 10, taken: 10, room: 990 }, now);
    let (taken, late) = ask(&mut slot, &at(next, 1000, 1), 0, next);
    assert_eq!((taken, slot.held()), (Taken::Short, 0));
    // Granted after the window has ended: lost as well.
    slot.granted(&claims[0], Grant { granted: 10, taken: 20, room: 980 }, next);
    assert_eq!(slot.held(), 0);
    slot.granted(&late[0], Grant { granted: 10, taken: 10, room: 990 }, next);
    assert_eq!(slot.held(), 10);
    // A clock that goes back a little, or a request that waited, stays in the window.
    assert!(is_spent(ask(&mut slot, &one, 0, now).0) && slot.window().start == 101);
    assert!(is_spent(ask(&mut slot, &one, 0, next).0) && slot.window().start == 101);
    // One that goes back far begins anew.
    let early = now - 50 * SECOND;
    assert_eq!(ask(&mut slot, &at(early, 1000, 1), 0, early).0, Taken::Short);
    assert_eq!(slot.window().start, 50);
}

#[test]
fn the_next_window_is_claimed_ahead_and_adopted() {
    let (now, mut count) = (100 * SECOND, 0);
    let mut slot = Slot::new(&at(now, 1000, 1), 0, 1, &TERMS);
    let mut ahead = Vec::new();
    for step in 0..1000 {
        let at_step = now + step * 1000;
        let (_, claims) = ask(&mut slot, &at(at_step, 1000, 1), 0, at_step);
        for claim in claims {
            match claim.is_ahead {
                false => {
                    assert!(!slot.granted(&claim, answer(&claim, &mut count), at_step));
                }
                true => ahead.push((at_step, claim)),
            }
        }
    }
    assert_eq!(ahead.len(), 1, "once");
    let (when, claim) = ahead.remove(0);
    assert!(when >= now + 900_000 && claim.hit.window.start == 101);
    assert_eq!(claim.hit.key, at(now + SECOND, 1000, 1).key);
    slot.granted(&claim, Grant { granted: claim.hit.amount, taken: 30, room: 970 }, when);
    let next = now + SECOND;
    assert!(is_spent(ask(&mut slot, &at(next, 1000, 1), 0, next).0), "without waiting");
}

#[test]
fn a_claim_ahead_that_is_never_adopted_blocks_no_other() {
    let now = 100 * SECOND + 999_000;
    let mut slot = Slot::new(&at(now, 1000, 1), 0, 1, &TERMS);
    let (_, claims) = ask(&mut slot, &at(now, 1000, 1), 0, now);
    assert_eq!(claims.iter().filter(|claim| claim.is_ahead).count(), 1);
    // Its answer is still out when the counter is asked again, three windows later.
    let later = now + 3 * SECOND;
    assert_eq!(ask(&mut slot, &at(later, 1000, 1), 0, later).1.len(), 2, "both anew");
}

#[test]
fn what_is_used_up_is_refused_without_asking() {
    let now = 100 * SECOND;
    let one = at(now, 10, 1);
    let mut slot = Slot::new(&one, 0, 1, &TERMS);
    let (_, claims) = ask(&mut slot, &one, 0, now);
    slot.granted(&claims[0], Grant { granted: 1, taken: 10, room: 0 }, now);
    let two = at(now, 10, 2);
    assert_eq!(ask(&mut slot, &two, 0, now), (Taken::Over, vec![]), "one is left");
    assert!(is_spent(ask(&mut slot, &one, 0, now).0));
    assert_eq!(ask(&mut slot, &one, 0, now), (Taken::Over, vec![]));
    let look = at(now, 10, 0);
    assert_eq!(ask(&mut slot, &look, 0, now), (Taken::Over, vec![]));
    // A limit that was raised is asked for again.
    assert_eq!(ask(&mut slot, &at(now, 20, 1), 0, now).0, Taken::Short);
    assert_eq!(ask(&mut slot, &at(now, 20, 21), 0, now).0, Taken::Over, "can never pass");
}

#[test]
fn a_large_request_is_claimed_exactly() {
    let (now, mut count) = (100 * SECOND, 0);
    let large = at(now, 1000, 700);
    let mut slot = Slot::new(&large, 0, 1, &TERMS);
    let (taken, claims) = ask(&mut slot, &large, 0, now);
    assert_eq!((taken, claims[0].hit.amount), (Taken::Short, 700));
    slot.granted(&claims[0], answer(&claims[0], &mut count), now);
    assert!(is_spent(ask(&mut slot, &large, 0, now).0));
}

#[test]
fn a_look_asks_once_and_takes_nothing() {
    let now = 100 * SECOND;
    let look = at(now, 1000, 0);
    let mut slot = Slot::new(&look, 0, 1, &TERMS);
    let (taken, claims) = ask(&mut slot, &look, 0, now);
    assert_eq!((taken, claims[0].hit.amount), (Taken::Short, 0));
    slot.granted(&claims[0], Grant { granted: 0, taken: 400, room: 600 }, now);
    let (taken, claims) = ask(&mut slot, &look, 0, now);
    assert!(matches!(taken, Taken::Spent { remaining: 600, .. }) && claims.is_empty());
    let (_, claims) = ask(&mut slot, &look, 0, now + 300_000);
    assert_eq!(claims.len(), 1, "what is known is old");
}

#[test]
fn a_class_spends_its_own_tokens_and_lower_ones() {
    let now = 100 * SECOND;
    let one = at(now, 1000, 1);
    let all = |claim: &Claim| {
        let granted = claim.hit.amount;
        Grant { granted, taken: granted, room: 900 }
    };
    let mut slot = Slot::new(&one, 0, 1, &TERMS);
    let (_, low) = ask(&mut slot, &one, 2, now);
    slot.granted(&low[0], all(&low[0]), now);
    assert!(is_spent(ask(&mut slot, &one, 0, now).0), "a higher class spends a lower token");
    while is_spent(ask(&mut slot, &one, 0, now).0) {}
    let (_, high) = ask(&mut slot, &one, 0, now);
    assert_eq!(high, vec![], "claimed when it ran short");
    let mut slot = Slot::new(&one, 0, 1, &TERMS);
    let (_, high) = ask(&mut slot, &one, 0, now);
    slot.granted(&high[0], all(&high[0]), now);
    let (taken, low) = ask(&mut slot, &one, 2, now);
    assert_eq!(taken, Taken::Short, "a lower class does not spend a higher token");
    slot.granted(&low[0], Grant { granted: 0, taken: 900, room: 0 }, now);
    assert_eq!(
        ask(&mut slot, &one, 2, now),
        (Taken::Reserved { taken: 900 }, vec![]),
        "asks again later"
    );
    assert!(is_spent(ask(&mut slot, &one, 0, now).0));
    assert_eq!(ask(&mut slot, &one, 2, now + 200_000).0, Taken::Short);
}

#[test]
fn refunds_come_back_but_never_more_than_was_spent() {
    let now = 100 * SECOND;
    let (two, back) = (at(now, 1000, 2), Hit { is_refund: true, ..at(now, 1000, 500) });
    let mut slot = Slot::new(&two, 0, 1, &TERMS);
    let (_, claims) = ask(&mut slot, &two, 0, now);
    slot.granted(&claims[0], Grant { granted: 10, taken: 10, room: 990 }, now);
    assert_eq!(slot.refund(&back, 0, now, &TERMS), 0, "nothing was spent");
    ask(&mut slot, &two, 0, now);
    assert_eq!((slot.refund(&back, 0, now, &TERMS), slot.held()), (2, 10));
}

#[test]
fn free_tokens_need_no_claim_but_a_new_window() {
    let now = 100 * SECOND;
    let terms = LeaseTerms { replicas: 2, free_ppm: 100_000, free_replicas: 2 };
    assert_eq!((terms.free(1000), terms.pool(1000)), (50, 900));
    let one = at(now, 1000, 1);
    let mut slot = Slot::new(&one, 101, 1, &terms);
    assert_eq!(slot.take(&one, 0, false, now, &terms), Taken::Short, "an earlier process may have");
    let next = now + SECOND;
    for _ in 0..50 {
        assert!(is_spent(slot.take(&at(next, 1000, 1), 0, false, next, &terms)));
    }
    assert_eq!(slot.take(&at(next, 1000, 1), 0, false, next, &terms), Taken::Short);
}

#[test]
fn what_is_unspent_is_handed_over_once() {
    let now = 100 * SECOND;
    let one = at(now, 1000, 1);
    let mut slot = Slot::new(&one, 0, 1, &TERMS);
    let (_, claims) = ask(&mut slot, &one, 0, now);
    slot.granted(&claims[0], Grant { granted: 10, taken: 10, room: 990 }, now);
    let hits = slot.surrender();
    assert_eq!(hits, vec![Hit { amount: 10, is_refund: true, ..one }]);
    assert_eq!((slot.surrender(), slot.held()), (vec![], 0));
}
