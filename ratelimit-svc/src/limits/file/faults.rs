//! Everything that is wrong with a file, for people who want to mend it in one go: what is wrong first is
//! taken out, or replaced by something that is right, and the rest is read again.
//!
//! To read a file it is enough to find the first, for it is out of force with one.

use std::path::Path;

use chassis::config::{ConfigError, parse_yaml_within};

use crate::document::{Node as Yaml, Value};
use crate::limits::class::Classes;
use crate::limits::file::trial::TRIAL_IN_FORCE;
use crate::limits::file::{FILE_BYTES_MAX, FILE_NODES_MAX, File, KNOWN_KEYS, Reader, parse};
use crate::limits::nearest::nearest;
use crate::limits::unit::UNITS;

/// The most faults of a file that `check` names.
pub const FAULTS_MAX: usize = 100;

/// The faults of a file, `max` at most, in the order of the file. The classes are those of the service, where
/// the file does not define them itself.
pub fn faults(path: &Path, bytes: &[u8], classes: &Classes, max: usize) -> Vec<ConfigError> {
    let misfits = |file: &File| file.misfits(file.classes.as_ref().unwrap_or(classes));
    let first = match parse(path, bytes) {
        Ok(file) => return misfits(&file),
        Err(first) => first,
    };
    if bytes.len() > FILE_BYTES_MAX {
        return vec![first];
    }
    let Ok(mut root) = parse_yaml_within::<Yaml>(path, bytes, FILE_NODES_MAX) else {
        return vec![first];
    };
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let mut faults: Vec<ConfigError> = Vec::new();
    while faults.len() < max {
        let reader = Reader { path, text, domain: String::new(), warnings: Vec::new() };
        let read = reader.check_keys(&root, true).and_then(|()| reader.file(&root));
        let fault = match read {
            Err(fault) => fault,
            Ok(mended) => {
                faults.extend(misfits(&mended));
                break;
            }
        };
        let is_mended = mend(&mut root, &fault);
        // What was mended and is at fault again cannot be mended.
        let is_new = !faults.contains(&fault);
        if is_new {
            faults.push(fault);
        }
        if !is_mended || !is_new {
            break;
        }
    }
    drop_what_follows(path, bytes, &mut faults);
    faults.truncate(max);
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// A trial that says no more than the rule because what it said was taken out is no fault of its own.
fn drop_what_follows(path: &Path, bytes: &[u8], faults: &mut Vec<ConfigError>) {
    if !faults.iter().any(|fault| fault.message == TRIAL_IN_FORCE) {
        return;
    }
    let Ok(root) = parse_yaml_within::<Yaml>(path, bytes, FILE_NODES_MAX) else { return };
    let others: Vec<_> = faults
        .iter()
        .filter(|fault| fault.message != TRIAL_IN_FORCE)
        .filter_map(|fault| fault.at)
        .collect();
    faults.retain(|fault| {
        let trial = fault.at.and_then(|at| standing_at(&root, at));
        let has_other =
            || trial.is_some_and(|trial| others.iter().any(|other| holds(trial, *other)));
        fault.message != TRIAL_IN_FORCE || !has_other()
    });
}

/// The map that stands there.
fn standing_at(node: &Yaml, at: (u64, u64)) -> Option<&Yaml> {
    match &node.value {
        Value::Map(_) if place(node) == at => Some(node),
        Value::Map(pairs) => pairs.iter().find_map(|(_, value)| standing_at(value, at)),
        Value::List(items) => items.iter().find_map(|item| standing_at(item, at)),
        _ => None,
    }
}

/// Whether anything stands there within.
fn holds(node: &Yaml, at: (u64, u64)) -> bool {
    let is_there = |one: &Yaml| place(one) == at || holds(one, at);
    match &node.value {
        Value::Map(pairs) => pairs.iter().any(|(key, value)| is_there(key) || is_there(value)),
        Value::List(items) => items.iter().any(is_there),
        _ => false,
    }
}

/// What may have been meant, where the fault is a word that nobody knows.
pub fn meant(message: &str, classes: &Classes) -> Option<String> {
    let word = message.split('\'').nth(1)?;
    let units: Vec<String> = UNITS.iter().map(|unit| unit.name().to_lowercase()).collect();
    let names: Vec<&str> = if message.contains("unknown key '") {
        KNOWN_KEYS.into_iter().chain(["priority_classes", "wildcards"]).collect()
    } else if message.starts_with("invalid rate limit unit '") {
        units.iter().map(String::as_str).collect()
    } else if message.starts_with("invalid rate limit algorithm '") {
        vec!["fixed_window", "sliding_window", "token_bucket"]
    } else if message.starts_with("priority class '") {
        classes.ladder().iter().map(|class| class.name.as_str()).collect()
    } else {
        return None;
    };
    nearest(word, names).map(str::to_owned)
}

/// Takes out what is at fault; whether it was found.
fn mend(root: &mut Yaml, fault: &ConfigError) -> bool {
    let Some(at) = fault.at else { return give_domain(root) };
    let is_key = fault.message.contains("key '") && fault.message.starts_with("config error, ")
        || fault.message.contains("key is not of type string");
    match is_key {
        true => take_out(root, at, true) || take_out(root, at, false),
        false => take_out(root, at, false) || take_out(root, at, true),
    }
}

/// A file without a domain gets one, so that the rest can be looked at.
fn give_domain(root: &mut Yaml) -> bool {
    let Value::Map(pairs) = &mut root.value else { return false };
    let Some((key, value)) = pairs.first().cloned() else { return false };
    let is_there = pairs.iter().any(|(key, _)| key.value.as_text() == Some("domain"));
    let key = Yaml { value: Value::Text("domain".to_owned()), ..key };
    pairs.push((key, Yaml { value: Value::Text("domain".to_owned()), ..value }));
    !is_there
}

/// Takes out the pair whose key, or the pair or item whose value, stands there. Values that a limit
/// cannot be without are replaced by right ones.
fn take_out(node: &mut Yaml, at: (u64, u64), by_key: bool) -> bool {
    match &mut node.value {
        Value::Map(pairs) => {
            let stands_there =
                |(key, value): &(Yaml, Yaml)| place(if by_key { key } else { value }) == at;
            let Some(found) = pairs.iter().position(stands_there) else {
                return pairs.iter_mut().any(|(_, value)| take_out(value, at, by_key));
            };
            let right = pairs[found].0.value.as_text().and_then(right);
            match right.filter(|_| !by_key) {
                Some(right) if pairs[found].1.value != right => pairs[found].1.value = right,
                _ => {
                    pairs.remove(found);
                }
            }
            true
        }
        Value::List(items) => match items.iter().position(|item| !by_key && place(item) == at) {
            Some(found) => {
                items.remove(found);
                true
            }
            None => items.iter_mut().any(|item| take_out(item, at, by_key)),
        },
        _ => false,
    }
}

/// A value that is right wherever the key may stand.
fn right(key: &str) -> Option<Value> {
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    match key {
        "unit" => text("minute"),
        "window" => text("1m"),
        "domain" => text("domain"),
        "requests_per_unit" => Some(Value::Integer(1)),
        _ => None,
    }
}

fn place(node: &Yaml) -> (u64, u64) {
    (node.referenced.line(), node.referenced.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(u64, String)> {
        let line = |fault: ConfigError| (fault.at.map_or(0, |at| at.0), fault.message);
        let classes = Classes::default();
        let faults = faults(Path::new("a.yaml"), text.as_bytes(), &classes, FAULTS_MAX);
        faults.into_iter().map(line).collect()
    }

    #[test]
    fn classes_are_checked_beside_everything_else() {
        let text = "\
domain: edge
descriptors:
  - key: a
    rate_limit: {unit: minut, requests_per_unit: 5, floor: {ingset: 0.1, backgroud: 0.1}}
  - key: b
    rate_limit:
      unit: minute
      requests_per_unit: 5
      admit_up_to: {background: 0.9, ingest: 0.5}
  - key: c
    rate_limit:
      unit: minute
      requests_per_unit: 5
      trial: {request_per_unit: 3}
";
        let found = of(text);
        let lines: Vec<u64> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 4, 4, 9, 14], "{found:#?}");
        for (at, expected) in
            [(1, "'ingset'"), (2, "'backgroud'"), (3, "'background' is more"), (4, "unknown key")]
        {
            assert!(found[at].1.contains(expected), "{expected}\n{found:#?}");
        }
        let own = "domain: d\npriority_classes: {gold: {rank: 1, default: true}}\ndescriptors:\n  \
                   - {key: a, rate_limit: {unit: day, requests_per_unit: 1, floor: {gold: 0.1}}}\n";
        assert!(of(own).is_empty(), "{:?}", of(own));
    }

    #[test]
    fn every_fault_is_named_and_nothing_else() {
        let text = "\
domain: edge
descriptors:
  - key: a
    rate_limt: {unit: minute, requests_per_unit: 5}
  - key: b
    rate_limit: {unit: minut, requests_per_unit: many, algorithm: tokens}
  - rate_limit: {unit: minute, requests_per_unit: 5}
  - key: c
    rate_limit: {unit: hour, requests_per_unit: 5, mode: exact}
  - key: c
    rate_limit: {unit: hour, requests_per_unit: 5}
  - key: d
    descriptors:
      - {key: e, shadow_mode: maybe, rate_limit: {unit: day, requests_per_unit: -1}}
";
        let found = of(text);
        let lines: Vec<u64> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 6, 6, 6, 7, 10, 14, 14], "{found:#?}");
        let all: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
        for (at, expected) in [
            (0, "unknown key 'rate_limt'"),
            (1, "invalid rate limit unit 'minut'"),
            (2, "requests_per_unit must be a whole number"),
            (3, "invalid rate limit algorithm 'tokens'"),
            (4, "descriptor has empty key"),
            (5, "duplicate descriptor composite key 'edge.c'"),
            (6, "shadow_mode must be true or false"),
            (7, "requests_per_unit must be from 0"),
        ] {
            assert!(all[at].contains(expected), "{expected}\n{all:#?}");
        }
        assert!(of("domain: edge\ndescriptors: []\n").is_empty());
    }

    #[test]
    fn what_cannot_be_mended_ends_the_list() {
        assert_eq!(of("domain: [").len(), 1);
        assert_eq!(of("- a").len(), 1);
        let without = of("descriptors:\n  - {key: a, rate_limit: {unit: eon}}\n");
        assert_eq!(without.len(), 2, "{without:?}");
        let many: String =
            (0..300).map(|n| format!("  - {{key: k{n}, rate_limit: {{unit: eon}}}}\n")).collect();
        assert_eq!(of(&format!("domain: d\ndescriptors:\n{many}")).len(), FAULTS_MAX);
    }

    #[test]
    fn a_slip_is_guessed() {
        let classes = Classes::default();
        for (message, expected) in [
            ("config error, unknown key 'rate_limt'", Some("rate_limit")),
            ("config error, unknown key 'priority_clases'", Some("priority_classes")),
            ("invalid rate limit unit 'minutes'", Some("minute")),
            ("invalid rate limit algorithm 'token_buckets'", Some("token_bucket")),
            ("priority class 'ingets' is not configured", Some("ingest")),
            ("priority class 'gold' is not configured", None),
            ("duplicate domain 'rate_limt' in config file", None),
        ] {
            assert_eq!(meant(message, &classes).as_deref(), expected, "{message}");
        }
    }
}
