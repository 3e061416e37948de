//! Redis in all the ways it is run: encrypted, with users, watched by sentinels, as a cluster.

use std::sync::Arc;

use ratelimit_svc::decide::hit::{Hit, Mode};
use ratelimit_svc::lease::loss::Restoration;
use ratelimit_svc::limits::algorithm::Algorithm;
use ratelimit_svc::limits::unit::Unit;
use ratelimit_svc::store::Store;
use ratelimit_svc::store::backend::Backend;
use ratelimit_svc::store::error::StoreError;
use ratelimit_svc::store::redis::connection::address::{HostPort, Login};
use ratelimit_svc::store::redis::connection::tls::TlsSettings;
use ratelimit_svc::store::redis::topology::link::{LinkSettings, Topology};
use ratelimit_svc::store::redis::{Redis, RedisSettings};

use crate::redis_parts::{Certificates, Cluster, Watched, free_port, server_at};
use crate::store::{
    NOW, contract, contract_in_parts, count, decides_as_the_model, hit, settings, unconnected,
};
use crate::support::{DEADLINE, RedisServer, Service, wait_for};

fn local(port: u16) -> HostPort {
    ("127.0.0.1".to_owned(), port)
}

fn login(user: Option<&str>, password: &str) -> Login {
    Login { user: user.map(str::to_owned), password: Some(password.to_owned()) }
}

fn store(topology: Topology, login: Login, tls: Option<TlsSettings>) -> Redis {
    let link = LinkSettings { topology, login, sentinel_login: Login::default(), tls };
    Redis::new(link, settings(), Arc::default()).expect("files to read")
}

async fn connected(store: Redis) -> Arc<Redis> {
    // Many handshakes take a busy machine longer than one attempt may last.
    wait_for("connected", async || store.probe().await.is_ok()).await;
    let store = Arc::new(store);
    // Ends with the test.
    tokio::spawn({
        let store = store.clone();
        async move { store.tend().await }
    });
    store
}

fn trusting(certificates: &Certificates) -> TlsSettings {
    TlsSettings { ca: Some(certificates.path("ca.pem")), ..TlsSettings::default() }
}

