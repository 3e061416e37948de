//! The wire: the same request as JSON over HTTP, and `/healthcheck`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chassis::readiness::Readiness;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json, json};

use crate::decide::decision::{Decision, Status};
use crate::decide::request::{Descriptor, Override, Request};
use crate::limiter::Limiter;
use crate::limits::unit::Unit;

/// The largest JSON request.
pub const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
struct Api {
    limiter: Arc<Limiter>,
    readiness: Readiness,
}

/// `POST /json` and `GET /healthcheck`.
pub fn routes(limiter: Arc<Limiter>, readiness: Readiness) -> Router {
    Router::new()
        .route("/json", post(json))
        .route("/healthcheck", get(healthcheck))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Api { limiter, readiness })
}

async fn healthcheck(State(api): State<Api>) -> Response {
    match api.readiness.is_ready() {
        true => "OK".into_response(),
        false => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn json(State(api): State<Api>, body: Bytes) -> Response {
    let request = match WireRequest::read(&body) {
        Ok(request) => request,
        Err(problem) => return refusal(&problem),
    };
    match api.limiter.decide(&request.request()).await {
        Ok(decision) => {
            let code =
                if decision.over_limit { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (code, kind, answer(decision).to_string()).into_response()
        }
        Err(error) => refusal(&error.to_string()),
    }
}

fn refusal(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

// The JSON mapping of protobuf takes both spellings of a field, numbers as text, and names as
// well as numbers of an enum; what it does not know is an error.

/// A request as JSON has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireRequest {
    #[serde(default, deserialize_with = "or_default")]
    domain: String,
    #[serde(default, deserialize_with = "or_default")]
    descriptors: Vec<WireDescriptor>,
    #[serde(default, alias = "hitsAddend")]
    hits_addend: Option<Number>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDescriptor {
    #[serde(default, deserialize_with = "or_default")]
    entries: Vec<WireEntry>,
    limit: Option<WireOverride>,
    #[serde(alias = "hitsAddend")]
    hits_addend: Option<Number>,
    #[serde(default, alias = "isNegativeHits", deserialize_with = "or_default")]
    is_negative_hits: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEntry {
    #[serde(default, deserialize_with = "or_default")]
    key: String,
    #[serde(default, deserialize_with = "or_default")]
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireOverride {
    #[serde(alias = "requestsPerUnit")]
    requests_per_unit: Option<Number>,
    unit: Option<WireUnit>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireUnit {
    Name(String),
    Number(Number),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "RawNumber")]
struct Number(u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum RawNumber {
    Number(u64),
    Fraction(f64),
    Text(String),
}

/// A field that is `null` is one that was left out.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl TryFrom<RawNumber> for Number {
    type Error = &'static str;

    fn try_from(raw: RawNumber) -> Result<Self, Self::Error> {
        match raw {
            RawNumber::Number(number) => Ok(Self(number)),
            RawNumber::Fraction(number) => whole(number),
            RawNumber::Text(text) => match text.parse() {
                Ok(number) => Ok(Self(number)),
                Err(_) => whole(text.parse().map_err(|_| "not a number")?),
            },
        }
    }
}

/// `2.0` and `1e0` are whole numbers.
fn whole(number: f64) -> Result<Number, &'static str> {
    match number.fract() == 0.0 && (0.0..9.0e15).contains(&number) {
        true => Ok(Number(number as u64)),
        false => Err("not a whole number of hits"),
    }
}

impl WireRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// A sentence that says why it is none.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| format!("not a rate limit request: {error}"))
    }

    /// The same to be decided.
    pub fn request(&self) -> Request<'_> {
        Request {
            domain: &self.domain,
            descriptors: self.descriptors.iter().map(WireDescriptor::descriptor).collect(),
            hits_addend: self.hits_addend.map_or(0, Number::saturated),
        }
    }
}

impl Number {
    fn saturated(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl WireDescriptor {
    fn descriptor(&self) -> Descriptor<'_> {
        Descriptor {
            entries: self.entries.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect(),
            limit_override: self.limit.as_ref().map(|limit| Override {
                requests_per_unit: limit.requests_per_unit.map_or(0, Number::saturated),
                unit: limit.unit.as_ref().and_then(WireUnit::unit),
            }),
            hits_addend: self.hits_addend.map(|hits| hits.0),
            is_negative_hits: self.is_negative_hits,
        }
    }
}

impl WireUnit {
    fn unit(&self) -> Option<Unit> {
        match self {
            WireUnit::Name(name) => Unit::parse(name).filter(|unit| *unit != Unit::Week),
            WireUnit::Number(number) => {
                let units =
                    [Unit::Second, Unit::Minute, Unit::Hour, Unit::Day, Unit::Month, Unit::Year];
                units.get(usize::try_from(number.0).ok()?.checked_sub(1)?).copied()
            }
        }
    }
}

fn answer(decision: Decision) -> Json {
    let mut answer = Map::new();
    answer.insert("overallCode".to_owned(), code(decision.over_limit).into());
    let statuses: Vec<Json> = decision.statuses.iter().map(status).collect();
    answer.insert("statuses".to_owned(), statuses.into());
    if !decision.headers.is_empty() {
        let header = |h: &crate::decide::decision::Header| json!({"key": h.name, "value": h.value});
        let headers = decision.headers.iter().map(header).collect();
        answer.insert("responseHeadersToAdd".to_owned(), headers);
    }
    if let Some(metadata) = decision.metadata {
        answer.insert("dynamicMetadata".to_owned(), metadata);
    }
    Json::Object(answer)
}

/// A status; as everywhere in this mapping, what is empty or zero is left out.
fn status(status: &Status) -> Json {
    let mut object = Map::new();
    object.insert("code".to_owned(), code(status.over_limit).into());
    if let Some((limit, name)) = &status.current_limit {
        let mut given = Map::new();
        if !name.is_empty() {
            given.insert("name".to_owned(), name.as_str().into());
        }
        if limit.requests_per_unit > 0 {
            given.insert("requestsPerUnit".to_owned(), limit.requests_per_unit.into());
        }
        if let Some(unit) = limit.period.unit() {
            given.insert("unit".to_owned(), unit.name().into());
        }
        object.insert("currentLimit".to_owned(), given.into());
    }
    if status.limit_remaining > 0 {
        object.insert("limitRemaining".to_owned(), status.limit_remaining.into());
    }
    if let Some(seconds) = status.reset_seconds {
        object.insert("durationUntilReset".to_owned(), format!("{seconds}s").into());
    }
    Json::Object(object)
}

fn code(over_limit: bool) -> &'static str {
    if over_limit { "OVER_LIMIT" } else { "OK" }
}
