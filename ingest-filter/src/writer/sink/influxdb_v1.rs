//! InfluxDB 1.x over HTTP/1.1.
//!
//! Bodies are gzip, timestamps nanoseconds: 1.x takes a precision it does not know for
//! nanoseconds without a word, so the one it knows is always sent.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::journal::Boxed;
use crate::writer::config::InfluxdbV1Config;
use crate::writer::sink::Sink;
use crate::writer::work::Answer;

/// How much of an answer is read: 1.x echoes refused lines, which can be the whole batch.
pub const ANSWER_BYTES_MAX: usize = 16 << 10;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes to one database.
pub struct InfluxdbV1 {
    client: Client<HttpConnector, Full<Bytes>>,
    config: InfluxdbV1Config,
    write_uri: String,
    authorization: Mutex<Option<HeaderValue>>,
}

enum Exchange {
    Answered { status: StatusCode, retry_after: Option<Duration>, message: String },
    NotSent(String),
    Broken(String),
}

impl InfluxdbV1 {
    /// A sink for this database; connects when first used.
    ///
    /// # Errors
    /// When the password file cannot be read.
    pub fn new(config: InfluxdbV1Config) -> std::io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let mut write_uri =
            format!("{}/write?db={}&precision=n", config.url, query_value(&config.database));
        if let Some(policy) = &config.retention_policy {
            write_uri.push_str("&rp=");
            write_uri.push_str(&query_value(policy));
        }
        let authorization = Mutex::new(authorization(&config)?);
        Ok(Self { client, config, write_uri, authorization })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, timeout: Duration) -> Exchange {
        match tokio::time::timeout(timeout, self.request(request)).await {
            Ok(exchange) => exchange,
            Err(_) => Exchange::Broken(format!("no answer within {} s", timeout.as_secs_f64())),
        }
    }

    async fn request(&self, request: Request<Full<Bytes>>) -> Exchange {
        match self.client.request(request).await {
            Ok(response) => {
                let status = response.status();
                let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
                let message = if status.is_success() {
                    String::new()
                } else {
                    read_message(response.into_body()).await
                };
                Exchange::Answered { status, retry_after, message }
            }
            Err(error) if error.is_connect() => Exchange::NotSent(with_causes(&error)),
            Err(error) => Exchange::Broken(with_causes(&error)),
        }
    }

    fn authorized(&self, builder: http::request::Builder) -> http::request::Builder {
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        match &*authorization {
            Some(value) => builder.header(AUTHORIZATION, value),
            None => builder,
        }
    }

    /// The password may have been changed under us: what the file holds now is used from now on.
    fn reload_password(&self) {
        match authorization(&self.config) {
            Ok(new) => {
                *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(error) => tracing::error!(%error, "the password file cannot be read"),
        }
    }
}

impl Sink for InfluxdbV1 {
    fn write<'a>(&'a self, body: Bytes, traceparent: Option<&'a str>) -> Boxed<'a, Answer> {
        Box::pin(async move {
            let mut builder = Request::builder()
                .method(Method::POST)
                .uri(&self.write_uri)
                .header(CONTENT_TYPE, "text/plain; charset=utf-8")
                .header(CONTENT_ENCODING, "gzip");
            if let Some(traceparent) = traceparent {
                builder = builder.header("traceparent", traceparent);
            }
            let request = gzip(&body).and_then(|body| {
                self.authorized(builder).body(Full::new(body)).map_err(std::io::Error::other)
            });
            let answer = match request {
                Ok(request) => answer(self.exchange(request, self.config.request_timeout).await),
                Err(error) => Answer::Unreachable(error.to_string()),
            };
            if answer == Answer::Unauthorized {
                self.reload_password();
            }
            answer
        })
    }

    fn ping(&self) -> Boxed<'_, bool> {
        Box::pin(async move {
            let uri = format!("{}/ping", self.config.url);
            let Ok(request) = Request::get(uri).body(Full::default()) else { return false };
            let exchange = self.exchange(request, PING_TIMEOUT).await;
            matches!(exchange, Exchange::Answered { status, .. } if status.is_success())
        })
    }

    fn create_database(&self) -> Boxed<'_, bool> {
        Box::pin(async move {
            if !self.config.create_database {
                return false;
            }
            let quoted = self.config.database.replace('\\', "\\\\").replace('"', "\\\"");
            let statement = query_value(&format!("CREATE DATABASE \"{quoted}\""));
            let uri = format!("{}/query?q={statement}", self.config.url);
            let builder = Request::builder().method(Method::POST).uri(uri);
            let Ok(request) = self.authorized(builder).body(Full::default()) else { return false };
            match self.exchange(request, self.config.request_timeout).await {
                Exchange::Answered { status, .. } if status.is_success() => true,
                Exchange::Answered { status, message, .. } => {
                    let status = status.as_u16();
                    tracing::error!(status, message, "the database could not be created");
                    false
                }
                Exchange::NotSent(_) | Exchange::Broken(_) => false,
            }
        })
    }
}

