//! A rate-limit request, checked: what is absurd is refused before anything is done with it.

use smallvec::SmallVec;

use crate::limits::unit::Unit;

/// Most descriptors of a request.
pub const DESCRIPTORS_MAX: usize = 128;
/// Most entries of a descriptor.
pub const ENTRIES_MAX: usize = 32;
/// Most bytes of all keys, values and the domain of a request together.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Hits beyond this count as this many: no limit is larger, so the answer is the same.
pub const HITS_MAX: u64 = 1 << 32;

/// What is asked, borrowed from the wire message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request<'a> {
    /// Whose rules are asked.
    pub domain: &'a str,
    /// What the request is, each to be limited on its own.
    pub descriptors: Vec<Descriptor<'a>>,
    /// Hits for descriptors that do not say; 0 means 1.
    pub hits_addend: u32,
}

/// Keys and values, outermost first. As many as most descriptors have take no allocation.
pub type Entries<'a> = SmallVec<[(&'a str, &'a str); 4]>;

/// One thing to limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Descriptor<'a> {
    /// Keys and values, outermost first.
    pub entries: Entries<'a>,
    /// A limit that comes with the request and replaces those of the files.
    pub limit_override: Option<Override>,
    /// Hits of this descriptor; 0 only looks.
    pub hits_addend: Option<u64>,
    /// The hits are given back.
    pub is_negative_hits: bool,
}

/// A limit that comes with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Hits per window.
    pub requests_per_unit: u32,
    /// The window; none for a unit that does not exist.
    pub unit: Option<Unit>,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The domain is empty.
    #[error("rate limit domain must not be empty")]
    EmptyDomain,
    /// There are no descriptors.
    #[error("rate limit descriptor list must not be empty")]
    NoDescriptors,
    /// The bytes are not a `RateLimitRequest`.
    #[error("not a protobuf message of a rate limit request")]
    Malformed,
    /// No quota file was ever good.
    #[error("no rate limit configuration loaded")]
    NoConfiguration,
    /// More than [`DESCRIPTORS_MAX`].
    #[error("more than {DESCRIPTORS_MAX} descriptors")]
    TooManyDescriptors,
    /// More than [`ENTRIES_MAX`].
    #[error("more than {ENTRIES_MAX} entries in a descriptor")]
    TooManyEntries,
    /// More than [`REQUEST_BYTES_MAX`].
    #[error("more than {REQUEST_BYTES_MAX} bytes of domain, keys and values")]
    TooLarge,
    /// An override without a unit that exists.
    #[error("limit override with an unknown unit")]
    OverrideUnit,
}

impl RequestError {
    /// Whether the caller sent something absurd, as opposed to something that the reference
    /// answers with an error of its own.
    pub fn is_invalid_argument(self) -> bool {
        !matches!(self, Self::EmptyDomain | Self::NoDescriptors | Self::NoConfiguration)
    }

    /// The value of the `kind` label in metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::EmptyDomain => "empty_domain",
            Self::NoDescriptors => "no_descriptors",
            Self::Malformed => "malformed",
            Self::NoConfiguration => "no_configuration",
            Self::TooManyDescriptors | Self::TooManyEntries | Self::TooLarge => "too_large",
            Self::OverrideUnit => "override_unit",
        }
    }
}

impl Request<'_> {
    /// Refuses what no honest caller sends.
    ///
    /// # Errors
    /// The first bound that is passed.
    pub fn check(&self) -> Result<(), RequestError> {
        if self.domain.is_empty() {
            return Err(RequestError::EmptyDomain);
        }
        if self.descriptors.is_empty() {
            return Err(RequestError::NoDescriptors);
        }
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return Err(RequestError::TooManyDescriptors);
        }
        let mut bytes = self.domain.len();
        for descriptor in &self.descriptors {
            if descriptor.entries.len() > ENTRIES_MAX {
                return Err(RequestError::TooManyEntries);
            }
            bytes += descriptor.entries.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
            if bytes > REQUEST_BYTES_MAX {
                return Err(RequestError::TooLarge);
            }
            if descriptor.limit_override.is_some_and(|limit| limit.unit.is_none()) {
                return Err(RequestError::OverrideUnit);
            }
        }
        Ok(())
    }

    /// The hits of a descriptor, bounded by [`HITS_MAX`].
    pub fn hits(&self, descriptor: &Descriptor<'_>) -> u64 {
        let hits = descriptor.hits_addend.unwrap_or_else(|| u64::from(self.hits_addend.max(1)));
        hits.min(HITS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &Request<'_>, expected: Result<(), RequestError>) {
        assert_eq!(request.check(), expected);
    }

    #[test]
    fn absurd_requests_are_refused() {
        let entry =
            |value| Descriptor { entries: [("k", value)][..].into(), ..Descriptor::default() };
        let with = |descriptors| Request { domain: "d", descriptors, hits_addend: 0 };
        check(&Request::default(), Err(RequestError::EmptyDomain));
        check(&with(vec![]), Err(RequestError::NoDescriptors));
        check(&with(vec![Descriptor::default()]), Ok(()));
        check(&with(vec![entry("v"); DESCRIPTORS_MAX]), Ok(()));
        check(&with(vec![entry("v"); DESCRIPTORS_MAX + 1]), Err(RequestError::TooManyDescriptors));
        let long = "x".repeat(REQUEST_BYTES_MAX - 2);
        check(&with(vec![entry(&long)]), Ok(()));
        check(&with(vec![entry(&long), entry("")]), Err(RequestError::TooLarge));
        let entries = vec![("k", "v"); ENTRIES_MAX + 1];
        let deep = Descriptor { entries: entries.into(), ..Descriptor::default() };
        check(&with(vec![deep]), Err(RequestError::TooManyEntries));
        let bad = Override { requests_per_unit: 1, unit: None };
        let bad = Descriptor { limit_override: Some(bad), ..entry("v") };
        check(&with(vec![bad]), Err(RequestError::OverrideUnit));
    }

    #[test]
    fn how_many_hits() {
        for (request, own, expected) in [
            (0, None, 1),
            (5, None, 5),
            (5, Some(0), 0),
            (5, Some(7), 7),
            (5, Some(1 << 63), HITS_MAX),
            (u32::MAX, None, u64::from(u32::MAX)),
        ] {
            let descriptor = Descriptor { hits_addend: own, ..Descriptor::default() };
            let request = Request { hits_addend: request, ..Request::default() };
            assert_eq!(request.hits(&descriptor), expected);
        }
    }
}
