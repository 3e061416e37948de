//! Metrics from outside: under which names they are shown, and what a statsd server receives.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};

use crate::support::{DEADLINE, Service, http, request};

const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: tenant, value: acme, rate_limit: {unit: year, requests_per_unit: 2}}
";

/// Three requests, of which the last is refused.
async fn use_up(service: &Service) {
    for _ in 0..3 {
        service.ask(request("edge", &[&[("tenant", "acme")]])).await.expect("answered");
    }
}

const OWN: &str = "ratelimit_hits_total{domain=\"edge\",rule=\"tenant_acme\",kind=\"total\"} 3\n";
const REFERENCE: &str =
    "ratelimit_service_rate_limit_total_hits{domain=\"edge\",key1=\"tenant_acme\"} 3\n";

#[tokio::test]
async fn names_by_switch() {
    for (names, own, reference) in [
        ("", true, false),
        ("tidegate", true, false),
        ("reference", false, true),
        ("both", true, true),
    ] {
        let set = [("PROMETHEUS_NAMES", names.to_owned())];
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &set).await;
        use_up(&service).await;
        let (_, page) = service.admin("/metrics").await;
        assert_eq!((page.contains(OWN), page.contains(REFERENCE)), (own, reference), "{page}");
        let over =
            "ratelimit_service_rate_limit_over_limit{domain=\"edge\",key1=\"tenant_acme\"} 1";
        assert_eq!(page.contains(over), reference);
        let requests = "ratelimit_service_total_requests{grpc_method=\"ShouldRateLimit\"} 3";
        assert_eq!(page.contains(requests), reference);
        service.stop().await;
    }
}

#[tokio::test]
async fn the_listener_of_the_reference() {
    let set = [
        ("USE_PROMETHEUS", "true".to_owned()),
        ("PROMETHEUS_ADDR", "127.0.0.1:0".to_owned()),
        ("PROMETHEUS_PATH", "/stats/prometheus".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &set).await;
    use_up(&service).await;
    let at = service.addresses.prometheus.expect("listens");
    let (status, page) = http(at, "GET", "/stats/prometheus", "").await;
    assert!(status == 200 && page.contains(OWN) && page.contains(REFERENCE), "{page}");
    assert_eq!(http(at, "GET", "/metrics", "").await.0, 404);
    service.stop().await;
}

/// Lines from the socket until all that are expected have come.
async fn receive(server: &UdpSocket, mut expected: Vec<&str>) {
    let (mut seen, mut buffer) = (String::new(), [0; 65536]);
    while !expected.is_empty() {
        let received = tokio::time::timeout(DEADLINE, server.recv(&mut buffer)).await;
        let bytes = received.unwrap_or_else(|_| panic!("{expected:?} is not in\n{seen}"));
        let text = std::str::from_utf8(&buffer[..bytes.expect("received")]).expect("text");
        seen += text;
        seen.push('\n');
        expected.retain(|line| !text.lines().any(|got| got.starts_with(line)));
    }
}

async fn statsd(more: &[(&'static str, &str)]) -> (UdpSocket, Service) {
    let server = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let port = server.local_addr().expect("bound").port().to_string();
    let mut set = vec![
        ("USE_STATSD", "true".to_owned()),
        ("STATSD_HOST", "127.0.0.1".to_owned()),
        ("STATSD_PORT", port),
        ("STATS_FLUSH_INTERVAL", "20ms".to_owned()),
    ];
    set.extend(more.iter().map(|(name, value)| (*name, value.to_string())));
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &set).await;
    use_up(&service).await;
    (server, service)
}

#[tokio::test]
async fn a_statsd_server_is_told() {
    let over_udp = ("STATSD_PROTOCOL", "udp");
    let (server, service) = statsd(&[("EXTRA_TAGS", "zone:a"), over_udp]).await;
    let expected = vec![
        "ratelimit.service.rate_limit.edge.tenant_acme.total_hits.__zone=a:",
        "ratelimit.service.rate_limit.edge.tenant_acme.over_limit.__zone=a:1|c",
        "ratelimit_server.ShouldRateLimit.total_requests.__zone=a:",
        "ratelimit_server.ShouldRateLimit.response_time.__zone=a:",
        "ratelimit.service.config_load_success.__zone=a:1|c",
    ];
    receive(&server, expected).await;
    service.stop().await;
}

#[tokio::test]
async fn a_statsd_server_is_told_over_tcp_unless_told_otherwise() {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = server.local_addr().expect("bound").port().to_string();
    let set = [
        ("STATSD_HOST", "127.0.0.1".to_owned()),
        ("STATSD_PORT", port),
        ("USE_STATSD", "true".to_owned()),
        ("STATS_FLUSH_INTERVAL", "20ms".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &set).await;
    use_up(&service).await;
    let over = "ratelimit.service.rate_limit.edge.tenant_acme.over_limit:1|c\n";
    let told = tokio::time::timeout(DEADLINE, async {
        let mut told = String::new();
        while !told.contains(over) {
            let (mut stream, _) = server.accept().await.expect("accepted");
            stream.read_to_string(&mut told).await.expect("the end of a flush");
        }
    });
    told.await.expect("told");
    service.stop().await;
}

#[tokio::test]
async fn a_dogstatsd_server_is_told() {
    let (server, service) = statsd(&[
        ("USE_STATSD", "false"),
        ("USE_DOG_STATSD", "true"),
        ("EXTRA_TAGS", "zone:a"),
        ("USE_DOG_STATSD_MOGRIFIERS", "RULE"),
        (
            "DOG_STATSD_MOGRIFIER_RULE_PATTERN",
            r"^ratelimit\.service\.rate_limit\.(.*)\.(.*)\.(.*)$",
        ),
        ("DOG_STATSD_MOGRIFIER_RULE_NAME", "ratelimit.$3"),
        ("DOG_STATSD_MOGRIFIER_RULE_TAGS", "domain:$1,rule:$2"),
    ])
    .await;
    let expected = vec![
        "ratelimit.over_limit:1|c|#zone:a,domain:edge,rule:tenant_acme",
        "ratelimit.service.config_load_success:1|c|#zone:a",
    ];
    receive(&server, expected).await;
    service.stop().await;
}

#[tokio::test]
async fn the_last_counts_are_sent_at_the_end() {
    let (server, service) =
        statsd(&[("STATS_FLUSH_INTERVAL", "1h"), ("STATSD_PROTOCOL", "udp")]).await;
    service.stop().await;
    receive(&server, vec!["ratelimit.service.rate_limit.edge.tenant_acme.over_limit:1|c"]).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_nobody_elses_trouble() {
    let set = [
        ("USE_STATSD", "true".to_owned()),
        ("STATSD_HOST", "no host".to_owned()),
        ("STATS_FLUSH_INTERVAL", "10ms".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &set).await;
    use_up(&service).await;
    crate::support::wait_for("the failure is counted", async || {
        service.metric("ratelimit_statsd_errors_total").await.is_some_and(|errors| errors > 0.0)
    })
    .await;
    use_up(&service).await;
    let stopped = tokio::time::timeout(Duration::from_secs(20), service.stop()).await;
    stopped.expect("stops all the same");
}
