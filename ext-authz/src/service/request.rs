//! `CheckRequest` → what the decision looks at. No decisions here.

use proto::pb::envoy::service::auth::v3::CheckRequest;
use proto::pb::envoy::service::auth::v3::attribute_context::HttpRequest;

use crate::check::extract::{Profile, Request};

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
    Some(Request {
        profile: Profile::of(extension(PROFILE_EXTENSION)),
        required_scope: extension(SCOPE_EXTENSION),
        headers,
        path: &http.path,
        // Envoy writes -1 where it does not know the size.
        body_bytes: announced.or_else(|| u64::try_from(http.size).ok()),
    })
}

/// The trace context the client's request came with.
pub fn traceparent(request: &CheckRequest) -> Option<&str> {
    let http = request.attributes.as_ref()?.request.as_ref()?.http.as_ref()?;
    let (_, value) = headers(http).into_iter().find(|(name, _)| *name == "traceparent")?;
    std::str::from_utf8(value).ok()
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
