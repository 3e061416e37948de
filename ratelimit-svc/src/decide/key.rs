//! Names of counters.
//!
//! ```text
//! {4:edge6:tenant4:acme}4:path1:/|M27654321
//!  └─┬──┘└───┬───┘└─┬─┘ └──┬────┘ └───┬────┘
//!  domain   key   value   more     unit and number of the window
//!
//! …|300s5983621     a fixed window of any other length
//! …|sliding60       counters that outlive a window have its length alone
//! …|bucket60
//! …|classes:fixed60 what is known of the classes that share a counter
//! ```
//!
//! A part longer than [`PART_BYTES_MAX`] is named by its digest, and so is all that follows the first
//! entry where it is longer than [`REST_BYTES_MAX`]: a client may send values of any length, and every
//! counter that is known keeps its name.
//!
//! ```text
//! {4:edge6:tenant#9f86d081884c7d659a2feaa0c55ad015}|m27654321
//! ```
//!
//! Every part carries its length, so no two descriptors share a counter by accident. The limit
//! is no part of the name: a changed limit goes on with the count it finds.
//!
//! The braces mark what a Redis cluster places a key by: the domain and the first entry, so that
//! what a request asks of one tenant is on one node and can be counted in one step.
//!
//! ```text
//! edge_tenant_acme_1659259260     the reference's: domain, entries, the window's first second
//! ```

use std::cell::RefCell;
use std::io::Write;

use sha2::{Digest, Sha256};

use crate::decide::hit::Hit;
use crate::limits::rule::{Limit, Step};
use crate::limits::unit::{Unit, Window};

/// The longest part that stands in a name as it is.
pub const PART_BYTES_MAX: usize = 64;
/// The most bytes of parts after the first entry that stand in a name as they are.
pub const REST_BYTES_MAX: usize = 256;
/// The longest name but those of [`KeyFormat::Reference`], which are as long as what they name.
pub const NAME_BYTES_MAX: usize = 512;
/// Bytes of a SHA-256 that stand for a part: whoever makes two values of one digest only shares a
/// counter with himself, and to hit another's takes 2^128 attempts.
const DIGEST_BYTES: usize = 16;
/// What stands behind the parts of a name where a limit is tried: a part begins with its length or `#`.
const TRIAL_MARK: &[u8] = b"~trial";
/// The most memory a thread keeps to write names in.
const SCRATCH_BYTES_MAX: usize = 1024;

/// How counters are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// So that no two descriptors share a counter.
    #[default]
    Tidegate,
    /// As envoyproxy/ratelimit does, byte for byte, to count together with it. What it does not
    /// have, windows of other lengths and other algorithms, is named as above.
    Reference,
}

/// The name of the counter of `entries` in a window. Where a step shares its threshold, the
/// pattern stands for the value.
pub fn counter_key(
    format: KeyFormat,
    domain: &str,
    entries: &[(&str, &str)],
    steps: &[Step],
    limit: Limit,
    window: Window,
) -> Box<[u8]> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    // Written into memory that is kept, so that the name itself is the only allocation.
    SCRATCH.with_borrow_mut(|key| {
        key.clear();
        write_key(key, format, domain, entries, steps, limit, window);
        let name = Box::from(key.as_slice());
        key.shrink_to(SCRATCH_BYTES_MAX);
        name
    })
}

/// The name of the counter of a limit that is tried. It is always named in our own format: nobody else
/// counts it.
///
/// ```text
/// {4:edge6:tenant4:acme}~trial|m27654321
/// ```
pub fn trial_key(
    domain: &str,
    entries: &[(&str, &str)],
    steps: &[Step],
    limit: Limit,
    window: Window,
) -> Box<[u8]> {
    let key = counter_key(KeyFormat::Tidegate, domain, entries, steps, limit, window);
    // What follows the last bar is the window, which holds none.
    let bar = key.iter().rposition(|byte| *byte == b'|').unwrap_or(0);
    [&key[..bar], TRIAL_MARK, &key[bar..]].concat().into()
}

