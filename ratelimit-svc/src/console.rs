//! The console: a page on the admin listener that shows what is being decided, and changes nothing.
//!
//! ```text
//! ticker ─(each second, while somebody watches)─► one state as JSON ─► every event stream
//! ```
//!
//! The state is made once, whoever watches. A browser that reads slowly skips states; nothing waits
//! for it, and where there is no room for another it is the one that gives way. It names rules, tenants and classes, and holds no key.

pub mod access;
mod changes;
mod explained;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::console::access::Access;
use crate::console::changes::Changes;
use crate::limiter::Limiter;
use crate::limits::stats::{ClassCounts, Reason};
use crate::live::history::{History, POINT_SECONDS, totals};
use crate::live::nearest::Row;
use crate::live::watchers::WATCHERS_MAX;
use crate::reload::Reloader;

/// How often the state is made.
const PERIOD: Duration = Duration::from_secs(1);
/// Descriptors on a page of the table.
pub const PAGE_ROWS: usize = 25;
/// How long a stream goes on before the browser asks for another, below what the listener allows.
const STREAM_STATES_MAX: usize = 20;

/// The last event of a stream that gave way to another: its browser comes back later.
const GAVE_WAY: &[u8] = b"retry: 5000\n\n";

/// Everything comes from this process, nothing is embedded in the page, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("console/page.html");
const SCRIPT: &str = include_str!("console/console.js");
const REPORT: &str = include_str!("console/report.js");
const STYLE: &str = include_str!("console/console.css");

/// What the page shows.
pub struct Console {
    limiter: Arc<Limiter>,
    reloader: Arc<Reloader>,
    past: Mutex<Past>,
    states: watch::Sender<Bytes>,
    access: Access,
}

#[derive(Default)]
struct Past {
    history: History,
    changes: Changes,
}

impl Console {
    /// Of what `limiter` decides by the quotas of `reloader`, for those who have `access`.
    pub fn new(limiter: Arc<Limiter>, reloader: Arc<Reloader>, access: Access) -> Arc<Self> {
        let (past, states) = (Mutex::default(), watch::Sender::new(Bytes::new()));
        Arc::new(Self { limiter, reloader, past, states, access })
    }

    /// Its pages.
    pub fn routes(self: &Arc<Self>) -> Router {
        let guarded = Router::new()
            .route("/console/events", get(events))
            .route("/console/history", get(history))
            .route("/console/descriptors", get(descriptors))
            .route("/console/explain", post(explained::page))
            .layer(DefaultBodyLimit::max(explained::QUESTION_BYTES_MAX))
            .layer(from_fn_with_state(self.access.clone(), access::check));
        Router::new()
            .route("/console", get(|| async { file("text/html; charset=utf-8", PAGE) }))
            .route("/console/console.js", get(|| async { file("text/javascript", SCRIPT) }))
            .route("/console/console.css", get(|| async { file("text/css", STYLE) }))
            .route("/console/report.js", get(|| async { file("text/javascript", REPORT) }))
            .merge(guarded)
            .with_state(self.clone())
    }

    /// Keeps the past, and the state of the moment while somebody watches. Never ends.
    pub async fn follow(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = self.clone();
            // Comparing large quotas takes a moment.
            let observed = tokio::task::spawn_blocking(move || this.observe()).await;
            if let Err(error) = observed {
                tracing::error!(%error, "the console's state could not be made");
            }
        }
    }

    fn observe(&self) {
        let now = self.limiter.clock.now().as_secs();
        let live = &self.limiter.live;
        let mut past = lock(&self.past);
        let counts = totals(live.counts());
        past.history.observe(&counts, now);
        let refused = counts.iter().map(|(_, decided)| decided.refused).sum();
        if let Some(quotas) = self.limiter.quotas.load_full() {
            past.changes.observe(&quotas, now, refused);
        }
        if live.watchers.is_watched() {
            let state = self.state(&past.changes, refused, now).to_string();
            live.watchers.made();
            self.states.send_replace(state.into());
        } else {
            live.forget();
        }
    }

    fn state(&self, changes: &Changes, refused: u64, now: u64) -> Value {
        let live = &self.limiter.live;
        let rows = live.nearest(now);
        let nearest: Vec<Value> = rows.iter().take(PAGE_ROWS).map(|one| self.row(one)).collect();
        json!({
            "at": now,
            "classes": self.classes(),
            "descriptors": {"count": rows.len(), "nearest": nearest},
            "store": self.limiter.describe_store(),
            "config": self.reloader.describe(),
            "changes": changes.describe(refused),
            "trials": self.limiter.describe_trials(),
        })
    }

    /// A descriptor, with what this replica holds of its limit and has not spent, where that is leased.
    fn row(&self, row: &Row) -> Value {
        let leases = self.limiter.leases.as_ref();
        json!({
            "domain": row.domain,
            "entries": row.entries,
            "class": row.class,
            "limit": row.limit.to_string(),
            "capacity": row.capacity,
            "left": row.left,
            "reserved": row.reserved,
            "leased": leases.and_then(|leases| leases.table().held_of(&row.counter)),
            "until": row.until_seconds,
            "admitted": row.decided[0],
            "refused": row.decided[1],
        })
    }

    /// Each class of the ladder, highest first, then any other that was seen.
    fn classes(&self) -> Vec<Value> {
        let counts = self.limiter.live.counts();
        let quotas = self.limiter.quotas.load();
        let ladder = quotas.as_deref().map(|quotas| quotas.classes().ladder());
        let ladder = ladder.unwrap_or_default();
        let of = |name: &str| counts.classes().find(|class| *class.name == *name);
        let known = ladder.iter().map(|class| {
            let outage = class.outage.name();
            described(&class.name, Some(outage), of(&class.name))
        });
        let others = counts
            .classes()
            .filter(|class| ladder.iter().all(|known| *known.name != *class.name))
            .map(|class| described(&class.name, None, Some(class)));
        known.chain(others).collect()
    }
}

