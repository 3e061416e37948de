//! Tests of `config`.

use std::fs;

use super::*;
use crate::source::redis::settings::{Login, Topology};

/// The configuration of this text, with a good pepper `pepper` and a short one `short` beside it.
fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("pepper"), b"0123456789abcdef\r\n").expect("written");
    fs::write(dir.path().join("short"), b"0123456789abcde\n\n").expect("written");
    let path = dir.path().join("c.yaml");
    fs::write(&path, text).expect("written");
    let prefix = format!("{}/", dir.path().display());
    Config::load(&path).map_err(|error| error.to_string().replace(&prefix, ""))
}

#[test]
fn defaults() {
    let config = load("keys_file: k.yaml\npepper_files: {1: pepper}\n").expect("valid");
    assert_eq!(config.grpc_listen.to_string(), GRPC_LISTEN_DEFAULT);
    assert_eq!(config.admin_listen.to_string(), ADMIN_LISTEN_DEFAULT);
    assert_eq!(config.keys.priority_classes, PRIORITY_CLASSES_DEFAULT);
    assert_eq!(config.retry_after, RETRY_AFTER_DEFAULT);
    assert_eq!(config.drain, DrainTimes::default());
    assert_eq!(config.telemetry, TelemetryConfig::default());
    assert_eq!((config.worker_threads, config.grpc_tls), (workers_default(), None));
    let path = config.keys.path.expect("set");
    assert!(path.is_absolute() && path.ends_with("k.yaml"));
    assert_eq!(
        (config.keys.redis, &*config.keys.bypass_classes),
        (None, &["system-node-critical".to_owned()][..])
    );
    assert!(config.grpc_listen.ip().is_loopback() && config.admin_listen.ip().is_loopback());
}

#[test]
fn everything_can_be_set() {
    let config = load(
        "grpc_listen: '[::1]:1'\nadmin_listen: 0.0.0.0:2\nkeys_file: /k\npepper_files: {7: pepper}\n\
         priority_classes: [a, b]\nretry_after: 1m\ndrain_delay: 0s\ndrain_timeout: 1h\n\
         log_level: debug\notlp_endpoint: http://127.0.0.1:4317\nworker_threads: 3\n\
         grpc_tls: {certificate_file: /c, key_file: k, client_ca_file: /a, client_san: envoy}\n",
    )
    .expect("valid");
    assert_eq!(config.grpc_listen.to_string(), "[::1]:1");
    assert_eq!(config.admin_listen.to_string(), "0.0.0.0:2");
    assert_eq!(config.keys.path.as_deref(), Some(Path::new("/k")));
    assert_eq!(config.keys.peppers.versions().collect::<Vec<_>>(), [7]);
    assert_eq!(config.keys.priority_classes, ["a", "b"]);
    assert_eq!(config.retry_after, Duration::from_secs(60));
    assert_eq!((config.drain.delay, config.drain.timeout), (Duration::ZERO, DRAIN_MAX));
    assert_eq!(config.telemetry.log_level, "debug");
    assert_eq!(config.telemetry.otlp_endpoint.as_deref(), Some("http://127.0.0.1:4317"));
    assert_eq!(config.worker_threads.get(), 3);
    let tls = config.grpc_tls.as_ref().expect("set");
    assert!(tls.certificate == Path::new("/c") && tls.key.is_absolute());
    assert_eq!(tls.client_authorities.as_deref(), Some(Path::new("/a")));
    let names: Vec<String> = tls.client_subjects.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["envoy"]);
    assert!(!format!("{config:?}").contains("0123456789"));
}

#[test]
fn every_error_says_where() {
    for (line, expected) in [
        ("grpc_listen: here", "c.yaml:3:14: 'grpc_listen' must be an address and port"),
        ("worker_threads: 0", "c.yaml:3:17: 'worker_threads' must be from 1 to 256"),
        ("worker_threads: 257", "c.yaml:3:17: 'worker_threads' must be from 1 to 256"),
        (
            "grpc_tls: {certificate_file: c, key_file: k, client_san: envoy}",
            "c.yaml:3:58: 'grpc_tls.client_san' needs 'client_ca_file'",
        ),
        (
            "grpc_tls: {certificate_file: c, key_file: k, client_ca_file: a, client_san: 'a..b'}",
            "c.yaml:3:77: 'grpc_tls.client_san' 'a..b' is neither a DNS name",
        ),
        ("admin_listen: 127.0.0.1", "c.yaml:3:15: 'admin_listen' must be an address and port"),
        ("retry_after: 0s", "c.yaml:3:14: 'retry_after' must be from 1s to 3600s"),
        ("retry_after: 2", "c.yaml:3:14: '2' is not a duration"),
        ("drain_delay: 2h", "c.yaml:3:14: 'drain_delay' must be from 0s to 3600s"),
        ("drain_timeout: 2h", "c.yaml:3:16: 'drain_timeout' must be from 0s to 3600s"),
        ("priority_classes: []", "c.yaml:3:19: 'priority_classes' must name at least one"),
        ("priority_classes: [a, B]", "c.yaml:3:23: priority class \"B\" must be"),
        ("retry_afer: 2s", "c.yaml:3:1: "),
    ] {
        let text = format!("keys_file: k.yaml\npepper_files: {{1: pepper}}\n{line}\n");
        let error = load(&text).expect_err(line);
        assert!(error.starts_with(expected), "{error} instead of {expected}");
    }
    for (peppers, expected) in [
        ("{}", "c.yaml:2:15: 'pepper_files' must name at least one pepper"),
        ("{1: short}", "c.yaml:2:19: 'short' pepper 1 must have 16 to 4096 bytes, not 15"),
        ("{2: absent}", "c.yaml:2:19: 'absent' pepper 2 cannot be read"),
        ("{one: pepper}", "c.yaml:2:16: "),
        ("{1: pepper, 1: pepper}", "c.yaml:2:"),
    ] {
        let error =
            load(&format!("keys_file: k.yaml\npepper_files: {peppers}\n")).expect_err(peppers);
        assert!(error.starts_with(expected), "{error} instead of {expected}");
    }
    for (text, expected) in [
        ("", "c.yaml: one of 'pepper_files' and 'pepper_directory'"),
        ("pepper_files: {1: pepper}\npepper_directory: p\n", "c.yaml:3:19: one of"),
        ("pepper_directory: absent\n", "c.yaml:2:19: 'absent' there must be at least one pepper"),
    ] {
        let error = load(&format!("keys_file: k.yaml\n{text}")).expect_err(text);
        assert!(error.starts_with(expected), "{error} instead of {expected}");
    }
    assert!(load("pepper_files: {1: pepper}\n").expect_err("no file").contains("keys_file"));
}

