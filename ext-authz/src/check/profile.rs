//! How the clients of a route speak, as one table: where their key may be, what is taken off
//! before the request goes on, how a refusal is worded, and which status keeps their data.
//!
//! Envoy's route names the profile, never the client. The lists in `envoy-config/envoy.yaml`, its
//! routes and the tables of REFERENCE.md are compared with this file by tests.
//!
//! Headers and schemes are the same in every profile: a key in the header of another convention
//! must count, so that it is seen as the second credential that it is.

/// Headers that hold a credential; all but `authorization` hold the key alone.
pub const CREDENTIAL_HEADERS: [&str; 7] = [
    AUTHORIZATION,
    "x-api-key",
    "api-key",
    "apikey",
    "dd-api-key",
    "x-honeycomb-team",
    "x-license-key",
];

/// The credential header that has a scheme before the key.
pub const AUTHORIZATION: &str = "authorization";

/// Headers that are taken off as well, because they claim an identity or hold someone's secret.
pub const STRIPPED_HEADERS: [&str; 2] = ["x-scope-orgid", "dd-application-key"];

/// Where the client is: Envoy overwrites it with the address it trusts, so nobody can forge it.
pub const CLIENT_ADDRESS: &str = "x-tidegate-client";

/// Headers that ext-authz must see besides the credentials: the dialect, the cost, the trace, the
/// client's address.
pub const SEEN_HEADERS: [&str; 5] =
    ["content-type", "content-length", "traceparent", "x-request-id", CLIENT_ADDRESS];

/// May write metrics.
pub const METRICS_WRITE: &str = "metrics:write";
/// May write logs.
pub const LOGS_WRITE: &str = "logs:write";
/// May write traces.
pub const TRACES_WRITE: &str = "traces:write";
/// What the shipped routes demand, and what a key has that was issued without a choice.
pub const WRITE_SCOPES: [&str; 3] = [METRICS_WRITE, LOGS_WRITE, TRACES_WRITE];

/// How the clients of a route speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Nothing in particular.
    Default,
    /// InfluxDB 1 clients: the key may be in the query, and 429 loses data.
    InfluxV1,
    /// InfluxDB 2 and 3 clients.
    InfluxV2,
    /// OpenTelemetry exporters.
    Otlp,
    /// Prometheus remote write.
    Prometheus,
    /// The Datadog Agent and what imitates it.
    Datadog,
    /// Splunk's HTTP event collector.
    Splunk,
    /// Loki's push API.
    Loki,
    /// Elasticsearch's bulk API.
    Elastic,
}

/// How an answer is worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 9457 problem details.
    Problem,
    /// InfluxDB's JSON.
    Influx,
    /// `google.rpc.Status` as JSON.
    OtlpJson,
    /// `google.rpc.Status` as protobuf.
    OtlpProtobuf,
    /// One line of text, which Prometheus logs.
    Text,
    /// Datadog's JSON.
    Datadog,
    /// The JSON of Splunk's event collector, with its codes.
    Splunk,
    /// Elasticsearch's JSON.
    Elastic,
    /// One line of text without a content type, which Envoy makes the `grpc-message`.
    Grpc,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in Envoy's `context_extensions` and in metrics.
    pub name: &'static str,
    /// Query parameters that hold the key.
    pub key_parameters: &'static [&'static str],
    /// Query parameters that are taken off on allow.
    pub stripped_parameters: &'static [&'static str],
    /// How a refusal is worded, unless the content type says otherwise.
    pub dialect: Dialect,
    /// The status where no key was sent.
    pub missing_status: u16,
    /// The status where the key is not good.
    pub bad_key_status: u16,
    /// The status of "too much at the moment" on which these clients keep their data.
    pub throttled_status: u16,
    /// What the shipped bootstrap sends here.
    pub routes: &'static [Route],
}

/// A path of the shipped bootstrap and what its clients must be permitted.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The whole path.
    pub path: &'static str,
    /// The scope that a key must carry.
    pub scope: Option<&'static str>,
}

/// A profile name that no profile has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownProfile;

const fn metrics(path: &'static str) -> Route {
    Route { path, scope: Some(METRICS_WRITE) }
}

const fn logs(path: &'static str) -> Route {
    Route { path, scope: Some(LOGS_WRITE) }
}

const fn traces(path: &'static str) -> Route {
    Route { path, scope: Some(TRACES_WRITE) }
}

/// What most profiles have in common.
const PLAIN: Row = Row {
    name: "default",
    key_parameters: &[],
    stripped_parameters: &[],
    dialect: Dialect::Problem,
    missing_status: 401,
    bad_key_status: 401,
    throttled_status: 429,
    routes: &[],
};

