//! Tests of `key_file::json`: whatever it reads, the YAML reader reads as the same.

use std::path::Path;

use proptest::prelude::*;

use super::super::KeyFile;
use super::super::edit;
use super::super::tests::with_rules;
use super::super::{WHOLE_BYTES_MAX, load};
use super::*;
use crate::check::builder::Builder;
use std::sync::Arc;

use crate::check::digest::Digest;
use crate::check::key::KeyId;
use crate::check::record::{Grant, Shared};

fn parse(text: &str) -> Result<KeyFile, String> {
    with_rules(|rules| KeyFile::parse(Path::new("keys.json"), text.as_bytes(), rules))
        .map_err(|error| error.to_string())
}

fn records(text: &str) -> Result<Vec<KeyRecord>, String> {
    with_rules(|rules| {
        KeyFile::read(Path::new("keys.json"), text.as_bytes(), rules, &mut Shared::default())
    })
    .map(|file| file.into_records().collect())
    .map_err(|error| error.to_string())
}

fn arbitrary_record() -> impl Strategy<Value = (KeyRecord, Option<String>)> {
    let words = ("[a-z0-9]{1,8}", "[a-z][a-z0-9_-]{0,6}[a-z]", prop::bool::ANY, prop::bool::ANY);
    let rest = (
        prop::collection::hash_set("[a-z0-9][a-z:.]{0,4}x", 0..4),
        1..3_u32,
        prop::bool::ANY,
        prop::collection::vec("10\\.[0-9]\\.0\\.0/16", 0..3),
    );
    let comment = prop::option::of("[ -~é\n\t\u{1F600}]{0,20}");
    (words, rest, comment).prop_map(
        |((tenant, plan, low, dated), (scopes, pepper, imported, networks), comment)| {
            let moment = |text: &str| dated.then(|| text.parse().expect("a moment"));
            let record = KeyRecord {
                id: KeyId::parse("000000000000").expect("an id"),
                tenant: format!("t{tenant}").into(),
                grant: Arc::new(Grant {
                    priority: if low { "background" } else { "ingest" }.to_owned(),
                    plan,
                    scopes: scopes.into_iter().collect(),
                    networks: networks.iter().map(|n| n.parse().expect("a network")).collect(),
                }),
                digest: Digest { pepper, hmac_sha256: [0; 32] },
                not_before: moment("2026-01-01T00:00:00.5Z"),
                expires_at: moment("2030-01-01T00:00:00Z"),
                status: if low && dated { Status::Revoked } else { Status::Active },
                kind: if imported { Kind::Imported } else { Kind::Issued },
            };
            (record, comment)
        },
    )
}

/// As many different keys as there are records.
fn numbered(mut records: Vec<(KeyRecord, Option<String>)>) -> Vec<(KeyRecord, Option<String>)> {
    for (at, (record, _)) in records.iter_mut().enumerate() {
        record.id = KeyId::parse(&format!("{at:012}")).expect("an id");
        record.digest.hmac_sha256[0] = u8::try_from(at).expect("few records");
    }
    records
}

fn written(records: &[(KeyRecord, Option<String>)]) -> String {
    file(&[], records.iter().map(|(record, comment)| (record, comment.as_deref())))
}

proptest! {
    #[test]
    fn a_written_file_says_the_same_to_both_readers(
        all in prop::collection::vec(arbitrary_record(), 0..6).prop_map(numbered)
    ) {
        let text = written(&all);
        prop_assert!(read(text.as_bytes()).is_some(), "{}", text);
        let expected: Vec<KeyRecord> = all.iter().map(|(record, _)| record.clone()).collect();
        prop_assert_eq!(records(&text).expect("read"), expected);
        let entries = parse(&text).expect("YAML").entries;
        let seen: Vec<_> = entries.into_iter().map(|entry| (entry.record, entry.comment)).collect();
        prop_assert_eq!(seen, all);
    }

    /// A file with one character changed is read as the YAML reader reads it, or refused with its
    /// words.
    #[test]
    fn a_file_with_a_fault_is_read_as_yaml(at in 0_usize..1000, new in "[ -~\n]{0,2}") {
        let records_of_it = numbered(vec![example(), example()]);
        let mut text = written(&records_of_it);
        let at = at % text.len();
        text.replace_range(at..=at, &new);
        let expected = parse(&text).map(|file| file.into_records().collect::<Vec<_>>());
        match records(&text) {
            Ok(seen) => prop_assert_eq!(Ok(seen), expected, "{}", text),
            Err(error) => prop_assert_eq!(Some(error), expected.err(), "{}", text),
        }
    }
}

