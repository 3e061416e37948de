//! What reaches the gateway is what ext-authz said, whatever the client claims.

use std::process::Command;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::edge::service;

use crate::stage::Stage;
use crate::stand_in::{Seen, StandIn};

#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_of_a_client_never_reach_the_upstream() -> Result<()> {
    let mut stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let gateway = StandIn::take_over(&mut stage).await?;

    let token = format!("Token {key}");
    for (name, value) in [
        ("x-tidegate-tenant", "victim"),
        ("X-Tidegate-Tenant", "victim"),
        ("x-tidegate-priority", "system-node-critical"),
        ("x-tidegate-anything", "victim"),
        ("x-envoy-auth-failure-mode-allowed", "true"),
    ] {
        let headers = [("authorization", token.as_str()), (name, value), (name, value)];
        let reply = stage.post("/write", &headers, "m f=1").await?;
        assert_eq!(reply.status, 204, "{name}: {}", reply.text());
    }
    let reply = stage.post(&format!("/write?db=x&u=acme&p={key}"), &[], "m f=1").await?;
    assert_eq!(reply.status, 204, "{}", reply.text());
    // An organization is handed on under a name of ours, beside the tenant that it does not choose.
    let headers = [("authorization", token.as_str()), ("x-scope-orgid", "teams")];
    assert_eq!(stage.post("/write", &headers, "m f=1").await?.status, 204);
    // Upstreams that follow CGI would read an underscore as the same name.
    let underscore = [("authorization", token.as_str()), ("x_tidegate_tenant", "victim")];
    assert_eq!(stage.post("/write", &underscore, "m f=1").await?.status, 400);

    let seen = gateway.seen();
    assert_eq!(seen.len(), 7);
    let organization =
        |headers: &Seen| headers.get("x-tidegate-organization").cloned().unwrap_or_default();
    assert_eq!(organization(&seen[6]), ["teams"]);
    assert!(seen[..6].iter().all(|headers| organization(headers).is_empty()), "{seen:?}");
    assert!(seen.iter().all(|headers| !headers.contains_key("x-scope-orgid")), "{seen:?}");
    for headers in seen {
        assert_eq!(headers["x-tidegate-tenant"], ["acme"]);
        assert_eq!(headers["x-tidegate-priority"], ["ingest"]);
        let text = format!("{headers:?}");
        assert!(!text.contains("victim") && !text.contains("system-node-critical"), "{text}");
        assert!(!text.contains("failure-mode"), "{text}");
        assert!(!text.contains(&key), "the key itself stays at the edge: {text}");
    }
    Ok(())
}

/// The gateway's stand-in echoes every header under our prefix: what a client could plant there
/// would be charged, or believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_choose_its_class_or_its_cost() -> Result<()> {
    const POINTS: &str = "tenant_points_acme";
    let quotas = "
domain: edge
descriptors:
  - key: tenant_points
    value: acme
    rate_limit: {unit: year, requests_per_unit: 1000, overdraft: true}
  - key: tenant_bytes
    value: acme
    rate_limit: {unit: year, requests_per_unit: 100000}