fn answer(exchange: Exchange) -> Answer {
    let (status, retry_after, message) = match exchange {
        Exchange::NotSent(message) => return Answer::Unreachable(message),
        Exchange::Broken(message) => return Answer::Broken(message),
        Exchange::Answered { status, retry_after, message } => (status, retry_after, message),
    };
    let code = status.as_u16();
    match code {
        200..=299 => Answer::Written,
        401 | 403 => Answer::Unauthorized,
        404 => Answer::DatabaseMissing,
        413 => Answer::TooLarge,
        429 | 503 => Answer::Busy { retry_after },
        _ if message.contains("retention policy not found") => {
            Answer::RetentionPolicyMissing { status: code, message }
        }
        // 1.x says 400 for points it could not store because of itself, too.
        400 if message.contains("timeout") || message.contains("engine is closed") => {
            Answer::Failed { status: code, message }
        }
        400..=499 => Answer::Refused { status: code, message },
        _ => Answer::Failed { status: code, message },
    }
}

fn authorization(config: &InfluxdbV1Config) -> std::io::Result<Option<HeaderValue>> {
    let Some((username, file)) = &config.login else { return Ok(None) };
    let password = std::fs::read_to_string(file).map_err(|error| {
        std::io::Error::new(error.kind(), format!("{}: {error}", file.display()))
    })?;
    let login = format!("{username}:{}", password.trim_end_matches(['\r', '\n']));
    let encoded = base64::engine::general_purpose::STANDARD.encode(login);
    let mut value =
        HeaderValue::try_from(format!("Basic {encoded}")).map_err(std::io::Error::other)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    Ok(Bytes::from(encoder.finish()?))
}

/// Reads what the database says, up to the bound; what is left unread closes the connection.
async fn read_message(mut body: Incoming) -> String {
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(&data[..data.len().min(ANSWER_BYTES_MAX - read.len())]);
        }
        if read.len() >= ANSWER_BYTES_MAX {
            break;
        }
    }
    let error = serde_json::from_slice::<serde_json::Value>(&read)
        .ok()
        .and_then(|value| value.get("error").and_then(|error| error.as_str().map(str::to_owned)));
    error.unwrap_or_else(|| String::from_utf8_lossy(&read).trim_end().to_owned())
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Percent-encodes all but unreserved characters.
fn query_value(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_answer() {
        let of = |status: u16, message: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            let retry_after = Some(Duration::from_secs(7));
            answer(Exchange::Answered { status, retry_after, message: message.to_owned() })
        };
        let text = |message: &str| message.to_owned();
        let cases = [
            (204, "", Answer::Written),
            (400, "x", Answer::Refused { status: 400, message: text("x") }),
            (422, "x", Answer::Refused { status: 422, message: text("x") }),
            (401, "", Answer::Unauthorized),
            (403, "", Answer::Unauthorized),
            (404, "database not found", Answer::DatabaseMissing),
            (413, "", Answer::TooLarge),
            (429, "", Answer::Busy { retry_after: Some(Duration::from_secs(7)) }),
            (503, "", Answer::Busy { retry_after: Some(Duration::from_secs(7)) }),
            (500, "panic", Answer::Failed { status: 500, message: text("panic") }),
            (400, "timeout", Answer::Failed { status: 400, message: text("timeout") }),
            (
                500,
                "retention policy not found: x",
                Answer::RetentionPolicyMissing {
                    status: 500,
                    message: text("retention policy not found: x"),
                },
            ),
        ];
        for (status, message, expected) in cases {
            assert_eq!(of(status, message), expected, "{status} {message}");
        }
    }

    #[test]
    fn names_are_safe_in_a_query() {
        assert_eq!(query_value("a b&c=\u{e9}%"), "a%20b%26c%3D%C3%A9%25");
        assert_eq!(query_value("tele-metry_1.2~"), "tele-metry_1.2~");
    }
}
