//! Writes from pages of other origins (browser exporters): the question that a browser asks
//! before, and the headers without which it hides the answer. Which origins may is configured;
//! whose points they are is for the key to say, as with everyone.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::{Serialize, Serializer};

/// How many origins may be configured.
pub const ORIGINS_MAX: usize = 64;

/// The longest list of headers that a preflight may ask for, bytes.
const HEADERS_BYTES_MAX: usize = 1024;

/// How long a browser may remember an answer, seconds: Chromium's most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// What a page may read of an answer beside its status and body. The quota's headers are Envoy's.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "retry-after, x-tidegate-points, x-influxdb-error, x-ratelimit-limit, x-ratelimit-remaining, \
     x-ratelimit-reset",
);
const VARY: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers",
);

/// Whose pages may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `*`
    Any,
    /// `https://app.example.com`
    Exact(String),
    /// `https://*.example.com`: what is before the star, and what is behind it.
    Below(String, String),
}

impl Origins {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an origin.
    ///
    /// # Errors
    /// When it is none; says how one is written.
    pub fn add(&mut self, text: &str) -> Result<(), &'static str> {
        if self.0.len() == ORIGINS_MAX {
            return Err("is one of more than 64 origins");
        }
        self.0.push(Pattern::parse(text).ok_or(
            "is not an origin such as https://app.example.com, https://*.example.com or '*'",
        )?);
        Ok(())
    }

    fn allow(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        self.0.iter().any(|pattern| pattern.fits(&origin))
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Pattern::Any);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, host) = text.split_once("://")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let is_host = |host: &str| !host.is_empty() && host.bytes().all(plain);
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        match host.strip_prefix("*.") {
            Some(host) if is_host(host) => {
                Some(Pattern::Below(format!("{scheme}://"), format!(".{host}")))
            }
            None if is_host(host) => Some(Pattern::Exact(text)),
            _ => None,
        }
    }

    fn fits(&self, origin: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Exact(exact) => exact == origin,
            Pattern::Below(before, behind) => origin
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(behind.as_str()))
                .is_some_and(|below| !below.is_empty() && !below.contains(['/', ':', '@'])),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("*"),
            Pattern::Exact(exact) => f.write_str(exact),
            Pattern::Below(before, behind) => write!(f, "{before}*{behind}"),
        }
    }
}

impl Serialize for Origins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

/// Answers preflights, and marks the answers to pages of other origins.
pub async fn cross_origin(
    State(origins): State<Arc<Origins>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let is_allowed = origins.allow(&origin);
    let mut response = match is_preflight(&request) {
        true if is_allowed => preflight(request.headers()),
        true => {
            let mut response = Response::new(Body::from("this origin may not write\n"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, VARY);
    if is_allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

fn is_preflight(request: &Request) -> bool {
    let asks: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;
    request.method() == Method::OPTIONS && request.headers().contains_key(asks)
}

/// The headers that a page may send are those it asks for: a key is one of many names, and none
/// of them decides anything before the key was checked.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        && names.len() <= HEADERS_BYTES_MAX
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Origins {
        let mut origins = Origins::default();
        texts.iter().for_each(|text| origins.add(text).expect(text));
        origins
    }

    #[test]
    fn origins_are_compared_whole_and_without_case() {
        let all = origins(&["https://app.example.com", "http://*.local:8080"]);
        for (origin, expected) in [
            ("https://app.example.com", true),
            ("HTTPS://App.Example.com", true),
            ("https://app.example.com.evil.net", false),
            ("https://xapp.example.com", false),
            ("http://app.example.com", false),
            ("https://app.example.com:8443", false),
            ("http://a.b.local:8080", true),
            ("http://.local:8080", false),
            ("http://local:8080", false),
            ("http://evil.net/.local:8080", false),
            ("http://evil.net:1@a.local:8080", false),
            ("null", false),
        ] {
            let value = HeaderValue::from_static(origin);
            assert_eq!(all.allow(&value), expected, "{origin}");
        }
        assert!(origins(&["*"]).allow(&HeaderValue::from_static("null")));
        assert!(!all.allow(&HeaderValue::from_bytes(b"\xff").expect("a value")));
        let shown = serde_json::to_value(&all).expect("JSON");
        assert_eq!(shown, serde_json::json!(["https://app.example.com", "http://*.local:8080"]));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in ["", "app", "ftp://a", "https://", "https://a/b", "https://*", "https://a.*.b"] {
            assert!(Origins::default().add(bad).is_err(), "{bad}");
        }
        let mut full = Origins::default();
        (0..ORIGINS_MAX).for_each(|at| full.add(&format!("https://a{at}")).expect("room"));
        assert!(full.add("https://b").is_err());
    }
}
