//! Finds the one credential of a request, wherever the caller's agent puts it.
//!
//! Every telemetry agent has its own convention; all of them are read, and exactly one may be
//! used. Two credentials are refused even when they are equal: a proxy, a cache and a database
//! behind us could each believe another one. A comma in a value is refused for the same reason:
//! it is how a proxy joins two headers of one name. So is what no key can hold and a proxy may
//! rewrite: white space, controls and bytes beyond ASCII.
//!
//! Query names are compared literally and values are never percent-decoded: a key has no character
//! that needs it.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

use super::profile::{AUTHORIZATION, CREDENTIAL_HEADERS, Profile, UnknownProfile};

/// The longest value that is looked at, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 512;

/// The parts of a request that the decision looks at. Has no `Debug`: it holds credentials.
pub struct Request<'a> {
    /// How the clients of the route speak, as the route says.
    pub profile: Result<Profile, UnknownProfile>,
    /// The scope that the route demands.
    pub required_scope: Option<&'a str>,
    /// All headers, in their order, with raw values.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// The request target with its query.
    pub path: &'a str,
    /// The size of the body, where the caller announced it.
    pub body_bytes: Option<u64>,
    /// Where the client is, as Envoy knows it.
    pub client: Option<IpAddr>,
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
    /// It holds white space, controls or bytes beyond ASCII.
    Characters,
    /// `authorization` has a scheme that carries no key.
    Scheme,
    /// Basic credentials that are not base64 of `user:password`.
    Basic,
}

/// The bytes that should be a key. Has no `Debug`; a copy is overwritten when it is dropped.
pub struct Credential<'a>(Cow<'a, [u8]>);

enum Field<'a> {
    Authorization(&'a [u8]),
    Plain(&'a [u8]),
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

impl Drop for Credential<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(copy) = &mut self.0 {
            copy.zeroize();
        }
    }
}

/// Finds the credential of a request to a route of this profile.
///
/// # Errors
/// When there is not exactly one, or it cannot be read.
pub fn extract<'a>(
    request: &Request<'a>,
    profile: Profile,
) -> Result<Credential<'a>, ExtractError> {
    let mut fields = header_fields(request).chain(query_fields(request.path, profile));
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
    if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(ExtractError::Characters);
    }
    let credential = match field {
        Field::Plain(value) => Credential(Cow::Borrowed(value)),
        Field::Authorization(value) => authorization(value)?,
    };
    match credential.expose() {
        decoded if decoded.contains(&b',') => Err(ExtractError::Ambiguous),
        decoded if !decoded.iter().all(u8::is_ascii_graphic) => Err(ExtractError::Characters),
        _ => Ok(credential),
    }
}

fn header_fields<'r, 'a>(
    request: &'r Request<'a>,
) -> impl Iterator<Item = Field<'a>> + use<'r, 'a> {
    request.headers.iter().filter_map(|&(name, value)| {
        let known = CREDENTIAL_HEADERS.iter().find(|known| name.eq_ignore_ascii_case(known))?;
        let with_scheme = *known == AUTHORIZATION;
        Some(if with_scheme { Field::Authorization(value) } else { Field::Plain(value) })
    })
}

fn query_fields<'a>(path: &'a str, profile: Profile) -> impl Iterator<Item = Field<'a>> + use<'a> {
    let names = profile.row().key_parameters;
    let query = path.split_once('?').map_or("", |(_, query)| query);
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
    if is("bearer") || is("splunk") {
        Ok(Credential(Cow::Borrowed(rest)))
    } else if is("token") {
        // What InfluxDB 1.8 takes from clients of InfluxDB 2: the user, a colon, the password.
        Ok(Credential(Cow::Borrowed(after_colon(rest).unwrap_or(rest))))
    } else if is("apikey") {
        Ok(api_key(rest))
    } else if is("basic") {
        basic(rest)
    } else {
        Err(ExtractError::Scheme)
    }
}

/// The password is the key; the user name is free, since every agent puts something else there.
fn basic(encoded: &[u8]) -> Result<Credential<'_>, ExtractError> {
    let decoded = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| ExtractError::Basic)?);
    let password = after_colon(&decoded).ok_or(ExtractError::Basic)?;
    Ok(Credential(Cow::Owned(password.to_vec())))
}

/// Elasticsearch's form, base64 of `id:key`, or the key as it is. A key of ours is never read as
/// base64: it holds `_`, which base64 has not.
fn api_key(value: &[u8]) -> Credential<'_> {
    let decoded = STANDARD.decode(value).ok().map(Zeroizing::new);
    let text = decoded.as_ref().filter(|decoded| decoded.iter().all(u8::is_ascii_graphic));
    match text.and_then(|text| after_colon(text)) {
        Some(key) => Credential(Cow::Owned(key.to_vec())),
        None => Credential(Cow::Borrowed(value)),
    }
}

/// What follows the first colon: a user name holds none.
fn after_colon(text: &[u8]) -> Option<&[u8]> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    Some(&text[colon + 1..])
}

#[cfg(test)]
#[path = "extract/tests.rs"]
mod tests;
