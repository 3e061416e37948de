//! InfluxDB 1.x, 2.x and 3 over HTTP/1.1: one way of asking, three ways of naming things.
//!
//! Bodies are gzip, timestamps nanoseconds: 1.x takes a precision it does not know for
//! nanoseconds without a word, so the one each version knows is always sent. A database that is
//! not there is answered 404 and made on demand; InfluxDB 3 makes it by itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use chassis::tls::client::Connector;
use chassis::tls::https::HttpsConnector;

use crate::destination::Destination;
use crate::journal::Boxed;
use crate::target::answer::Answer;
use crate::target::refusal::names_a_point;
use crate::target::{Database, Extent, Target};
use crate::writer::config::{InfluxdbV1Config, InfluxdbV2Config, InfluxdbV3Config};

mod compress;
mod count;
mod manage;
mod query;
mod secret;
mod words;

use compress::gzip;
use query::query_value;
use secret::Secret;
use words::{Words, read_bounded};

/// How much of an answer is read: 1.x echoes refused lines, which can be the whole batch.
pub const ANSWER_BYTES_MAX: usize = 16 << 10;
/// How much of an answer to a question is read: a list of some hundred thousand databases.
pub const LIST_BYTES_MAX: usize = 16 << 20;
/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes to the databases or buckets of one server.
pub struct Influxdb {
    client: Client<HttpsConnector, Full<Bytes>>,
    request_timeout: Duration,
    url: String,
    /// Path and query of a write, up to the database's name.
    write: String,
    api: Api,
    /// Whether a database that is missing is made.
    creates: bool,
    secret: Option<Secret>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// How databases are made.
enum Api {
    V1 { retention_policy: Option<String> },
    V2 { org: String },
    V3,
}

/// Where a server is and how it is asked.
struct Server<'a> {
    url: &'a str,
    tls: Option<Connector>,
    request_timeout: Duration,
}

enum Exchange {
    Answered { status: StatusCode, retry_after: Option<Duration>, words: Words },
    NotSent(String),
    Broken(String),
}

impl Influxdb {
    /// A server of InfluxDB 1.x; connects when first used.
    ///
    /// # Errors
    /// When the password file cannot be read.
    pub fn v1(config: &InfluxdbV1Config, tls: Option<Connector>) -> std::io::Result<Self> {
        let mut write = "/write?precision=n".to_owned();
        if let Some(policy) = &config.retention_policy {
            write.push_str("&rp=");
            write.push_str(&query_value(policy));
        }
        let secret = config.login.clone();
        let secret = secret.map(|(username, file)| Secret::Password { username, file });
        let api = Api::V1 { retention_policy: config.retention_policy.clone() };
        let at = Server { url: &config.url, tls, request_timeout: config.request_timeout };
        let target = Self::new(at, write + "&db=", api, secret)?;
        Ok(Self { creates: config.create_database, ..target })
    }

    /// A server of InfluxDB 2.x; connects when first used.
    ///
    /// # Errors
    /// When the token file cannot be read.
    pub fn v2(config: &InfluxdbV2Config, tls: Option<Connector>) -> std::io::Result<Self> {
        let org = query_value(&config.org);
        let write = format!("/api/v2/write?org={org}&precision=ns&bucket=");
        let secret = Secret::Token { scheme: "Token", file: config.token_file.clone() };
        let api = Api::V2 { org: config.org.clone() };
        let at = Server { url: &config.url, tls, request_timeout: config.request_timeout };
        let target = Self::new(at, write, api, Some(secret))?;
        Ok(Self { creates: config.create_bucket, ..target })
    }

    /// A server of InfluxDB 3, which makes a database when it is first written to; connects when
    /// first used.
    ///
    /// # Errors
    /// When the token file cannot be read.
    pub fn v3(config: &InfluxdbV3Config, tls: Option<Connector>) -> std::io::Result<Self> {
        let write = "/api/v3/write_lp?precision=nanosecond&db=".to_owned();
        let secret = config.token_file.clone();
        let secret = secret.map(|file| Secret::Token { scheme: "Bearer", file });
        let at = Server { url: &config.url, tls, request_timeout: config.request_timeout };
        Self::new(at, write, Api::V3, secret)
    }

