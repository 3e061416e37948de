//! Which headers of a client are gone before a filter runs: by the early header mutation, or by a
//! header mutation filter in front of it.

use regex::Regex;

use super::bootstrap::{Chain, HEADER_MUTATION};
use super::tree::{field, is_true, items, text};
use crate::document::Node;

/// The header mutations in front of a filter.
pub struct Stripped<'a>(Vec<&'a Node>);

impl<'a> Stripped<'a> {
    /// What is gone before routing.
    pub fn early(chain: &Chain<'a>) -> Self {
        let extensions = items(chain.manager, "early_header_mutation_extensions").iter();
        Self(extensions.flat_map(|extension| items(extension, "typed_config.mutations")).collect())
    }

    /// What is gone before the filter of a rank in the chain.
    pub fn before(chain: &Chain<'a>, rank: usize) -> Self {
        let mut stripped = Self::early(chain);
        for (at, filter) in chain.of_kind(HEADER_MUTATION) {
            if at < rank && filter.wrapper.is_none() {
                stripped.0.extend(items(filter.config, "mutations.request_mutations"));
            }
        }
        stripped
    }

    /// Whether a client's header never gets there.
    pub fn has(&self, header: &str) -> bool {
        self.0.iter().any(|mutation| removes(mutation, &header.to_ascii_lowercase()))
    }

    /// Whether any header is taken from clients at all.
    pub fn is_empty(&self) -> bool {
        let removes = |mutation: &&Node| {
            field(mutation, "remove").is_some() || field(mutation, "remove_on_match").is_some()
        };
        !self.0.iter().any(removes)
    }
}

fn removes(mutation: &Node, header: &str) -> bool {
    if let Some(name) = text(mutation, "remove") {
        return name.eq_ignore_ascii_case(header);
    }
    let Some(on_match) = field(mutation, "remove_on_match") else { return false };
    field(on_match, "key_matcher").is_some_and(|matcher| matches(matcher, header))
}

/// Whether a `StringMatcher` takes a lower-case name.
fn matches(matcher: &Node, header: &str) -> bool {
    let lower = is_true(matcher, "ignore_case");
    let of = |kind: &str| {
        text(matcher, kind)
            .map(|text| if lower { text.to_ascii_lowercase() } else { text.to_owned() })
    };
    if let Some(name) = of("exact") {
        return name == header;
    }
    if let Some(prefix) = of("prefix") {
        return header.starts_with(&prefix);
    }
    if let Some(suffix) = of("suffix") {
        return header.ends_with(&suffix);
    }
    if let Some(part) = of("contains") {
        return header.contains(&part);
    }
    let regex = text(matcher, "safe_regex.regex")
        .and_then(|text| Regex::new(&format!("^(?:{text})$")).ok());
    regex.is_some_and(|regex| regex.is_match(header))
}
