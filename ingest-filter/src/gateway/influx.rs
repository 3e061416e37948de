//! The three write paths of InfluxDB: parameters, line protocol, and an answer in the dialect of
//! the path.
//!
//! The tenant decides where points go; within it, `db` and `rp` or `bucket` name the database.
//! They never choose the tenant. What an organization becomes is for the tenant's rules to say.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::Uri;
use http::request::Parts;

use crate::gateway::config::GatewayConfig;
use crate::gateway::edge::Edge;
use crate::gateway::inflate::Encoding;
use crate::gateway::intake::RequestIntake;
use crate::gateway::media_type::MediaType;
use crate::gateway::protocol::{Framing, Head, LONG_BYTES_MIN, Outcome, Protocol, ProtocolName};
use crate::gateway::refusal::Refusal;
use crate::gateway::serve::serve;
use crate::gateway::verdict::{EXCERPT_BYTES_MAX, Rejection};
use crate::intake::{Intake, Stop};
use crate::line_protocol::{Dialect, LineError, Lines, Precision};
use crate::point::Point;

pub mod pages;
pub mod reply;

/// `POST /write`.
pub async fn write_v1(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Influx::new(ProtocolName::InfluxV1), request).await
}

/// `POST /api/v2/write`.
pub async fn write_v2(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Influx::new(ProtocolName::InfluxV2), request).await
}

/// `POST /api/v3/write_lp`.
pub async fn write_v3(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Influx::new(ProtocolName::InfluxV3), request).await
}

/// One request of one of the paths.
#[derive(Clone, Debug)]
struct Influx {
    name: ProtocolName,
    accept_partial: bool,
    dialect: Dialect,
}

impl Influx {
    fn new(name: ProtocolName) -> Self {
        let precision = match name {
            ProtocolName::InfluxV3 => Precision::Auto,
            _ => Precision::Nanoseconds,
        };
        let dialect = Dialect { precision, unsigned: false, line_bytes_max: 0 };
        Self { name, accept_partial: true, dialect }
    }
}

impl Protocol for Influx {
    fn name(&self) -> ProtocolName {
        self.name
    }

    fn parse(&mut self, head: &Parts, config: &GatewayConfig) -> Result<Head, Refusal> {
        content_type(&MediaType::of(&head.headers))?;
        let (database, organization) = self.parameters(&head.uri)?;
        self.dialect.unsigned = config.accept_unsigned;
        // Escapes take two bytes for one; a longer line could not fit a chunk.
        self.dialect.line_bytes_max = config.chunk_bytes_max * 2;
        Ok(Head { database, organization, framing: Framing::Whole(Encoding::of(&head.headers)?) })
    }

    fn decode(&self, body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
        // Of a client's body only: a journal's may begin with a name that begins so.
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let mut lines = Lines::new(body, self.dialect);
        let mut point = Point::default();
        // Text with escapes is copied, at most one line of it at a time.
        intake.reserve(body.len().min(self.dialect.line_bytes_max))?;
        loop {
            intake.take_known(&mut lines)?;
            match lines.next(&mut point) {
                None => return Ok(()),
                Some(Ok(line)) => {
                    intake.take_line(line, &mut point, || excerpt(lines.last()))?;
                }
                Some(Err(LineError { line: position, column, fault, start, end })) => {
                    intake.reject_with(fault, || {
                        let excerpt = excerpt(&body[start..end]);
                        Rejection { position, column, fault, detail: String::new(), excerpt }
                    })?;
                }
            }
        }
    }

    /// Every line brings its own tags.
    fn apart_from_bytes(&self) -> usize {
        LONG_BYTES_MIN
    }

    fn malformed(&self) -> Refusal {
        Refusal::BodyInvalid("the body is not line protocol")
    }

    fn accepts_partial(&self) -> bool {
        self.accept_partial
    }

    fn answer(&self, outcome: &Outcome) -> Response {
        reply::of(self.name, outcome)
    }

    fn method_not_allowed(&self) -> Response {
        reply::method_not_allowed(self.name)
    }
}

/// The beginning of a bad line, without what JSON would write in six bytes for one.
fn excerpt(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(&line[..line.len().min(EXCERPT_BYTES_MAX)]);
    line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// What editors of Windows put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The longest name of a client's database, bytes.
const DATABASE_BYTES_MAX: usize = 128;

impl Influx {
    /// Reads the query, and returns the client's database; `db/rp` where it named a retention
    /// policy.
    fn parameters(&mut self, uri: &Uri) -> Result<(String, String), Refusal> {
        use ProtocolName::{InfluxV1, InfluxV2, InfluxV3};
        let (mut database, mut policy, mut organization) = <(String, String, String)>::default();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()) {
            match (&*name, &*value) {
                ("precision", "") => {}
                ("precision", unit) => {
                    let invalid = "precision is none of ns, us, ms, s, m, h and their other names";
                    self.dialect.precision =
                        unit.parse().map_err(|_| Refusal::ParameterInvalid(invalid))?;
                }
                ("accept_partial", value) if self.name == InfluxV3 => {
                    let invalid = Refusal::ParameterInvalid("accept_partial is not true or false");
                    self.accept_partial = value.parse().map_err(|_| invalid)?;
                }
                ("org" | "orgID", name) if self.name == InfluxV2 => organization = name.to_owned(),
                ("bucket", name) if self.name == InfluxV2 => database = name.to_owned(),
                ("db", name) if self.name != InfluxV2 => database = name.to_owned(),
                ("rp", name) if self.name == InfluxV1 => policy = name.to_owned(),
                _ => {}
            }
        }
        // As InfluxDB 2 names the bucket of a 1.x database and policy; `autogen` is the default.
        if !matches!(&*policy, "" | "autogen") {
            database = format!("{database}/{policy}");
        }
        let sign = |c: char| !c.is_control() && c != '\\';
        if database.len() > DATABASE_BYTES_MAX || !database.chars().all(sign) {
            let invalid = "the database is longer than 128 bytes, or its name holds a control \
                           character or a backslash";
            return Err(Refusal::ParameterInvalid(invalid));
        }
        Ok((database, organization))
    }
}

/// Clients disagree on the type of line protocol; curl says it is a form.
fn content_type(found: &MediaType) -> Result<(), Refusal> {
    const ACCEPTED: [&str; 4] =
        ["", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"];
    match ACCEPTED.contains(&found.essence.as_str()) {
        true => Ok(()),
        false => Err(Refusal::ContentTypeUnsupported("text/plain")),
    }
}
