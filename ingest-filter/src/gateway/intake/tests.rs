//! Tests of `gateway/intake`: lines that look alike pass the rules of their tenant as all others do.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::gateway::budget::Budget;
use crate::line_protocol::{Dialect, Precision};
use crate::rules::Rules;
use crate::rules::guard::TenantState;
use crate::rules::series::Tracked;

const NOW: i64 = 1_800_000_000_000_000_000;
const DIALECT: Dialect =
    Dialect { precision: Precision::Nanoseconds, unsigned: true, line_bytes_max: 64 << 10 };

/// What becomes of a body: why points were refused, what is stored, how many series are active.
type Taken = (Vec<(Fault, u64)>, Vec<Chunk>, usize);

fn taken(body: &str, rules: &Rules, added: &[(&str, &str)], by_shape: bool) -> Taken {
    let state: Arc<TenantState> = Arc::default();
    let tracked = Arc::new(Tracked::new(Arc::default(), 1 << 20));
    let added = added.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let guard = Guard::new(Arc::new(rules.clone()), state.clone(), tracked, NOW, added);
    let (wanted, _waiting) = Wanted::until(Instant::now() + Duration::from_secs(600));
    let reservation = Budget::new(1 << 30).reserve(0).expect("room");
    let chunker = Chunker::new(0, NOW, 64 << 10);
    let intake = RequestIntake::new(chunker, body.len(), reservation, wanted);
    let mut intake = intake.guarded(Some(guard));
    let (mut lines, mut point) = (Lines::new(body.as_bytes(), DIALECT), Point::default());
    loop {
        if by_shape {
            intake.take_known(&mut lines).expect("wanted");
        }
        match lines.next(&mut point) {
            None => break,
            Some(line) => {
                let line = line.expect("a good line");
                intake.take_line(line, &mut point, String::new).expect("wanted");
            }
        }
    }
    let Converted { chunks, verdict, .. } = intake.finish(true);
    let mut refused: Vec<_> = verdict.rejected.into_iter().collect();
    refused.sort_by_key(|(fault, _)| fault.label());
    (refused, chunks, state.series())
}

fn rules() -> impl Strategy<Value = Rules> {
    let bound = |most: usize| proptest::option::of(0..=most);
    let age = proptest::option::of((0..3u64).prop_map(Duration::from_secs));
    let bounds = (bound(3), bound(4), bound(4), bound(5));
    (bounds, proptest::option::of(0..5u32), age.clone(), age).prop_map(
        |((labels, name, value, series), rate, past, future)| Rules {
            labels_max: labels,
            label_name_bytes_max: name,
            label_value_bytes_max: value,
            series_max: series,
            new_series_per_minute: rate,
            past_max: past,
            future_max: future,
            ..Rules::default()
        },
    )
}

proptest! {
    #[test]
    fn whichever_way_a_line_is_read_the_rules_say_the_same(
        rules in rules(),
        added in proptest::sample::subsequence(
            &[("b", "k"), ("aa", "o r,g="), ("z", "d"), ("n", "bad\\"), ("", "e")][..], 0..3,
        ),
        lines in proptest::collection::vec(
            (
                prop_oneof!["m", "m,b=[xy]{1,5},a=[xy]{1,2}", "m,k\\\\=y=[xy],k\\\\ =x\\\\,[xy]{0,4}"],
                proptest::option::of(-4..4i64),
            ),
            0..12,
        ),
    ) {
        let line = |(series, at): &(String, Option<i64>)| match at {
            Some(seconds) => format!("{series} f=1.0 {}\n", NOW + seconds * 1_000_000_000),
            None => format!("{series} f=1.0\n"),
        };
        let body: String = lines.iter().map(line).collect();
        prop_assert_eq!(taken(&body, &rules, &added, true), taken(&body, &rules, &added, false));
    }
}

#[test]
fn a_line_that_gets_tags_is_copied_with_them() {
    let (mut chunker, mut point) = (Chunker::new(0, NOW, 64 << 10), Point::default());
    chunker.add_tags(&[("db".to_owned(), "a b".to_owned()), ("z".to_owned(), "x".to_owned())]);
    let mut lines = Lines::new(b"m,y=1,c=2 f=1 5\nm,y=3,c=4 f=2 6\n", DIALECT);
    lines.next(&mut point).expect("a line").expect("a good one");
    assert!(lines.next_known(chunker.shapes()).is_none(), "nothing was learned yet");
    chunker.learn(&point);
    let known = lines.next_known(chunker.shapes()).expect("a known line");
    let parts = [known.series, known.fields, known.timestamp].concat();
    assert_eq!(parts, b"m,c=4,db=a\\ b,y=3,z=x f=2 6");
    assert_eq!(known.tags.count(), 2, "those of the client");
}

/// The deadline has passed, or the client has gone: what is left of a body is not read.
#[test]
fn a_body_that_nobody_waits_for_is_not_read_to_its_end() {
    let body = "m f=1i 1\n".repeat(10 * ITEMS_A_LOOK as usize);
    let taken_until = |deadline: Instant, is_gone: bool| {
        let (wanted, waiting) = Wanted::until(deadline);
        let _waiting = (!is_gone).then_some(waiting);
        let reservation = Budget::new(1 << 30).reserve(0).expect("room");
        let chunker = Chunker::new(0, NOW, 64 << 10);
        let mut intake = RequestIntake::new(chunker, body.len(), reservation, wanted);
        let (mut lines, mut point) = (Lines::new(body.as_bytes(), DIALECT), Point::default());
        while let Some(line) = lines.next(&mut point) {
            let line = line.expect("a good line");
            if let Err(stop) = intake.take_line(line, &mut point, String::new) {
                let refusal = intake.refusal(stop, Refusal::RecordTooLarge);
                assert!(matches!(refusal, Refusal::Overloaded { .. }), "{refusal:?}");
                return line;
            }
        }
        u64::MAX
    };
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(600));
    assert_eq!(taken_until(later, false), u64::MAX);
    assert!(taken_until(now, false) <= ITEMS_A_LOOK);
    assert!(taken_until(later, true) <= ITEMS_A_LOOK);
}
