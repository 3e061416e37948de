//! An HTTP server that answers writes as it is told: what the real database does not do on
//! demand.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What to do with a write.
pub enum Reply {
    /// Answer with this status, `Retry-After` and body.
    Status(u16, Option<u32>, &'static str),
    /// Break the connection, as a process that dies.
    Crash,
    /// Store it, but not before two writes have been under way at once.
    StoreTogether,
}

/// A write as it came in.
#[derive(Clone, Debug)]
pub struct Write {
    pub body: String,
    /// Path and query.
    pub target: String,
    pub traceparent: Option<String>,
    pub authorization: Option<String>,
}

/// Whether two writes were under way at once.
static TOGETHER: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);
static WAITING: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Waits for another write that waits here too; only one test may use it.
async fn together() {
    use std::sync::atomic::Ordering::SeqCst;
    if WAITING.fetch_add(1, SeqCst) == 1 {
        TOGETHER.close();
    }
    // An error once it is closed.
    let _ = TOGETHER.acquire().await;
    WAITING.fetch_sub(1, SeqCst);
}

pub type Databases = Arc<Mutex<std::collections::BTreeSet<String>>>;
type Decide = dyn FnMut(&Write) -> Reply + Send;

/// The server; it stops when dropped.
pub struct FakeInfluxdb {
    pub address: SocketAddr,
    /// Every write that was answered with 204.
    pub stored: Arc<Mutex<Vec<Write>>>,
    /// Its databases or buckets, as 2.x and 3 list and delete them; a bucket's ID is `id-name`.
    pub databases: Databases,
    task: JoinHandle<()>,
}

impl FakeInfluxdb {
    pub async fn start(decide: impl FnMut(&Write) -> Reply + Send + 'static) -> Self {
        Self::start_with(Databases::default(), decide).await
    }

    /// The same with databases that `decide` can look at.
    pub async fn start_with(
        databases: Databases,
        decide: impl FnMut(&Write) -> Reply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stored = Arc::new(Mutex::new(Vec::new()));
        let decide: Arc<Mutex<Box<Decide>>> = Arc::new(Mutex::new(Box::new(decide)));
        let into = stored.clone();
        let listed = databases.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (decide, into, listed) = (decide.clone(), into.clone(), listed.clone());
                let service = service_fn(move |request| {
                    answer(request, decide.clone(), into.clone(), listed.clone())
                });
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    // A connection that breaks is part of the play.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        Self { address, stored, databases, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The distinct lines stored.
    pub fn lines(&self) -> std::collections::BTreeSet<String> {
        let stored = self.stored.lock().unwrap();
        stored.iter().flat_map(|write| write.body.lines().map(str::to_owned)).collect()
    }
}

impl Drop for FakeInfluxdb {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    decide: Arc<Mutex<Box<Decide>>>,
    stored: Arc<Mutex<Vec<Write>>>,
    databases: Databases,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let empty =
        |status| Ok(Response::builder().status(status).body(Full::default()).expect("a response"));
    if let Some(text) = manage(&request, &databases) {
        return Ok(Response::new(Full::new(Bytes::from(text))));
    }
    if request.method() == "POST" && request.uri().path() == "/api/v2/buckets" {
        return create_bucket(request, &databases).await;
    }
    if !["/write", "/api/v2/write", "/api/v3/write_lp"].contains(&request.uri().path()) {
        return empty(StatusCode::NO_CONTENT);
    }
    let header = |name| {
        let value = request.headers().get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    let (traceparent, authorization) = (header("traceparent"), header("authorization"));
    let target = request.uri().path_and_query().map_or(String::new(), ToString::to_string);
    let compressed = request.into_body().collect().await.map_err(std::io::Error::other)?;
    let mut body = String::new();
    flate2::read::MultiGzDecoder::new(&compressed.to_bytes()[..]).read_to_string(&mut body)?;
    let write = Write { body, target, traceparent, authorization };
    let reply = (decide.lock().unwrap())(&write);
    match reply {
        Reply::Crash => Err(std::io::Error::other("crash")),
        Reply::StoreTogether => {
            together().await;
            stored.lock().unwrap().push(write);
            empty(StatusCode::NO_CONTENT)
        }
        Reply::Status(204, _, _) => {
            stored.lock().unwrap().push(write);
            empty(StatusCode::NO_CONTENT)
        }
        Reply::Status(status, retry_after, body) => {
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            let body = Full::new(Bytes::from_static(body.as_bytes()));
            Ok::<_, Infallible>(response.body(body).expect("a response"))
                .map_err(|never| match never {})
        }
    }
}

/// Makes a bucket as 2.x does, which refuses one that is there.
async fn create_bucket(
    request: Request<Incoming>,
    databases: &Databases,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let bucket: serde_json::Value = serde_json::from_slice(&body)?;
    let name = bucket["name"].as_str().unwrap().to_owned();
    let (status, text) = match databases.lock().unwrap().insert(name.clone()) {
        true => (201, bucket.to_string()),
        false => {
            let message = format!("bucket with name {name} already exists");
            (422, serde_json::json!({ "code": "conflict", "message": message }).to_string())
        }
    };
    Ok(Response::builder().status(status).body(Full::new(text.into())).expect("a response"))
}

/// Lists and deletes as 2.x does, in pages, and as 3 does.
fn manage(request: &Request<Incoming>, databases: &Databases) -> Option<String> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let mut databases = databases.lock().unwrap();
    let number = |name| parameter(name).unwrap().parse::<usize>().unwrap();
    match (request.method().as_str(), path) {
        ("GET", "/api/v2/buckets") => {
            let page = databases.iter().skip(number("offset")).take(number("limit"));
            let bucket =
                |name: &String| serde_json::json!({ "id": format!("id-{name}"), "name": name });
            let page: Vec<_> = page.map(bucket).collect();
            Some(serde_json::json!({ "buckets": page }).to_string())
        }
        ("GET", "/api/v3/configure/database") => {
            let row = |name: &String| serde_json::json!({ "iox::database": name });
            Some(serde_json::Value::from_iter(databases.iter().map(row)).to_string())
        }
        ("DELETE", "/api/v3/configure/database") => {
            assert!(databases.remove(&parameter("db").unwrap()));
            Some(String::new())
        }
        ("DELETE", path) => {
            assert!(databases.remove(path.strip_prefix("/api/v2/buckets/id-").unwrap()));
            Some(String::new())
        }
        _ => None,
    }
}
