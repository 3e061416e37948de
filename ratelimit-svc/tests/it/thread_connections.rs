//! Connections to Redis of the threads that serve requests: who uses which, and how many there are.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use ratelimit_svc::store::redis::connection::address::{Address, Login};
use ratelimit_svc::store::redis::connection::connections::Connections;
use ratelimit_svc::store::redis::connection::connector::{Connector, Endpoint};
use ratelimit_svc::store::redis::connection::tls::TlsSettings;
use redis::aio::MultiplexedConnection;

use crate::redis_parts::{Certificates, Cluster, free_port};
use crate::support::{RedisServer, Service, request, url, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 1000000, mode: exact}
";
const WITNESS: &str = "witness";

fn endpoint(server: &RedisServer) -> Endpoint {
    let connector = Connector::new(None).expect("no files");
    Endpoint { connector, login: Login::default(), at: Address::Unix(server.socket()) }
}

async fn connections(server: &RedisServer, threads: usize) -> Arc<Connections> {
    let shared = endpoint(server).connect().await.expect("connected");
    Connections::new(endpoint(server), shared, threads, Some(WITNESS.to_owned()))
}

/// What the server calls a connection; none of one that is lost.
async fn id(mut connection: MultiplexedConnection) -> Option<i64> {
    redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await.ok()
}

/// How many connections the server has, but for the one that asks.
fn connected(server: &RedisServer) -> usize {
    server.asked(&["CLIENT", "LIST"]).lines().count() - 1
}

fn received(server: &RedisServer) -> u64 {
    let info = server.asked(&["INFO", "stats"]);
    let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    line.and_then(|number| number.trim().parse().ok()).expect("a number")
}