const INFLUX_V1: Row = Row {
    name: "influx-v1",
    key_parameters: &["p"],
    stripped_parameters: &["u", "p"],
    dialect: Dialect::Influx,
    // Telegraf's v1 output drops the batch on any 4xx.
    throttled_status: 503,
    routes: &[metrics("/write"), metrics("/query")],
    ..PLAIN
};

const INFLUX_V2: Row = Row {
    name: "influx-v2",
    key_parameters: &["p"],
    stripped_parameters: &["u", "p"],
    dialect: Dialect::Influx,
    routes: &[metrics("/api/v2/write"), metrics("/api/v3/write_lp")],
    ..PLAIN
};

const OTLP: Row = Row {
    name: "otlp",
    dialect: Dialect::OtlpProtobuf,
    // To the protocol 429 is as good, but exporters of Python until 2025 (1.34) drop the batch on it.
    throttled_status: 503,
    routes: &[
        metrics("/v1/metrics"),
        logs("/v1/logs"),
        traces("/v1/traces"),
        metrics("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
        logs("/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
        traces("/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
    ],
    ..PLAIN
};

const PROMETHEUS: Row = Row {
    name: "prometheus",
    dialect: Dialect::Text,
    // `retry_on_http_429` is off by default, and then 429 loses the samples.
    throttled_status: 503,
    routes: &[metrics("/api/v1/write")],
    ..PLAIN
};

const DATADOG: Row = Row {
    name: "datadog",
    key_parameters: &["api_key", "dd-api-key"],
    stripped_parameters: &["api_key", "dd-api-key", "application_key"],
    dialect: Dialect::Datadog,
    // The Agent keeps a 401 in its queue for ever.
    missing_status: 403,
    bad_key_status: 403,
    routes: &[
        metrics("/api/v1/series"),
        metrics("/api/v2/series"),
        metrics("/api/beta/sketches"),
        metrics("/api/v1/check_run"),
        // Of which nothing is stored, and the gateway says so.
        metrics("/api/v1/metadata"),
        metrics("/intake/"),
        // Asked whether the key is good, whatever it is good for.
        Route { path: "/api/v1/validate", scope: None },
    ],
    ..PLAIN
};

const SPLUNK: Row = Row {
    name: "splunk",
    dialect: Dialect::Splunk,
    // Splunk itself says 403 to a token it does not know, and "server is busy" with 503.
    bad_key_status: 403,
    throttled_status: 503,
    ..PLAIN
};

const LOKI: Row = Row { name: "loki", dialect: Dialect::Text, ..PLAIN };

const ELASTIC: Row = Row { name: "elastic", dialect: Dialect::Elastic, ..PLAIN };

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 9] = [
        Self::Default,
        Self::InfluxV1,
        Self::InfluxV2,
        Self::Otlp,
        Self::Prometheus,
        Self::Datadog,
        Self::Splunk,
        Self::Loki,
        Self::Elastic,
    ];

    /// The profile that a route names; the default one where it names none.
    ///
    /// # Errors
    /// When there is no such profile. Taking it for another would give its clients answers on
    /// which they lose data.
    pub fn named(name: Option<&str>) -> Result<Self, UnknownProfile> {
        let Some(name) = name else { return Ok(Self::Default) };
        Self::ALL.into_iter().find(|profile| profile.as_str() == name).ok_or(UnknownProfile)
    }

    /// Its line of the table.
    pub const fn row(self) -> &'static Row {
        match self {
            Profile::Default => &PLAIN,
            Profile::InfluxV1 => &INFLUX_V1,
            Profile::InfluxV2 => &INFLUX_V2,
            Profile::Otlp => &OTLP,
            Profile::Prometheus => &PROMETHEUS,
            Profile::Datadog => &DATADOG,
            Profile::Splunk => &SPLUNK,
            Profile::Loki => &LOKI,
            Profile::Elastic => &ELASTIC,
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for profile in Profile::ALL {
            assert_eq!(Profile::named(Some(profile.as_str())), Ok(profile));
        }
        assert_eq!(Profile::named(None), Ok(Profile::Default));
        for unknown in ["", "influx", "Datadog", "otlp ", "no such"] {
            assert_eq!(Profile::named(Some(unknown)), Err(UnknownProfile), "{unknown:?}");
        }
    }

    #[test]
    fn what_holds_a_key_is_taken_off() {
        for profile in Profile::ALL {
            let row = profile.row();
            for name in row.key_parameters {
                assert!(row.stripped_parameters.contains(name), "{}: {name}", row.name);
            }
        }
    }

    #[test]
    fn no_path_has_two_profiles() {
        let mut paths: Vec<&str> =
            Profile::ALL.iter().flat_map(|p| p.row().routes).map(|route| route.path).collect();
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
