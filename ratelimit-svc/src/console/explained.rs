//! `explain` for the console: which rule a request would meet by the quotas in force, and why. It is asked by
//! POST, as questions hold any characters, and changes nothing.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::console::Console;
use crate::decide::request::Request;
use crate::explain;

/// The longest question.
pub(super) const QUESTION_BYTES_MAX: usize = 8192;

/// What is asked: each descriptor as `key=value,key=value`; without a domain the only one there is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    domain: String,
    descriptors: Vec<String>,
}

pub(super) async fn page(State(console): State<Arc<Console>>, body: Bytes) -> Response {
    let (status, text) = match answer(&console, &body) {
        Ok(text) => (StatusCode::OK, text),
        Err(problem) => (StatusCode::BAD_REQUEST, problem + "\n"),
    };
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}

fn answer(console: &Console, body: &[u8]) -> Result<String, String> {
    let question: Question = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let quotas = console.limiter.quotas.load_full().ok_or("no quotas are in force yet")?;
    let domains = quotas.domains();
    let domain = match (question.domain.as_str(), &domains[..]) {
        ("", [only]) => &only.name,
        ("", _) => return Err("name the domain: there is not just one".to_owned()),
        (named, _) => named,
    };
    let named = question.descriptors.iter().filter(|text| !text.trim().is_empty());
    let descriptors: Vec<_> =
        named.map(|text| explain::descriptor(text.trim())).collect::<Result<_, _>>()?;
    if descriptors.is_empty() {
        return Err("name a descriptor as key=value,key=value".to_owned());
    }
    let request = Request { domain, descriptors, hits_addend: 1 };
    let now = console.limiter.clock.now().as_secs();
    explain::text(&request, &quotas, &console.limiter.settings, "", now)
}