fn write_key(
    key: &mut Vec<u8>,
    format: KeyFormat,
    domain: &str,
    entries: &[(&str, &str)],
    steps: &[Step],
    limit: Limit,
    window: Window,
) {
    let parts = entries.iter().enumerate().map(|(at, (name, value))| {
        let shared = steps.get(at).filter(|step| step.share_threshold);
        (*name, shared.and_then(|step| step.value.as_deref()).unwrap_or(value))
    });
    let unit = limit.period.unit().filter(|_| limit.algorithm.has_windows());
    if format == KeyFormat::Reference && unit.is_some() {
        key.extend_from_slice(domain.as_bytes());
        for (name, value) in parts {
            for part in [name, value] {
                key.push(b'_');
                key.extend_from_slice(part.as_bytes());
            }
        }
        key.push(b'_');
        push_number(key, window.start);
        return;
    }
    key.push(b'{');
    push(key, domain);
    let mut rest = key.len();
    for (at, (name, value)) in parts.enumerate() {
        push(key, name);
        push(key, value);
        if at == 0 {
            key.push(b'}');
            rest = key.len();
        }
    }
    if key.len() - rest > REST_BYTES_MAX {
        let digest = Sha256::digest(&key[rest..]);
        key.truncate(rest);
        push_digest(key, &digest);
    }
    if entries.is_empty() {
        // What belongs to the counter has its slot, whatever it is called.
        key.push(b'}');
    }
    let (seconds, number) = (window.seconds, window.start / window.seconds);
    key.push(b'|');
    match (limit.algorithm.has_windows(), unit) {
        (true, Some(unit)) => {
            key.push(letter(unit));
            push_number(key, number);
        }
        (true, None) => {
            push_number(key, seconds);
            key.push(b's');
            push_number(key, number);
        }
        (false, _) => {
            key.extend_from_slice(limit.algorithm.label().as_bytes());
            push_number(key, seconds);
        }
    }
}

/// The name of a fixed window's counter without its window, which is the number at its end.
pub fn stem(key: &[u8]) -> &[u8] {
    let digits = key.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    &key[..key.len() - digits]
}

/// The domain and the keys of the entries a counter is named by, with dots between them and without
/// the values, which are the clients'. None for names of the reference's kind.
pub fn keys_of(name: &[u8]) -> Option<String> {
    let mut rest = name.strip_prefix(b"{")?;
    let mut parts: Vec<&[u8]> = Vec::new();
    while rest.first().is_some_and(|byte| *byte != b'|') {
        if rest.starts_with(TRIAL_MARK) {
            break;
        }
        if rest[0] == b'#' {
            let end = 1 + 2 * DIGEST_BYTES;
            parts.push(rest.get(..end)?);
            rest = &rest[end..];
            rest = rest.strip_prefix(b"}").unwrap_or(rest);
            continue;
        }
        let colon = rest.iter().position(|byte| *byte == b':')?;
        let length: usize = std::str::from_utf8(&rest[..colon]).ok()?.parse().ok()?;
        let end = (colon + 1).checked_add(length)?;
        parts.push(rest.get(colon + 1..end)?);
        rest = &rest[end..];
        rest = rest.strip_prefix(b"}").unwrap_or(rest);
    }
    let domain = parts.first().copied();
    let keys = parts.iter().skip(1).step_by(2).copied();
    let named: Vec<_> = domain.into_iter().chain(keys).map(String::from_utf8_lossy).collect();
    let trial = if rest.starts_with(TRIAL_MARK) { " (trial)" } else { "" };
    Some(named.join(".") + trial)
}