async fn encrypted(certificates: &Certificates, port: u16, clients: bool) -> RedisServer {
    let arguments = certificates.arguments(port, clients);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    RedisServer::start_with(&arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_redis_keeps_the_contract() {
    let (certificates, port) = (Certificates::new("127.0.0.1"), free_port());
    let _server = encrypted(&certificates, port, false).await;
    let tls = Some(trusting(&certificates));
    contract(connected(store(Topology::Tcp(local(port)), Login::default(), tls)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_asks_for_certificates_keeps_the_contract() {
    let (certificates, port) = (Certificates::new("127.0.0.1"), free_port());
    let _server = encrypted(&certificates, port, true).await;
    let topology = || Topology::Tcp(local(port));
    let without = store(topology(), Login::default(), Some(trusting(&certificates)));
    without.probe().await.expect_err("no certificate of ours");
    let client = Some((certificates.path("client.pem"), certificates.path("client.key")));
    let tls = Some(TlsSettings { client, ..trusting(&certificates) });
    contract(connected(store(topology(), Login::default(), tls)).await).await;
}

#[tokio::test]
async fn only_the_right_server_is_trusted() {
    let (certificates, port) = (Certificates::new("redis.example"), free_port());
    let _server = encrypted(&certificates, port, false).await;
    let probe = async |tls: TlsSettings| {
        store(Topology::Tcp(local(port)), Login::default(), Some(tls)).probe().await
    };
    probe(trusting(&certificates)).await.expect_err("another name");
    let skip = TlsSettings { skip_hostname_verification: true, ..trusting(&certificates) };
    probe(skip).await.expect("another name is taken");
    let other = Certificates::new("127.0.0.1");
    let skip = TlsSettings { skip_hostname_verification: true, ..trusting(&other) };
    probe(skip).await.expect_err("another authority is not");
}

#[tokio::test]
async fn certificates_are_read_at_the_start_and_for_each_connection() {
    let (certificates, port) = (Certificates::new("127.0.0.1"), free_port());
    let _server = encrypted(&certificates, port, false).await;
    let ca = tempfile::NamedTempFile::new().expect("temporary file");
    let new = |ca: &std::path::Path| {
        let tls = TlsSettings { ca: Some(ca.to_owned()), ..TlsSettings::default() };
        let (login, sentinel_login) = (Login::default(), Login::default());
        let topology = Topology::Tcp(local(port));
        let link = LinkSettings { topology, login, sentinel_login, tls: Some(tls) };
        Redis::new(link, settings(), Arc::default())
    };
    let error = new(&certificates.path("absent")).err().expect("absent").to_string();
    assert!(error.starts_with("cannot read "), "{error}");
    let error = new(ca.path()).err().expect("empty").to_string();
    assert!(error.starts_with("no certificate in "), "{error}");
    let authority = |of: &Certificates| {
        std::fs::copy(of.path("ca.pem"), ca.path()).expect("copied");
    };
    authority(&Certificates::new("127.0.0.1"));
    let store = new(ca.path()).expect("a certificate");
    store.probe().await.expect_err("another authority");
    authority(&certificates);
    store.probe().await.expect("the authority was replaced");
}

const REFERENCE: &str = include_str!("../../REFERENCE.md");

#[tokio::test(flavor = "multi_thread")]
async fn an_acl_user_keeps_the_contract() {
    let port = free_port();
    let server = server_at(port, &[]).await;
    let named = REFERENCE.split("A user needs the commands ").nth(1).expect("a list");
    let named = named.split(" on the keys").next().expect("its end").split('`');
    let rights: Vec<String> =
        named.skip(1).step_by(2).map(|command| format!("+{}", command.to_lowercase())).collect();
    assert!(rights.contains(&"+evalsha".to_owned()), "{rights:?}");
    let user = ["acl", "setuser", "limiter", "on", ">secret", "~t:*"];
    let user = user.into_iter().chain(rights.iter().map(String::as_str));
    assert_eq!(server.asked(&user.collect::<Vec<_>>()).trim(), "OK");
    let topology = || Topology::Tcp(local(port));
    let nobody = store(topology(), login(Some("limiter"), "wrong"), None);
    let error = nobody.probe().await.expect_err("wrong password");
    assert!(matches!(error, StoreError::Configuration(_)), "{error:?}");
    contract(connected(store(topology(), login(Some("limiter"), "secret"), None)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_at_a_port_keeps_the_contract() {
    let port = free_port();
    let _server = server_at(port, &["--requirepass", "secret"]).await;
    contract(connected(store(Topology::Tcp(local(port)), login(None, "secret"), None)).await).await;
}

fn watched_store(watched: &Watched, tls: Option<TlsSettings>) -> Redis {
    let sentinels = watched.sentinels.iter().map(|port| local(*port)).collect();
    let topology = Topology::Sentinel { master: "mymaster".to_owned(), sentinels };
    let (login, sentinel_login) = (login(None, "secret"), login(None, "hush"));
    let link = LinkSettings { topology, login, sentinel_login, tls };
    Redis::new(link, settings(), Arc::default()).expect("files to read")
}

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 1000000, mode: exact}
  - key: burst
    rate_limit: {unit: second, requests_per_unit: 1000000, mode: exact}
";

/// Whether the counters are in Redis: an outage refuses this class.
async fn counts(service: &Service, key: &str, value: &str) -> bool {
    !service.is_over("edge", &[(key, value), ("priority", "background")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_master_and_to_the_next() {
    let mut watched = Watched::start("secret", "hush").await;
    contract(connected(watched_store(&watched, None)).await).await;

    let environment = [
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_TYPE", "SENTINEL".to_owned()),
        ("REDIS_URL", watched.url()),
        ("REDIS_AUTH", "secret".to_owned()),
        ("REDIS_SENTINEL_AUTH", "hush".to_owned()),
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    wait_for("the master is in use", async || counts(&service, "tenant", "a").await).await;
    watched.master.kill();
    assert!(!counts(&service, "tenant", "a").await, "lost");
    wait_for("the next master is in use", async || counts(&service, "tenant", "a").await).await;
    assert!(watched.replica.asked(&["role"]).starts_with("master"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_sentinels_lead_to_an_encrypted_master() {
    let certificates = Certificates::new("127.0.0.1");
    let mut watched = Watched::start_with("secret", "hush", Some(&certificates)).await;
    let store = connected(watched_store(&watched, Some(trusting(&certificates)))).await;
    contract(store.clone()).await;
    watched_store(&watched, None).probe().await.expect_err("in the clear");
    watched.master.kill();
    wait_for("the next master is in use", async || {
        let _ = store.check().await;
        store.count(&[hit("after", 1, 9)], Mode::CountAll, NOW).await.is_ok()
    })
    .await;
    assert!(watched.replica.asked(&["role"]).starts_with("master"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_was_replaced_is_left() {
    let watched = Watched::start("secret", "hush").await;
    let store = connected(watched_store(&watched, None)).await;
    count(&*store, Mode::CountAll, &[hit("before", 1, 9)]).await;
    let port = watched.sentinels[0].to_string();
    let failover = ["-p", &port, "--no-auth-warning", "-a", "hush"];
    let failover = [&failover[..], &["sentinel", "failover", "mymaster"]].concat();
    let told = std::process::Command::new("redis-cli").args(failover).output();
    assert!(told.expect("redis-cli is installed").status.success());
    wait_for("the replica is master", async || {
        watched.replica.asked(&["role"]).starts_with("master")
    })
    .await;
    // The connection to the old master is as good as ever; checking on it finds the new one.
    wait_for("hits reach the new master", async || {
        let _ = store.check().await;
        let _ = store.count(&[hit("after", 1, 1_000_000)], Mode::CountAll, NOW).await;
        !watched.replica.asked(&["get", "t:after"]).trim().is_empty()
            && watched.master.asked(&["role"]).starts_with("slave")
            && store.count(&[hit("after", 1, 1_000_000)], Mode::CountAll, NOW).await.is_ok()
    })
    .await;
}

/// A hit in a window of a second, and one in a longer one.
fn both(key: &str, second: u32, hour: u32) -> [Hit; 2] {
    let window = Unit::Second.window(NOW.as_secs());
    [Hit { window, ..hit(&format!("{key}-s"), 1, second) }, hit(&format!("{key}-h"), 1, hour)]
}

fn socket(server: &RedisServer) -> LinkSettings {
    let (login, sentinel_login) = (Login::default(), Login::default());
    LinkSettings { topology: Topology::Unix(server.socket()), login, sentinel_login, tls: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_of_a_second_in_a_redis_of_their_own_keep_the_contract() {
    let (main, per_second) = (RedisServer::start().await, RedisServer::start().await);
    let store = Redis::pair(socket(&main), socket(&per_second), settings(), Arc::default());
    let store = connected(store.expect("no files")).await;
    contract_in_parts(store.clone()).await;
    decides_as_the_model(store.clone()).await;
    let hits = both("apart", 2, 9);
    for mode in [Mode::CountAll, Mode::AllOrNothing] {
        assert!(count(&*store, mode, &hits).await.iter().all(|(_, over)| !over));
    }
    let keys = |server: &RedisServer| server.asked(&["keys", "t:apart*"]).trim().to_owned();
    assert_eq!((keys(&per_second).as_str(), keys(&main).as_str()), ("t:apart-s", "t:apart-h"));
    // What does not fit in one is given back in the other.
    assert_eq!(count(&*store, Mode::AllOrNothing, &hits).await, [(2, true), (2, false)]);
    assert_eq!(main.asked(&["get", "t:apart-h"]).trim(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_redis_of_two_is_lost_alone() {
    let (mut main, mut per_second) = (RedisServer::start().await, RedisServer::start().await);
    let environment = [
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_URL", main.socket().display().to_string()),
        ("REDIS_PERSECOND", "true".to_owned()),
        ("REDIS_PERSECOND_URL", per_second.socket().display().to_string()),
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    let second = async || counts(&service, "burst", "a").await;
    let year = async || counts(&service, "tenant", "a").await;
    wait_for("both are in use", async || second().await && year().await).await;
    let reach = async || -> Vec<(String, bool)> {
        let servers = service.servers().await.into_iter();
        servers.map(|one| (one["part"].to_string(), one["lost_seconds"].is_null())).collect()
    };
    let shown = |main, per_second| {
        vec![("\"main\"".to_owned(), main), ("\"per_second\"".to_owned(), per_second)]
    };
    wait_for("both are shown", async || reach().await == shown(true, true)).await;
    per_second.kill();
    assert!(!second().await && year().await);
    wait_for("it is shown as lost", async || reach().await == shown(true, false)).await;
    per_second.restart().await;
    wait_for("it is back", async || second().await).await;
    main.kill();
    assert!(!year().await && second().await);
    main.restart().await;
    wait_for("the other is back", async || year().await).await;
    service.stop().await;
}

fn cluster_store(cluster: &Cluster, settings: RedisSettings) -> Redis {
    let seeds = cluster.nodes.iter().map(|(port, _)| local(*port)).collect();
    unconnected(Topology::Cluster(seeds), settings)
}

/// A cluster is in use as soon as one node is; on a busy machine others may need another repair.
async fn all_nodes_are_in_reach(store: &Redis) {
    let looks: Vec<Hit> = (0..64).map(|n| hit(&n.to_string(), 0, 1)).collect();
    wait_for("all nodes", async || {
        let _ = store.check().await;
        store.count(&looks, Mode::CountAll, NOW).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_the_contract_and_survives_a_primary() {
    let mut cluster = Cluster::start().await;
    let store = connected(cluster_store(&cluster, settings())).await;
    all_nodes_are_in_reach(&store).await;
    contract(store.clone()).await;
    what_is_refused_elsewhere_is_given_back(&store).await;
    scripts_are_loaded_again_on_every_node(&cluster, &store).await;
    a_slot_on_its_way_is_followed(&mut cluster, &store).await;
    what_was_claimed_is_told_on_every_node(&store).await;
    drop(store);

    let environment = [
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_TYPE", "CLUSTER".to_owned()),
        ("REDIS_URL", cluster.url()),
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    wait_for("the cluster is in use", async || counts(&service, "tenant", "a").await).await;
    let tag = |tenant: &str| format!("{{4:edge6:tenant{}:{tenant}}}", tenant.len());
    let lost = cluster.owner(&tag("a"));
    lost.kill();
    wait_for("its primary is lost", async || !counts(&service, "tenant", "a").await).await;
    wait_for("its replica takes over", async || counts(&service, "tenant", "a").await).await;
    for tenant in ["b", "c", "d", "e", "f"] {
        wait_for("all others are there", async || counts(&service, "tenant", tenant).await).await;
    }
    wait_for("every slot to be shown in reach", async || service.is_whole().await).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_cluster_keeps_the_contract_and_survives_a_primary() {
    let certificates = Certificates::new("127.0.0.1");
    let mut cluster = Cluster::start_with(Some(&certificates)).await;
    let seeds: Vec<HostPort> = cluster.nodes.iter().map(|(port, _)| local(*port)).collect();
    let topology = || Topology::Cluster(seeds.clone());
    let tls = Some(trusting(&certificates));
    let store = connected(self::store(topology(), Login::default(), tls)).await;
    all_nodes_are_in_reach(&store).await;
    contract(store.clone()).await;
    self::store(topology(), Login::default(), None).probe().await.expect_err("in the clear");
    cluster.owner("t:after").kill();
    wait_for("its replica takes over", async || {
        let _ = store.check().await;
        store.count(&[hit("after", 1, 9)], Mode::CountAll, NOW).await.is_ok()
    })
    .await;
}

/// All-or-nothing over slots of different nodes.
async fn what_is_refused_elsewhere_is_given_back(store: &Arc<Redis>) {
    let mode = Mode::AllOrNothing;
    let all = |limit| {
        ["w1", "w2", "w3", "w4"].map(|key| hit(key, 1, if key == "w3" { limit } else { 9 }))
    };
    assert_eq!(count(&**store, mode, &all(2)).await, [(1, false); 4]);
    assert_eq!(count(&**store, mode, &all(2)).await, [(2, false); 4]);
    let refused = [(2, false), (2, false), (2, true), (2, false)];
    assert_eq!(count(&**store, mode, &all(2)).await, refused);
    let look = ["w1", "w2", "w3", "w4"].map(|key| hit(key, 0, 9));
    assert_eq!(count(&**store, Mode::CountAll, &look).await, [(2, false); 4]);

    // Whatever the interleaving, nobody gets more than there is, and nothing stays on trial.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = store.clone();
        tasks.spawn(async move {
            let own = hit(&format!("own{}", n % 7), 1, 10);
            let both = [hit("common", 1, 40), own];
            count(&*store, Mode::AllOrNothing, &both).await.iter().all(|(_, over)| !over)
        });
    }
    let admitted = tasks.join_all().await.into_iter().filter(|ok| *ok).count() as u64;
    assert!(admitted <= 40, "{admitted}");
    let common = count(&**store, Mode::CountAll, &[hit("common", 0, 40)]).await[0].0;
    assert_eq!(common, admitted, "what is counted is what was admitted");
    assert!(admitted > 0);
}

async fn scripts_are_loaded_again_on_every_node(cluster: &Cluster, store: &Arc<Redis>) {
    for (_, node) in &cluster.nodes {
        node.asked(&["script", "flush", "sync"]);
    }
    for key in ["s1", "s2", "s3", "s4", "s5", "s6"] {
        assert_eq!(count(&**store, Mode::AllOrNothing, &[hit(key, 1, 9)]).await, [(1, false)]);
    }
}

/// Whatever a counter is called, and whether or not another one is any.
async fn what_was_claimed_is_told_on_every_node(store: &Arc<Redis>) {
    let names = ["edge_tenant_acme_60", "edge_tenant_}_60", "edge_tenant_{}_60", "{9:tag}|m7"];
    let names = names.iter().flat_map(|name| (0..4).map(move |n| format!("{n}{name}")));
    let told = |name: &str, amount| {
        let hit = hit(name, amount, 1000);
        Restoration { stem: hit.key.to_vec().into(), hit, taken: 0 }
    };
    let mut assertions: Vec<Restoration> = names.map(|name| told(&name, 7)).collect();
    let bucket = Algorithm::TokenBucket { burst: 9 };
    let none = Hit { algorithm: bucket, ..hit("no-count", 1, 9) };
    count(&**store, Mode::CountAll, &[none]).await;
    assertions.push(told("no-count", 7));
    let mut stands = store.restore_claimed(&assertions).await;
    let last = stands.pop();
    assert!(matches!(last, Some(Err(StoreError::Counter(_)))), "{last:?}");
    let stands: Vec<u64> = stands.into_iter().map(|stands| stands.expect("told")).collect();
    assert_eq!(stands, vec![7; assertions.len() - 1]);
    let look = [Hit { amount: 0, ..assertions[1].hit.clone() }];
    assert_eq!(count(&**store, Mode::CountAll, &look).await, [(7, false)]);
}

/// Two of three sentinels take connections and say nothing: the master goes on all the same.
#[tokio::test(flavor = "multi_thread")]
async fn silent_sentinels_cost_the_master_nothing() {
    let watched = Watched::start("secret", "hush").await;
    let silent = [
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
    ];
    let at = |listener: &tokio::net::TcpListener| listener.local_addr().expect("bound");
    let url = format!(
        "mymaster,{},{},127.0.0.1:{}",
        at(&silent[0]),
        at(&silent[1]),
        watched.sentinels[0]
    );
    let environment = [
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_TYPE", "SENTINEL".to_owned()),
        ("REDIS_URL", url),
        ("REDIS_AUTH", "secret".to_owned()),
        ("REDIS_SENTINEL_AUTH", "hush".to_owned()),
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    wait_for("the master is in use", async || counts(&service, "tenant", "a").await).await;
    let cost = async || {
        let of = async |name: &str| service.metric(name).await.unwrap_or_default();
        of("ratelimit_breaker_opened_total").await
            + of("ratelimit_store_errors_total{kind=\"timeout\"}").await
    };
    // The silent ones are asked anew with each look, and would cost each of them; a machine that stands still
    // costs one or another.
    let mut kept = Vec::new();
    wait_for("looks that cost nothing", async || {
        let before = cost().await;
        for _ in 0..5 {
            let look = async { tokio::join!(silent[0].accept(), silent[1].accept()) };
            let (one, other) = tokio::time::timeout(DEADLINE, look).await.expect("a look in time");
            kept.extend([one.expect("a look"), other.expect("a look")]);
        }
        cost().await == before
    })
    .await;
    assert!(counts(&service, "tenant", "a").await);
    service.stop().await;
}

/// `ASK` while a slot moves, `MOVED` when it has.
async fn a_slot_on_its_way_is_followed(cluster: &mut Cluster, store: &Arc<Redis>) {
    let id = |server: &RedisServer| server.asked(&["cluster", "myid"]).trim().to_owned();
    let slot = cluster.nodes[0].1.asked(&["cluster", "keyslot", "t:moving"]).trim().to_owned();
    let from = id(cluster.owner("t:moving"));
    let other = ["x", "y", "z", "v", "w", "q"].into_iter().find(|key| {
        let owner = cluster.owner(key);
        id(owner) != from
    });
    let other = other.expect("not all keys are in one node");
    let to = id(cluster.owner(other));
    cluster.owner(other).asked(&["cluster", "setslot", &slot, "importing", &from]);
    cluster.owner("t:moving").asked(&["cluster", "setslot", &slot, "migrating", &to]);
    for mode in [Mode::CountAll, Mode::AllOrNothing] {
        // The key is not where the slot still is, so the node sends on whoever asks for it.
        let before = if mode == Mode::CountAll { 0 } else { 1 };
        assert_eq!(count(&**store, mode, &[hit("moving", 1, 9)]).await, [(before + 1, false)]);
    }
    let source = cluster.owner("t:moving").socket();
    for (_, node) in &cluster.nodes {
        let is_primary = node.asked(&["role"]).starts_with("master");
        if is_primary && node.socket() != source {
            node.asked(&["cluster", "setslot", &slot, "node", &to]);
        }
    }
    let old = cluster.nodes.iter().find(|(_, node)| node.socket() == source).expect("ours");
    old.1.asked(&["cluster", "setslot", &slot, "node", &to]);
    assert_eq!(count(&**store, Mode::CountAll, &[hit("moving", 1, 9)]).await, [(3, false)]);
    wait_for("the new owner is known", async || store.check().await.is_ok()).await;
    assert_eq!(count(&**store, Mode::AllOrNothing, &[hit("moving", 1, 9)]).await, [(4, false)]);
}

#[tokio::test]
async fn a_cluster_that_is_none_is_not_used() {
    let port = free_port();
    let _server = server_at(port, &[]).await;
    let store = unconnected(Topology::Cluster(vec![local(port)]), settings());
    store.probe().await.expect_err("cluster support is off");
    let lost = store.count(&[hit("a", 1, 1)], Mode::CountAll, NOW).await.expect_err("no node");
    assert!(matches!(lost, StoreError::Part(_)), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_shared_with_the_reference() {
    let server = RedisServer::start().await;
    let mut environment = server.environment();
    environment.push(("REDIS_KEY_FORMAT", "reference".to_owned()));
    environment.push(("CACHE_KEY_PREFIX", "rl:".to_owned()));
    let quotas = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 3}
";
    let service = Service::start_with(&[("a.yaml", quotas)], &environment).await;
    wait_for("redis is in use", async || {
        service.metric("ratelimit_breaker_open").await == Some(0.0)
    })
    .await;
    // What the reference counted, under the name that it gives.
    const YEAR: u64 = 31_536_000;
    let start = ratelimit_svc::clock::wall().as_secs() / YEAR * YEAR;
    let key = format!("rl:edge_tenant_acme_{start}");
    server.asked(&["incrby", &key, "2"]);
    assert!(!service.is_over("edge", &[("tenant", "acme")]).await, "the third");
    assert!(service.is_over("edge", &[("tenant", "acme")]).await, "the fourth");
    assert_eq!(server.asked(&["get", &key]).trim(), "4");
    service.stop().await;
}