#[test]
fn redis_in_place_of_a_file_or_beside_it() {
    let of = |redis: &str| load(&format!("pepper_files: {{1: pepper}}\nredis: {redis}\n"));
    let redis = of("{address: 'r:6379'}").expect("valid").keys.redis.expect("set");
    assert_eq!(redis.addresses, [("r".to_owned(), 6379)]);
    assert_eq!(redis.topology, Topology::Single);
    assert_eq!((redis.prefix.as_str(), redis.max_staleness), ("tidegate", MAX_STALENESS_DEFAULT));
    assert_eq!((redis.login, redis.tls), (Login::default(), None));
    let all = "{address: '[::1]:1', user: authz, password_file: p, prefix: edge, max_staleness: 5s, \
               tls: {ca_file: /ca, certificate_file: c, key_file: k}}\nkeys_file: k.yaml\n\
               priority_classes: [a, b]\nbypass_classes: [b]";
    let keys = of(all).expect("valid").keys;
    let redis = keys.redis.expect("set");
    assert_eq!((redis.shown().as_str(), redis.login.user.as_deref()), ("::1:1", Some("authz")));
    assert_eq!((redis.prefix.as_str(), redis.max_staleness.as_secs()), ("edge", 5));
    let tls = redis.tls.expect("set");
    assert!(tls.ca == Some("/ca".into()) && tls.client.is_some_and(|(c, _)| c.is_absolute()));
    assert!(keys.path.is_some() && *keys.bypass_classes == ["b".to_owned()]);
    let sent = of("{address: 'r:1', tls: {workload_api: 'unix:///agent.sock'}}").expect("valid");
    let sent = sent.keys.redis.and_then(|redis| redis.tls?.sent).expect("set");
    assert_eq!(sent.settings.workload_api.as_deref(), Some("unix:///agent.sock"));
    assert!(of("{address: 'r:1', tls: {}}").expect("valid").keys.redis.expect("set").tls.is_some());
    let several = |more: &str| of(&format!("{{address: 'a:1, b:2', {more}}}"));
    let sentinels = several("sentinel_primary: main").expect("valid").keys.redis.expect("set");
    let (primary, login) = ("main".to_owned(), Login::default());
    assert_eq!(sentinels.topology, Topology::Sentinel { primary, login });
    let own = "sentinel_primary: m, sentinel_user: s, sentinel_password_file: p, user: r";
    let redis = several(own).expect("valid").keys.redis.expect("set");
    let Topology::Sentinel { login, .. } = redis.topology else { panic!("of sentinels") };
    assert_eq!((login.user.as_deref(), redis.login.user.as_deref()), (Some("s"), Some("r")));
    assert!(login.password_file.is_some_and(|file| file.is_absolute()));
    assert_eq!(sentinels.addresses, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    let cluster = several("cluster: true").expect("valid").keys.redis.expect("set");
    assert_eq!(cluster.topology, Topology::Cluster);
    for more in ["cluster: false", "sentinel_primary: ''", "sentinel_primary: m, cluster: true"] {
        assert!(several(more).is_err(), "{more}");
    }
    let many = vec!["a:1"; REDIS_ADDRESSES_MAX + 1].join(",");
    assert!(of(&format!("{{address: '{many}', cluster: true}}")).is_err());
    for (redis, expected) in [
        ("{address: 'r:1', sentinel_user: s}", "c.yaml:2:40: the login of sentinels needs"),
        ("{address: 'r:1', sentinel_password_file: p}", "c.yaml:2:49: the login of sentinels"),
        ("{address: r}", "c.yaml:2:18: 'address' must be a host and a port"),
        ("{address: ':1'}", "c.yaml:2:18: 'address' must be a host and a port"),
        ("{address: 'r:1', prefix: 'a{b}'}", "c.yaml:2:33: prefix"),
        ("{address: 'r:1', max_staleness: 4s}", "c.yaml:2:40: 'max_staleness' must be from 5s"),
        ("{address: 'r:1', tls: {key_file: k}}", "c.yaml:2:41: 'key_file' needs"),
        ("{address: 'r:1', tls: {certificate_file: k}}", "c.yaml: 'certificate_file' needs"),
        (
            "{address: 'r:1', tls: {workload_api: a}}",
            "c.yaml:2:45: 'workload_api' must be a socket",
        ),
        (
            "{address: 'r:1', tls: {certificate_file: c, key_file: k, workload_api: 'unix:///a'}}",
            "c.yaml:2:79: 'workload_api' is in place of",
        ),
        ("{address: 'r:1'}\nbypass_classes: [vip]", "c.yaml:3:18: bypass class \"vip\" is none"),
    ] {
        let error = of(redis).expect_err(redis);
        assert!(error.starts_with(expected), "{error} instead of {expected}");
    }
}
