//! The one way of a request, whatever its protocol: head, body, items, journal, answer.
//!
//! ```text
//! parse ─► receive (caps, budget) ─► decode into an intake ─► append ─► answer
//!   └────────── the same deadline for all of it ────────────────┘
//! ```

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, info_span};

use crate::gateway::admission::{Admission, idempotency_key, tenant, traceparent};
use crate::gateway::answers::{self, PLACE_BYTES};
use crate::gateway::body::{self, Arrived, REQUEST_BYTES, Received};
use crate::gateway::budget::{Denied, Reservation};
use crate::gateway::edge::Edge;
use crate::gateway::grpc_frame;
use crate::gateway::inflate::BodyCaps;
use crate::gateway::intake::{Converted, RequestIntake, Wanted};
use crate::gateway::protocol::{Framing, Head, LONG_BYTES_MIN, Outcome, Protocol};
use crate::gateway::refusal::Refusal;
use crate::gateway::stamps::Identity;
use crate::point::Chunker;
use crate::rules::guard::Guard;
use crate::rules::mapping::Named;

/// How many points of the request are in the journal.
pub const POINTS: HeaderName = HeaderName::from_static("x-tidegate-points");

/// Where a client may name an organization: as Envoy hands it on, and as clients send it.
const ORGANIZATION: [HeaderName; 2] =
    [HeaderName::from_static("x-tidegate-organization"), HeaderName::from_static("x-scope-orgid")];