/// The name of a fixed window's counter in the window after `window`: names end with the
/// window's number, or with its first second.
pub fn following(key: &[u8], window: Window) -> Box<[u8]> {
    let stem = stem(key);
    let number: Option<u64> =
        std::str::from_utf8(&key[stem.len()..]).ok().and_then(|text| text.parse().ok());
    let next = match number {
        Some(start) if start == window.start => window.end(),
        _ => window.end() / window.seconds.max(1),
    };
    let mut key = stem.to_vec();
    write!(key, "{next}").expect("writing to memory does not fail");
    key.into_boxed_slice()
}

/// The name of what is known of the classes that share a counter. It lasts from window to window,
/// and differs from the counter's in what follows the last `|`, so that both have their home in
/// the same place of a cluster.
pub fn usage_key(hit: &Hit) -> Box<[u8]> {
    let kind = hit.algorithm.label();
    // Names of the reference end with the first second of the window instead.
    let second = format!("_{}", hit.window.start);
    let stem = match hit.key.strip_suffix(second.as_bytes()) {
        Some(stem) => stem.len(),
        None => hit.key.iter().rposition(|byte| *byte == b'|').unwrap_or(hit.key.len()),
    };
    let mut key = Vec::with_capacity(stem + 32);
    key.extend_from_slice(&hit.key[..stem]);
    write!(key, "|classes:{kind}{}", hit.window.seconds).expect("writing to memory does not fail");
    key.into_boxed_slice()
}

fn push(key: &mut Vec<u8>, part: &str) {
    if part.len() > PART_BYTES_MAX {
        return push_digest(key, &Sha256::digest(part));
    }
    push_number(key, part.len() as u64);
    key.push(b':');
    key.extend_from_slice(part.as_bytes());
}

/// In place of a length and a colon stands `#`, which no length begins with.
fn push_digest(key: &mut Vec<u8>, digest: &[u8]) {
    key.push(b'#');
    for byte in &digest[..DIGEST_BYTES] {
        write!(key, "{byte:02x}").expect("writing to memory does not fail");
    }
}

