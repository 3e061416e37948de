//! Tests of `config`.

use stats::{Names, Page};

use chassis::telemetry::TraceSettings;

use super::*;
use crate::metrics::statsd::{Dialect, Protocol};
use crate::store::redis::connection::address::Login;
use crate::store::redis::connection::tls::TlsSettings;
use crate::store::redis::topology::link::{LinkSettings, Topology};

fn read(set: &[(&str, &str)]) -> Result<Config, String> {
    let set = set.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::from_environment(&set.collect()).map_err(|error| error.to_string())
}

fn directory(source: QuotaSource) -> (PathBuf, bool) {
    match source {
        QuotaSource::Files(reload::Source::Directory { path, ignore_dotfiles }) => {
            (path, ignore_dotfiles)
        }
        other => panic!("not a directory: {other:?}"),
    }
}

#[test]
fn the_defaults_of_the_reference() {
    let config = read(&[]).expect("valid");
    assert_eq!(config.http, ("0.0.0.0".to_owned(), 8080));
    assert_eq!(config.grpc, ("0.0.0.0".to_owned(), 8081));
    assert_eq!(config.debug, ("0.0.0.0".to_owned(), 6070));
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    assert_eq!(config.connection_age, ConnectionAge { max: hours(24), grace: hours(1) });
    let none = [("GRPC_MAX_CONNECTION_AGE", "0s"), ("GRPC_MAX_CONNECTION_AGE_GRACE", "0s")];
    assert_eq!(read(&none).expect("valid").connection_age, ConnectionAge::default());
    assert_eq!((config.grpc_uds, config.merge_domains), (None, false));
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.drain, DrainTimes::default());
    let (path, ignore_dotfiles) = directory(config.quotas);
    assert_eq!(path, PathBuf::from("/srv/runtime_data/current/config"));
    assert!(!ignore_dotfiles && config.without_effect.is_empty());
    let (link, per_second, settings) = redis(config.backend);
    assert_eq!(link.topology, Topology::Unix("/var/run/nutcracker/ratelimit.sock".into()));
    assert_eq!((link.tls, link.login, link.sentinel_login), Default::default());
    assert_eq!((per_second, settings.expiration_jitter_max_seconds), (None, 300));
    assert_eq!(settings.call_budget, Duration::from_millis(5));
}

#[test]
fn where_quota_files_lie() {
    let config = read(&[
        ("RUNTIME_ROOT", "/data"),
        ("RUNTIME_SUBDIRECTORY", "/ratelimit"),
        ("RUNTIME_APPDIRECTORY", "limits"),
        ("RUNTIME_IGNOREDOTFILES", "true"),
    ]);
    let (path, ignore_dotfiles) = directory(config.expect("valid").quotas);
    assert_eq!((path, ignore_dotfiles), (PathBuf::from("/data/ratelimit/limits"), true));
}

fn redis(backend: StoreSettings) -> (LinkSettings, Option<LinkSettings>, RedisSettings) {
    match backend {
        StoreSettings::Redis { link, per_second, settings } => (link, per_second, settings),
        StoreSettings::Memory => panic!("not Redis"),
    }
}

fn link(set: &[(&str, &str)]) -> Result<LinkSettings, String> {
    read(set).map(|config| redis(config.backend).0)
}

#[test]
fn where_redis_is() {
    let check = |url: &str, expected: Result<(&str, u16), &str>| {
        let set = [("REDIS_SOCKET_TYPE", "tcp"), ("REDIS_URL", url)];
        let expected = expected.map(|(host, port)| Topology::Tcp((host.to_owned(), port)));
        let got = link(&set).map(|link| link.topology);
        assert_eq!(got, expected.map_err(str::to_owned));
    };
    check("redis:6379", Ok(("redis", 6379)));
    check("redis://10.0.0.1:6380/", Ok(("10.0.0.1", 6380)));
    check("rediss://redis:6379", Ok(("redis", 6379)));
    check("[::1]:6379", Ok(("::1", 6379)));
    let problem = "REDIS_URL='redis': must be HOST:PORT when REDIS_SOCKET_TYPE is tcp";
    check("redis", Err(problem));
    check("u:secret@h:1", Err("REDIS_URL must be HOST:PORT; put credentials into REDIS_AUTH"));
}

