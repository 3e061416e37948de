//! Every environment variable: ours and all of the reference.

/// What a variable does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// What it says.
    Full,
    /// Accepted: it tunes something that does not exist here, and answers stay the same.
    NoEffect,
    /// Refused, except for values (in lower case) that ask for nothing.
    Refused(&'static [&'static str]),
}

/// An environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value when it is unset or empty.
    pub default: &'static str,
    /// What it does here.
    pub support: Support,
    /// One phrase for `--help`, or why it is refused.
    pub about: &'static str,
}

const fn full(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable { name, default, support: Support::Full, about }
}

const fn no_effect(name: &'static str, about: &'static str) -> Variable {
    Variable { name, default: "", support: Support::NoEffect, about }
}

const fn refused(
    name: &'static str,
    harmless: &'static [&'static str],
    about: &'static str,
) -> Variable {
    Variable { name, default: "", support: Support::Refused(harmless), about }
}

const OFF: &[&str] = &["false", "f", "0"];
const ZERO: &[&str] = &["0", "0s"];
const MEMCACHE: &str = "memcache is not supported, use redis";
const TRACING: &str = "spans go over gRPC: name the gRPC port of the collector";
const POOL: &str = "each thread has one multiplexed connection and there is no pool";
const PIPELINE: &str = "concurrent calls share a pipeline without a window";
const STARTUP: &str = "the service serves while it connects";
const CONNECT: &str = "a connection attempt takes 500ms at most, a call REDIS_CALL_BUDGET";

