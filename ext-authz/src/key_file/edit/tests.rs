//! Tests of `key_file::edit`.

use super::super::tests::{block, parse, with_rules};
use std::sync::Arc;

use super::*;

fn path() -> &'static Path {
    Path::new("keys.yaml")
}

fn id(text: &str) -> KeyId {
    KeyId::parse(text).expect("a key id")
}

/// A record like those of [`block`], with an odd comment.
fn new_record() -> KeyRecord {
    let mut file = parse(&format!("keys:\n{}", block("NNNNNNNNNNNN", 'f'))).expect("valid");
    let mut record = file.entries.remove(0).record;
    Arc::make_mut(&mut record.grant).scopes = vec!["a".into(), "b:c".into()];
    record.expires_at = Some("2030-01-01T00:00:00.5Z".parse().expect("a moment"));
    record
}

const COMMENT: &str = "it's \"quoted\": # \\ é\n[x]";

fn appended(text: Option<&str>) -> Result<String, EditError> {
    with_rules(|rules| append(path(), text, &new_record(), Some(COMMENT), rules))
}

fn revoked(text: &str, key: &str) -> Result<String, EditError> {
    with_rules(|rules| set_status(path(), text, id(key), Status::Revoked, rules))
}

#[test]
fn a_key_is_added_and_the_rest_stays() {
    let (a, b) = (block("AAAAAAAAAAAA", 'a'), block("BBBBBBBBBBBB", 'b'));
    let unindented = a.replace("\n    ", "\n  ").replacen("  - ", "- ", 1);
    let flow = format!(
        "- {{id: CCCCCCCCCCCC, tenant: acme, priority: ingest, digest: {{pepper: 1, hmac_sha256: \"{}\"}}}}",
        "c".repeat(64)
    );
    let dash_above = a.replacen("  - id", "  -\n    id", 1);
    for text in [
        format!("keys:\n{a}"),
        format!("# head\nkeys:   # all\n{a}\n  # between\n{b}  # tail\n"),
        format!("---\nkeys:\n{unindented}"),
        format!("keys:\n{flow}"),
        format!("keys:\n    {flow}\n"),
        format!("keys:\n{}", a.trim_end()),
        format!("keys:\n{dash_above}"),
        format!(
            "keys:\n{}",
            a.replacen("- id", "- tenant: acme # id of\n    id", 1).replacen(
                "    tenant: acme\n",
                "",
                1
            )
        ),
        format!("keys:\n{a}").replace('\n', "\r\n"),
    ] {
        let before = parse(&text).expect(&text);
        let new = appended(Some(&text)).expect(&text);
        assert!(new.starts_with(&text), "{new}");
        let after = parse(&new).expect(&new);
        assert_eq!(contents(after)[..before.entries.len()], contents(before)[..]);
    }
}

#[test]
fn the_first_key_is_added() {
    for (text, start) in [
        ("keys: []", "keys:\n  - id: "),
        ("keys: []\n", "keys:\n  - id: "),
        ("keys: [ ] # none yet\n# tail\n", "keys: # none yet\n  - id: "),
        ("# head\nkeys:\n  []\n", "# head\nkeys:\n"),
    ] {
        let new = appended(Some(text)).expect(text);
        assert!(new.starts_with(start), "{new}");
        let entries = parse(&new).expect("valid").entries;
        assert_eq!(entries[0].record, new_record());
        assert_eq!(entries[0].comment.as_deref(), Some(COMMENT));
    }
    assert!(appended(None).expect("a new file").starts_with("keys:\n  - id: \"NNNNNNNNNNNN\"\n"));
}

#[test]
fn what_cannot_be_changed_safely_is_left_alone() {
    let flow = format!(
        "keys: [{{id: CCCCCCCCCCCC, tenant: acme, priority: ingest, digest: {{pepper: 1, hmac_sha256: \"{}\"}}}}]\n",
        "c".repeat(64)
    );
    assert!(parse(&flow).is_ok());
    assert!(matches!(appended(Some(&flow)), Err(EditError::Layout | EditError::Refused(_))));
    for bad in ["", "keys:\n", "keys: [\n", "keys: []\nmore: 1\n"] {
        assert!(matches!(appended(Some(bad)), Err(EditError::Invalid(_))), "{bad:?}");
        assert!(matches!(revoked(bad, "AAAAAAAAAAAA"), Err(EditError::Invalid(_))), "{bad:?}");
    }
    // A duplicate of a record that is there.
    let taken = format!("keys:\n{}", block("NNNNNNNNNNNN", 'e'));
    assert!(matches!(appended(Some(&taken)), Err(EditError::Refused(_))));
}

