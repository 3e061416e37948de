//! The grammars of names in a key record: tenants, classes, plans, scopes, environments.
//!
//! They are narrow so that a name is at once a safe header value, a rate-limit descriptor, a
//! metric label, a Kafka key and an InfluxDB tag, without quoting anywhere.

/// The longest tenant, class, plan or scope, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// The longest environment in a key, in bytes.
pub const ENVIRONMENT_BYTES_MAX: usize = 16;
/// Tenants nobody may have: they stand for "none" and "the rest" in descriptors and metrics.
pub const RESERVED_TENANTS: [&str; 2] = ["unknown", "other"];

/// Whether the text can be a tenant, a class or a plan: lower-case letters, digits, `-` and `_`,
/// beginning and ending with a letter or digit.
pub fn is_name(text: &str) -> bool {
    is_bounded(text, |byte| matches!(byte, b'-' | b'_'))
}

/// Whether the text can be a scope: as a name, and `:` and `.` inside.
pub fn is_scope(text: &str) -> bool {
    is_bounded(text, |byte| matches!(byte, b'-' | b'_' | b':' | b'.'))
}

/// Whether the text can be the environment of a key: lower-case letters and digits.
pub fn is_environment(text: &str) -> bool {
    (1..=ENVIRONMENT_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Says what is wrong with a tenant, as a sentence without a full stop.
pub fn tenant_problem(text: &str) -> Option<String> {
    if RESERVED_TENANTS.contains(&text) {
        return Some(format!("tenant '{text}' is reserved"));
    }
    name_problem("tenant", text)
}

/// Says what is wrong with a class or plan, as a sentence without a full stop.
pub fn name_problem(what: &str, text: &str) -> Option<String> {
    (!is_name(text)).then(|| {
        format!(
            "{what} {text:?} must be 1 to {NAME_BYTES_MAX} lower-case letters, digits, '-' or '_', \
             beginning and ending with a letter or digit"
        )
    })
}

/// Says what is wrong with a scope, as a sentence without a full stop.
pub fn scope_problem(text: &str) -> Option<String> {
    (!is_scope(text)).then(|| {
        format!(
            "scope {text:?} must be 1 to {NAME_BYTES_MAX} lower-case letters, digits, '-', '_', \
             ':' or '.', beginning and ending with a letter or digit"
        )
    })
}

fn is_bounded(text: &str, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    bytes.len() <= NAME_BYTES_MAX
        && is_plain(*first)
        && is_plain(*last)
        && bytes.iter().all(|byte| is_plain(*byte) || inner(*byte))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_everywhere() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for good in ["a", "acme", "acme-eu_1", "0", "system-node-critical", &longest] {
            assert!(is_name(good), "{good}");
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "-a", "a-", "_", "A", "a b", "a,b", "a=b", "a.b", "é", "a\n", &too_long] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(is_scope("metrics:write") && is_scope("a.b") && !is_scope("a,b"));
        assert!(!is_scope("-") && !is_scope(""));
        assert!(is_environment("live") && !is_environment("li_ve") && !is_environment(""));
        assert!(!is_environment(&"a".repeat(ENVIRONMENT_BYTES_MAX + 1)));
    }

    #[test]
    fn tenants_that_mean_something_else_are_refused() {
        assert_eq!(tenant_problem("acme"), None);
        assert_eq!(tenant_problem("unknown").as_deref(), Some("tenant 'unknown' is reserved"));
        let problem = tenant_problem("Acme Corp").expect("refused");
        assert!(problem.starts_with("tenant \"Acme Corp\" must be"), "{problem}");
    }
}
