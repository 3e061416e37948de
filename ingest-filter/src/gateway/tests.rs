//! The gateway in process on port 0, in front of a journal in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use chassis::drain::Shutdown;
use chassis::readiness::Readiness;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::journal::pins::PinLog;
use crate::journal::{Append, AppendError, Journal};
use crate::record::Record;
use crate::types::{Pin, Types};

mod cors;
mod datadog;
mod frames;
mod influx;
mod life;
mod limits;
mod multiplied;
mod otlp;
mod remote_write;
mod retries;
mod rules;
mod turns;
mod verdicts;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Keeps records in memory, fails and waits when told to.
struct TestJournal {
    records: Mutex<Vec<Record>>,
    refused: Mutex<Vec<Record>>,
    down: Mutex<Option<Duration>>,
    gate: Semaphore,
    waiting: watch::Sender<usize>,
}

impl TestJournal {
    fn new() -> Arc<Self> {
        let (records, refused, down, waiting) = Default::default();
        Arc::new(Self { records, refused, down, gate: Semaphore::new(1 << 20), waiting })
    }

    fn records(&self) -> Vec<Record> {
        self.records.lock().expect("no panic").clone()
    }

    /// All stored lines, sorted.
    fn lines(&self) -> Vec<String> {
        lines_of(&self.records())
    }

    /// The lines of what was not stored, sorted.
    fn refused_lines(&self) -> Vec<String> {
        lines_of(&self.refused.lock().expect("no panic"))
    }

    fn fail_for(&self, retry_after: Duration) {
        *self.down.lock().expect("no panic") = Some(retry_after);
    }

    fn recover(&self) {
        *self.down.lock().expect("no panic") = None;
    }

    fn hold(&self) {
        self.gate.forget_permits(1 << 20);
    }

    fn release(&self) {
        self.gate.add_permits(1 << 20);
    }
}

fn lines_of(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| String::from_utf8(record.body.to_vec()).expect("UTF-8");
    let bodies: Vec<String> = records.iter().map(text).collect();
    let mut lines: Vec<String> =
        bodies.iter().flat_map(|body| body.lines().map(str::to_owned)).collect();
    lines.sort();
    lines
}

impl Journal for TestJournal {
    fn append(&self, records: Vec<Record>) -> Append<'_> {
        Box::pin(async move {
            self.waiting.send_modify(|waiting| *waiting += 1);
            let _permit = self.gate.acquire().await.expect("never closed");
            if let Some(retry_after) = *self.down.lock().expect("no panic") {
                let reason = "down for a test".to_owned();
                self.refused.lock().expect("no panic").extend(records);
                return Err(AppendError::Unavailable { reason, retry_after });
            }
            self.records.lock().expect("no panic").extend(records);
            Ok(())
        })
    }
}

/// Keeps pins in memory.
struct TestPins(Arc<Types>);

impl PinLog for TestPins {
    fn append(&self, pins: Vec<Pin>) -> Append<'_> {
        pins.iter().for_each(|pin| _ = self.0.restore(pin));
        Box::pin(async { Ok(()) })
    }
}

/// A gateway that serves, and a client for it.
struct Running {
    journal: Arc<TestJournal>,
    address: SocketAddr,
    admin_address: SocketAddr,
    budget: Budget,
    readiness: Readiness,
    shutdown: Shutdown,
    served: JoinHandle<anyhow::Result<()>>,
    http1: Client<HttpConnector, Body>,
    http2: Client<HttpConnector, Body>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
    version: Version,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("UTF-8")
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

async fn start() -> Running {
    start_with(|_| {}).await
}

async fn start_with(change: impl FnOnce(&mut GatewayConfig)) -> Running {
    start_changed(change, |_| {}).await
}

async fn start_changed(
    change: impl FnOnce(&mut GatewayConfig),
    change_edge: impl FnOnce(&mut Edge),
) -> Running {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config =
        GatewayConfig { listen: any_port, admin_listen: any_port, ..GatewayConfig::default() };
    change(&mut config);
    let (journal, readiness, shutdown) = (TestJournal::new(), Readiness::new(), Shutdown::new());
    let types = Types::new(config.type_limits());
    let pinning = Pinning::new(types.clone(), Arc::new(TestPins(types)), &readiness);
    let gateway =
        Gateway::bind(config, journal.clone(), pinning, readiness.clone(), Registry::default())
            .await;
    let mut gateway = gateway.expect("a free port");
    change_edge(Arc::get_mut(&mut gateway.edge).expect("it does not serve yet"));
    let address = gateway.addr().expect("bound");
    let admin_address = gateway.admin_addr().expect("bound");
    let budget = gateway.budget().clone();
    let served = tokio::spawn(gateway.run(shutdown.clone()));
    let client = || Client::builder(TokioExecutor::new());
    let (http1, http2) = (client().build_http(), client().http2_only(true).build_http());
    Running { journal, address, admin_address, budget, readiness, shutdown, served, http1, http2 }
}

impl Running {
    /// A request of tenant `acme`.
    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("x-tidegate-tenant", "acme")
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = self.request(Method::POST, path).body(body.into());
        self.send(request.expect("a request")).await
    }

    async fn get(&self, path: &str) -> Answer {
        let request = self.request(Method::GET, path).body(Body::empty());
        self.send(request.expect("a request")).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        answer(&self.http1, request).await
    }

    async fn send_h2(&self, request: Request<Body>) -> Answer {
        answer(&self.http2, request).await
    }

    async fn metrics(&self) -> String {
        let uri = format!("http://{}/metrics", self.admin_address);
        let request = Request::get(uri).body(Body::empty()).expect("a request");
        self.send(request).await.text()
    }
}

async fn answer(client: &Client<HttpConnector, Body>, request: Request<Body>) -> Answer {
    let response = client.request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body");
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = body.to_bytes();
    let http::response::Parts { status, headers, version, .. } = parts;
    Answer { status, headers, body, trailers, version }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn snappy_block(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).expect("in memory")
}

fn snappy_frames(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).expect("in memory");
    encoder.into_inner().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("in memory")
}