    fn new(
        at: Server<'_>,
        write: String,
        api: Api,
        secret: Option<Secret>,
    ) -> std::io::Result<Self> {
        let connector = HttpsConnector::new(at.tls);
        let authorization = secret.as_ref().map(Secret::read).transpose()?;
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            request_timeout: at.request_timeout,
            url: at.url.to_owned(),
            write,
            api,
            creates: false,
            secret,
            authorization: Mutex::new(authorization),
        })
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
                if status == StatusCode::NO_CONTENT {
                    return Exchange::Answered { status, retry_after, words: Words::default() };
                }
                let (read, broken) = read_bounded(response.into_body(), ANSWER_BYTES_MAX).await;
                match broken {
                    // Without a body it would stand for "written".
                    Some(error) if status.is_success() => {
                        Exchange::Broken(chassis::telemetry::error_chain(&error))
                    }
                    _ => Exchange::Answered { status, retry_after, words: Words::of(&read) },
                }
            }
            Err(error) if error.is_connect() => {
                Exchange::NotSent(chassis::telemetry::error_chain(&error))
            }
            Err(error) => Exchange::Broken(chassis::telemetry::error_chain(&error)),
        }
    }

    fn authorized(&self, builder: http::request::Builder) -> http::request::Builder {
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        match &*authorization {
            Some(value) => builder.header(AUTHORIZATION, value),
            None => builder,
        }
    }

    /// The secret may have been changed under us: what the file holds now is used from now on.
    fn reload_secret(&self) {
        match self.secret.as_ref().map(Secret::read).transpose() {
            Ok(new) => {
                *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(error) => tracing::error!(%error, "the file with the secret cannot be read"),
        }
    }
}

impl Target for Influxdb {
    fn write<'a>(
        &'a self,
        to: &'a Destination,
        body: Bytes,
        traceparent: Option<&'a str>,
    ) -> Boxed<'a, Answer> {
        Box::pin(async move {
            let mut builder = Request::builder()
                .method(Method::POST)
                .uri(self.write_uri(&to.name))
                .header(CONTENT_TYPE, "text/plain; charset=utf-8")
                .header(CONTENT_ENCODING, "gzip");
            if let Some(traceparent) = traceparent {
                builder = builder.header("traceparent", traceparent);
            }
            let request = gzip(body).await.and_then(|body| {
                self.authorized(builder).body(Full::new(body)).map_err(std::io::Error::other)
            });
            let answer = match request {
                Ok(request) => answer(self.exchange(request, self.request_timeout).await),
                Err(error) => Answer::Unreachable(error.to_string()),
            };
            if answer == Answer::Unauthorized {
                self.reload_secret();
            }
            answer
        })
    }

    fn ping(&self) -> Boxed<'_, bool> {
        Box::pin(async move {
            let builder = self.authorized(Request::get(format!("{}/ping", self.url)));
            let Ok(request) = builder.body(Full::default()) else { return false };
            // A refused login is told by the write; here it is enough that somebody is there.
            let exchange = self.exchange(request, PING_TIMEOUT).await;
            matches!(exchange, Exchange::Answered { status, .. } if !status.is_server_error())
        })
    }

    fn databases(&self) -> Boxed<'_, Result<Vec<Database>, String>> {
        Box::pin(self.list())
    }

    fn delete<'a>(&'a self, database: &'a Database) -> Boxed<'a, Result<(), String>> {
        Box::pin(self.remove(database))
    }

    fn values_by_hour<'a>(&'a self, of: &'a Extent) -> Boxed<'a, Result<Vec<(i64, u64)>, String>> {
        Box::pin(self.count(of))
    }

    fn create<'a>(&'a self, to: &'a Destination) -> Boxed<'a, bool> {
        Box::pin(async move {
            if !self.creates {
                return false;
            }
            let (path, body) = match &self.api {
                Api::V1 { retention_policy } => (create_v1(&to.name, retention_policy), None),
                Api::V2 { org } => {
                    let organisation = self.organisation(org).await;
                    let body = serde_json::json!({ "orgID": organisation, "name": to.name });
                    ("/api/v2/buckets".to_owned(), Some(body))
                }
                Api::V3 => return false,
            };
            let (status, message) = match self.ask(Method::POST, &path, body).await {
                Ok((status, _)) if status.is_success() => {
                    tracing::info!(database = to.name, "created the database");
                    return true;
                }
                // Another writer was faster.
                Ok((StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT, text))
                    if text.contains("already exists") =>
                {
                    return true;
                }
                Ok((status, text)) => (status.as_u16(), text),
                Err(message) => (0, message),
            };
            tracing::error!(database = to.name, status, message, "a database was not created");
            false
        })
    }
}

