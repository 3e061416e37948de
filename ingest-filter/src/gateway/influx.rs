//! The three write paths of InfluxDB: parameters, line protocol into the journal, and an answer
//! in the dialect of the path.
//!
//! The tenant decides where points go; within it, `db` and `rp` or `bucket` name the database.
//! They never choose the tenant, and an organisation has no meaning beside it.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, Uri, header};
use tracing::{Instrument, info_span};

use crate::gateway::admission::{Admission, traceparent};
use crate::gateway::body;
use crate::gateway::budget::Reservation;
use crate::gateway::edge::{Converted, Edge, convert};
use crate::gateway::metrics::Protocol;
use crate::gateway::refusal::Refusal;
use crate::gateway::verdict::{EXCERPT_BYTES_MAX, Rejection, Verdict};
use crate::line_protocol::{Dialect, LineError, Lines, Precision};
use crate::point::{Chunker, Point};

pub mod pages;
pub mod reply;

/// `POST /write`.
pub async fn write_v1(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    write(edge, Protocol::InfluxV1, request).await
}

/// `POST /api/v2/write`.
pub async fn write_v2(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    write(edge, Protocol::InfluxV2, request).await
}

/// `POST /api/v3/write_lp`.
pub async fn write_v3(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    write(edge, Protocol::InfluxV3, request).await
}

async fn write(edge: Arc<Edge>, protocol: Protocol, request: Request) -> Response {
    if request.method() != Method::POST {
        return reply::method_not_allowed(protocol);
    }
    let span = info_span!("write", ?protocol);
    chassis::telemetry::continue_trace(&span, traceparent(request.headers()).as_deref());
    let started = std::time::Instant::now();
    let outcome = store(&edge, protocol, request).instrument(span).await;
    edge.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    edge.metrics.answered(protocol, &outcome);
    reply::of(protocol, outcome)
}

async fn store(edge: &Edge, protocol: Protocol, request: Request) -> Result<Verdict, Refusal> {
    let deadline = edge.deadline();
    let (parts, body): (_, Body) = request.into_parts();
    let mut admission = Admission::of(&parts.headers, SystemTime::now())?;
    content_type(&parts.headers)?;
    let parameters = Parameters::of(&parts.uri, protocol)?;
    admission.database = parameters.database;
    let received = body::receive(&parts.headers, body, edge.caps(), &edge.budget, deadline).await?;
    edge.metrics.received(protocol, received.wire_bytes, received.bytes.len());
    let conversion = Conversion {
        chunker: edge.chunker(&admission)?,
        accept_partial: parameters.accept_partial,
        dialect: Dialect {
            precision: parameters.precision,
            unsigned: edge.config.accept_unsigned,
            // Escapes take two bytes for one; a longer line could not fit a chunk.
            line_bytes_max: edge.config.chunk_bytes_max * 2,
        },
    };
    let length = received.bytes.len();
    let converted =
        convert(length, move || conversion.run(&received.bytes, received.reservation)).await?;
    edge.append(&admission, converted, deadline).await
}

/// The longest name of a client's database, bytes.
const DATABASE_BYTES_MAX: usize = 128;

struct Parameters {
    /// The client's database; `db/rp` where it named a retention policy.
    database: String,
    precision: Precision,
    accept_partial: bool,
}

impl Parameters {
    fn of(uri: &Uri, protocol: Protocol) -> Result<Self, Refusal> {
        let precision = match protocol {
            Protocol::InfluxV3 => Precision::Auto,
            _ => Precision::Nanoseconds,
        };
        let mut parameters = Self { database: String::new(), precision, accept_partial: true };
        let mut policy = String::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()) {
            match (&*name, &*value) {
                ("precision", "") => {}
                ("precision", unit) => {
                    let invalid = "precision is none of ns, us, ms, s, m, h and their other names";
                    parameters.precision =
                        unit.parse().map_err(|_| Refusal::ParameterInvalid(invalid))?;
                }
                ("accept_partial", value) if protocol == Protocol::InfluxV3 => {
                    let invalid = Refusal::ParameterInvalid("accept_partial is not true or false");
                    parameters.accept_partial = value.parse().map_err(|_| invalid)?;
                }
                ("bucket", name) if protocol == Protocol::InfluxV2 => {
                    parameters.database = name.to_owned();
                }
                ("db", name) if protocol != Protocol::InfluxV2 => {
                    parameters.database = name.to_owned();
                }
                ("rp", name) if protocol == Protocol::InfluxV1 => policy = name.to_owned(),
                _ => {}
            }
        }
        // As InfluxDB 2 names the bucket of a 1.x database and policy; `autogen` is the default.
        if !matches!(&*policy, "" | "autogen") {
            parameters.database = format!("{}/{policy}", parameters.database);
        }
        let sign = |c: char| !c.is_control() && c != '\\';
        if parameters.database.len() > DATABASE_BYTES_MAX || !parameters.database.chars().all(sign)
        {
            let invalid = "the database is longer than 128 bytes, or its name holds a control \
                           character or a backslash";
            return Err(Refusal::ParameterInvalid(invalid));
        }
        Ok(parameters)
    }
}

/// Clients disagree on the type of line protocol; curl says it is a form.
fn content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    const ACCEPTED: [&str; 3] =
        ["text/plain", "application/octet-stream", "application/x-www-form-urlencoded"];
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    let accepted = |known: &&str| essence.eq_ignore_ascii_case(known.as_bytes());
    match essence.is_empty() || ACCEPTED.iter().any(accepted) {
        true => Ok(()),
        false => Err(Refusal::ContentTypeUnsupported),
    }
}

struct Conversion {
    chunker: Chunker,
    accept_partial: bool,
    dialect: Dialect,
}

impl Conversion {
    /// Turns line protocol into chunks. Memory for them is reserved before it is used.
    fn run(self, body: &[u8], mut reservation: Reservation) -> Result<Converted, Refusal> {
        let mut chunker = self.chunker;
        let mut verdict = Verdict::default();
        let mut lines = Lines::new(body, self.dialect);
        let mut point = Point::default();
        let mut reserved = 0;
        // Text with escapes is copied, at most one line of it at a time.
        reservation.grow(body.len().min(self.dialect.line_bytes_max))?;
        while let Some(line) = lines.next(&mut point) {
            let error = match line {
                Ok(line) => chunker.push(&mut point).err().map(|fault| (line, 0, fault, None)),
                Err(LineError { line, column, fault, start, end }) => {
                    Some((line, column, fault, Some(start..end)))
                }
            };
            if let Some((position, column, fault, range)) = error {
                verdict.reject(fault, || {
                    let line = range.map_or(&b""[..], |range| &body[range]);
                    let line = &line[..line.len().min(EXCERPT_BYTES_MAX)];
                    let excerpt = String::from_utf8_lossy(line).into_owned();
                    let detail = chunker.detail(fault);
                    Rejection { position, column, fault, detail, excerpt }
                });
            }
            if chunker.allocated() > reserved {
                reservation.grow(chunker.allocated() - reserved)?;
                reserved = chunker.allocated();
            }
        }
        if !self.accept_partial && !verdict.rejected.is_empty() {
            chunker.withdraw();
            return Ok(Converted { chunks: Vec::new(), verdict, reservation });
        }
        verdict.stored = chunker.points();
        Ok(Converted { chunks: chunker.finish(), verdict, reservation })
    }
}
