//! Finds the one credential of a request, wherever the caller's agent puts it.
//!
//! Every telemetry agent has its own convention; all of them are read, and exactly one may be
//! used. Two credentials are refused even when they are equal: a proxy, a cache and a database
//! behind us could each believe another one. A comma in a value is refused for the same reason:
//! it is how a proxy joins two headers of one name.
//!
//! Query names are compared literally and values are never percent-decoded: a key has no character
//! that needs it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest value that is looked at, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 512;

/// Headers that hold a credential, in every profile.
pub const CREDENTIAL_HEADERS: [&str; 7] = [
    "authorization",
    "x-api-key",
    "api-key",
    "apikey",
    "dd-api-key",
    "x-honeycomb-team",
    "x-license-key",
];

/// Headers that are taken off as well, because they claim an identity or hold someone's secret.
pub const STRIPPED_HEADERS: [&str; 2] = ["x-scope-orgid", "dd-application-key"];

/// How the clients of a route speak: where else their credential may be, and which answers they
/// understand. Envoy's route says it, never the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Nothing in particular; also what an unknown name means.
    Default,
    /// InfluxDB clients of all versions.
    Influx,
    /// OpenTelemetry exporters.
    Otlp,
    /// Prometheus remote write.
    Prometheus,
    /// The Datadog Agent and what imitates it.
    Datadog,
}

/// The parts of a request that the decision looks at. Has no `Debug`: it holds credentials.
pub struct Request<'a> {
    /// How the clients of the route speak.
    pub profile: Profile,
    /// The scope that the route demands.
    pub required_scope: Option<&'a str>,
    /// All headers, in their order, with raw values.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// The request target with its query.
    pub path: &'a str,
    /// The size of the body, where the caller announced it.
    pub body_bytes: Option<u64>,
}

/// Why there is not exactly one readable credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtractError {
    /// There is none.
    Missing,
    /// There is more than one.
    Ambiguous,
    /// It is longer than [`CREDENTIAL_BYTES_MAX`].
    Oversize,
    /// `authorization` has a scheme that carries no key.
    Scheme,
    /// Basic credentials that are not base64 of `user:password`.
    Basic,
}

/// The bytes that should be a key. Has no `Debug`.
pub struct Credential<'a>(Cow<'a, [u8]>);

enum Field<'a> {
    Authorization(&'a [u8]),
    Plain(&'a [u8]),
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 5] =
        [Self::Default, Self::Influx, Self::Otlp, Self::Prometheus, Self::Datadog];

    /// The profile of this name, or the default one.
    pub fn of(name: Option<&str>) -> Self {
        let known = |profile: &Self| name == Some(profile.as_str());
        Self::ALL.into_iter().find(known).unwrap_or(Self::Default)
    }

    /// Its name in Envoy's `context_extensions` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Default => "default",
            Profile::Influx => "influx",
            Profile::Otlp => "otlp",
            Profile::Prometheus => "prometheus",
            Profile::Datadog => "datadog",
        }
    }

    /// Query parameters that hold the key.
    pub fn key_parameters(self) -> &'static [&'static str] {
        match self {
            Profile::Influx => &["p"],
            Profile::Datadog => &["api_key", "dd-api-key"],
            Profile::Default | Profile::Otlp | Profile::Prometheus => &[],
        }
    }

    /// Query parameters that are taken off before the request goes on.
    pub fn stripped_parameters(self) -> &'static [&'static str] {
        match self {
            Profile::Influx => &["u", "p"],
            Profile::Datadog => &["api_key", "dd-api-key", "application_key"],
            Profile::Default | Profile::Otlp | Profile::Prometheus => &[],
        }
    }
}

impl Request<'_> {
    /// The value of the first header of a name (lower case), as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }
}

impl Credential<'_> {
    /// The bytes, for parsing and nothing else.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Finds the credential.
///
/// # Errors
/// When there is not exactly one, or it cannot be read.
pub fn extract<'a>(request: &Request<'a>) -> Result<Credential<'a>, ExtractError> {
    let mut fields = header_fields(request).chain(query_fields(request));
    let field = fields.next().ok_or(ExtractError::Missing)?;
    if fields.next().is_some() {
        return Err(ExtractError::Ambiguous);
    }
    let (Field::Authorization(value) | Field::Plain(value)) = field;
    if value.len() > CREDENTIAL_BYTES_MAX {
        return Err(ExtractError::Oversize);
    }
    if value.contains(&b',') {
        return Err(ExtractError::Ambiguous);
    }
    match field {
        Field::Plain(value) => Ok(Credential(Cow::Borrowed(value))),
        Field::Authorization(value) => authorization(value),
    }
}

fn header_fields<'r, 'a>(
    request: &'r Request<'a>,
) -> impl Iterator<Item = Field<'a>> + use<'r, 'a> {
    request.headers.iter().filter_map(|&(name, value)| {
        let at = CREDENTIAL_HEADERS.iter().position(|known| name.eq_ignore_ascii_case(known))?;
        Some(if at == 0 { Field::Authorization(value) } else { Field::Plain(value) })
    })
}

fn query_fields<'a>(request: &Request<'a>) -> impl Iterator<Item = Field<'a>> + use<'a> {
    let names = request.profile.key_parameters();
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let query = if names.is_empty() { "" } else { query };
    query.split('&').filter_map(move |parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        names.contains(&name).then_some(Field::Plain(value.as_bytes()))
    })
}

/// `scheme 1*SP key`. The scheme's case does not matter (RFC 9110 §11.1).
fn authorization(value: &[u8]) -> Result<Credential<'_>, ExtractError> {
    let cut = value.iter().position(|byte| *byte == b' ').ok_or(ExtractError::Scheme)?;
    let (scheme, rest) = value.split_at(cut);
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let rest = &rest[spaces..];
    let is = |name: &str| scheme.eq_ignore_ascii_case(name.as_bytes());
    if ["bearer", "token", "splunk", "apikey"].into_iter().any(is) {
        Ok(Credential(Cow::Borrowed(rest)))
    } else if is("basic") {
        basic(rest)
    } else {
        Err(ExtractError::Scheme)
    }
}

/// The password is the key; the user name is free, since every agent puts something else there.
fn basic(encoded: &[u8]) -> Result<Credential<'_>, ExtractError> {
    let mut decoded = STANDARD.decode(encoded).map_err(|_| ExtractError::Basic)?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(ExtractError::Basic)?;
    decoded.drain(..=colon);
    Ok(Credential(Cow::Owned(decoded)))
}

#[cfg(test)]
#[path = "extract/tests.rs"]
mod tests;
