//! Tests of `key_file`.

use proptest::prelude::*;

use super::*;
use crate::check::record::Status;

/// Peppers 1 and 2, and the classes `ingest` and `background`.
pub(super) fn with_rules<T>(check: impl FnOnce(Rules<'_>) -> T) -> T {
    let peppers = Peppers::new([(1, vec![1; 16]), (2, vec![2; 16])].into()).expect("good peppers");
    let priority_classes = ["ingest".to_owned(), "background".to_owned()];
    check(Rules { peppers: &peppers, priority_classes: &priority_classes })
}

pub(super) fn parse(text: &str) -> Result<KeyFile, String> {
    with_rules(|rules| KeyFile::parse(Path::new("keys.yaml"), text.as_bytes(), rules))
        .map_err(|error| error.to_string())
}

/// A complete record in block style; the digest is made of one digit.
pub(super) fn block(id: &str, digit: char) -> String {
    let hex = digit.to_string().repeat(64);
    format!(
        "  - id: {id}\n    tenant: acme\n    priority: ingest\n    digest: {{pepper: 1, hmac_sha256: \"{hex}\"}}\n"
    )
}

#[test]
fn a_full_record() {
    let text = format!(
        "# all keys\nkeys:\n- comment: \"the first\"\n  id: AAAAAAAAAAAA\n  tenant: acme\n  priority: background\n  \
         plan: gold\n  scopes: [a, 'b:c']\n  digest:\n    pepper: 2\n    hmac_sha256: {}\n  \
         not_before: 2026-01-01T00:00:00Z\n  expires_at: \"2027-01-01T00:00:00Z\"\n  revoked: true\n{}",
        "0f".repeat(32),
        block("BBBBBBBBBBBB", 'b').replace("  - ", "- ").replace("    ", "  "),
    );
    let file = parse(&text).expect("valid");
    let first = &file.entries[0];
    assert_eq!(first.record.digest.hmac_sha256, [0x0f; 32]);
    assert_eq!((first.record.digest.pepper, first.record.grant.plan.as_str()), (2, "gold"));
    assert_eq!(first.record.grant.scopes, ["a", "b:c"]);
    assert!(
        first.record.status == Status::Revoked && first.record.not_before < first.record.expires_at
    );
    assert_eq!(first.comment.as_deref(), Some("the first"));
    assert_eq!((first.id_at, first.revoked_at), ((4, 7), Some((14, 12))));
    let second = &file.entries[1];
    assert_eq!((second.record.grant.plan.as_str(), second.revoked_at), (PLAN_DEFAULT, None));
    assert!(second.record.status == Status::Active && second.record.grant.scopes.is_empty());
}

#[test]
fn ids_and_digests_of_digits_alone_are_texts() {
    for id in ["123456789012", "000000000000", "1e5000000000", "0x1234567890"] {
        let text = format!("keys:\n{}", block(id, '1').replace('"', ""));
        let file = parse(&text).expect(id);
        assert_eq!(file.entries[0].record.id.as_str(), id);
    }
}

#[test]
fn no_keys_must_be_written() {
    assert_eq!(parse("keys: []\n").map(|file| file.entries.len()), Ok(0));
    for bad in ["", "keys:\n", "keys: ~\n", "keys: {}\n", "{}\n", "# nothing\n", "---\n", "[]\n"] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn every_error_says_where() {
    let good = format!("keys:\n{}{}", block("AAAAAAAAAAAA", 'a'), block("BBBBBBBBBBBB", 'b'));
    assert!(parse(&good).is_ok());
    let long = format!("comment: \"{}\"\n    tenant", "c".repeat(COMMENT_BYTES_MAX + 1));
    let scopes: Vec<String> = (0..=SCOPES_MAX).map(|n| format!("s{n}")).collect();
    let scopes = format!("scopes: [{}]\n    tenant", scopes.join(", "));
    for (from, to, expected) in [
        ("id: AAAAAAAAAAAA", "id: short", "keys.yaml:2:9: 'id' must be 12 letters or digits"),
        (
            "id: BBBBBBBBBBBB",
            "id: AAAAAAAAAAAA",
            "keys.yaml:6:9: key id 'AAAAAAAAAAAA' is already used in line 2",
        ),
        (
            &"b".repeat(64),
            &"a".repeat(64),
            "keys.yaml:9:38: keys 'AAAAAAAAAAAA' and 'BBBBBBBBBBBB' have the same digest",
        ),
        (&"b".repeat(64), &"b".repeat(63), "keys.yaml:9:38: 'hmac_sha256' must be 64"),
        (&"b".repeat(64), &"B".repeat(64), "keys.yaml:9:38: 'hmac_sha256' must be 64"),
        ("pepper: 1", "pepper: 3", "keys.yaml:5:22: pepper 3 is not among 'pepper_files'"),
        ("pepper: 1", "pepper: -1", "keys.yaml:5:22: "),
        ("tenant: acme", "tenant: Acme", "keys.yaml:3:13: tenant \"Acme\" must be"),
        ("tenant: acme", "tenant: \"a b\"", "keys.yaml:3:13: tenant \"a b\" must be"),
        ("tenant: acme", "tenant: other", "keys.yaml:3:13: tenant 'other' is reserved"),
        (
            "priority: ingest",
            "priority: ingets",
            "keys.yaml:4:15: priority \"ingets\" is none of the classes ingest, background",
        ),
        ("tenant", "plan: \"g,d\"\n    tenant", "keys.yaml:3:11: plan \"g,d\" must be"),
        ("tenant", "scopes: [a, B]\n    tenant", "keys.yaml:3:17: scope \"B\" must be"),
        ("tenant", "scopes: [a, a]\n    tenant", "keys.yaml:3:17: scope 'a' comes twice"),
        ("tenant", &scopes, "keys.yaml:3:"),
        ("tenant", &long, "keys.yaml:3:14: 'comment' is longer than 256 bytes"),
        (
            "tenant",
            "expires_at: 2026-02-30T00:00:00Z\n    tenant",
            "keys.yaml:3:17: 'expires_at' must be a UTC time",
        ),
        (
            "tenant",
            "not_before: soon\n    tenant",
            "keys.yaml:3:17: 'not_before' must be a UTC time",
        ),
        (
            "tenant",
            "not_before: 2026-01-01T00:00:00Z\n    expires_at: 2026-01-01T00:00:00Z\n    tenant",
            "keys.yaml:4:17: 'expires_at' must be after",
        ),
        ("tenant", "revoked: perhaps\n    tenant", "keys.yaml:3:14: "),
        ("tenant", "tennant", "keys.yaml:3:5: "),
        ("tenant", "secret: x\n    tenant", "keys.yaml:3:5: "),
        ("keys:", "keys: []\nkeys:", "keys.yaml:2:1: "),
        ("keys:", "limits: []\nkeys:", "keys.yaml:1:1: "),
    ] {
        let error = parse(&good.replacen(from, to, 1)).expect_err(to);
        assert!(error.starts_with(expected), "{error} instead of {expected}");
    }
}

#[test]
fn aliases_have_no_place_here() {
    let text = "keys: &a []\n";
    assert!(parse(text).is_err());
}

#[test]
fn a_file_of_many_keys_is_read() {
    use std::fmt::Write;
    // Above what a YAML reader with everyday limits takes.
    let mut text = String::from("keys:\n");
    for n in 0..20_000_u32 {
        writeln!(
            text,
            "- {{id: \"{n:012}\", tenant: acme, priority: ingest, digest: {{pepper: 1, hmac_sha256: \"{n:064x}\"}}}}"
        )
        .expect("written");
    }
    assert_eq!(parse(&text).map(|file| file.entries.len()), Ok(20_000));
}

proptest! {
    /// A file cut off anywhere is refused, or says exactly what its whole records say.
    #[test]
    fn half_a_file_is_never_half_believed(cut in 0_usize..500) {
        let text = format!("keys:\n{}{}", block("AAAAAAAAAAAA", 'a'), block("BBBBBBBBBBBB", 'b'));
        let whole = parse(&text).expect("valid");
        let cut = cut.min(text.len());
        if let Ok(file) = parse(&text[..cut]) {
            prop_assert!(!file.entries.is_empty());
            prop_assert_eq!(&file.entries[..], &whole.entries[..file.entries.len()]);
        }
    }

    #[test]
    fn nothing_panics(text in "(keys:)?[ -~\n]{0,200}") {
        let _ = parse(&text);
    }
}

/// What comes of loading a text, as a set of keys and whether it is counted.
fn loaded(text: &str) -> Result<(Vec<KeyRecord>, bool), String> {
    let (mut keys, path) = (Builder::default(), Path::new("keys.yaml"));
    let len = text.len() as u64;
    let is_counted = with_rules(|rules| load(path, len, text.as_bytes(), rules, &mut keys))
        .map_err(|error| error.to_string())?;
    let mut records: Vec<_> = keys.build().iter().map(|kept| kept.to_record()).collect();
    records.sort_by_key(|record| record.id);
    Ok((records, is_counted))
}

proptest! {
    /// A file is loaded as it is read with where all of it stands, or refused in the same words.
    #[test]
    fn a_file_is_loaded_as_it_is_parsed(at in 0_usize..1000, new in "[ -~\n]{0,2}", counted in any::<bool>()) {
        let count = if counted { "count: 2\n" } else { "" };
        let (one, two) = (block("AAAAAAAAAAAA", 'a'), block("BBBBBBBBBBBB", 'b'));
        let mut text = format!("{count}tenants:\n- {{name: acme, suspended: true}}\nkeys:\n{one}{two}");
        let at = at % text.len();
        text.replace_range(at..=at, &new);
        let file = with_rules(|rules| KeyFile::parse(Path::new("keys.yaml"), text.as_bytes(), rules));
        let expected = file.map_err(|error| error.to_string()).map(|file| {
            let is_counted = file.count.is_some();
            let mut records: Vec<_> = file.into_records().collect();
            records.sort_by_key(|record| record.id);
            (records, is_counted)
        });
        prop_assert_eq!(loaded(&text), expected, "{}", text);
    }
}