impl Influxdb {
    /// Where points of a database or bucket are written. VictoriaMetrics, which serves the API of
    /// 2.x too, knows no buckets: without `db` it would put all of them into one.
    fn write_uri(&self, name: &str) -> String {
        let name = query_value(name);
        let uri = format!("{}{}{name}", self.url, self.write);
        match self.api {
            Api::V2 { .. } => format!("{uri}&db={name}"),
            Api::V1 { .. } | Api::V3 => uri,
        }
    }

    /// Asks for something else than a write; gives status and body, or what broke.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<(StatusCode, String), String> {
        let mut builder = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if body.is_some() {
            builder = builder.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = self.authorized(builder).body(Full::new(body));
        let request = request.map_err(|error| error.to_string())?;
        let asked = async {
            let response = self.client.request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let (read, _) = read_bounded(response.into_body(), LIST_BYTES_MAX).await;
            Ok((status, String::from_utf8_lossy(&read).into_owned()))
        };
        let answered = tokio::time::timeout(self.request_timeout, asked).await;
        answered.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

/// The statement that makes a database of 1.x, with its policy where one is written to.
fn create_v1(name: &str, retention_policy: &Option<String>) -> String {
    let quoted = |name: &str| name.replace('\\', "\\\\").replace('"', "\\\"");
    let mut statement = format!("CREATE DATABASE \"{}\"", quoted(name));
    if let Some(policy) = retention_policy {
        statement.push_str(&format!(" WITH NAME \"{}\"", quoted(policy)));
    }
    format!("/query?q={}", query_value(&statement))
}

/// What an exchange means. Only an answer that is known to mean it stands for "written" or
/// "refused": a proxy in between has statuses of its own.
fn answer(exchange: Exchange) -> Answer {
    let (status, retry_after, words) = match exchange {
        Exchange::NotSent(message) => return Answer::Unreachable(message),
        Exchange::Broken(message) => return Answer::Broken(message),
        Exchange::Answered { status, retry_after, words } => (status, retry_after, words),
    };
    let (code, Words { message, names_a_line }) = (status.as_u16(), words);
    match code {
        204 => Answer::Written,
        200 if message.is_empty() => Answer::Written,
        401 | 403 => Answer::Unauthorized,
        404 => Answer::DatabaseMissing,
        413 => Answer::TooLarge,
        429 | 503 => Answer::Busy { retry_after },
        _ if message.starts_with("retention policy not found") => {
            Answer::RetentionPolicyMissing { status: code, message }
        }
        400 | 422 if names_a_line || names_a_point(&message) => {
            Answer::Refused { status: code, message }
        }
        _ => Answer::Failed { status: code, message },
    }
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_answer() {
        let of = |status: u16, message: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            let retry_after = Some(Duration::from_secs(7));
            let words = Words { message: message.to_owned(), names_a_line: false };
            answer(Exchange::Answered { status, retry_after, words })
        };
        const REFUSED: &str = "unable to parse 'm': missing fields";
        let text = |message: &str| message.to_owned();
        for status in [302, 400, 405, 408, 410, 415, 422, 431, 499, 502, 504] {
            let message = text("a proxy's words");
            assert_eq!(of(status, &message), Answer::Failed { status, message });
        }
        let cases = [
            (204, "", Answer::Written),
            (200, "", Answer::Written),
            (200, "<html>", Answer::Failed { status: 200, message: text("<html>") }),
            (202, "", Answer::Failed { status: 202, message: text("") }),
            (400, REFUSED, Answer::Refused { status: 400, message: text(REFUSED) }),
            (422, REFUSED, Answer::Refused { status: 422, message: text(REFUSED) }),
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
}