/// Serves one request.
pub async fn serve<P: Protocol>(edge: Arc<Edge>, protocol: P, request: Request) -> Response {
    if request.method() != Method::POST {
        let mut response = protocol.method_not_allowed();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    // Waiting for turns is part of the time.
    let deadline = edge.deadline();
    let tenant = tenant(request.headers()).map(str::to_owned);
    // Those without a tenant are refused, and take turns with each other.
    let of = tenant.as_deref().unwrap_or_default();
    let place = edge.budget.reserve_for(of, PLACE_BYTES);
    let has_place = place.is_ok();
    let answer = || answer(&edge, protocol, request, (of, place), deadline);
    match has_place {
        true => edge.turns.take(of, answer).await,
        // To refuse it takes less than to have it wait.
        false => Box::pin(answer()).await,
    }
}

/// Does what a request asks for, and words the answer.
async fn answer<P: Protocol>(
    edge: &Edge,
    mut protocol: P,
    request: Request,
    (tenant, place): (&str, Result<Reservation, Denied>),
    deadline: Instant,
) -> Response {
    let span = info_span!("write", protocol = tracing::field::Empty);
    chassis::telemetry::continue_trace(&span, traceparent(request.headers()).as_deref());
    let started = std::time::Instant::now();
    // Its turn has come: all that it needs whatever its body, or nothing.
    let whole = place.and_then(|place| place.exchange(REQUEST_BYTES));
    let (place, memory) = match whole {
        Ok(mut place) => {
            let memory = place.split_off(PLACE_BYTES);
            (Ok(place), Ok(memory))
        }
        Err(denied) => (Err(denied), Err(denied)),
    };
    let stored = store(edge, &mut protocol, request, memory, deadline);
    let outcome = stored.instrument(span.clone()).await;
    span.record("protocol", protocol.name().label());
    edge.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    edge.metrics.answered(protocol.name(), &outcome);
    if !tenant.is_empty() {
        edge.tenants.answered(tenant, &outcome);
    }
    let answer = worded(&protocol, &outcome);
    edge.answers.kept(place, answer).unwrap_or_else(|| {
        // What is told in a body cannot be left out: a success without it might promise too much.
        let retry_after = edge.budget.retry_after();
        let refused = outcome.and(Err(Refusal::Overloaded { retry_after }));
        answers::head_of(worded(&protocol, &refused))
    })
}

/// The answer in the words of the protocol, with what all have in common.
fn worded<P: Protocol>(protocol: &P, outcome: &Outcome) -> Response {
    let mut response = protocol.answer(outcome);
    let stored = outcome.as_ref().map_or(0, |verdict| verdict.stored);
    response.headers_mut().insert(POINTS, HeaderValue::from(stored));
    if let Err(refusal) = outcome {
        refusal.write_to(response.headers_mut());
    }
    response
}

async fn store<P: Protocol>(
    edge: &Edge,
    protocol: &mut P,
    request: Request,
    memory: Result<Reservation, Denied>,
    deadline: Instant,
) -> Outcome {
    let (parts, body) = request.into_parts();
    // First, so that every refusal is in the words of the protocol.
    let head = protocol.parse(&parts, &edge.config)?;
    let memory = memory.map_err(Refusal::from)?;
    if Instant::now() >= deadline {
        // Its turn came too late.
        return Err(Refusal::Overloaded { retry_after: edge.budget.retry_after() });
    }
    let admission = Admission::of(&parts.headers, SystemTime::now())?;
    let named = named(&head, &parts.headers);
    let ruled = edge.rules.of(&admission.tenant, named);
    let admission = match &ruled {
        Some(ruled) => ruled.admission(admission)?,
        None => Admission { database: head.database, ..admission },
    };
    let (mut caps, headers): (_, _) = (edge.caps(), &parts.headers);
    if let Some(ruled) = &ruled {
        caps.decoded = ruled.decoded_bytes_max(caps.decoded);
    }
    let arrived = receive(head.framing, headers, body, caps, memory, deadline).await;
    let of = (edge, admission.tenant.as_str(), deadline);
    let received = match arrived {
        Ok(arrived) => decoded(of, arrived).await,
        Err(refusal) => Err(refusal),
    };
    if let (Some(ruled), Err(refusal)) = (&ruled, &received) {
        ruled.count(*refusal);
    }
    let received = received?;
    edge.metrics.received(protocol.name(), received.wire_bytes, received.bytes.len());
    let key = idempotency_key(headers);
    let name = key.as_deref().or(admission.request_id.as_deref());
    let Admission { tenant, database, admitted_at_ns, .. } = &admission;
    let identity = Identity { tenant, database, name, body: &received.bytes };
    let stamp = edge.stamps.of(identity, *admitted_at_ns);
    let chunker = edge.chunker(&admission, ruled.as_ref(), stamp.ns)?;
    let guard = ruled.as_ref().map(|ruled| edge.rules.guard(ruled, admission.admitted_at_ns));
    let converted =
        convert((edge, tenant, deadline), protocol.clone(), (chunker, guard), received).await?;
    if let Some(ruled) = &ruled {
        edge.rules.refused(&admission.tenant, ruled, &converted.verdict.rejected);
    }
    edge.append(&admission, converted, (protocol.signal(), &stamp), deadline).await
}

async fn receive(
    framing: Framing,
    headers: &HeaderMap,
    body: Body,
    caps: BodyCaps,
    reservation: Reservation,
    deadline: Instant,
) -> Result<Arrived, Refusal> {
    match framing {
        Framing::Whole(encoding) => {
            body::receive(encoding, headers, body, caps, reservation, deadline).await
        }
        Framing::Grpc => grpc_frame::receive(headers, body, caps, reservation, deadline).await,
    }
}

/// What could not be decoded as it arrived.
async fn decoded(of: (&Edge, &str, Instant), arrived: Arrived) -> Result<Received, Refusal> {
    match arrived.inflate.bytes_left() < LONG_BYTES_MIN {
        true => arrived.decoded(),
        false => apart(of, move || arrived.decoded()).await?,
    }
}

/// What a client named: the organization of a parameter counts before that of a header.
fn named(head: &Head, headers: &HeaderMap) -> Named {
    let header = || {
        let value = ORGANIZATION.iter().find_map(|name| headers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let organization = match head.organization.is_empty() {
        true => header(),
        false => head.organization.clone(),
    };
    Named { database: head.database.clone(), organization }
}

/// Decodes a body, away from the request threads when it is long, and no longer than somebody
/// waits for it.
async fn convert<P: Protocol>(
    of: (&Edge, &str, Instant),
    protocol: P,
    (chunker, guard): (Chunker, Option<Guard>),
    received: Received,
) -> Result<Converted, Refusal> {
    let (edge, _, deadline) = of;
    let Received { bytes, reservation, .. } = received;
    let (length, apart_from) = (bytes.len(), protocol.apart_from_bytes());
    // Dropped with this future, so when the client goes away or the deadline passes.
    let (wanted, _give_up) = Wanted::until(deadline.into_std());
    let work = move || {
        let intake = RequestIntake::new(chunker, length, reservation, wanted);
        let mut intake = intake.guarded(guard);
        let decoded = protocol.decode(&bytes, &mut intake);
        drop(bytes);
        match decoded {
            Ok(()) => Ok(intake.finish(protocol.accepts_partial())),
            Err(stop) => Err(intake.refusal(stop, protocol.malformed())),
        }
    };
    let converted = match length < apart_from {
        true => work(),
        false => apart(of, work).await?,
    }?;
    // An append that begins late would end later still, and nobody would learn how.
    match Instant::now() < deadline {
        true => Ok(converted),
        false => Err(late(edge)),
    }
}

/// Does what takes long on a thread of its own, in a turn of the tenant.
async fn apart<T: Send + 'static>(
    (edge, tenant, deadline): (&Edge, &str, Instant),
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let turn = timeout_at(deadline, edge.conversions.turn(tenant)).await;
    let turn = turn.map_err(|_| late(edge))?;
    let working = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    let worked = timeout_at(deadline, working).await.map_err(|_| late(edge))?;
    Ok(worked.expect("decoders do not panic"))
}

fn late(edge: &Edge) -> Refusal {
    Refusal::Overloaded { retry_after: edge.budget.retry_after() }
}
