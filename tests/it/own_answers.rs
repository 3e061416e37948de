//! What Envoy refuses itself, in the words of each route's agents: a full quota, services that are
//! away, overload. What a service has worded stays as it is.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ext_authz::check::profile::{Dialect, Profile};
use prost::Message;
use proto::pb::google::protobuf::Duration;
use proto::pb::google::rpc;
use tests::edge::{Parts, Service};
use tests::http::Reply;
use tests::wait::{DEADLINE, wait_for};

use crate::stage::Stage;

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    value: full
    rate_limit: {unit: year, requests_per_unit: 0}
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

/// Every path of ext-authz's table, those of OTLP with both encodings, and one of no profile.
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
    let (profile, dialect) = (Profile::Default, Dialect::Problem);
    routes.push(Route { profile, path: "/other", content_type: "text/plain", dialect });
    routes
}

/// Checks a `google.rpc.Status` that says the same as `Retry-After`.
fn says_when(status: &[u8], said: &str, wait: &str) -> Result<()> {
    let status = rpc::Status::decode(status)?;
    ensure!((status.code, &*status.message) == (14, said), "{status:?}");
    let [detail] = &status.details[..] else { bail!("{status:?}") };
    ensure!(detail.type_url == RETRY_INFO, "{status:?}");
    // RetryInfo has a Duration as its field 1.
    let duration = detail.value.get(2..).context("a field")?;
    let duration = Duration::decode(duration)?;
    ensure!(wait.parse() == Ok(duration.seconds), "{duration:?}, not {wait}");
    Ok(())
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
                let details = reply.header("grpc-status-details-bin").unwrap_or_default();
                let details = STANDARD_NO_PAD.decode(details).context(what.clone())?;
                let python = reply.header("google.rpc.retryinfo-bin").unwrap_or_default();
                let python = STANDARD_NO_PAD.decode(python).context(what.clone())?;
                ensure!(!python.is_empty() && details.ends_with(&python), "{what}");
                return says_when(&details, said, wait).context(what);
            }
            Dialect::OtlpProtobuf => {
                ensure!(reply.header("content-type") == Some("application/x-protobuf"), "{what}");
                ensure!(reply.status == status, "{what}");
                return says_when(&reply.body, said, wait).context(what);
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
            Dialect::Problem => {
                let (slug, title) = match said {
                    QUOTA => ("throttled", "Too Many Requests"),
                    _ => ("unavailable", "Service Unavailable"),
                };
                let kind = format!(r#""type":"urn:tidegate:problem:{slug}","title":"{title}""#);
                let text = format!(r#"{{{kind},"status":{status},"detail":"{said}"}}"#);
                ("application/problem+json", text)
            }
            Dialect::Splunk | Dialect::Elastic => {
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

/// The limit of an address, before its key is known, is Envoy's alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_over_its_limit_is_refused_in_the_words_of_the_route() -> Result<()> {
    let change = |options: &mut tests::edge::Options| options.proxy.limits.per_address = 1;
    let stage = Stage::with(Parts::Embedded, change).await?;
    for route in routes() {
        let status = route.profile.row().throttled_status;
        // One a second passes and is refused for its key.
        wait_for("an address that is over its limit", DEADLINE, async || {
            let reply = route.ask(&stage, "tdg_x").await.ok()?;
            let is_limited = reply.header("retry-after").is_some();
            is_limited.then(|| route.check(&reply, status, QUOTA))
        })
        .await??;
    }
    Ok(())
}
