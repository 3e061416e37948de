//! `CheckRequest` → what the decision looks at. No decisions here.

use proto::pb::envoy::service::auth::v3::CheckRequest;
use proto::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use zeroize::Zeroize;

use crate::check::extract::Request;
use crate::check::profile::{CLIENT_ADDRESS, CREDENTIAL_HEADERS, Profile};

/// The route's setting that names the profile.
pub const PROFILE_EXTENSION: &str = "profile";
/// The route's setting that names the scope it demands.
pub const SCOPE_EXTENSION: &str = "scope";

/// The HTTP request that Envoy asks about, or nothing when it sent none.
pub fn view(request: &CheckRequest) -> Option<Request<'_>> {
    let attributes = request.attributes.as_ref()?;
    let http = attributes.request.as_ref()?.http.as_ref()?;
    let extension = |name| attributes.context_extensions.get(name).map(String::as_str);
    let headers = headers(http);
    let announced = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
    let client = headers.iter().rfind(|(name, _)| name.eq_ignore_ascii_case(CLIENT_ADDRESS));
    let client = client.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
    Some(Request {
        client,
        profile: Profile::named(extension(PROFILE_EXTENSION)),
        required_scope: extension(SCOPE_EXTENSION),
        headers,
        path: &http.path,
        // Not the size of the body but what Envoy has seen of it so far, which is mostly nothing.
        body_bytes: announced.or_else(|| u64::try_from(http.size).ok().filter(|size| *size > 0)),
    })
}

/// Overwrites what may hold a key: the values of the credential headers, and the path with its query.
pub fn forget(request: &mut CheckRequest) {
    let http = request.attributes.as_mut().and_then(|all| all.request.as_mut()?.http.as_mut());
    let Some(http) = http else { return };
    http.path.zeroize();
    http.query.zeroize();
    let is_credential =
        |name: &str| CREDENTIAL_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known));
    for header in http.header_map.iter_mut().flat_map(|map| &mut map.headers) {
        if is_credential(&header.key) {
            header.value.zeroize();
            header.raw_value.zeroize();
        }
    }
    for (_, value) in http.headers.iter_mut().filter(|(name, _)| is_credential(name)) {
        value.zeroize();
    }
}

/// The profile that the route names, for an alarm where there is none of that name.
pub fn profile_name(request: &CheckRequest) -> Option<&str> {
    let attributes = request.attributes.as_ref()?;
    attributes.context_extensions.get(PROFILE_EXTENSION).map(String::as_str)
}

/// The trace context the client's request came with.
pub fn traceparent(request: &CheckRequest) -> Option<&str> {
    let http = request.attributes.as_ref()?.request.as_ref()?.http.as_ref()?;
    match &http.header_map {
        Some(map) => {
            let header = map.headers.iter().find(|header| header.key == "traceparent")?;
            match header.raw_value.as_slice() {
                [] => Some(&header.value),
                raw => std::str::from_utf8(raw).ok(),
            }
        }
        None => http.headers.get("traceparent").map(String::as_str),
    }
}

