//! What Envoy says about a request: whose it is, its id and its trace.
//!
//! The tenant is taken from one header, which Envoy strips from clients and sets after it asked
//! for the API key. Without it, or with more than one, nothing is stored.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName};

use crate::gateway::refusal::Refusal;

/// The header that names the tenant.
pub const TENANT: HeaderName = HeaderName::from_static("x-tidegate-tenant");
/// Envoy's request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The client's own name for a request, kept when it is sent again.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest tenant name.
pub const TENANT_BYTES_MAX: usize = 128;
/// A longer request id is not carried on.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// A request that may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whose points these are.
    pub tenant: String,
    /// The database or bucket that the client named; empty where it named none.
    pub database: String,
    /// When the request was admitted, nanoseconds since 1970.
    pub admitted_at_ns: i64,
    /// Envoy's request id.
    pub request_id: Option<String>,
    /// The trace the request belongs to.
    pub traceparent: Option<String>,
}

impl Admission {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// When there is not exactly one well-formed tenant.
    pub fn of(headers: &HeaderMap, now: SystemTime) -> Result<Self, Refusal> {
        let tenant = tenant(headers);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            tenant: tenant.ok_or(Refusal::TenantMissing)?.to_owned(),
            database: String::new(),
            admitted_at_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX - 1),
            request_id: text(headers, &REQUEST_ID, is_request_id),
            traceparent: traceparent(headers),
        })
    }
}

/// The tenant of a request, if it has exactly one that is well formed.
pub fn tenant(headers: &HeaderMap) -> Option<&str> {
    let mut tenants = headers.get_all(TENANT).iter();
    match (tenants.next(), tenants.next()) {
        (Some(tenant), None) if is_tenant(tenant.as_bytes()) => tenant.to_str().ok(),
        _ => None,
    }
}

/// The `Idempotency-Key` of a request, where it has one.
pub fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    text(headers, &IDEMPOTENCY_KEY, is_request_id)
}

/// The `traceparent` of a request, where it is one.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    text(headers, &TRACEPARENT, is_traceparent)
}

fn text(headers: &HeaderMap, name: &HeaderName, accept: fn(&[u8]) -> bool) -> Option<String> {
    let value = headers.get(name).filter(|value| accept(value.as_bytes()))?;
    value.to_str().ok().map(str::to_owned)
}

/// A name that needs no escaping in line protocol, in Kafka headers or in logs.
fn is_tenant(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=TENANT_BYTES_MAX).contains(&name.len()) && name.iter().all(plain)
}

fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, and what later versions may append.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| value[range].iter().all(u8::is_ascii_hexdigit);
    let dashes = |value: &[u8]| [2, 35, 52].iter().all(|at| value[*at] == b'-');
    (55..=128).contains(&value.len())
        && dashes(value)
        && hex(0..2)
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && value.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(headers: &[(&str, &str)]) -> Result<Admission, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        Admission::of(&map, UNIX_EPOCH + std::time::Duration::from_nanos(7))
    }

    #[test]
    fn exactly_one_tenant() {
        let tenant = |name| admission(&[("x-tidegate-tenant", name)]).map(|found| found.tenant);
        assert_eq!(tenant("acme-1.eu_x"), Ok("acme-1.eu_x".to_owned()));
        let long = "x".repeat(TENANT_BYTES_MAX);
        assert_eq!(tenant(&long), Ok(long.clone()));
        for bad in ["", "a b", "a,b", "a=b", "a\\", "é", &format!("{long}x")] {
            assert_eq!(tenant(bad), Err(Refusal::TenantMissing), "{bad}");
        }
        assert_eq!(admission(&[]), Err(Refusal::TenantMissing));
        let twice = [("x-tidegate-tenant", "acme"), ("x-tidegate-tenant", "acme")];
        assert_eq!(admission(&twice), Err(Refusal::TenantMissing));
    }

    #[test]
    fn what_is_carried_on() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let found = admission(&[
            ("x-tidegate-tenant", "acme"),
            ("x-request-id", "1-2"),
            ("traceparent", trace),
        ]);
        assert_eq!(
            found,
            Ok(Admission {
                tenant: "acme".to_owned(),
                database: String::new(),
                admitted_at_ns: 7,
                request_id: Some("1-2".to_owned()),
                traceparent: Some(trace.to_owned()),
            })
        );
        let spoilt = [
            ("x-tidegate-tenant", "acme"),
            ("x-request-id", &*"x".repeat(REQUEST_ID_BYTES_MAX + 1)),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01"),
        ];
        let found = admission(&spoilt).expect("a tenant");
        assert_eq!((found.request_id, found.traceparent), (None, None));
    }
}