/// Decimal digits, without the price of a format string: a name has several.
fn push_number(key: &mut Vec<u8>, number: u64) {
    if number < 10 {
        return key.push(b'0' + number as u8);
    }
    key.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn letter(unit: Unit) -> u8 {
    match unit {
        Unit::Second => b's',
        Unit::Minute => b'm',
        Unit::Hour => b'h',
        Unit::Day => b'd',
        Unit::Week => b'w',
        Unit::Month => b'M',
        Unit::Year => b'y',
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::algorithm::Algorithm;
    use crate::limits::unit::Period;

    fn fixed(unit: Unit) -> Limit {
        Limit::fixed(5, unit)
    }

    fn key(domain: &str, entries: &[(&str, &str)]) -> Vec<u8> {
        let window = Unit::Minute.window(120);
        counter_key(KeyFormat::Tidegate, domain, entries, &[], fixed(Unit::Minute), window)
            .into_vec()
    }

    #[test]
    fn a_key_is_short_and_readable() {
        assert_eq!(key("edge", &[("tenant", "acme")]), b"{4:edge6:tenant4:acme}|m2");
        let steps = [Step {
            key: "f".into(),
            value: Some("a*".into()),
            value_to_metric: false,
            share_threshold: true,
        }];
        let window = Unit::Month.window(0);
        let shared = counter_key(
            KeyFormat::Tidegate,
            "d",
            &[("f", "abc")],
            &steps,
            fixed(Unit::Month),
            window,
        );
        assert_eq!(&*shared, b"{1:d1:f2:a*}|M0");
    }

    #[test]
    fn algorithms_and_periods_do_not_share_counters() {
        let bucket = Algorithm::TokenBucket { burst: 2 };
        let algorithms = [Algorithm::FixedWindow, Algorithm::SlidingWindow, bucket];
        let mut seen = std::collections::HashSet::new();
        for seconds in [1, 30, 60, 300, 3600] {
            let period = Period::try_new(seconds).expect("in bounds");
            for algorithm in algorithms {
                let limit = Limit { requests_per_unit: 5, period, algorithm, mode: None };
                let key = counter_key(
                    KeyFormat::Tidegate,
                    "d",
                    &[("a", "b")],
                    &[],
                    limit,
                    period.window(7200),
                );
                assert!(seen.insert(key));
                // The limit and the burst are no part of the name.
                let limit = Limit { requests_per_unit: 9, ..limit };
                let key = counter_key(
                    KeyFormat::Tidegate,
                    "d",
                    &[("a", "b")],
                    &[],
                    limit,
                    period.window(7200),
                );
                assert!(seen.contains(&key));
            }
        }
        assert!(
            seen.contains(&b"{1:d1:a1:b}|300s24"[..])
                && seen.contains(&b"{1:d1:a1:b}|bucket60"[..])
        );
    }

    #[test]
    fn the_name_of_the_window_after() {
        for seconds in [1, 30, 60, 3600] {
            let period = Period::try_new(seconds).expect("in bounds");
            let algorithm = Algorithm::FixedWindow;
            let limit = Limit { requests_per_unit: 5, period, algorithm, mode: None };
            let format = KeyFormat::Tidegate;
            let key = |now| counter_key(format, "d", &[("a", "1")], &[], limit, period.window(now));
            assert_eq!(following(&key(7200), period.window(7200)), key(7200 + seconds));
            assert_eq!(stem(&key(7200)), stem(&key(99_999)));
        }
        let window = Unit::Minute.window(120);
        assert_eq!(&*following(b"d_a_1_120", window), b"d_a_1_180", "named by its first second");
        assert_eq!(stem(b"17"), b"");
    }

    #[test]
    fn the_reference_names_counters_like_this() {
        let check = |entries: &[(&str, &str)], steps: &[Step], unit: Unit, now, expected: &str| {
            let format = KeyFormat::Reference;
            let key = counter_key(format, "domain", entries, steps, fixed(unit), unit.window(now));
            assert_eq!(std::str::from_utf8(&key), Ok(expected));
        };
        check(&[("key", "value")], &[], Unit::Second, 1234, "domain_key_value_1234");
        let two = [("key2", "value2"), ("subkey2", "subvalue2")];
        check(&two, &[], Unit::Minute, 1234, "domain_key2_value2_subkey2_subvalue2_1200");
        check(&[("key", "")], &[], Unit::Hour, 1_000_000, "domain_key__997200");
        let shared = Step {
            key: "files".into(),
            value: Some("files/*".into()),
            value_to_metric: false,
            share_threshold: true,
        };
        check(&[("files", "files/a")], &[shared], Unit::Second, 1234, "domain_files_files/*_1234");
        check(&[("k", "v")], &[], Unit::Month, 2_592_001, "domain_k_v_2592000");
        // What the reference does not have has a name of ours.
        let period = Period::try_new(30).expect("in bounds");
        let limit = Limit { period, ..fixed(Unit::Minute) };
        let key =
            counter_key(KeyFormat::Reference, "d", &[("a", "b")], &[], limit, period.window(60));
        assert_eq!(&*key, b"{1:d1:a1:b}|30s2");
    }

    #[test]
    fn what_is_asked_of_one_tenant_is_on_one_node() {
        let tag = |key: &[u8]| {
            let close = key.iter().position(|byte| *byte == b'}').expect("closed");
            key[..close].to_vec()
        };
        let (one, two) = (("tenant", "acme"), ("path", "/a}b{c"));
        assert_eq!(tag(&key("edge", &[one])), tag(&key("edge", &[one, two])));
        assert_ne!(tag(&key("edge", &[one])), tag(&key("edge", &[("tenant", "bolt"), two])));
    }

    #[test]
    fn what_is_known_of_classes_outlives_a_window() {
        let hit = |key: &str, algorithm, start| Hit {
            key: key.as_bytes().into(),
            amount: 1,
            is_refund: false,
            limit: 5,
            window: Window { start, seconds: 60 },
            algorithm,
            role: crate::decide::hit::Role::Enforced,
            share: None,
        };
        let check = |hit: Hit, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&usage_key(&hit)), expected);
        };
        let (fixed, bucket) = (Algorithm::FixedWindow, Algorithm::TokenBucket { burst: 5 });
        check(hit("1:d1:k3:a|b|m2", fixed, 120), "1:d1:k3:a|b|classes:fixed60");
        check(hit("1:d1:k3:a|b|m3", fixed, 180), "1:d1:k3:a|b|classes:fixed60");
        check(hit("1:d1:k3:a|b|bucket60", bucket, 180), "1:d1:k3:a|b|classes:bucket60");
        check(hit("d_k_a|b_120", fixed, 120), "d_k_a|b|classes:fixed60");
        check(hit("d_k_a|b_180", fixed, 180), "d_k_a|b|classes:fixed60");
    }

    #[test]
    fn keys_are_told_without_values() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(keys_of(name.as_bytes()).as_deref(), expected, "{name}");
        };
        check("{4:edge6:tenant4:acme}4:path1:/|m27", Some("edge.tenant.path"));
        check("{4:edge6:tenant8:a}|{1:b/}|s5", Some("edge.tenant"));
        check("{4:edge", Some("edge"));
        check("{400:edge|m5", None);
        check("edge_tenant_acme_120", None);
        check("{", Some(""));
        let digest = "#9f86d081884c7d659a2feaa0c55ad015";
        check(&format!("{{4:edge6:tenant{digest}}}4:path{digest}|m27"), Some("edge.tenant.path"));
        check("{4:edge6:tenant#9f", None);
    }

    /// A table of names is bounded in bytes by its bound in names.
    #[test]
    fn a_name_is_short_whatever_a_client_sends() {
        let value = |first: u32| format!("{first}{}", "x".repeat(32_000));
        let values: Vec<String> = (0..3).map(value).collect();
        let mut seen = std::collections::HashSet::new();
        for value in &values {
            let long = key("edge", &[("tenant", value)]);
            assert!(long.len() < 64, "{}", String::from_utf8_lossy(&long));
            assert!(long.starts_with(b"{4:edge6:tenant#") && long.ends_with(b"}|m2"));
            assert!(seen.insert(long));
        }
        for (entries, length) in [(2, 64), (32, 3), (32, 64), (32, 32_000)] {
            let value = "v".repeat(length);
            let mut all: Vec<(&str, &str)> = vec![(&value, &value); entries];
            let one = key(&value, &all);
            assert!(one.len() <= NAME_BYTES_MAX, "{entries} entries of {length}: {}", one.len());
            all[entries - 1].1 = "w";
            assert_ne!(one, key(&value, &all), "the last value tells them apart");
        }
        // What stands for itself begins with its length, so nobody can write a digest.
        let digest = String::from_utf8(key("edge", &[("a", &values[0])])).expect("ASCII");
        let digest = digest.split_once('#').expect("a digest").1.trim_end_matches("}|m2");
        assert_ne!(key("edge", &[("a", &values[0])]), key("edge", &[("a", &format!("#{digest}"))]));
    }

    proptest! {
        #[test]
        fn different_descriptors_have_different_keys(
            a in proptest::collection::vec(("[a1:_|{}]{0,3}", "[a1:_|{}]{0,3}"), 0..3),
            b in proptest::collection::vec(("[a1:_|{}]{0,3}", "[a1:_|{}]{0,3}"), 0..3),
        ) {
            let entries = |from: &[(String, String)]| {
                let pairs: Vec<(String, String)> = from.to_vec();
                key("d", &pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>())
            };
            prop_assert_eq!(a == b, entries(&a) == entries(&b));
        }
    }
}
