//! What Envoy refuses itself, in the words of each route's agents: a full quota, services that are
//! away, overload. What a service has worded stays as it is.

use anyhow::{Result, ensure};
use ext_authz::check::profile::{Dialect, Profile};
use tests::edge::{Parts, Service};
use tests::http::Reply;

use crate::stage::Stage;

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    value: full
    rate_limit: {unit: day, requests_per_unit: 0}
";

const QUOTA: &str = "the quota is used up, please retry later";
const AWAY: &str = "not available at the moment, please retry";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// A path, the content type that its agents send, and the dialect that they read.
struct Route {
    profile: Profile,
    path: &'static str,
    content_type: &'static str,
    dialect: Dialect,
}

/// Every path of ext-authz's table; those of OTLP with both encodings.
fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    for profile in Profile::ALL {
        for path in profile.row().routes.iter().map(|route| route.path) {
            let kinds = match (profile, path.starts_with("/opentelemetry")) {
                (_, true) => vec![("application/grpc", Dialect::Grpc)],
                (Profile::Otlp, false) => vec![
                    ("application/x-protobuf", Dialect::OtlpProtobuf),
                    ("application/json", Dialect::OtlpJson),
                ],
                _ => vec![("text/plain", profile.row().dialect)],
            };
            routes.extend(kinds.into_iter().map(|(content_type, dialect)| Route {
                profile,
                path,
                content_type,
                dialect,
            }));
        }
    }
    routes
}

impl Route {
    async fn ask(&self, stage: &Stage, key: &str) -> Result<Reply> {
        let headers = [("x-api-key", key), ("content-type", self.content_type)];
        stage.post(&format!("{}?db=x", self.path), &headers, "m f=1").await
    }

    /// Checks one answer: the status on which the agent keeps its data, the time to come back, and
    /// the words.
    fn check(&self, reply: &Reply, status: u16, said: &str) -> Result<()> {
        let what = format!("{} {}: {reply:?}", self.path, self.content_type);
        let wait = reply.header("retry-after").unwrap_or_default();
        ensure!(wait.parse::<u64>().is_ok_and(|seconds| seconds > 0), "{what}");
        let body = reply.text();
        let influx = if said == QUOTA { "too many requests" } else { "unavailable" };
        let (content_type, expected) = match self.dialect {
            Dialect::Grpc => {
                ensure!(reply.header("grpc-status") == Some("14"), "{what}");
                ensure!(reply.header("grpc-message") == Some(said), "{what}");
                return Ok(());
            }
            Dialect::OtlpProtobuf => {
                ensure!(reply.header("content-type") == Some("application/x-protobuf"), "{what}");
                ensure!(body.starts_with("\u{8}\u{e}\u{12}") && body.contains(said), "{what}");
                // A quota may be full for longer than one byte can say.
                let info = body.split_once(RETRY_INFO).map(|(_, info)| info.as_bytes().to_vec());
                let second = (said == AWAY).then(|| vec![0x12, 4, 0x0a, 2, 8, 1]);
                ensure!(info == second, "{what}");
                ensure!(reply.status == status, "{what}");
                return Ok(());
            }
            Dialect::Influx => {
                ("application/json", format!(r#"{{"code":"{influx}","message":"{said}"}}"#))
            }
            Dialect::OtlpJson => {
                let info = format!(r#"{{"@type":"{RETRY_INFO}","retryDelay":"{wait}s"}}"#);
                let text = format!(r#"{{"code":14,"message":"{said}","details":[{info}]}}"#);
                ("application/json", text)
            }
            Dialect::Datadog => ("application/json", format!(r#"{{"errors":["{said}"]}}"#)),
            Dialect::Text => ("text/plain; charset=utf-8", format!("{said}\n")),
            Dialect::Problem | Dialect::Splunk | Dialect::Elastic => {
                anyhow::bail!("no shipped route speaks so: {what}")
            }
        };
        ensure!(reply.status == status, "{what}");
        ensure!(reply.header("content-type") == Some(content_type), "{what}");
        ensure!(body == expected, "{what}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_refuses_in_the_words_of_the_route() -> Result<()> {
    let change = |options: &mut tests::edge::Options| {
        options.quotas = QUOTAS.to_owned();
        options.proxy.injected_pressure = true;
    };
    let mut stage = Stage::with(Parts::Embedded, change).await?;
    let good = stage.edge.issue_live_key("acme", "ingest").await?;
    let full = stage.edge.issue_live_key("full", "ingest").await?;
    for route in routes() {
        let status = route.profile.row().throttled_status;
        route.check(&route.ask(&stage, &full).await?, status, QUOTA)?;
    }

    // ext-authz and the gateway have words of their own.
    let bad = stage.post("/write", &[("x-api-key", "tdg_x")], "m f=1").await?;
    let said = r#"{"code":"unauthorized","message":"the API key is not valid"}"#;
    ensure!(bad.status == 401 && bad.text() == said, "{bad:?}");
    let malformed = stage.write(&good, "no line protocol").await?;
    ensure!(malformed.status == 400 && malformed.text().contains("line"), "{malformed:?}");

    stage.edge.set_pressure(1.0)?;
    stage.write_until(&good, "m f=1", 503).await?;
    for route in routes() {
        route.check(&route.ask(&stage, &good).await?, 503, AWAY)?;
    }
    stage.edge.set_pressure(0.0)?;
    stage.write_until(&good, "m f=1", 204).await?;

    for service in [Service::Gateway, Service::Authz] {
        stage.edge.kill(service);
        for route in routes() {
            route.check(&route.ask(&stage, &good).await?, 503, AWAY)?;
        }
    }
    Ok(())
}