/// All variables.
pub const VARIABLES: &[Variable] = &[
    full("HOST", "0.0.0.0", "address of POST /json and GET /healthcheck"),
    full("PORT", "8080", "port of POST /json and GET /healthcheck"),
    full("GRPC_HOST", "0.0.0.0", "address of gRPC requests and health"),
    full("GRPC_PORT", "8081", "port of gRPC requests and health"),
    full("GRPC_UDS", "", "path of a unix socket for gRPC, in place of GRPC_HOST and GRPC_PORT"),
    full(
        "GRPC_MAX_CONNECTION_AGE",
        "24h",
        "age at which a gRPC connection gets GOAWAY, 0s for none",
    ),
    full(
        "GRPC_MAX_CONNECTION_AGE_GRACE",
        "1h",
        "from GOAWAY to the cutting of the connection, 0s for none",
    ),
    full("GRPC_WORKER_THREADS", "", "threads for gRPC connections; empty: one for each core"),
    full("GRPC_REFLECTION", "false", "serve gRPC server reflection"),
    full("GRPC_SERVER_USE_TLS", "false", "serve gRPC over TLS"),
    full("GRPC_SERVER_TLS_CERT", "", "PEM file of the server's certificate"),
    full("GRPC_SERVER_TLS_KEY", "", "PEM file of its private key"),
    full(
        "GRPC_SERVER_TLS_WORKLOAD_API",
        "",
        "unix socket of a SPIFFE Workload API, in place of the three files",
    ),
    full(
        "GRPC_SERVER_TLS_CA_CERT",
        "",
        "another name of GRPC_CLIENT_TLS_CACERT, which comes first",
    ),
    full("GRPC_CLIENT_TLS_CACERT", "", "PEM file of authorities; clients need their certificate"),
    full("GRPC_CLIENT_TLS_SAN", "", "names of which the certificate of a client must carry one"),
    full("GRPC_CLIENT_TLS_SAN_FILE", "", "file with more such names, one a line"),
    full("DEBUG_HOST", "0.0.0.0", "address of the admin pages"),
    full("DEBUG_PORT", "6070", "port of the admin pages"),
    full("LOG_LEVEL", "info", "trace, debug, info, warn, error; also per module"),
    full("OTEL_EXPORTER_OTLP_ENDPOINT", "", "gRPC endpoint for spans; empty: no spans"),
    full("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "the same, and comes first"),
    full("OTEL_EXPORTER_OTLP_CERTIFICATE", "", "PEM file of the authorities of an https endpoint"),
    full("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "", "PEM file of the client's certificate there"),
    full("OTEL_EXPORTER_OTLP_CLIENT_KEY", "", "PEM file of its private key"),
    full("OTEL_EXPORTER_OTLP_WORKLOAD_API", "", "socket of a SPIFFE Workload API in place of them"),
    full("TRACING_ENABLED", "false", "make spans, also of requests that bring no trace"),
    full("TRACING_SERVICE_NAME", "RateLimit", "service.name of spans, with TRACING_ENABLED"),
    full("TRACING_SERVICE_NAMESPACE", "", "service.namespace of spans"),
    full("TRACING_SERVICE_INSTANCE_ID", "", "service.instance.id of spans"),
    full("TRACING_SAMPLING_RATE", "1", "share of requests without a trace that are sampled"),
    full("RUNTIME_ROOT", "/srv/runtime_data/current", "directory of quota files, first part"),
    full("RUNTIME_SUBDIRECTORY", "", "directory of quota files, second part"),
    full("RUNTIME_APPDIRECTORY", "config", "directory of quota files, last part"),
    full("RUNTIME_IGNOREDOTFILES", "false", "skip files whose name begins with a dot"),
    full("RUNTIME_WATCH_ROOT", "true", "accepted: every way of changing files is noticed"),
    full("MERGE_DOMAIN_CONFIG", "false", "let several files define one domain"),
    full("CONFIG_TYPE", "FILE", "FILE, or GRPC_XDS_SOTW for quotas from a control plane"),
    full("CONFIG_GRPC_XDS_SERVER_URL", "localhost:18000", "HOST:PORT of the control plane"),
    full("CONFIG_GRPC_XDS_NODE_ID", "default", "node id told to the control plane"),
    full("CONFIG_GRPC_XDS_NODE_METADATA", "", "node metadata, as key:value,key:value"),
    full("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", "", "headers, as key:value,key:value"),
    full(
        "CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL",
        "3s",
        "pause after a connection that failed",
    ),
    full("CONFIG_GRPC_XDS_SERVER_USE_TLS", "false", "ask the control plane over TLS"),
    full(
        "CONFIG_GRPC_XDS_SERVER_TLS_CACERT",
        "",
        "PEM file of its authorities; empty: those of the system",
    ),
    full("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "", "name in its certificate, where not the host's"),
    full("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "", "PEM file of our certificate for it"),
    full("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", "", "PEM file of our private key"),
    full("CONFIG_GRPC_XDS_CLIENT_TLS_WORKLOAD_API", "", "socket of a SPIFFE Workload API for it"),
    full("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "10s", "first pause after a stream that ended"),
    full("XDS_CLIENT_BACKOFF_MAX_INTERVAL", "60s", "longest pause after a stream that ended"),
    full("XDS_CLIENT_BACKOFF_RANDOM_FACTOR", "0.5", "share by which a pause varies either way"),
    full("XDS_CLIENT_BACKOFF_JITTER", "true", "vary the pauses"),
    full("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", "", "largest response; empty: 4194304"),
    full("BACKEND_TYPE", "redis", "redis or memory"),
    full("REDIS_SOCKET_TYPE", "unix", "tcp or unix"),
    full("REDIS_TYPE", "SINGLE", "SINGLE, SENTINEL or CLUSTER"),
    full(
        "REDIS_URL",
        "/var/run/nutcracker/ratelimit.sock",
        "HOST:PORT or the path of a socket; MASTER,HOST:PORT,... of sentinels; HOST:PORT,... of a cluster",
    ),
    full("REDIS_AUTH", "", "PASSWORD or USER:PASSWORD"),
    full("REDIS_SENTINEL_AUTH", "", "PASSWORD or USER:PASSWORD of the sentinels"),
    full("REDIS_TLS", "false", "encrypt connections to Redis and to sentinels"),
    full("REDIS_TLS_CACERT", "", "PEM file of who signs for Redis; empty: the system's roots"),
    full("REDIS_TLS_CLIENT_CERT", "", "PEM file of our certificate and its chain"),
    full("REDIS_TLS_CLIENT_KEY", "", "PEM file of the key of our certificate"),
    full("REDIS_TLS_WORKLOAD_API", "", "socket of a SPIFFE Workload API in place of the two"),
    full(
        "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION",
        "false",
        "take a valid certificate for another name",
    ),
    full("REDIS_PERSECOND", "false", "count windows of a second in a Redis of their own"),
    full("REDIS_PERSECOND_SOCKET_TYPE", "unix", "as REDIS_SOCKET_TYPE"),
    full("REDIS_PERSECOND_TYPE", "SINGLE", "as REDIS_TYPE"),
    full("REDIS_PERSECOND_URL", "/var/run/nutcracker/ratelimitpersecond.sock", "as REDIS_URL"),
    full("REDIS_PERSECOND_AUTH", "", "as REDIS_AUTH"),
    full("REDIS_PERSECOND_SENTINEL_AUTH", "", "as REDIS_SENTINEL_AUTH"),
    full("REDIS_PERSECOND_TLS", "false", "as REDIS_TLS, with the same files"),
    full(
        "REDIS_KEY_FORMAT",
        "tidegate",
        "tidegate, or reference for counters shared with envoyproxy/ratelimit",
    ),
    full("REDIS_CALL_BUDGET", "5ms", "longest wait for Redis before the outage policy answers"),
    full("CACHE_KEY_PREFIX", "", "put in front of every key in Redis"),
    full("EXPIRATION_JITTER_MAX_SECONDS", "300", "keys live up to this much beyond their window"),
    full("LOCAL_CACHE_SIZE_IN_BYTES", "0", "memory for counters known to be over, 0 for none"),
    full("NEAR_LIMIT_RATIO", "0.8", "share of a limit from which hits count as near_limit"),
    full(
        "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
        "false",
        "a refused request consumes nothing; one atomic step",
    ),
    full("SHADOW_MODE", "false", "refuse nothing, report what would have been"),
    full("QUOTA_MODE", "false", "treat every limit as quota_mode: true"),
    full("LIMIT_RESPONSE_HEADERS_ENABLED", "false", "add the three headers to answers"),
    full("LIMIT_LIMIT_HEADER", "RateLimit-Limit", "header for the limit"),
    full("LIMIT_REMAINING_HEADER", "RateLimit-Remaining", "header for what is left"),
    full("LIMIT_RESET_HEADER", "RateLimit-Reset", "header for the seconds until the window ends"),
    full("RESPONSE_DYNAMIC_METADATA", "false", "describe every decision in dynamic metadata"),
    full(
        "RESPONSE_RETRY_INFO",
        "false",
        "say in a google.rpc.Status when a refused client may return",
    ),
    full(
        "LOCAL_SHARE_REPLICAS",
        "",
        "replicas that share a limit in an outage; empty: those alive",
    ),
    full("LOCAL_SHARE_REPLICAS_MIN", "1", "no fewer than this, and the first guess"),
    full("LOCAL_SHARE_FACTOR", "1", "share of a limit times this, where traffic is uneven"),
    full("LEASE_LIMIT_MIN", "1000", "limits from here on are leased, unless their rule says mode"),
    full("LEASE_FREE_RATIO", "0", "share of leased limits that is spent without asking Redis"),
    full("LEASE_FREE_REPLICAS", "0", "most replicas among which LEASE_FREE_RATIO is divided"),
    full("LEASE_COUNTERS_MAX", "65536", "most counters with a lease"),
    full("RECORD_DIR", "", "directory for recordings of what is asked; empty: nothing is recorded"),
    full("RECORD_BYTES_MAX", "1GiB", "what recordings may take there; the oldest go first"),
    full("RECORD_SHAPES_MAX", "65536", "different requests of one second that are kept apart"),
    full("RECORD_HASH_KEYS", "", "keys of descriptors whose values are recorded as hashes"),
    full("RECORD_HASH_SALT", "", "secret that goes into those hashes"),
    full("CONSOLE_TOKEN", "", "secret that the data of /console need as a bearer token"),
    full("QUOTA_VIEW_DOMAIN", "", "domain whose limits tenants see at /api/v1/quota; empty: none"),
    full("QUOTA_VIEW_KEYS", "tenant,tenant_points,tenant_bytes", "keys whose value is the tenant"),
    full("DRAIN_DELAY", "5s", "from SIGTERM to the closing of the listeners"),
    full("DRAIN_TIMEOUT", "20s", "from the closing of the listeners to the hard end"),
    full(
        "PROMETHEUS_NAMES",
        "",
        "tidegate, reference or both; empty: tidegate, with USE_PROMETHEUS both",
    ),
    full("USE_PROMETHEUS", "false", "a listener for metrics beside the admin pages"),
    full("PROMETHEUS_ADDR", ":9090", "HOST:PORT or :PORT of that listener"),
    full("PROMETHEUS_PATH", "/metrics", "path of its page"),
    full(
        "PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS",
        "false",
        "count the reference's response time in milliseconds",
    ),
    full(
        "PROMETHEUS_MAPPER_YAML",
        "",
        "statsd_exporter mapping for the reference's names; one that is not there is none",
    ),
    full("USE_STATSD", "true", "send metrics to a statsd server"),
    full("STATSD_HOST", "localhost", "host of the statsd or dogstatsd server"),
    full("STATSD_PORT", "8125", "port of the statsd or dogstatsd server"),
    full("STATSD_PROTOCOL", "", "tcp or udp; empty is tcp for statsd, udp for dogstatsd"),
    full("USE_DOG_STATSD", "false", "send in the dialect of dogstatsd instead"),
    full(
        "USE_DOG_STATSD_MOGRIFIERS",
        "",
        "names N of mogrifiers, from DOG_STATSD_MOGRIFIER_N_PATTERN, _NAME and _TAGS",
    ),
    full("EXTRA_TAGS", "", "tags of everything sent, as key:value,key:value"),
    full("STATS_FLUSH_INTERVAL", "10s", "how often metrics are sent"),
    full("DISABLE_STATS", "false", "send nothing and open no listener for metrics"),
    // What follows belongs to the reference and not to us.
    refused("LOG_FORMAT", &["json"], "logs are always JSON"),
    no_effect("FORCE_START_WITHOUT_INITIAL_CONFIG", STARTUP),
    no_effect("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "always so: not ready without quotas"),
    no_effect("REDIS_POOL_SIZE", POOL),
    no_effect("REDIS_POOL_ON_EMPTY_BEHAVIOR", POOL),
    no_effect("REDIS_PIPELINE_WINDOW", PIPELINE),
    no_effect("REDIS_PIPELINE_LIMIT", PIPELINE),
    no_effect("REDIS_CLUSTER_PIPELINE_PARALLELISM", PIPELINE),
    no_effect("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", "Redis gone is an outage policy"),
    no_effect("REDIS_TIMEOUT", CONNECT),
    no_effect("REDIS_STARTUP_INITIAL_INTERVAL", STARTUP),
    no_effect("REDIS_STARTUP_MAX_INTERVAL", STARTUP),
    no_effect("REDIS_STARTUP_MAX_ELAPSED_TIME", STARTUP),
    no_effect("REDIS_PERSECOND_POOL_SIZE", POOL),
    no_effect("REDIS_PERSECOND_PIPELINE_WINDOW", PIPELINE),
    no_effect("REDIS_PERSECOND_PIPELINE_LIMIT", PIPELINE),
    no_effect("REDIS_PERSECOND_CLUSTER_PIPELINE_PARALLELISM", PIPELINE),
    no_effect("REDIS_PERSECOND_TIMEOUT", CONNECT),
    no_effect("REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR", POOL),
    refused("MEMCACHE_HOST_PORT", &[], MEMCACHE),
    refused("MEMCACHE_SRV", &[], MEMCACHE),
    no_effect("MEMCACHE_MAX_IDLE_CONNS", MEMCACHE),
    refused("MEMCACHE_SRV_REFRESH", ZERO, MEMCACHE),
    refused("MEMCACHE_TLS", OFF, MEMCACHE),
    no_effect("MEMCACHE_TLS_CLIENT_CERT", MEMCACHE),
    no_effect("MEMCACHE_TLS_CLIENT_KEY", MEMCACHE),
    no_effect("MEMCACHE_TLS_CACERT", MEMCACHE),
    no_effect("MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION", MEMCACHE),
    no_effect("TRACING_EXPORTER_PROTOCOL", TRACING),
];

/// All variables for `--help`.
pub fn help() -> String {
    let mut text = "Environment variables [default]:\n".to_owned();
    let of = |wanted: fn(Support) -> bool| VARIABLES.iter().filter(move |v| wanted(v.support));
    for Variable { name, default, about, .. } in of(|support| support == Support::Full) {
        text += &format!("  {name:<40} {about} [{default}]\n");
    }
    text += "\nVariables of envoyproxy/ratelimit that are accepted without effect:\n";
    for Variable { name, about, .. } in of(|support| support == Support::NoEffect) {
        text += &format!("  {name:<40} {about}\n");
    }
    text += "\nVariables of envoyproxy/ratelimit that are refused when they ask for something:\n";
    for Variable { name, about, .. } in of(|support| matches!(support, Support::Refused(_))) {
        text += &format!("  {name:<40} {about}\n");
    }
    text
}