";
    let change = |options: &mut tests::edge::Options| options.quotas = quotas.to_owned();
    let mut stage = Stage::with(tests::edge::Parts::Embedded, change).await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    let critical = stage.edge.issue_live_key("node", "system-node-critical").await?;
    let gateway = StandIn::take_over(&mut stage).await?;
    let token = format!("Token {ingest}");
    let good = ("authorization", token.as_str());
    for claims in [
        &[("x-tidegate-points", "1000000")][..],
        &[("x-tidegate-priority", "system-node-critical"), ("x-tidegate-cost", "0")],
        &[("cost", "0"), ("priority", "system-node-critical")],
        &[("x-envoy-ratelimit-hits-addend", "0"), ("x-ratelimit-hits-addend", "0")],
        &[("x-envoy-original-path", "/ping"), ("x-envoy-expected-rq-timeout-ms", "1")],
    ] {
        let headers: Vec<_> = claims.iter().copied().chain([good]).collect();
        let reply = stage.post("/write?priority=system-node-critical", &headers, "m f=1").await?;
        assert_eq!(reply.status, 204, "{claims:?}: {}", reply.text());
        assert_eq!(reply.header("x-tidegate-points"), None, "nothing was there to echo");
        assert_eq!(reply.header("x-tidegate-priority"), Some("ingest"));
    }
    // Another route of the same edge is another dialect, not another class.
    for path in ["/ping/../write", "/system-node-critical", "/api/v2/write"] {
        assert_eq!(stage.post(path, &[good], "m f=1").await?.status, 204, "{path}");
    }
    // A second, better key beside one's own is refused, wherever it stands.
    let other = format!("Token {critical}");
    for second in [("authorization", other.as_str()), ("x-api-key", &critical)] {
        assert_eq!(stage.post("/write", &[good, second], "m f=1").await?.status, 400);
        assert_eq!(stage.post("/write", &[second, good], "m f=1").await?.status, 400);
    }
    let twice = format!("/write?p={critical}");
    assert_eq!(stage.post(&twice, &[good], "m f=1").await?.status, 400);
    // Trailers come too late for the decision, and do not reach the gateway.
    let trailers = format!(
        "POST /write HTTP/1.1\r\nhost: edge\r\nauthorization: {token}\r\n\
         trailer: x-tidegate-priority\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         5\r\nm f=1\r\n0\r\nx-tidegate-priority: system-node-critical\r\n\r\n"
    );
    let answer = stage.raw(&trailers).await?;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    trailers_over_http2(&stage, &token).await?;

    let seen = gateway.seen();
    assert_eq!(seen.len(), 10);
    for headers in seen {
        assert_eq!(headers["x-tidegate-tenant"], ["acme"], "{headers:?}");
        assert_eq!(headers["x-tidegate-priority"], ["ingest"], "{headers:?}");
        assert!(!headers.contains_key("x-tidegate-points"), "{headers:?}");
        let trailer = headers.keys().find(|name| name.starts_with("trailer:x-tidegate"));
        assert_eq!(trailer, None, "{headers:?}");
    }
    assert_eq!(stage.hits(POINTS).await?, 0, "only the gateway says how many points there were");
    Ok(())
}

async fn trailers_over_http2(stage: &Stage, token: &str) -> Result<()> {
    let stream = tokio::net::TcpStream::connect(stage.edge.at.edge).await?;
    let (executor, stream) = (TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await?;
    let connection = tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-tidegate-priority", HeaderValue::from_static("system-node-critical"));
    trailers.insert("x-other", HeaderValue::from_static("kept"));
    let body = Full::new(Bytes::from_static(b"m f=1"));
    let body = body.with_trailers(async { Some(Ok(trailers)) }).boxed();
    let request = Request::post(stage.edge.url("/write")).header("authorization", token);
    let response = sender.send_request(request.body(body)?).await?;
    assert_eq!(response.status(), 204);
    connection.abort();
    Ok(())
}

/// A key may be bound to networks, so nobody may choose the address it is used from.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_choose_its_address() -> Result<()> {
    let stage = Stage::embedded().await?;
    for (network, status) in [("127.0.0.0/8", 204), ("192.0.2.0/24", 403)] {
        let issued = Command::new(service("ext-authz")?)
            .args(["keys", "issue", "--append", "--tenant", "acme", "--networks", network])
            .arg("--config")
            .arg(stage.edge.authz_config())
            .output()?;
        let key = String::from_utf8(issued.stdout)?;
        let token = format!("Token {}", key.trim());
        let known = stage.edge.issue_live_key("acme", "ingest").await?;
        assert_eq!(stage.write(&known, "m f=1").await?.status, 204);
        for claim in [
            ("x-other", "nothing"),
            ("x-tidegate-client", "192.0.2.7"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-tidegate-client", "127.0.0.1"),
            ("x-envoy-external-address", "127.0.0.1"),
        ] {
            let headers = [("authorization", token.as_str()), claim];
            let reply = stage.post("/write", &headers, "m f=1").await?;
            assert_eq!(reply.status, status, "{network} {claim:?}: {}", reply.text());
        }
    }
    Ok(())
}
