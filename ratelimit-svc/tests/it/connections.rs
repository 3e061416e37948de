//! Connections: how old they may get, unix sockets, and the end with a request in flight.

use ratelimit_svc::config::Config;
use ratelimit_svc::server::{GrpcAddress, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{DEADLINE, Service, environment, request, url, wait_for};

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
    let age = |grace: &str| {
        [
            ("GRPC_MAX_CONNECTION_AGE", "20ms".to_owned()),
            ("GRPC_MAX_CONNECTION_AGE_GRACE", grace.to_owned()),
        ]
    };
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &age("20ms")).await;
    let endpoint = Endpoint::from_shared(url(&service.addresses.grpc)).expect("an address");
    let mut health = HealthClient::new(endpoint.connect().await.expect("connected"));
    let asked = HealthCheckRequest { service: String::new() };
    let mut watch = health.watch(asked).await.expect("watched").into_inner();
    let first = watch.message().await.expect("received").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);
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