fn example() -> (KeyRecord, Option<String>) {
    let record = KeyRecord {
        id: KeyId::parse("AAAAAAAAAAAA").expect("an id"),
        tenant: "acme".into(),
        grant: Arc::new(Grant {
            priority: "ingest".to_owned(),
            plan: "gold".to_owned(),
            scopes: vec!["a:b".to_owned()],
            networks: Vec::new(),
        }),
        digest: Digest { pepper: 1, hmac_sha256: [7; 32] },
        not_before: None,
        expires_at: None,
        status: Status::Active,
        kind: Kind::Issued,
    };
    (record, Some("a \"note\"".to_owned()))
}

#[test]
fn what_is_wrong_has_its_line_and_column() {
    let text = written(&numbered(vec![example(), example()]));
    for (from, to, expected) in [
        ("\"acme\"", "\"Acme\"", "keys.json:2:31: tenant \"Acme\" must be"),
        (
            "000000000001",
            "000000000000",
            "keys.json:3:7: key id '000000000000' is already used in line 2",
        ),
        ("\"tenant\"", "\"tennant\"", "keys.json:2:"),
        ("\"pepper\":1", "\"pepper\":9", "keys.json:2:"),
        ("\n]}", "\n}", "keys.json:"),
        ("\"keys\"", "\"keys\": [], \"keys\"", "keys.json:1:"),
        ("{\"pepper\":1,\"hmac_sha256\":", "[1,", "keys.json:2:"),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        let error = records(&text.replacen(from, to, 1)).expect_err(to);
        assert!(error.starts_with(expected), "{error} instead of {expected}");
    }
    let list = "{\"keys\": [[\"AAAAAAAAAAAA\", \"acme\", \"ingest\"]]}";
    assert!(read(list.as_bytes()).is_none() && records(list).is_err(), "a list is no record");
}

#[test]
fn json_stays_json_when_a_key_is_added_or_revoked() {
    let (record, comment) = example();
    let add = |path: &str, text: Option<&str>| {
        with_rules(|rules| edit::append(Path::new(path), text, &record, comment.as_deref(), rules))
    };
    let begun = add("keys.json", None).expect("begun");
    assert_eq!(begun, written(&[example()]));
    assert!(add("keys.yaml", None).expect("begun").starts_with("keys:\n"));
    let other = numbered(vec![example()]);
    for text in [
        "{\"keys\": []}".to_owned(),
        " {\"keys\": [ ]\n}\n".to_owned(),
        written(&[]),
        written(&other),
        written(&other).replace('\n', ""),
        written(&other).replace('\n', "\r\n"),
        written(&other).replace(",\"", ",\n    \"").replace("\n]", "\n  ]"),
    ] {
        let new = add("keys.yaml", Some(&text)).expect(&text);
        assert!(read(new.as_bytes()).is_some(), "{new}");
        assert_eq!(records(&new).expect("valid").last(), Some(&record), "{new}");
        let id = record.id;
        let revoked =
            with_rules(|rules| edit::set_status(Path::new("k"), &new, id, Status::Revoked, rules));
        let revoked = revoked.expect(&new);
        assert!(read(revoked.as_bytes()).is_some(), "{revoked}");
        let states: Vec<bool> =
            records(&revoked).expect("valid").iter().map(|r| r.status == Status::Revoked).collect();
        assert_eq!(states.iter().filter(|revoked| **revoked).count(), 1, "{revoked}");
        assert_eq!(states.last(), Some(&true), "{revoked}");
    }
}

#[test]
fn a_file_cut_off_is_never_believed() {
    let text = written(&numbered(vec![example(), example()]));
    let end = text.trim_end().len();
    for cut in (0..end).filter(|cut| text.is_char_boundary(*cut)) {
        assert!(records(&text[..cut]).is_err(), "cut at {cut}");
    }
}