#[test]
fn which_servers_hold_counters() {
    let topology =
        |kind, url| link(&[("REDIS_TYPE", kind), ("REDIS_URL", url)]).map(|link| link.topology);
    let at = |host: &str, port| (host.to_owned(), port);
    let sentinels = vec![at("a", 26379), at("b", 26380)];
    let sentinel = Topology::Sentinel { master: "mymaster".to_owned(), sentinels };
    assert_eq!(topology("sentinel", "mymaster,a:26379, b:26380"), Ok(sentinel));
    let nodes = Topology::Cluster(vec![at("a", 1), at("b", 2)]);
    assert_eq!(topology("CLUSTER", "a:1,b:2"), Ok(nodes));
    let what = "must be MASTER,HOST:PORT,HOST:PORT with the addresses of sentinels";
    for url in ["mymaster", "a:1,b:2", ",a:1", "mymaster,a", "mymaster,a:1,"] {
        assert_eq!(topology("SENTINEL", url), Err(format!("REDIS_URL='{url}': {what}")));
    }
    let problem = "REDIS_URL='a:1,,b:2': must be HOST:PORT,HOST:PORT".to_owned();
    assert_eq!(topology("CLUSTER", "a:1,,b:2"), Err(problem));
}

#[test]
fn who_we_are_to_redis() {
    let auth = |set: &str| link(&[("REDIS_AUTH", set)]).expect("valid").login;
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(auth("secret"), Login { user: None, password: some("secret") });
    assert_eq!(auth("user:se:cret"), Login { user: some("user"), password: some("se:cret") });
    let sentinel = link(&[("REDIS_SENTINEL_AUTH", "secret")]).expect("valid").sentinel_login;
    assert_eq!(sentinel, Login { user: None, password: some("secret") });
    let secrets = [
        ("REDIS_AUTH", "secret"),
        ("REDIS_SENTINEL_AUTH", "secret"),
        ("REDIS_PERSECOND", "1"),
        ("REDIS_PERSECOND_AUTH", "u:secret"),
    ];
    let shown = format!("{:?}", read(&secrets).expect("valid"));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn connections_to_redis_are_encrypted() {
    let tcp = [("REDIS_SOCKET_TYPE", "tcp"), ("REDIS_URL", "a:1")];
    let tls = |more: &[(&str, &str)]| link(&[&tcp, more].concat()).map(|link| link.tls);
    assert_eq!(tls(&[]), Ok(None));
    assert_eq!(tls(&[("REDIS_TLS", "true")]), Ok(Some(TlsSettings::default())));
    let all = [
        ("REDIS_TLS", "true"),
        ("REDIS_TLS_CACERT", "/ca"),
        ("REDIS_TLS_CLIENT_CERT", "/cert"),
        ("REDIS_TLS_CLIENT_KEY", "/key"),
        ("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", "true"),
    ];
    let expected = TlsSettings {
        ca: Some("/ca".into()),
        client: Some(("/cert".into(), "/key".into())),
        skip_hostname_verification: true,
        workload_api: None,
    };
    assert_eq!(tls(&all), Ok(Some(expected)));
    let socket = ("REDIS_TLS_WORKLOAD_API", "unix:///agent.sock");
    let found = tls(&[("REDIS_TLS", "true"), socket]).expect("valid").expect("set");
    assert_eq!(found.workload_api.as_deref(), Some("unix:///agent.sock"));
    let both = [("REDIS_TLS_CLIENT_CERT", "/c"), ("REDIS_TLS_CLIENT_KEY", "/k"), socket];
    let both = tls(&[&[("REDIS_TLS", "true")], &both[..]].concat()).expect_err("two identities");
    assert!(both.contains("REDIS_TLS_WORKLOAD_API") && both.contains("in place of"), "{both}");
    let problem = "REDIS_TLS_CLIENT_CERT and REDIS_TLS_CLIENT_KEY go together".to_owned();
    assert_eq!(tls(&[("REDIS_TLS", "true"), ("REDIS_TLS_CLIENT_KEY", "/key")]), Err(problem));
    let problem = "REDIS_TLS='true': a unix socket has no TLS".to_owned();
    assert_eq!(link(&[("REDIS_TLS", "true")]), Err(problem));
}

#[test]
fn windows_of_a_second_have_a_redis_of_their_own() {
    let set = [
        ("REDIS_PERSECOND", "true"),
        ("REDIS_PERSECOND_SOCKET_TYPE", "tcp"),
        ("REDIS_PERSECOND_URL", "b:2"),
        ("REDIS_PERSECOND_AUTH", "pw"),
        ("REDIS_PERSECOND_TLS", "true"),
        ("REDIS_TLS_CACERT", "/ca"),
    ];
    let (main, per_second, _) = redis(read(&set).expect("valid").backend);
    assert_eq!(main.topology, Topology::Unix("/var/run/nutcracker/ratelimit.sock".into()));
    assert_eq!(main.tls, None);
    let per_second = per_second.expect("asked for");
    assert_eq!(per_second.topology, Topology::Tcp(("b".to_owned(), 2)));
    assert_eq!(per_second.tls.expect("encrypted").ca, Some("/ca".into()));
    assert_eq!(per_second.login.password.as_deref(), Some("pw"));
    let problem = "REDIS_PERSECOND_TYPE='x': must be SINGLE, SENTINEL or CLUSTER";
    let set = [("REDIS_PERSECOND", "true"), ("REDIS_PERSECOND_TYPE", "x")];
    assert_eq!(read(&set).map(|_| ()), Err(problem.to_owned()));
}

#[test]
fn a_bad_value_is_named() {
    for (name, value, problem) in [
        ("PORT", "http", "must be a whole number, not below 0"),
        ("GRPC_PORT", "65536", "is too large"),
        ("SHADOW_MODE", "yes", "must be true or false"),
        ("NEAR_LIMIT_RATIO", "much", "must be a number"),
        ("NEAR_LIMIT_RATIO", "1.5", "must be from 0 to 1"),
        ("NEAR_LIMIT_RATIO", "NaN", "must be from 0 to 1"),
        ("LIMIT_LIMIT_HEADER", "a b", "is not the name of a header"),
        ("BACKEND_TYPE", "disk", "must be redis or memory"),
        ("BACKEND_TYPE", "memcache", "memcache is not supported, use redis"),
        ("REDIS_TYPE", "cloud", "must be SINGLE, SENTINEL or CLUSTER"),
        ("REDIS_KEY_FORMAT", "short", "must be tidegate or reference"),
        ("REDIS_SOCKET_TYPE", "udp", "must be tcp or unix"),
        ("REDIS_CALL_BUDGET", "5", "'5' is not a duration such as 250ms, 30s, 5m or 1h"),
        ("REDIS_CALL_BUDGET", "0s", "must be above 0 and at most 1s"),
        ("LOCAL_SHARE_REPLICAS", "0", "must be at least 1"),
        ("LEASE_FREE_RATIO", "0.6", "must be from 0 to 0.5"),
        ("LEASE_FREE_RATIO", "0.1", "needs LEASE_FREE_REPLICAS, the most replicas there are"),
        ("LEASE_COUNTERS_MAX", "10", "must be from 1024 to 16777216"),
        ("LEASE_LIMIT_MIN", "-1", "must be a whole number, not below 0"),
        ("GRPC_MAX_CONNECTION_AGE", "1", "'1' is not a duration such as 250ms, 30s, 5m or 1h"),
        ("PROMETHEUS_NAMES", "ours", "must be tidegate, reference or both"),
        ("PROMETHEUS_ADDR", "9090", "must be HOST:PORT or :PORT"),
        ("PROMETHEUS_ADDR", "http://a:90", "must be HOST:PORT or :PORT"),
        ("PROMETHEUS_PATH", "metrics", "must be a path that begins with /"),
        ("PROMETHEUS_PATH", "/{a", "must be a path that begins with /"),
        ("STATS_FLUSH_INTERVAL", "0s", "must be above 0 and at most 1h"),
        ("EXTRA_TAGS", "a:b|c", "must not hold '|', '#' or line breaks"),
        ("DRAIN_DELAY", "soon", "'soon' is not a duration such as 250ms, 30s, 5m or 1h"),
        ("LOG_LEVEL", "h2=loud", "'loud' is not a log level"),
    ] {
        let error = read(&[(name, value)]).expect_err(name);
        assert_eq!(error, format!("{name}='{value}': {problem}"));
    }
}

#[test]
fn what_we_do_not_have_is_refused_or_named() {
    for variable in VARIABLES {
        let set = read(&[(variable.name, "true")]);
        match variable.support {
            Support::Full => {}
            Support::NoEffect => {
                assert_eq!(set.expect(variable.name).without_effect, [variable.name]);
            }
            Support::Refused(harmless) => {
                let error = set.expect_err(variable.name);
                assert_eq!(error, format!("{}='true': {}", variable.name, variable.about));
                for value in harmless.iter().chain(&[""]) {
                    read(&[(variable.name, value)]).expect(variable.name);
                }
            }
        }
    }
    for (name, value) in [
        ("REDIS_PERSECOND", "FALSE"),
        ("REDIS_KEY_FORMAT", "reference"),
        ("LOG_FORMAT", "json"),
        ("CONFIG_TYPE", "FILE"),
    ] {
        read(&[(name, value)]).expect(name);
    }
}

#[test]
fn log_levels_of_the_reference_are_understood() {
    let level = |set| read(&[("LOG_LEVEL", set)]).expect(set).telemetry.log_level;
    assert_eq!(level("WARN"), "warn");
    assert_eq!(level("warning,h2=FATAL"), "warn,h2=error");
}

#[test]
fn a_control_plane_is_read() {
    let xds = |more: &[(&str, &str)]| {
        let mut set = vec![("CONFIG_TYPE", "grpc_xds_sotw")];
        set.extend(more);
        read(&set).map(|config| match config.quotas {
            QuotaSource::Xds(settings) => *settings,
            QuotaSource::Files(_) => panic!("files"),
        })
    };
    let defaults = xds(&[]).expect("valid");
    assert_eq!(
        (defaults.server.as_str(), defaults.node_id.as_str()),
        ("localhost:18000", "default")
    );
    assert_eq!(defaults.connect_retry, Duration::from_secs(3));
    assert_eq!(defaults.message_bytes_max, 4 << 20);
    assert!(defaults.node_metadata.is_empty() && defaults.headers.is_empty());
    let set = xds(&[
        ("CONFIG_GRPC_XDS_NODE_METADATA", "zone:a, team=edge"),
        ("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", "Authorization:Bearer s3cret,x-a:b:c"),
        ("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", "100"),
    ]);
    let set = set.expect("valid");
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(set.node_metadata, [pair("zone", "a"), pair("team", "edge")]);
    assert_eq!(set.headers.get("authorization").expect("there"), "Bearer s3cret");
    assert_eq!(set.headers.get("x-a").expect("there"), "b:c");
    assert_eq!(set.message_bytes_max, 100);
    assert!(!format!("{set:?}").contains("s3cret"));
    for (name, value, problem) in [
        ("CONFIG_GRPC_XDS_SERVER_URL", "https://a:1", "must be HOST:PORT"),
        ("CONFIG_GRPC_XDS_SERVER_URL", "a", "must be HOST:PORT"),
        ("XDS_CLIENT_BACKOFF_RANDOM_FACTOR", "2", "must be from 0 to 1"),
        ("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "0s", "must be above 0 and at most 1h"),
        ("CONFIG_TYPE", "consul", "must be FILE or GRPC_XDS_SOTW"),
    ] {
        assert_eq!(xds(&[(name, value)]).err(), Some(format!("{name}='{value}': {problem}")));
    }
    let name = "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS";
    let error = xds(&[(name, "s3cret")]).expect_err("no pair");
    assert_eq!(error, format!("{name} must be of the form key:value,key:value"));
}

#[test]
fn where_metrics_go() {
    let stats = |set: &[(&str, &str)]| read(set).map(|config| config.stats);
    let plain = stats(&[]).expect("valid");
    assert_eq!((plain.names, &plain.page, plain.milliseconds), (Names::Tidegate, &None, false));
    let statsd = plain.statsd.expect("on, as in the reference");
    assert_eq!((statsd.host.as_str(), statsd.port), ("localhost", 8125));
    assert_eq!((statsd.dialect, statsd.interval), (Dialect::Statsd, Duration::from_secs(10)));
    let protocol = |set| stats(set).map(|stats| stats.statsd.expect("on").protocol);
    assert_eq!(protocol(&[]), Ok(Protocol::Tcp), "as in the reference");
    assert_eq!(protocol(&[("STATSD_PROTOCOL", "udp")]), Ok(Protocol::Udp));
    let problem = "STATSD_PROTOCOL='sctp': must be tcp or udp";
    assert_eq!(protocol(&[("STATSD_PROTOCOL", "sctp")]), Err(problem.to_owned()));
    let on = [("USE_PROMETHEUS", "true"), ("USE_STATSD", "false")];
    let both = stats(&on).expect("valid");
    let page = Page { address: ("0.0.0.0".to_owned(), 9090), path: "/metrics".to_owned() };
    assert_eq!((both.names, both.page, both.statsd), (Names::Both, Some(page), None));
    let named = stats(&[on[0], ("PROMETHEUS_NAMES", "reference")]).expect("valid");
    assert_eq!(named.names, Names::Reference);
    let off = stats(&[on[0], ("DISABLE_STATS", "true")]).expect("valid");
    assert!(off.page.is_none() && off.statsd.is_none());
    let dog = [("USE_DOG_STATSD", "true")];
    let statsd = stats(&dog).expect("valid").statsd.expect("on");
    assert_eq!((statsd.dialect, statsd.protocol), (Dialect::DogStatsd(vec![]), Protocol::Udp));
    let problem = "STATSD_PROTOCOL='tcp': must be udp for dogstatsd";
    assert_eq!(stats(&[dog[0], ("STATSD_PROTOCOL", "tcp")]), Err(problem.to_owned()));
    let problem = "USE_DOG_STATSD='true': excludes USE_STATSD=true";
    assert_eq!(stats(&[dog[0], ("USE_STATSD", "true")]), Err(problem.to_owned()));
}

#[test]
fn mogrifiers_are_read() {
    let names = ("USE_DOG_STATSD_MOGRIFIERS", "A, B");
    let a = [("DOG_STATSD_MOGRIFIER_A_PATTERN", "^a(.*)"), ("DOG_STATSD_MOGRIFIER_A_NAME", "$1")];
    let b = [("DOG_STATSD_MOGRIFIER_B_PATTERN", "("), ("DOG_STATSD_MOGRIFIER_B_NAME", "b")];
    let error = |set: &[(&str, &str)]| read(set).expect_err("refused");
    assert_eq!(error(&[names]), "DOG_STATSD_MOGRIFIER_A_PATTERN is not set");
    assert_eq!(error(&[names, a[0]]), "DOG_STATSD_MOGRIFIER_A_NAME is not set");
    let problem = "DOG_STATSD_MOGRIFIER_B_PATTERN='(': is not a regular expression";
    assert_eq!(error(&[names, a[0], a[1], b[0], b[1]]), problem);
    let tags = ("DOG_STATSD_MOGRIFIER_A_TAGS", "x");
    let problem = "DOG_STATSD_MOGRIFIER_A_TAGS must be of the form key:value,key:value";
    assert_eq!(error(&[names, a[0], a[1], tags]), problem);
    let good = ("DOG_STATSD_MOGRIFIER_A_TAGS", "x:$1,y:z");
    let one = ("USE_DOG_STATSD_MOGRIFIERS", "A");
    let set = read(&[one, a[0], a[1], good, ("USE_DOG_STATSD", "true"), ("USE_STATSD", "")]);
    let dialect = set.expect("valid").stats.statsd.expect("on").dialect;
    let Dialect::DogStatsd(mogrifiers) = dialect else { panic!("not dogstatsd") };
    let tags = |pairs: [(&str, &str); 2]| pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let expected = ("bc".to_owned(), tags([("x", "bc"), ("y", "z")]));
    assert_eq!(mogrifiers[0].apply("abc"), Some(expected));
}

#[test]
fn threads_and_tls_of_grpc() {
    let config = read(&[]).expect("valid");
    assert_eq!((config.grpc_workers, config.grpc_tls), (chassis::grpc::workers_default(), None));
    assert!(!config.grpc_reflection);
    let set = [
        ("GRPC_SERVER_USE_TLS", "true"),
        ("GRPC_SERVER_TLS_CERT", "/c"),
        ("GRPC_SERVER_TLS_KEY", "/k"),
        ("GRPC_CLIENT_TLS_CACERT", "/a"),
        ("GRPC_CLIENT_TLS_SAN", "envoy.mesh"),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        let all: Vec<_> = set.iter().chain(more).copied().collect();
        read(&all)
    };
    let config = with(&[("GRPC_WORKER_THREADS", "3"), ("GRPC_REFLECTION", "true")]);
    let config = config.expect("valid");
    assert!(config.grpc_workers.get() == 3 && config.grpc_reflection);
    let tls = config.grpc_tls.expect("set");
    assert_eq!((tls.certificate, tls.key), ("/c".into(), "/k".into()));
    assert_eq!(tls.client_authorities, Some("/a".into()));
    let names: Vec<String> = tls.client_subjects.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["envoy.mesh"]);
    let list = [
        ("GRPC_CLIENT_TLS_SAN", "envoy.mesh, spiffe://mesh/envoy"),
        ("GRPC_CLIENT_TLS_SAN_FILE", "/names"),
    ];
    let tls = with(&list).expect("valid").grpc_tls.expect("set");
    assert_eq!(tls.client_subjects.len(), 2);
    assert_eq!(tls.client_subjects_file, Some("/names".into()));

    let socket = "unix:///run/spire/agent.sock";
    let spiffe = |more: &[(&'static str, &'static str)]| {
        let set = [("GRPC_SERVER_USE_TLS", "true"), ("GRPC_SERVER_TLS_WORKLOAD_API", socket)];
        let all: Vec<_> = set.iter().chain(more).copied().collect();
        read(&all)
    };
    let tls = spiffe(&[("GRPC_CLIENT_TLS_SAN", "spiffe://mesh/envoy")]).expect("valid").grpc_tls;
    assert_eq!(tls.and_then(|tls| tls.workload_api).as_deref(), Some(socket));
    let error = spiffe(&[]).expect_err("everybody in the trust domain");
    assert!(error.contains("needs GRPC_CLIENT_TLS_SAN"), "{error}");

    for (name, value, problem) in [
        ("GRPC_SERVER_TLS_WORKLOAD_API", "tcp://a:1", "must be a socket as unix:///run"),
        ("GRPC_WORKER_THREADS", "0", "must be at least 1"),
        ("GRPC_WORKER_THREADS", "257", "must be from 1 to 256"),
        ("GRPC_SERVER_TLS_CERT", "", "is needed when GRPC_SERVER_USE_TLS is true"),
        ("GRPC_SERVER_TLS_KEY", "", "is needed when GRPC_SERVER_USE_TLS is true"),
        ("GRPC_CLIENT_TLS_CACERT", "", "needs GRPC_CLIENT_TLS_CACERT"),
        ("GRPC_CLIENT_TLS_SAN", "a..b", "is neither a DNS name, an address nor a URI"),
    ] {
        let error = with(&[(name, value)]).expect_err(name);
        assert!(error.contains(problem), "{error}");
    }
    for (set, problem) in [
        (
            [("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "/c"), ("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "a")],
            "CONFIG_GRPC_XDS_CLIENT_TLS_KEY need each other",
        ),
        (
            [
                ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "/a"),
                ("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "a b"),
            ],
            "is neither a DNS name, an address nor a URI",
        ),
    ] {
        let on = [("CONFIG_TYPE", "GRPC_XDS_SOTW"), ("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true")];
        let all: Vec<_> = on.into_iter().chain(set).collect();
        let error = read(&all).expect_err(problem);
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn what_is_recorded_and_how() {
    let set = |set: &[(&str, &str)]| read(set).map(|config| config.record);
    assert_eq!(set(&[]).expect("valid"), None);
    assert_eq!(set(&[("RECORD_BYTES_MAX", "5GiB")]).expect("valid"), None);
    let record = set(&[("RECORD_DIR", "/r"), ("RECORD_BYTES_MAX", "2MiB")]).expect("valid");
    let record = record.expect("on");
    assert_eq!((record.bytes_max, record.shapes_max), (2 << 20, 65_536));
    let salt = "0123456789abcdef";
    let hashed = [("RECORD_DIR", "/r"), ("RECORD_HASH_KEYS", "a, b"), ("RECORD_HASH_SALT", salt)];
    let record = set(&hashed).expect("valid").expect("on");
    assert_eq!(record.hashed.keys().iter().collect::<Vec<_>>(), ["a", "b"]);
    for bad in
        [("RECORD_BYTES_MAX", "1KiB"), ("RECORD_SHAPES_MAX", "3"), ("RECORD_HASH_KEYS", "tenant")]
    {
        let error = set(&[bad]).expect_err("refused");
        assert!(error.contains(bad.0), "{error}");
    }
}

#[test]
fn spans_are_made_as_the_reference_makes_them() {
    let traced = |set: &[(&str, &str)]| read(set).map(|config| config.telemetry);
    let of = |set| traced(set).expect("valid");
    assert_eq!(of(&[]).otlp_endpoint, None);
    let only_named = of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]);
    assert_eq!(only_named.otlp_endpoint.as_deref(), Some("http://c:4317"));
    assert_eq!(only_named.traces, TraceSettings::default(), "the caller alone decides");
    let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("TRACING_ENABLED", "false")];
    assert_eq!(of(&off).otlp_endpoint, None, "switched off");
    let on = of(&[("TRACING_ENABLED", "true")]);
    assert_eq!(on.otlp_endpoint.as_deref(), Some("http://localhost:4317"));
    assert_eq!(on.traces.service_name.as_deref(), Some("RateLimit"));
    assert_eq!(on.traces.root_sampling_ppm, 1_000_000);
    let gateway = of(&[
        ("TRACING_ENABLED", "true"),
        ("TRACING_SERVICE_NAME", "envoy-ratelimit"),
        ("TRACING_SERVICE_NAMESPACE", "envoy-gateway-system"),
        ("TRACING_SERVICE_INSTANCE_ID", "pod-1"),
        ("TRACING_SAMPLING_RATE", "0.6"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4317"),
    ]);
    let attribute = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = TraceSettings {
        service_name: Some("envoy-ratelimit".to_owned()),
        attributes: vec![
            attribute("service.namespace", "envoy-gateway-system"),
            attribute("service.instance.id", "pod-1"),
        ],
        root_sampling_ppm: 600_000,
    };
    assert_eq!(
        (gateway.otlp_endpoint.as_deref(), gateway.traces),
        (Some("http://t:4317"), expected)
    );
    let sealed = of(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4317"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/tls/ca.crt"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/tls/tls.crt"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/tls/tls.key"),
    ]);
    let files = sealed.otlp_tls.expect("files");
    assert_eq!(files.authorities, Some("/tls/ca.crt".into()));
    assert_eq!(files.identity, Some(("/tls/tls.crt".into(), "/tls/tls.key".into())));
    assert!(traced(&[("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/tls/tls.key")]).is_err(), "half of it");
    for rate in ["1.5", "-1", "half"] {
        assert!(traced(&[("TRACING_SAMPLING_RATE", rate)]).is_err(), "{rate}");
    }
}
