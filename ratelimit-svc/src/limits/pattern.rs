//! Values with `*`, which stands for any characters or none, and which of several counts.

use std::cmp::Reverse;

/// Which pattern counts where several match: the `wildcards` key of a quota file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precedence {
    /// The first in the file, as in the reference.
    #[default]
    FileOrder,
    /// The one with the most literal characters, of equals the one with the fewest `*`, and then
    /// the first in the file. So a pattern is met before any that matches all it matches.
    MostSpecific,
}

/// The place of a pattern among those that match: the lowest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    literals: Reverse<usize>,
    stars: usize,
    order: usize,
}

impl Precedence {
    /// The precedence called `name` in a file.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::FileOrder, Self::MostSpecific].into_iter().find(|known| known.name() == name)
    }

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FileOrder => "file_order",
            Self::MostSpecific => "most_specific",
        }
    }

    /// The rank of a key and value of which one is a pattern, added as number `order`.
    pub fn rank(self, parts: [&str; 2], order: usize) -> Rank {
        if self == Self::FileOrder {
            return Rank { literals: Reverse(0), stars: 0, order };
        }
        let literals = |part: &str| part.chars().filter(|c| *c != '*').count();
        // Stars side by side say no more than one.
        let stars = |part: &str| {
            let after = part.chars().skip(1).map(Some).chain([None]);
            part.chars().zip(after).filter(|(c, after)| *c == '*' && *after != Some('*')).count()
        };
        Rank {
            literals: Reverse(parts.into_iter().map(literals).sum()),
            stars: parts.into_iter().map(stars).sum(),
            order,
        }
    }
}

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

    /// What stands before the first `*`.
    pub fn prefix(&self) -> &str {
        self.text.split('*').next().unwrap_or_default()
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
