//! Mogrifiers: patterns that turn parts of a metric's name into tags of dogstatsd. Pure.
//!
//! ```text
//! PATTERN  ^ratelimit\.service\.rate_limit\.([^.]*)\.(.*)\.(.*)$
//! NAME     ratelimit.$3
//! TAGS     domain:$1,rule:$2
//! ```

use regex::{Captures, Regex, RegexBuilder};

/// The most memory a compiled pattern may take.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;

/// One pattern with what becomes of the names it matches.
#[derive(Clone, Debug)]
pub struct Mogrifier {
    pattern: Regex,
    name: String,
    tags: Vec<(String, String)>,
}

impl PartialEq for Mogrifier {
    fn eq(&self, other: &Self) -> bool {
        let pattern = self.pattern.as_str() == other.pattern.as_str();
        pattern && self.name == other.name && self.tags == other.tags
    }
}

impl Mogrifier {
    /// `name` and the values of `tags` may hold `$0`, `$1`, … for what the pattern's groups match.
    ///
    /// # Errors
    /// A sentence, when the pattern is none or a group does not exist.
    pub fn try_new(pattern: &str, name: &str, tags: Vec<(String, String)>) -> Result<Self, String> {
        let pattern = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
        let pattern = pattern.map_err(|error| match error {
            regex::Error::CompiledTooBig(bytes) => format!("needs more than {bytes} bytes"),
            _ => "is not a regular expression".to_owned(),
        })?;
        for template in tags.iter().map(|(_, value)| value.as_str()).chain([name]) {
            let groups = pieces(template).filter_map(|piece| match piece {
                Piece::Group(group) => Some(group),
                Piece::Text(_) => None,
            });
            if let Some(group) = groups.into_iter().find(|group| *group >= pattern.captures_len()) {
                return Err(format!("has no group ${group}"));
            }
        }
        Ok(Self { pattern, name: name.to_owned(), tags })
    }

    /// The new name and the tags, if the pattern matches.
    pub fn apply(&self, name: &str) -> Option<(String, Vec<(String, String)>)> {
        let captures = self.pattern.captures(name)?;
        let tag = |(key, value): &(String, String)| (key.clone(), expand(value, &captures));
        Some((expand(&self.name, &captures), self.tags.iter().map(tag).collect()))
    }
}

/// The first that matches decides; without one the name stays.
pub fn mogrify(mogrifiers: &[Mogrifier], name: &str) -> (String, Vec<(String, String)>) {
    let applied = mogrifiers.iter().find_map(|mogrifier| mogrifier.apply(name));
    applied.unwrap_or_else(|| (name.to_owned(), Vec::new()))
}

enum Piece<'a> {
    Text(&'a str),
    Group(usize),
}

/// A template in its pieces; `$` without a number is text.
fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix('$') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            if let Ok(group) = after[..digits].parse() {
                rest = &after[digits..];
                return Some(Piece::Group(group));
            }
        }
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..].find('$').map_or(rest.len(), |at| first + at);
        let (text, more) = rest.split_at(end);
        rest = more;
        Some(Piece::Text(text))
    })
}

fn expand(template: &str, captures: &Captures<'_>) -> String {
    let piece = |piece| match piece {
        Piece::Text(text) => text,
        Piece::Group(group) => captures.get(group).map_or("", |found| found.as_str()),
    };
    pieces(template).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn groups_become_tags() {
        let pattern = r"^ratelimit\.rate_limit\.([^.]*)\.(.*)\.([^.]*)$";
        let set = tags(&[("domain", "$1"), ("rule", "x-$2-$"), ("fixed", "ü")]);
        let one = Mogrifier::try_new(pattern, "rl.$3", set).expect("valid");
        let other = Mogrifier::try_new("^b", "never$0", vec![]).expect("valid");
        let both = [one, other];
        let got = mogrify(&both, "ratelimit.rate_limit.edge.a.b.over_limit");
        let expected = tags(&[("domain", "edge"), ("rule", "x-a.b-$"), ("fixed", "ü")]);
        assert_eq!(got, ("rl.over_limit".to_owned(), expected));
        assert_eq!(mogrify(&both, "bc"), ("neverb".to_owned(), vec![]));
        assert_eq!(mogrify(&both, "c"), ("c".to_owned(), vec![]));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (pattern, name, expected) in [
            ("(", "a", "is not a regular expression"),
            ("(a)", "$2", "has no group $2"),
            ("(a{1000}){1000}", "a", "needs more than 1048576 bytes"),
        ] {
            let error = Mogrifier::try_new(pattern, name, vec![]).expect_err(pattern);
            assert_eq!(error, expected);
        }
        let error = Mogrifier::try_new("a", "a", tags(&[("t", "$12")])).expect_err("no group");
        assert_eq!(error, "has no group $12");
    }
}
