//! A server in the gateway's place, which notes what it is sent and answers as the test wants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tests::wait::{DEADLINE, wait_for};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stage::Stage;

/// The names and values of one request: headers, `:path`, and trailers as `trailer:NAME`.
pub type Seen = BTreeMap<String, Vec<String>>;

/// The server; it ends when dropped.
pub struct StandIn {
    seen: Arc<Mutex<Vec<Seen>>>,
    held: watch::Sender<Option<&'static str>>,
    server: JoinHandle<std::io::Result<()>>,
}

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    held: watch::Receiver<Option<&'static str>>,
}

impl StandIn {
    /// Stops the gateway of an edge and takes its place.
    pub async fn take_over(stage: &mut Stage) -> Result<Self> {
        let gateway = stage.edge.gateway[0].child.take().context("a gateway runs")?;
        gateway.stop(DEADLINE).await;
        let listener = TcpListener::bind(stage.edge.gateway[0].listen).await?;
        let seen = Arc::default();
        let (held, receiver) = watch::channel(None);
        let shared = Shared { seen: Arc::clone(&seen), held: receiver };
        // Envoy asks every second whether it is well, which is no request of a client.
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let router = Router::new()
            .route_service("/grpc.health.v1.Health/{method}", health)
            .fallback(answer)
            .with_state(shared);
        let server = tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { seen, held, server })
    }

    /// Holds the answers to requests of a class back, or no more.
    pub fn hold(&self, class: Option<&'static str>) {
        self.held.send_replace(class);
    }

    /// What was sent so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many requests were sent.
    pub async fn wait_for(&self, count: usize) -> Result<()> {
        wait_for(&format!("{count} requests at the gateway"), DEADLINE, async || {
            (self.seen().len() >= count).then_some(())
        })
        .await
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Answers with the request's headers under our prefix, as a careless upstream might.
async fn answer(State(mut shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut seen = Seen::new();
    note(&mut seen, "", &parts.headers);
    seen.insert(":path".to_owned(), vec![parts.uri.to_string()]);
    if let Ok(body) = body.collect().await
        && let Some(trailers) = body.trailers()
    {
        note(&mut seen, "trailer:", trailers);
    }
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let class = parts.headers.get("x-tidegate-priority").and_then(|class| class.to_str().ok());
    let released = shared.held.wait_for(|held| held.is_none() || *held != class).await.is_ok();
    if !released {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let mut echo = HeaderMap::new();
    for (name, value) in &parts.headers {
        if name.as_str().starts_with("x-tidegate-") {
            echo.append(name, value.clone());
        }
    }
    (StatusCode::NO_CONTENT, echo).into_response()
}

fn note(seen: &mut Seen, prefix: &str, headers: &HeaderMap) {
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        seen.entry(format!("{prefix}{name}")).or_default().push(value);
    }
}
