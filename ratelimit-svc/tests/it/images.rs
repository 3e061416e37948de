//! The image in place of the reference's in public manifests: Envoy Gateway's Deployment in its
//! variants, Istio's sample, Contour's example. Their environments written anew; only addresses and
//! paths are those of the test.

use std::path::{Path, PathBuf};

use proto::pb::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};
use tempfile::TempDir;

use crate::control_plane::ControlPlane;
use crate::support::{RedisServer, Service, http, request, wait_for};
use crate::tls::{Authority, client};

/// Envoy Gateway's Deployment with metrics, TLS and tracing.
const ENVOY_GATEWAY: &[(&str, &str)] = &[
    ("RUNTIME_ROOT", "/data"),
    ("RUNTIME_SUBDIRECTORY", "ratelimit"),
    ("RUNTIME_IGNOREDOTFILES", "true"),
    ("RUNTIME_WATCH_ROOT", "false"),
    ("LOG_LEVEL", "info"),
    ("USE_STATSD", "false"),
    ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
    ("CONFIG_GRPC_XDS_SERVER_URL", "envoy-gateway:18001"),
    ("CONFIG_GRPC_XDS_NODE_ID", "envoy-ratelimit"),
    ("GRPC_SERVER_USE_TLS", "true"),
    ("GRPC_SERVER_TLS_CERT", "/certs/tls.crt"),
    ("GRPC_SERVER_TLS_KEY", "/certs/tls.key"),
    ("GRPC_SERVER_TLS_CA_CERT", "/certs/ca.crt"),
    ("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true"),
    ("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "/certs/tls.crt"),
    ("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", "/certs/tls.key"),
    ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "/certs/ca.crt"),
    ("FORCE_START_WITHOUT_INITIAL_CONFIG", "true"),
    ("REDIS_SOCKET_TYPE", "tcp"),
    ("REDIS_URL", "redis.redis.svc:6379"),
    ("USE_PROMETHEUS", "true"),
    ("PROMETHEUS_ADDR", ":19001"),
    ("PROMETHEUS_MAPPER_YAML", "/etc/statsd-exporter/conf.yaml"),
    ("TRACING_ENABLED", "true"),
    ("TRACING_SERVICE_NAME", "envoy-ratelimit"),
    ("TRACING_SERVICE_NAMESPACE", "envoy-gateway-system"),
    ("TRACING_SERVICE_INSTANCE_ID", "envoy-ratelimit-7d9f8"),
    ("TRACING_SAMPLING_RATE", "0.6"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://trace-collector:4317"),
];

/// What Istio's sample and Contour's example have in common.
const WITH_FILES: &[(&str, &str)] = &[
    ("LOG_LEVEL", "debug"),
    ("REDIS_SOCKET_TYPE", "tcp"),
    ("REDIS_URL", "redis:6379"),
    ("RUNTIME_ROOT", "/data"),
    ("RUNTIME_SUBDIRECTORY", "ratelimit"),
    ("RUNTIME_WATCH_ROOT", "false"),
    ("RUNTIME_IGNOREDOTFILES", "true"),
];
const ISTIO: &[(&str, &str)] = &[("USE_STATSD", "false"), ("HOST", "::"), ("GRPC_HOST", "::")];
const CONTOUR: &[(&str, &str)] = &[("USE_STATSD", "false"), ("REDIS_URL", "localhost:6379")];

/// A mapping as the gateway's ConfigMap has it: globs for rules of one and two levels, and a regular
/// expression that drops the rest.
fn mapping() -> String {
    let mut text = "mappings:\n".to_owned();
    for kind in ["total_hits", "within_limit", "near_limit", "over_limit"] {
        for (stars, key2) in [("*.*", ""), ("*.*.*", ", key2: \"$3\"")] {
            text += &format!(
                "  - match: \"ratelimit.service.rate_limit.{stars}.{kind}\"\n    \
                   name: \"ratelimit_service_rate_limit_{kind}\"\n    \
                   timer_type: \"histogram\"\n    \
                   labels: {{domain: \"$1\", key1: \"$2\"{key2}}}\n"
            );
        }
    }
    text += r#"
  - match: "ratelimit.service.call.should_rate_limit.*"
    name: "ratelimit_service_should_rate_limit_error"
    match_metric_type: counter
    labels: {err_type: "$1"}
  - match: "ratelimit_server.*.total_requests"
    name: "ratelimit_service_total_requests"
    match_metric_type: counter
    labels: {grpc_method: "$1"}
  - match: "ratelimit_server.*.response_time"
    name: "ratelimit_service_response_time_seconds"
    timer_type: histogram
    labels: {grpc_method: "$1"}
  - match: "ratelimit.service.config_load_success"
    name: "ratelimit_service_config_load_success"
    match_metric_type: counter
  - match: "ratelimit.service.config_load_error"
    name: "ratelimit_service_config_load_error"
    match_metric_type: counter
  - match: "."
    match_type: "regex"
    action: "drop"
    name: "dropped"
"#;
    text
}

/// An environment of a manifest with other addresses and paths.
fn environment(
    manifest: &[&[(&'static str, &str)]],
    here: Vec<(&'static str, String)>,
) -> Vec<(&'static str, String)> {
    let names: Vec<&str> = here.iter().map(|(name, _)| *name).collect();
    // What a manifest says last counts.
    let of_manifest = manifest.concat().into_iter().filter(|(name, _)| !names.contains(name));
    let mut all: Vec<_> = of_manifest.map(|(name, value)| (name, value.to_owned())).collect();
    all.extend(here);
    all
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn file(dir: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
    std::fs::write(&path, content).expect("written");
    path
}

fn limit(requests_per_unit: u32) -> Option<RateLimitPolicy> {
    let unit = RateLimitUnit::Year.into();
    Some(RateLimitPolicy { requests_per_unit, unit, ..RateLimitPolicy::default() })
}

fn node(
    key: &str,
    value: &str,
    rate_limit: Option<RateLimitPolicy>,
    descriptors: Vec<RateLimitDescriptor>,
) -> RateLimitDescriptor {
    let (key, value) = (key.to_owned(), value.to_owned());
    RateLimitDescriptor { key, value, rate_limit, descriptors, ..RateLimitDescriptor::default() }
}

const ROUTE: &str = "httproute/default/api/rule/0/match/0/*_example_com";

/// What the gateway makes of three rules of a route: one header of a value, one of any value, and an
/// address below a mask.
fn resources() -> RateLimitConfig {
    let rule = |number: u8| format!("rule-{number}-match-0");
    let masked = node("masked_remote_address", "192.168.0.0/16", limit(2), vec![]);
    let each = node("remote_address", "", limit(1), vec![]);
    let any_address = node("masked_remote_address", "0.0.0.0/0", None, vec![each]);
    let rules = vec![
        node(&rule(0), &rule(0), limit(2), vec![]),
        node(&rule(1), "", limit(1), vec![]),
        masked,
        any_address,
    ];
    RateLimitConfig {
        name: "default/eg/http.*".to_owned(),
        domain: "default/eg/http.*".to_owned(),
        descriptors: vec![node(ROUTE, ROUTE, None, rules)],
    }
}

/// In every variant: with its certificates, its quotas from the control plane, in Redis, and the metrics
/// that its dashboards ask for.
#[tokio::test(flavor = "multi_thread")]
async fn envoy_gateway() {
    let (redis, ours) = (RedisServer::start().await, Authority::new("envoy-gateway"));
    let dir = tempfile::tempdir().expect("temporary directory");
    let plane = ControlPlane::start_tls(&ours.issue_files("plane.test", 2090), &ours.file()).await;
    plane.publish("1", &[resources()]);
    let own = ours.issue_files("server.test", 2090);
    let mut here = redis.environment();
    here.extend([
        ("CONFIG_GRPC_XDS_SERVER_URL", plane.address.to_string()),
        // The gateway is reached by its name there.
        ("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "plane.test".to_owned()),
        ("GRPC_SERVER_TLS_CERT", text(&own.0)),
        ("GRPC_SERVER_TLS_KEY", text(&own.1)),
        ("GRPC_SERVER_TLS_CA_CERT", text(&ours.file())),
        ("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", text(&own.0)),
        ("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", text(&own.1)),
        ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", text(&ours.file())),
        ("PROMETHEUS_ADDR", "127.0.0.1:0".to_owned()),
        ("PROMETHEUS_MAPPER_YAML", text(&file(&dir, "conf.yaml", &mapping()))),
    ]);
    let service = Service::start_with(&[], &environment(&[ENVOY_GATEWAY], here)).await;
    wait_for("quotas and Redis", async || {
        service.readiness.is_ready() && service.is_in_reach().await
    })
    .await;
    let (status, _) = http(service.addresses.http, "GET", "/healthcheck", "").await;
    assert_eq!(status, 200, "its probes");

    let stranger = client(&service, &ours.client(None)).await;
    let asked = || request("default/eg/http.*", &[&[(ROUTE, ROUTE)]]);
    let refused = match stranger {
        Ok(mut stranger) => stranger.should_rate_limit(asked()).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a client needs a certificate of its authority");

    let identity = Some(ours.issue_files("envoy.test", 2090));
    let mut envoy = client(&service, &ours.client(identity)).await.expect("connected");
    let mut verdicts = async |entries: &[(&str, &str)], times: usize| {
        let mut over = Vec::new();
        for _ in 0..times {
            let entries = [&[(ROUTE, ROUTE)], entries].concat();
            let asked = request("default/eg/http.*", &[&entries]);
            let answer = envoy.should_rate_limit(asked).await.expect("answered").into_inner();
            over.push(answer.overall_code == 2);
        }
        over
    };
    let header = [("rule-0-match-0", "rule-0-match-0")];
    assert_eq!(verdicts(&header, 3).await, [false, false, true]);
    assert_eq!(verdicts(&[("rule-1-match-0", "a/b.*")], 2).await, [false, true]);
    assert_eq!(verdicts(&[("rule-1-match-0", "other")], 1).await, [false], "each value alone");
    let masked = [("masked_remote_address", "192.168.0.0/16")];
    assert_eq!(verdicts(&masked, 3).await, [false, false, true]);
    let each = |address| [("masked_remote_address", "0.0.0.0/0"), ("remote_address", address)];
    assert_eq!(verdicts(&each("10.0.0.1"), 2).await, [false, true]);
    assert_eq!(verdicts(&each("10.0.0.2"), 1).await, [false]);

    let at = service.addresses.prometheus.expect("listens");
    let (status, page) = http(at, "GET", "/metrics", "").await;
    assert_eq!(status, 200);
    for line in [
        "ratelimit_service_total_requests{grpc_method=\"ShouldRateLimit\"} 12",
        "ratelimit_service_config_load_success 1",
        "ratelimit_service_should_rate_limit_error{err_type=\"redis_error\"} 0",
        "ratelimit_service_response_time_seconds_count{grpc_method=\"ShouldRateLimit\"} 12",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line}\n{page}");
    }
    service.stop().await;
}

/// The mapping that the gateway ships says what the built-in one does; one that is not there is none.
#[tokio::test]
async fn the_shipped_mapping_and_none() {
    let quotas = "domain: edge\ndescriptors:\n  - key: a\n    rate_limit: {unit: year, requests_per_unit: 2}\n    descriptors:\n      - {key: b, rate_limit: {unit: year, requests_per_unit: 9}}\n";
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut pages = Vec::new();
    for mapper in [
        String::new(),
        text(&dir.path().join("absent.yaml")),
        text(&file(&dir, "m.yaml", &mapping())),
    ] {
        let more =
            [("PROMETHEUS_NAMES", "reference".to_owned()), ("PROMETHEUS_MAPPER_YAML", mapper)];
        let service = Service::start_with(&[("a.yaml", quotas)], &more).await;
        for _ in 0..3 {
            service.is_over("edge", &[("a", "x")]).await;
        }
        service.is_over("edge", &[("a", "x"), ("b", "y")]).await;
        let (_, page) = service.admin("/metrics").await;
        let is_steady = |line: &&str| !line.starts_with('#') && !line.contains("response_time");
        let mut lines: Vec<String> = page.lines().filter(is_steady).map(str::to_owned).collect();
        lines.sort();
        assert!(page.contains("ratelimit_service_response_time_seconds_bucket{"), "{page}");
        pages.push(lines);
        service.stop().await;
    }
    let over = "ratelimit_service_rate_limit_over_limit{domain=\"edge\",key1=\"a\"} 1";
    assert!(pages[0].iter().any(|line| line == over), "{:?}", pages[0]);
    assert_eq!(pages[0], pages[1]);
    assert_eq!(pages[0], pages[2]);
}

/// Quotas in `RUNTIME_ROOT/RUNTIME_SUBDIRECTORY/config`, as a ConfigMap is mounted there.
#[tokio::test(flavor = "multi_thread")]
async fn istio_and_contour() {
    let redis = RedisServer::start().await;
    for (name, manifest) in [("istio", ISTIO), ("contour", CONTOUR)] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let quotas = format!(
            "domain: {name}\ndescriptors:\n  - key: PATH\n    value: \"/\"\n    rate_limit: {{unit: year, requests_per_unit: 1}}\n  - key: PATH\n    rate_limit: {{unit: year, requests_per_unit: 100}}\n"
        );
        file(&dir, "ratelimit/config/config.yaml", &quotas);
        let mut here = redis.environment();
        here.extend([
            ("RUNTIME_ROOT", text(dir.path())),
            ("HOST", "127.0.0.1".to_owned()),
            ("GRPC_HOST", "127.0.0.1".to_owned()),
        ]);
        let service = Service::start_with(&[], &environment(&[WITH_FILES, manifest], here)).await;
        wait_for("Redis", async || service.is_in_reach().await).await;
        let over = async |path| service.is_over(name, &[("PATH", path)]).await;
        assert_eq!((over("/").await, over("/").await, over("/a").await), (false, true, false));
        let (status, _) = http(service.addresses.http, "GET", "/healthcheck", "").await;
        assert_eq!(status, 200);
        service.stop().await;
    }
}

/// A mapping that cannot work ends the start, with its line.
#[tokio::test]
async fn a_bad_mapping_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = file(&dir, "m.yaml", "mappings:\n  - {match: 'a.*', name: \"$2\"}\n");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ratelimit-svc"));
    command.env_clear().env("PROMETHEUS_MAPPER_YAML", &path).env("BACKEND_TYPE", "memory");
    let output = tokio::task::spawn_blocking(move || command.output().expect("runs"));
    let output = output.await.expect("ran");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{error}");
    let expected = format!("PROMETHEUS_MAPPER_YAML: {}:2:", path.display());
    assert!(error.contains(&expected) && error.contains("has no group $2"), "{error}");
}