/// With `encode_raw_headers` Envoy fills `header_map`, where duplicates stay apart and bytes stay
/// as they are; without it `headers`, where they were joined by commas.
fn headers(http: &HttpRequest) -> Vec<(&str, &[u8])> {
    match &http.header_map {
        Some(map) => map
            .headers
            .iter()
            .map(|header| {
                let raw = &header.raw_value;
                let value = if raw.is_empty() { header.value.as_bytes() } else { raw };
                (header.key.as_str(), value)
            })
            .collect(),
        None => {
            http.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
    use proto::pb::envoy::service::auth::v3::AttributeContext;
    use proto::pb::envoy::service::auth::v3::attribute_context::Request;

    use super::*;

    fn check(http: HttpRequest) -> CheckRequest {
        CheckRequest {
            attributes: Some(AttributeContext {
                request: Some(Request { http: Some(http), ..Request::default() }),
                ..AttributeContext::default()
            }),
        }
    }

    fn raw(key: &str, value: &str, raw_value: &[u8]) -> HeaderValue {
        HeaderValue { key: key.into(), value: value.into(), raw_value: raw_value.to_vec() }
    }

    #[test]
    fn raw_headers_keep_duplicates_and_bytes() {
        let headers = vec![
            raw("x-api-key", "", b"a\xff"),
            raw("x-api-key", "text", b""),
            raw("traceparent", "", b"00-1-2-01"),
        ];
        let mut http = HttpRequest { path: "/p?q".into(), size: -1, ..HttpRequest::default() };
        http.header_map = Some(HeaderMap { headers });
        http.headers.insert("ignored".into(), "where there is a header map".into());
        let request = check(http);
        let view = view(&request).expect("a request");
        assert_eq!(view.headers[..2], [("x-api-key", &b"a\xff"[..]), ("x-api-key", b"text")]);
        assert_eq!((view.headers.len(), view.path, view.body_bytes), (3, "/p?q", None));
        assert_eq!((view.profile, view.required_scope), (Ok(Profile::Default), None));
        assert_eq!(traceparent(&request), Some("00-1-2-01"));
    }

    #[test]
    fn a_map_of_headers_is_read_as_well() {
        let mut http = HttpRequest { size: 7, ..HttpRequest::default() };
        http.headers.insert("x-api-key".into(), "k".into());
        let mut request = check(http);
        let attributes = request.attributes.as_mut().expect("given");
        attributes.context_extensions.insert("profile".into(), "datadog".into());
        attributes.context_extensions.insert("scope".into(), "write".into());
        let view = view(&request).expect("a request");
        assert_eq!(view.headers, [("x-api-key", &b"k"[..])]);
        assert_eq!((view.profile, view.required_scope), (Ok(Profile::Datadog), Some("write")));
        assert_eq!(view.body_bytes, Some(7));
        assert_eq!(traceparent(&request), None);
    }

    #[test]
    fn the_announced_size_goes_before_the_seen_one() {
        for (announced, size, expected) in [
            ("12", 7, Some(12)),
            ("12", -1, Some(12)),
            ("-12", 7, Some(7)),
            ("", -1, None),
            ("", 0, None),
            ("0", 0, Some(0)),
            ("99999999999999999999", -1, None),
        ] {
            let mut http = HttpRequest { size, ..HttpRequest::default() };
            http.headers.insert("content-length".into(), announced.into());
            assert_eq!(view(&check(http)).expect("a request").body_bytes, expected);
        }
    }

    #[test]
    fn the_clients_address_is_the_one_that_envoy_says() {
        for (values, expected) in [
            (&["192.0.2.7"][..], Some("192.0.2.7")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["192.0.2.7", "192.0.2.8"], Some("192.0.2.8")),
            (&["192.0.2.7, 192.0.2.8"], None),
            (&["somewhere"], None),
            (&[], None),
        ] {
            let headers = values.iter().map(|v| raw("x-tidegate-client", v, b"")).collect();
            let header_map = Some(HeaderMap { headers });
            let http = HttpRequest { header_map, ..HttpRequest::default() };
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(view(&check(http)).expect("a request").client, expected, "{values:?}");
        }
    }

    #[test]
    fn nothing_that_held_a_key_is_left_of_a_request() {
        let mut http = HttpRequest { path: "/write?p=canary".into(), ..HttpRequest::default() };
        let headers = vec![
            raw("X-Api-Key", "canary", b"canary"),
            raw("authorization", "", b"Bearer canary"),
            raw("content-type", "text/plain", b""),
        ];
        http.query = "p=canary".into();
        http.header_map = Some(HeaderMap { headers });
        http.headers.insert("dd-api-key".into(), "canary".into());
        let mut request = check(http);
        forget(&mut request);
        let left = format!("{request:?}");
        assert!(!left.contains("canary") && !left.contains("99, 97, 110"), "{left}");
        assert!(left.contains("text/plain"));
        forget(&mut CheckRequest::default());
    }

    #[test]
    fn without_a_request_there_is_nothing_to_see() {
        assert!(view(&CheckRequest::default()).is_none());
        let attributes = Some(AttributeContext::default());
        assert!(view(&CheckRequest { attributes }).is_none());
    }
}