#[test]
fn a_key_is_revoked_and_the_rest_stays() {
    let (a, b) = (block("AAAAAAAAAAAA", 'a'), block("BBBBBBBBBBBB", 'b'));
    let flow = |more: &str| {
        format!(
            "  - {{id: \"AAAAAAAAAAAA\", tenant: acme, priority: ingest, digest: {{pepper: 1, hmac_sha256: \"{}\"}}{more}}}\n",
            "a".repeat(64)
        )
    };
    for (text, changed) in [
        (format!("keys:\n{a}{b}"), "  - id: AAAAAAAAAAAA\n    revoked: true\n    tenant: acme\n"),
        (format!("keys:\n{b}{a}"), "    revoked: true\n"),
        (format!("keys:\n{a}    revoked: false # not yet\n{b}"), "    revoked: true # not yet\n"),
        (
            format!("keys:\n{}", a.replacen("id: AAAAAAAAAAAA", "id: 'AAAAAAAAAAAA' # é", 1)),
            "# é\n    revoked: true\n",
        ),
        (format!("keys:\n{}{b}", flow("")), "\"AAAAAAAAAAAA\", revoked: true, tenant"),
        (format!("keys:\n{}", flow(", revoked: false")), ", revoked: true}"),
        (
            format!("keys:\n{}", a.replacen("- id", "- plan: gold\n    id", 1)),
            "    id: AAAAAAAAAAAA\n    revoked: true\n",
        ),
    ] {
        let new = revoked(&text, "AAAAAAAAAAAA").expect(&text);
        assert!(new.contains(changed), "{new}");
        let state = |text: &str| -> Vec<(KeyId, bool)> {
            let entries = parse(text).expect("valid").entries;
            entries
                .iter()
                .map(|entry| (entry.record.id, entry.record.status == Status::Revoked))
                .collect()
        };
        let expected: Vec<_> =
            state(&text).into_iter().map(|(id, _)| (id, id.as_str() == "AAAAAAAAAAAA")).collect();
        assert_eq!(state(&new), expected, "{new}");
        assert!(matches!(
            revoked(&new, "AAAAAAAAAAAA"),
            Err(EditError::Objection(Objection::Already(_, "revoked")))
        ));
    }
    assert!(matches!(revoked(&a, "AAAAAAAAAAAA"), Err(EditError::Invalid(_))));
    let text = format!("keys:\n{a}");
    assert!(matches!(
        revoked(&text, "BBBBBBBBBBBB"),
        Err(EditError::Objection(Objection::NoSuchKey(_)))
    ));
}

#[test]
fn a_record_cut_off_is_never_valid() {
    let mut record = new_record();
    record.status = Status::Revoked;
    let one = format!("keys:\n{}", block("AAAAAAAAAAAA", 'a'));
    let two = with_rules(|rules| append(path(), Some(&one), &record, Some("note"), rules));
    let two = two.expect("appended");
    let whole = parse(&two).expect("valid").entries;
    for cut in (one.len()..two.len()).filter(|cut| two.is_char_boundary(*cut)) {
        if let Ok(file) = parse(&two[..cut]) {
            assert_eq!(file.entries[..], whole[..file.entries.len()], "cut at {cut}");
        }
    }
}

#[test]
fn a_key_is_suspended_and_resumed() {
    let text = format!("keys:\n{}", block("AAAAAAAAAAAA", 'a'));
    let set = |text: &str, status| {
        with_rules(|rules| set_status(path(), text, id("AAAAAAAAAAAA"), status, rules))
    };
    let status = |text: &str| parse(text).expect("valid").entries[0].record.status;
    assert!(matches!(
        set(&text, Status::Active),
        Err(EditError::Objection(Objection::Already(_, "active")))
    ));
    let suspended = set(&text, Status::Suspended).expect("suspended");
    assert_eq!(status(&suspended), Status::Suspended);
    assert!(matches!(
        set(&suspended, Status::Suspended),
        Err(EditError::Objection(Objection::Already(..)))
    ));
    let resumed = set(&suspended, Status::Active).expect("resumed");
    assert_eq!(status(&resumed), Status::Active);
    assert_eq!(status(&set(&resumed, Status::Suspended).expect("again")), Status::Suspended);
    let revoked = set(&suspended, Status::Revoked).expect("revoked");
    assert_eq!(status(&revoked), Status::Revoked);
    for status in [Status::Active, Status::Suspended] {
        assert!(matches!(set(&revoked, status), Err(EditError::Objection(Objection::Revoked(_)))));
    }
}

#[test]
fn a_stated_count_follows() {
    for text in [
        format!("count: 1\nkeys:\n{}", block("AAAAAAAAAAAA", 'a')),
        "count: 0 # none\nkeys: []\n".to_owned(),
        "keys: []\ncount: 0\n".to_owned(),
    ] {
        let before = parse(&text).expect("valid");
        match appended(Some(&text)) {
            Ok(new) => {
                let count = before.entries.len() as u64 + 1;
                assert_eq!(parse(&new).expect(&new).count.map(|count| count.0), Some(count));
            }
            // A list that is not last in its file grows where nothing can be put.
            Err(error) => assert!(matches!(error, EditError::Layout), "{text}: {error:?}"),
        }
    }
}
