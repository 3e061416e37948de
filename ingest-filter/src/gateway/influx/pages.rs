//! What clients of InfluxDB ask for besides writing: `/ping`, `/health`, and the one statement
//! that Telegraf sends before it writes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::reply::{error, json_response};
use crate::gateway::admission::tenant;
use crate::gateway::body::{self, REQUEST_BYTES};
use crate::gateway::edge::Edge;
use crate::gateway::inflate::{BodyCaps, Encoding};
use crate::gateway::protocol::ProtocolName;
use crate::gateway::refusal::Refusal;

/// The longest statement, encoded, that is looked at.
const QUERY_BYTES_MAX: usize = 16 << 10;

/// `GET` and `HEAD /ping`: 204.
pub async fn ping() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers
        .insert(HeaderName::from_static("x-influxdb-build"), HeaderValue::from_static("Tidegate"));
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    headers.insert(HeaderName::from_static("x-influxdb-version"), version);
    response
}

/// `GET /health`, in the form of InfluxDB 2: whether this process answers. Whether it should be
/// sent traffic is what `/readyz` of the admin listener tells.
pub async fn health() -> Response {
    let body = json!({
        "name": "tidegate",
        "message": "ready for writes",
        "status": "pass",
        "checks": [],
        "version": env!("CARGO_PKG_VERSION"),
    });
    json_response(StatusCode::OK, &body)
}

/// `GET` and `POST /query`: `CREATE DATABASE` has nothing to do and succeeds; there are no queries.
pub async fn query(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    match statement(&edge, request).await {
        Ok(Some(statement)) if is_create_database(&statement) => {
            json_response(StatusCode::OK, &json!({"results": [{"statement_id": 0}]}))
        }
        Ok(Some(_)) => {
            let message = "queries are not served here, only CREATE DATABASE is answered";
            error(ProtocolName::InfluxV1, StatusCode::BAD_REQUEST, message)
        }
        Ok(None) => error(
            ProtocolName::InfluxV1,
            StatusCode::BAD_REQUEST,
            "missing required parameter \"q\"",
        ),
        Err(refusal) => {
            let (status, message) = (refusal.status(), refusal.to_string());
            let mut response = error(ProtocolName::InfluxV1, status, &message);
            refusal.write_to(response.headers_mut());
            response
        }
    }
}

async fn statement(edge: &Edge, request: Request) -> Result<Option<String>, Refusal> {
    let (parts, body) = request.into_parts();
    if let Some(q) = parameter(parts.uri.query().unwrap_or("").as_bytes()) {
        return Ok(Some(q));
    }
    let form = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
    });
    if parts.method != Method::POST || !form {
        return Ok(None);
    }
    let caps = BodyCaps { wire: QUERY_BYTES_MAX, decoded: QUERY_BYTES_MAX, ..edge.caps() };
    let (encoding, headers) = (Encoding::of(&parts.headers)?, &parts.headers);
    let tenant = tenant(headers).unwrap_or_default();
    let reservation = edge.budget.reserve_for(tenant, REQUEST_BYTES)?;
    let body = body::receive(encoding, headers, body, caps, reservation, edge.deadline()).await?;
    Ok(parameter(&body.decoded()?.bytes))
}

fn parameter(form: &[u8]) -> Option<String> {
    form_urlencoded::parse(form).find(|(name, _)| name == "q").map(|(_, value)| value.into_owned())
}

/// Exactly one `CREATE DATABASE name`, quoted or not, as clients send it at their start. What
/// InfluxQL allows behind the name would promise what is not done.
fn is_create_database(statement: &str) -> bool {
    let mut words = statement.trim().trim_end_matches(';').trim_end().splitn(3, ' ');
    let keyword =
        |word: Option<&str>, keyword| word.is_some_and(|w| w.eq_ignore_ascii_case(keyword));
    if !keyword(words.next(), "create") || !keyword(words.next(), "database") {
        return false;
    }
    let Some(name) = words.next().map(str::trim) else { return false };
    match name.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').is_some_and(|name| {
            !name.is_empty() && !name.replace("\\\"", "").replace("\\\\", "").contains('"')
        }),
        None => {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            !name.is_empty()
                && name.chars().all(plain)
                && !name.starts_with(|c: char| c.is_ascii_digit())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_create_database;

    #[test]
    fn exactly_the_statement_that_telegraf_sends() {
        for good in [
            r#"CREATE DATABASE "telegraf""#,
            "create database telegraf;",
            r#" CREATE DATABASE "a \"b\" c" ; "#,
        ] {
            assert!(is_create_database(good), "{good}");
        }
        for bad in [
            "",
            "SELECT 1",
            "CREATE DATABASE",
            "CREATE DATABASE ",
            r#"CREATE DATABASE """#,
            "CREATE DATABASE a; DROP DATABASE a",
            r#"CREATE DATABASE "a"; DROP DATABASE "a""#,
            "CREATE DATABASE a WITH DURATION 1d",
            "CREATE USER a",
            "CREATE DATABASE 1a",
        ] {
            assert!(!is_create_database(bad), "{bad}");
        }
    }
}
