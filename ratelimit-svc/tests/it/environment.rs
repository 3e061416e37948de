//! Every environment variable of envoyproxy/ratelimit is in force, without effect for a reason
//! that is told, or refused with a sentence; `--help` and REFERENCE.md know them all.

use ratelimit_svc::config::variables::{Support, VARIABLES, help};
use ratelimit_svc::config::{Config, Environment};

/// `NAME=default`, as settings.go of the reference has them.
const OF_THE_REFERENCE: &str = "
HOST=0.0.0.0 PORT=8080 DEBUG_HOST=0.0.0.0 DEBUG_PORT=6070 GRPC_HOST=0.0.0.0 GRPC_PORT=8081 GRPC_UDS=
GRPC_MAX_CONNECTION_AGE=24h GRPC_MAX_CONNECTION_AGE_GRACE=1h GRPC_SERVER_USE_TLS=false
GRPC_SERVER_TLS_CERT= GRPC_SERVER_TLS_KEY= GRPC_CLIENT_TLS_CACERT= GRPC_CLIENT_TLS_SAN=
LOG_LEVEL=WARN LOG_FORMAT=text
CONFIG_TYPE=FILE FORCE_START_WITHOUT_INITIAL_CONFIG=false MERGE_DOMAIN_CONFIG=false
HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED=false
RUNTIME_ROOT=/srv/runtime_data/current RUNTIME_SUBDIRECTORY= RUNTIME_APPDIRECTORY=config
RUNTIME_IGNOREDOTFILES=false RUNTIME_WATCH_ROOT=true
CONFIG_GRPC_XDS_NODE_ID=default CONFIG_GRPC_XDS_NODE_METADATA=
CONFIG_GRPC_XDS_SERVER_URL=localhost:18000 CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL=3s
CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS= CONFIG_GRPC_XDS_SERVER_USE_TLS=false
CONFIG_GRPC_XDS_CLIENT_TLS_CERT= CONFIG_GRPC_XDS_CLIENT_TLS_KEY=
CONFIG_GRPC_XDS_SERVER_TLS_CACERT= CONFIG_GRPC_XDS_SERVER_TLS_SAN=
XDS_CLIENT_BACKOFF_INITIAL_INTERVAL=10s XDS_CLIENT_BACKOFF_MAX_INTERVAL=60s
XDS_CLIENT_BACKOFF_RANDOM_FACTOR=0.5 XDS_CLIENT_BACKOFF_JITTER=true
XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES=
USE_STATSD=true STATSD_HOST=localhost STATSD_PORT=8125 USE_DOG_STATSD=false
USE_DOG_STATSD_MOGRIFIERS= EXTRA_TAGS= STATS_FLUSH_INTERVAL=10s DISABLE_STATS=false
USE_PROMETHEUS=false PROMETHEUS_ADDR=:9090 PROMETHEUS_PATH=/metrics PROMETHEUS_MAPPER_YAML=
PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS=false
EXPIRATION_JITTER_MAX_SECONDS=300 LOCAL_CACHE_SIZE_IN_BYTES=0 NEAR_LIMIT_RATIO=0.8
CACHE_KEY_PREFIX= BACKEND_TYPE=redis STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT=false
LIMIT_RESPONSE_HEADERS_ENABLED=false LIMIT_LIMIT_HEADER=RateLimit-Limit
LIMIT_REMAINING_HEADER=RateLimit-Remaining LIMIT_RESET_HEADER=RateLimit-Reset
RESPONSE_DYNAMIC_METADATA=false SHADOW_MODE=false QUOTA_MODE=false
REDIS_SOCKET_TYPE=unix REDIS_TYPE=SINGLE REDIS_URL=/var/run/nutcracker/ratelimit.sock
REDIS_POOL_SIZE=10 REDIS_AUTH= REDIS_TLS=false REDIS_TLS_CLIENT_CERT= REDIS_TLS_CLIENT_KEY=
REDIS_TLS_CACERT= REDIS_TLS_SKIP_HOSTNAME_VERIFICATION=false REDIS_PIPELINE_WINDOW=0
REDIS_PIPELINE_LIMIT=0 REDIS_CLUSTER_PIPELINE_PARALLELISM=1 REDIS_SENTINEL_AUTH=
REDIS_HEALTH_CHECK_ACTIVE_CONNECTION=false REDIS_TIMEOUT=10s REDIS_POOL_ON_EMPTY_BEHAVIOR=WAIT
REDIS_STARTUP_INITIAL_INTERVAL=1s REDIS_STARTUP_MAX_INTERVAL=30s REDIS_STARTUP_MAX_ELAPSED_TIME=0
REDIS_PERSECOND=false REDIS_PERSECOND_SOCKET_TYPE=unix REDIS_PERSECOND_TYPE=SINGLE
REDIS_PERSECOND_URL=/var/run/nutcracker/ratelimitpersecond.sock REDIS_PERSECOND_POOL_SIZE=10
REDIS_PERSECOND_AUTH= REDIS_PERSECOND_TLS=false REDIS_PERSECOND_SENTINEL_AUTH=
REDIS_PERSECOND_PIPELINE_WINDOW=0 REDIS_PERSECOND_PIPELINE_LIMIT=0
REDIS_PERSECOND_CLUSTER_PIPELINE_PARALLELISM=1 REDIS_PERSECOND_TIMEOUT=10s
REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR=WAIT
MEMCACHE_HOST_PORT= MEMCACHE_MAX_IDLE_CONNS=2 MEMCACHE_SRV= MEMCACHE_SRV_REFRESH=0
MEMCACHE_TLS=false MEMCACHE_TLS_CLIENT_CERT= MEMCACHE_TLS_CLIENT_KEY= MEMCACHE_TLS_CACERT=
MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION=false
TRACING_ENABLED=false TRACING_SERVICE_NAME=RateLimit TRACING_SERVICE_NAMESPACE=
TRACING_SERVICE_INSTANCE_ID= TRACING_EXPORTER_PROTOCOL=http TRACING_SAMPLING_RATE=1
";