/// A class with its requests by reason.
fn described(name: &str, outage: Option<&str>, counts: Option<&ClassCounts>) -> Value {
    let by_reason = |over: usize| -> Value {
        let counted = |reason: &Reason| {
            let decided = &counts?.decided[*reason as usize][over];
            let count = decided.load(std::sync::atomic::Ordering::Relaxed);
            (count > 0).then(|| (reason.name().to_owned(), json!(count)))
        };
        Value::Object(Reason::ALL.iter().filter_map(counted).collect())
    };
    json!({"name": name, "outage": outage, "admitted": by_reason(0), "refused": by_reason(1)})
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

fn data(value: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, format!("{value}\n")).into_response()
}

/// A stream of states as server-sent events. It ends after some, and the browser asks again.
async fn events(State(console): State<Arc<Console>>) -> Response {
    let Some(watching) = console.limiter.live.watchers.watch() else {
        let text = format!("{WATCHERS_MAX} people watch already, and all of them keep up\n");
        let retry = [(header::RETRY_AFTER, "5")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, text).into_response();
    };
    let mut states = console.states.subscribe();
    states.mark_unchanged();
    // A browser that goes away drops the stream, and with it its place among those who watch.
    let events = stream::unfold(Some((states, watching)), |watch| async move {
        let (mut states, watching) = watch?;
        states.changed().await.ok()?;
        if !watching.take() {
            return Some((Bytes::from_static(GAVE_WAY), None));
        }
        let state = states.borrow_and_update().clone();
        let event = [b"data: ".as_slice(), &state, b"\n\n"].concat();
        Some((event.into(), Some((states, watching))))
    });
    let framed = events.take(STREAM_STATES_MAX).map(Ok::<_, Infallible>);
    let first = stream::iter([Ok(Bytes::from_static(b"retry: 500\n\n"))]);
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(first.chain(framed))).into_response()
}

async fn history(State(console): State<Arc<Console>>) -> Response {
    let past = lock(&console.past);
    let lines = past.history.lines().map(|(class, points)| {
        let points: Vec<Value> =
            points.map(|point| json!([point.admitted, point.refused])).collect();
        json!({"class": class, "points": points})
    });
    data(&json!({"point_seconds": POINT_SECONDS, "classes": lines.collect::<Vec<_>>()}))
}

/// A page of the descriptors that are remembered, nearest to their limits first: `?page=2`.
async fn descriptors(State(console): State<Arc<Console>>, RawQuery(query): RawQuery) -> Response {
    let page = query.as_deref().and_then(|query| query.strip_prefix("page="));
    let Ok(page) = page.unwrap_or("1").parse::<usize>() else {
        return (StatusCode::BAD_REQUEST, "page is a number from 1 on\n").into_response();
    };
    let rows = console.limiter.live.nearest(console.limiter.clock.now().as_secs());
    let skipped = page.saturating_sub(1).saturating_mul(PAGE_ROWS);
    let shown = rows.iter().skip(skipped).take(PAGE_ROWS).map(|one| console.row(one));
    let shown: Vec<Value> = shown.collect();
    data(&json!({"page": page, "count": rows.len(), "page_rows": PAGE_ROWS, "nearest": shown}))
}

fn lock(past: &Mutex<Past>) -> MutexGuard<'_, Past> {
    past.lock().unwrap_or_else(PoisonError::into_inner)
}
