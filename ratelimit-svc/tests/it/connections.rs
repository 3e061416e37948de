//! Connections: how old they may get, unix sockets, and the end with a request in flight.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ratelimit_svc::config::Config;
use ratelimit_svc::server::{GrpcAddress, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{DEADLINE, RedisServer, Service, environment, request, url, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 1}
";

const GOAWAY: u8 = 7;

#[tokio::test]
async fn an_old_connection_is_sent_away() {
    let more = [("GRPC_MAX_CONNECTION_AGE", "50ms".to_owned())];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &more).await;
    let GrpcAddress::Tcp(address) = service.addresses.grpc else { panic!("not a port") };
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    stream.write_all(&settings).await.expect("sent");
    let goaway = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut body = vec![0; length as usize];
            stream.read_exact(&mut body).await.expect("its payload");
            if head[3] == GOAWAY {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, goaway).await.expect("GOAWAY");
    // It never answers the ping of a connection that closes, so it must not be waited for.
    drop(stream);
    let asked = || request("edge", &[&[("tenant", "a")]]);
    wait_for("an answer on a new connection", async || service.ask(asked()).await.is_ok()).await;
    service.stop().await;
}

#[tokio::test]
async fn a_stream_that_outlives_its_grace_is_cut() {
    let age = [
        ("GRPC_MAX_CONNECTION_AGE", "50ms".to_owned()),
        ("GRPC_MAX_CONNECTION_AGE_GRACE", "50ms".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &age).await;
    let endpoint = Endpoint::from_shared(url(&service.addresses.grpc)).expect("an address");
    let watch = async || {
        let mut health = HealthClient::new(endpoint.connect().await.ok()?);
        let asked = HealthCheckRequest { service: String::new() };
        let mut watch = health.watch(asked).await.ok()?.into_inner();
        let first = watch.message().await.ok()??;
        Some((watch, first.status()))
    };
    let mut watched = None;
    // On a busy machine a connection can be over before it was of use.
    wait_for("a stream", async || {
        watched = watch().await;
        watched.is_some()
    })
    .await;
    let (mut watch, status) = watched.expect("waited for");
    assert_eq!(status, ServingStatus::Serving);
    let next = tokio::time::timeout(DEADLINE, watch.message()).await.expect("cut");
    assert!(!matches!(next, Ok(Some(_))), "{next:?}");
    service.stop().await;
}

#[tokio::test]
async fn grpc_on_a_unix_socket() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("grpc.sock");
    // A dead process left its socket.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let uds = [("GRPC_UDS", path.display().to_string())];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &uds).await;
    assert_eq!(service.addresses.grpc, GrpcAddress::Unix(path.clone()));
    assert!(!service.is_over("edge", &[("tenant", "a")]).await);
    assert!(service.is_over("edge", &[("tenant", "a")]).await);

    let config = Config::from_environment(&environment(dir.path(), &uds)).expect("valid");
    let error = Server::bind(config).await.err().expect("taken").to_string();
    assert_eq!(error, format!("gRPC cannot listen on {}", path.display()));
    assert!(service.is_over("edge", &[("tenant", "a")]).await, "the first is not disturbed");
    service.stop().await;
    assert!(!path.exists());
}

/// Stands between the service and Redis, and can hold back what counts.
struct Gate {
    holding: watch::Sender<bool>,
    held: Arc<Notify>,
    running: JoinHandle<()>,
}

impl Gate {
    async fn start(at: &Path, redis: PathBuf) -> Self {
        let listener = UnixListener::bind(at).expect("bound");
        let holding = watch::Sender::new(false);
        let held = Arc::new(Notify::new());
        let (hold, held_back) = (holding.clone(), held.clone());
        let running = tokio::spawn(async move {
            // Connections end with the gate.
            let mut connections = JoinSet::new();
            loop {
                let (service, _) = listener.accept().await.expect("accepted");
                let redis = UnixStream::connect(&redis).await.expect("connected");
                connections.spawn(pass(service, redis, hold.subscribe(), held_back.clone()));
            }
        });
        Self { holding, held, running }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn pass(
    service: UnixStream,
    redis: UnixStream,
    mut hold: watch::Receiver<bool>,
    held: Arc<Notify>,
) {
    let (mut from_service, mut to_service) = service.into_split();
    let (mut from_redis, mut to_redis) = redis.into_split();
    let commands = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_service.read(&mut buffer).await {
            let bytes = &buffer[..length];
            if *hold.borrow() && bytes.windows(6).any(|word| word == b"INCRBY") {
                held.notify_one();
                hold.wait_for(|holding| !holding).await.expect("the gate lives");
            }
            to_redis.write_all(bytes).await.expect("sent");
        }
    };
    let answers = tokio::io::copy(&mut from_redis, &mut to_service);
    tokio::select! {
        () = commands => {}
        _ = answers => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_before_the_end() {
    let redis = RedisServer::start().await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("gate.sock");
    let gate = Gate::start(&socket, redis.socket()).await;
    let mut more = redis.environment();
    more.retain(|(name, _)| *name != "REDIS_URL");
    more.push(("REDIS_URL", socket.display().to_string()));
    // A port could be taken by another test as soon as it is closed.
    let path = dir.path().join("grpc.sock");
    more.push(("GRPC_UDS", path.display().to_string()));
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &more).await;
    wait_for("Redis within reach", async || {
        service.metric("ratelimit_breaker_open").await == Some(0.0)
    })
    .await;

    gate.holding.send_replace(true);
    let mut client = service.client.clone();
    let asked = request("edge", &[&[("tenant", "a")]]);
    let answer = tokio::spawn(async move { client.should_rate_limit(asked).await });
    tokio::time::timeout(DEADLINE, gate.held.notified()).await.expect("in flight");
    service.begin_shutdown();
    assert!(!answer.is_finished());
    wait_for("nobody listens", async || UnixStream::connect(&path).await.is_err()).await;
    gate.holding.send_replace(false);
    let answer = tokio::time::timeout(DEADLINE, answer).await.expect("in time").expect("no panic");
    let answer = answer.expect("answered").into_inner();
    assert_eq!(answer.overall_code(), Code::Ok);
    assert_eq!(answer.statuses[0].limit_remaining, 0);
    service.stop().await;
}