/// Defaults that differ on purpose; README and REFERENCE.md say so.
const OTHER_DEFAULTS: &[(&str, &str)] = &[("LOG_LEVEL", "info")];

fn of_the_reference() -> impl Iterator<Item = (&'static str, &'static str)> {
    OF_THE_REFERENCE.split_whitespace().filter_map(|pair| pair.split_once('='))
}

fn read(name: &str, value: &str) -> Result<Config, String> {
    let environment: Environment = [(name.to_owned(), value.to_owned())].into();
    Config::from_environment(&environment).map_err(|error| error.to_string())
}

#[test]
fn each_is_in_force_or_told_why_not() {
    let (help, reference) = (help(), include_str!("../../REFERENCE.md"));
    let mut count = 0;
    for (name, default) in of_the_reference() {
        count += 1;
        let variable = VARIABLES.iter().find(|variable| variable.name == name);
        let variable = variable.unwrap_or_else(|| panic!("{name} is not in the table"));
        assert!(!variable.about.is_empty(), "{name} says nothing");
        assert!(help.contains(&format!("  {name} ")), "--help does not list {name}");
        assert!(reference.contains(&format!("| `{name}` |")), "REFERENCE.md does not list {name}");
        let config = read(name, default);
        match variable.support {
            Support::Full => {
                let other = OTHER_DEFAULTS.iter().find(|(other, _)| *other == name);
                let expected = other.map_or(default, |(_, default)| default);
                assert_eq!(variable.default, expected, "{name}");
                config.unwrap_or_else(|error| panic!("{error}"));
            }
            Support::NoEffect => {
                let config = config.unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(config.without_effect, [name], "{name} is named at the start");
            }
            Support::Refused(_) => {
                let refused = read(name, "something").expect_err(name);
                assert_eq!(refused, format!("{name}='something': {}", variable.about));
                // The default of the reference is set by some deployments and asks for nothing.
                assert!(config.is_ok() || name == "LOG_FORMAT", "{name}={default}");
            }
        }
    }
    assert_eq!(count, 114);
}