/// What the streaming reader makes of a text, as [`records`] does of the same.
fn streamed(text: &str) -> Result<(usize, bool), String> {
    let mut keys = Builder::default();
    let path = Path::new("keys.json");
    let has_count = with_rules(|rules| stream::read(path, text.as_bytes(), rules, &mut keys))
        .map_err(|error| error.to_string())?;
    Ok((keys.build().len(), has_count))
}

proptest! {
    /// A file too large to be read whole is read key by key, with the same result.
    #[test]
    fn a_streamed_file_has_the_same_keys(
        all in prop::collection::vec(arbitrary_record(), 0..6).prop_map(numbered),
        at in 0_usize..1000,
        new in "[ -~\n]{0,2}",
    ) {
        let mut text = written(&all);
        prop_assert_eq!(streamed(&text), Ok((all.len(), true)));
        let at = at % text.len();
        if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
            text.replace_range(at..=at, &new);
        }
        if let Ok((count, _)) = streamed(&text) {
            prop_assert_eq!(records(&text).map(|records| records.len()), Ok(count), "{}", text);
        }
    }
}

#[test]
fn what_is_wrong_with_a_streamed_file_has_its_line() {
    let text = written(&numbered(vec![example(), example()]));
    for (from, to, expected) in [
        ("\"acme\"", "\"Acme\"", ": tenant \"Acme\" must be"),
        ("\"count\": 2", "\"count\": 3", "'count' says 3 keys and there are 2"),
        ("\"count\": 2", "\"size\": 2", "unknown or repeated key \"size\""),
        ("\"keys\"", "\"keys\": [], \"keys\"", "unknown or repeated key \"keys\""),
        (
            "\"keys\": [",
            "\"tenants\": [{\"name\": \"Acme\"}], \"keys\": [",
            "tenant \"Acme\" must be",
        ),
        ("\n]}", "\n}", "keys.json:"),
        ("\n]}\n", "\n]}\n{}", "trailing characters"),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        let error = streamed(&text.replacen(from, to, 1)).expect_err(to);
        assert!(error.contains(expected), "{error} instead of {expected}");
        assert!(error.starts_with("keys.json:"), "{error} does not say where");
    }
    let tenants = "{\"tenants\": [{\"name\": \"acme\", \"suspended\": true}], \"keys\": []}";
    assert_eq!(streamed(tenants), Ok((0, false)));
}

#[test]
fn a_key_that_is_there_twice_is_named_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("keys.json");
    let one = written(&numbered(vec![example()]));
    let twice = written(&numbered(vec![example(), example()]));
    let twice = twice.replacen("000000000001", "000000000000", 1);
    // Read key by key, however it is laid out; and after another file that has the key too.
    let pretty = twice.replace(",\"", ",\n    \"").replace("{\"id", "{\n    \"id");
    let in_one_line = twice.replace('\n', "");
    for (text, before) in
        [(&twice, None), (&pretty, None), (&in_one_line, None), (&one, Some(&one))]
    {
        std::fs::write(&path, text).expect("written");
        let mut keys = Builder::default();
        let mut loaded = |text: &String| {
            let len = WHOLE_BYTES_MAX + 1;
            with_rules(|rules| load(&path, len, text.as_bytes(), rules, &mut keys))
        };
        before.map_or(Ok(true), &mut loaded).expect("one key");
        let error = loaded(text).expect_err("the same key");
        assert_eq!(error.message, "key id '000000000000' is used twice");
        let before = &text[..text.rfind("000000000000").expect("there") - 1];
        let line = before.lines().count() as u64;
        let column = before.lines().last().expect("a line").len() as u64 + 1;
        assert_eq!(error.at, Some((line, column)), "{text}");
    }
}

#[test]
fn tenants_are_written_and_read_back() {
    let tenants = [Tenant { name: "acme".to_owned(), is_suspended: true }];
    let text = file(&tenants, std::iter::empty());
    assert_eq!(parse(&text).expect("valid").tenants, tenants);
}
