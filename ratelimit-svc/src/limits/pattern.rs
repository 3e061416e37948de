//! Values with `*`, which stands for any characters or none.

/// A text with at least one `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
}

impl Pattern {
    /// The pattern, or nothing when the text has no `*`.
    pub fn parse(text: &str) -> Option<Self> {
        text.contains('*').then(|| Self { text: text.into() })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `value` matches. Linear in the value for each part of the pattern: every
    /// part is taken where it first occurs, which is enough when the only wildcard is `*`.
    pub fn matches(&self, value: &str) -> bool {
        let Some((prefix, rest)) = self.text.split_once('*') else { return *self.text == *value };
        let Some(mut value) = value.strip_prefix(prefix) else { return false };
        let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*').filter(|part| !part.is_empty()) {
            match value.find(part) {
                Some(at) => value = &value[at + part.len()..],
                None => return false,
            }
        }
        value.ends_with(suffix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_characters_or_none() {
        let check = |pattern: &str, value: &str, expected: bool| {
            let pattern = Pattern::parse(pattern).expect("has a star");
            assert_eq!(pattern.matches(value), expected, "{pattern:?} {value}");
        };
        check("*", "", true);
        check("*", "anything", true);
        check("foo*", "foo", true);
        check("foo*", "fo", false);
        check("*bar", "foobar", true);
        check("a*b*c", "a-b-c", true);
        check("a*b*c", "abbc", true);
        check("a*b*c", "acb", false);
        check("aba*aba", "ababa", false);
        check("a**b", "ab", true);
        check("ü*ö", "üxö", true);
        assert_eq!(Pattern::parse("plain"), None);
    }

    fn naive(pattern: &[u8], value: &[u8]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some((b'*', rest)) => (0..=value.len()).any(|skip| naive(rest, &value[skip..])),
            Some((byte, rest)) => value.first() == Some(byte) && naive(rest, &value[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_backtracking(pattern in "[ab*]{0,6}\\*[ab*]{0,4}", value in "[ab]{0,10}") {
            let parsed = Pattern::parse(&pattern).expect("has a star");
            prop_assert_eq!(parsed.matches(&value), naive(pattern.as_bytes(), value.as_bytes()));
        }
    }
}