#[tokio::test]
async fn each_thread_gets_one_connection_and_nobody_waits_for_it() {
    const THREADS: usize = 3;
    let server = RedisServer::start().await;
    let connections = connections(&server, THREADS).await;
    let shared = id(connections.here()).await.expect("connected");
    // At once, whatever becomes of the thread's own.
    assert_eq!(id(connections.on(0)).await, Some(shared));
    let mut own = HashSet::new();
    wait_for("connections of their own", async || {
        own = join_all((0..THREADS).map(|n| id(connections.on(n)))).await.into_iter().collect();
        own.len() == THREADS && !own.contains(&Some(shared))
    })
    .await;
    assert_eq!(id(connections.on(THREADS)).await, Some(shared), "a thread that is not known");
    assert_eq!(id(connections.here()).await, Some(shared), "no worker");
    assert_eq!(connected(&server), 1 + THREADS, "one each");
    drop(connections);
    wait_for("all are closed", async || connected(&server) == 0).await;
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced() {
    let server = RedisServer::start().await;
    let connections = connections(&server, 1).await;
    let shared = id(connections.here()).await;
    let mut own = None;
    wait_for("a connection of its own", async || {
        own = id(connections.on(0)).await;
        own != shared
    })
    .await;
    let first = own.expect("connected").to_string();
    assert_eq!(server.asked(&["CLIENT", "KILL", "ID", &first]).trim(), "1");
    wait_for("another", async || {
        let now = id(connections.on(0)).await;
        now.is_some() && now != own && now != shared
    })
    .await;
}

#[tokio::test]
async fn another_server_is_not_taken_for_the_same() {
    let (server, other) = (RedisServer::start().await, RedisServer::start().await);
    other.command(&["SET", WITNESS, "other"]).await;
    let shared = endpoint(&server).connect().await.expect("connected");
    let witness = Some(WITNESS.to_owned());
    let connections = Connections::new(endpoint(&other), shared, 1, witness);
    let refused = received(&other) + 1;
    connections.on(0);
    // Asked, and left again.
    wait_for("an attempt", async || received(&other) > refused).await;
    wait_for("its end", async || connected(&other) == 0).await;
    server.command(&["SET", "here", "yes"]).await;
    let here = redis::cmd("GET").arg("here").query_async(&mut connections.on(0)).await;
    assert_eq!(here.ok(), Some("yes".to_owned()));
}

#[tokio::test]
async fn threads_encrypt_and_log_in_as_well() {
    let (certificates, port) = (Certificates::new("127.0.0.1"), free_port());
    let mut arguments = certificates.arguments(port, true);
    arguments.extend(["--requirepass", "secret"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _server = RedisServer::start_with(&arguments).await;
    let client = Some((certificates.path("client.pem"), certificates.path("client.key")));
    let ca = Some(certificates.path("ca.pem"));
    let connector = Connector::new(Some(TlsSettings { ca, client, ..TlsSettings::default() }));
    let connector = connector.expect("files to read");
    let login = Login { user: None, password: Some("secret".to_owned()) };
    let endpoint = Endpoint { connector, login, at: Address::Tcp(("127.0.0.1".to_owned(), port)) };
    let shared = endpoint.connect().await.expect("connected");
    let connections = Connections::new(endpoint, shared, 1, Some(WITNESS.to_owned()));
    let shared = id(connections.here()).await.expect("let in");
    wait_for("a connection of its own", async || {
        id(connections.on(0)).await.is_some_and(|id| id != shared)
    })
    .await;
}

#[tokio::test]
async fn no_connection_is_made_before_a_workload_api_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let certificates = Certificates::new("127.0.0.1");
    let workload_api = Some(format!("unix://{}/agent.sock", dir.path().display()));
    let ca = Some(certificates.path("ca.pem"));
    let tls = TlsSettings { ca, workload_api, ..TlsSettings::default() };
    let connector = Connector::new(Some(tls)).expect("nothing is sent yet");
    let login = Login { user: None, password: None };
    let at = Address::Tcp(("127.0.0.1".to_owned(), free_port()));
    let error = Endpoint { connector, login, at }.connect().await.map(drop).expect_err("nothing");
    let error = chassis::telemetry::error_chain(&error);
    assert!(error.contains("the Workload API has given no certificate yet"), "{error}");
}

/// Calls for several tenants, over enough connections for every worker to have some.
async fn ask(service: &Service, calls: usize) -> usize {
    const TENANTS: usize = 32;
    let endpoint = tonic::transport::Endpoint::from_shared(url(&service.addresses.grpc));
    let endpoint = endpoint.expect("an address");
    let clients = join_all((0..4).map(|_| endpoint.connect())).await;
    let asked = (0..calls).map(|call| {
        let channel = clients[call % clients.len()].as_ref().expect("connected").clone();
        async move {
            let asked = request("edge", &[&[("tenant", &(call / 4 % TENANTS).to_string())]]);
            RateLimitServiceClient::new(channel).should_rate_limit(asked).await
        }
    });
    let answers = join_all(asked).await;
    let ok = |code| code == Code::Ok;
    answers.into_iter().flatten().filter(|answer| ok(answer.get_ref().overall_code())).count()
}

/// All that a server has counted.
fn counted(server: &RedisServer) -> usize {
    let keys = server.asked(&["--raw", "KEYS", "*tenant*"]);
    let count = |key: &str| server.asked(&["--raw", "GET", key]).trim().parse::<usize>().ok();
    keys.lines().filter_map(count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_count_over_their_own_and_a_loss_is_made_good_without_a_rush() {
    const CALLS: usize = 200;
    const THREADS: usize = 2;
    let server = RedisServer::start().await;
    let mut more = server.environment();
    more.push(("GRPC_WORKER_THREADS", THREADS.to_string()));
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &more).await;
    wait_for("Redis within reach", async || service.is_in_reach().await).await;
    let mut asked = 0;
    wait_for("a connection for each thread", async || {
        asked += ask(&service, CALLS).await;
        connected(&server) == 1 + THREADS
    })
    .await;
    asked += ask(&service, CALLS).await;
    assert_eq!(counted(&server), asked, "each once, whichever way it went");

    server.asked(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_for("a connection for each thread again", async || {
        ask(&service, CALLS).await;
        let connected = connected(&server);
        // One more for each at most, where it is replaced.
        assert!(connected <= 2 * (1 + THREADS), "{connected} connections");
        connected == 1 + THREADS && service.is_in_reach().await
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thread_is_connected_to_each_primary() {
    const CALLS: usize = 256;
    const THREADS: usize = 2;
    let cluster = Cluster::of(3, 0, &[], None).await;
    let more = [
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_TYPE", "CLUSTER".to_owned()),
        ("REDIS_URL", cluster.url()),
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
        ("GRPC_WORKER_THREADS", THREADS.to_string()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &more).await;
    let nodes: Vec<&RedisServer> = cluster.nodes.iter().map(|(_, node)| node).collect();
    wait_for("a connection for each thread and node", async || {
        ask(&service, CALLS).await;
        service.is_whole().await && nodes.iter().all(|node| connected(node) == 1 + THREADS)
    })
    .await;
    let total = || nodes.iter().map(|node| counted(node)).sum::<usize>();
    let before = total();
    let asked = ask(&service, CALLS).await;
    assert_eq!((asked, total() - before), (CALLS, CALLS), "each once");
    service.stop().await;
}
