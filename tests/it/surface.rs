//! What Envoy itself shows and takes: listeners, methods, versions of HTTP, early answers, slow bodies.

use std::time::Duration;

use anyhow::{Context, Result};
use tests::edge::{Part, Parts, Service};
use tests::wait::{DEADLINE, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_status_listener_shows_two_pages_and_the_admin_interface_is_on_loopback() -> Result<()>
{
    let stage = Stage::embedded().await?;
    let status = stage.edge.at.envoy_status;
    let ready = stage.admin(status, "/ready").await?;
    assert_eq!((ready.status.as_u16(), ready.text().trim()), (200, "LIVE"));
    let metrics = stage.admin(status, "/stats/prometheus").await?.text();
    assert!(metrics.contains("envoy_cluster_upstream_rq_total"), "{metrics}");
    for path in ["/", "/config_dump", "/quitquitquit", "/stats", "/runtime", "/ready/x"] {
        assert_eq!(stage.admin(status, path).await?.status, 404, "{path}");
    }
    for path in ["/quitquitquit", "/ready", "/stats/prometheus", "/runtime_modify?a=1"] {
        let reply = stage.http.post(&format!("http://{status}{path}"), &[], "").await?;
        assert_eq!(reply.status, 404, "POST {path}");
    }
    let dump = stage.admin(stage.edge.at.envoy_admin, "/config_dump").await?.text();
    let dump: serde_json::Value = serde_json::from_str(&dump)?;
    let admin = dump.pointer("/configs/0/bootstrap/admin/address/socket_address/address");
    assert_eq!(admin.context("an admin address")?, "127.0.0.1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_and_health_ask_no_service_and_trace_and_connect_are_refused() -> Result<()> {
    let mut stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let host = stage.edge.at.edge;
    let old = format!(
        "POST /api/v2/write HTTP/1.0\r\nauthorization: Token {key}\r\ncontent-length: 6\r\n\r\nm f=1\n"
    );
    let reply = stage.raw(&old).await?;
    assert!(reply.starts_with("HTTP/1.0 204") || reply.starts_with("HTTP/1.1 204"), "{reply}");
    for service in Service::ALL {
        stage.edge.kill(service);
    }
    for method in ["GET", "HEAD"] {
        let reply = stage
            .raw(&format!("{method} /ping HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
            .await?;
        assert!(reply.starts_with("HTTP/1.1 204"), "{reply}");
        assert!(reply.contains("x-influxdb-version: "), "{reply}");
    }
    let health = stage.http.get(&stage.edge.url("/health")).await?;
    assert_eq!(health.header("content-type"), Some("application/json"));
    let health: serde_json::Value = serde_json::from_slice(&health.body)?;
    assert_eq!(health["status"], "pass");
    for (request, status) in [("TRACE /api/v2/write", "405"), ("CONNECT example.org:443", "404")] {
        let reply = stage
            .raw(&format!("{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
            .await?;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {reply}");
    }
    Ok(())
}

/// A browser sends no key with its question; the gateway, which has no origins here, answers it.
#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_reaches_the_gateway_without_a_key() -> Result<()> {
    let stage = Stage::embedded().await?;
    let host = stage.edge.at.edge;
    let ask = |path: &str| {
        format!(
            "OPTIONS {path} HTTP/1.1\r\nhost: {host}\r\norigin: https://app.example.com\r\n\
             access-control-request-method: POST\r\nconnection: close\r\n\r\n"
        )
    };
    for path in ["/v1/metrics", "/v1/logs", "/v1/traces", "/write", "/api/v2/write"] {
        let reply = stage.raw(&ask(path)).await?;
        assert!(reply.starts_with("HTTP/1.1 405"), "{path}: {reply}");
        assert!(reply.contains("allow: POST"), "{path}: {reply}");
    }
    let reply = stage.raw(&ask("/query")).await?;
    assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
    Ok(())
}

/// Without these headers a browser hides an answer from the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_listed_origin_can_read_what_envoy_answers_itself() -> Result<()> {
    const APP: &str = "https://app.example.com";
    const ALLOWED: &str = "access-control-allow-origin";
    let mut stage = Stage::with(Parts::Embedded, |options| {
        options.proxy.cors_origins = vec!["https://*.example.com".to_owned()];
    })
    .await?;
    let key = stage.edge.issue_live_key("small", "ingest").await?;
    let authorization = format!("Token {key}");
    let write = async |stage: &Stage, origin: &str, authorization: &str| {
        let headers = [("origin", origin), ("authorization", authorization)];
        stage.post("/api/v2/write", &headers, "m f=1 1").await
    };
    for (status, authorization) in [
        (204, &*authorization),
        (204, &authorization),
        (204, &authorization),
        (401, "Token x"),
        (429, &authorization),
    ] {
        let reply = write(&stage, APP, authorization).await?;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header(ALLOWED), Some(APP), "{status}");
        assert_eq!(reply.headers.get_all(ALLOWED).iter().count(), 1, "{status}");
        let exposed = reply.header("access-control-expose-headers").context("exposed")?;
        assert!(exposed.contains("retry-after") && exposed.contains("x-ratelimit-reset"));
        for other in ["https://example.com.evil.net", "https://example.com"] {
            let reply = write(&stage, other, "Token x").await?;
            assert_eq!((reply.status.as_u16(), reply.header(ALLOWED)), (401, None), "{other}");
        }
    }
    let host = stage.edge.at.edge;
    let preflight = format!(
        "OPTIONS /v1/metrics HTTP/1.1\r\nhost: {host}\r\norigin: {APP}\r\n\
         access-control-request-method: POST\r\nconnection: close\r\n\r\n"
    );
    let reply = stage.raw(&preflight).await?;
    assert!(reply.starts_with("HTTP/1.1 204") && reply.contains("GET, POST"), "{reply}");
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    stage.edge.kill(Service::Gateway);
    let reply = write(&stage, APP, &format!("Token {key}")).await?;
    assert_eq!((reply.status.as_u16(), reply.header(ALLOWED)), (503, Some(APP)));
    Ok(())
}

/// RFC 9112 §9.6: what is answered before the body was read must reach who reads it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_a_client_that_reads_late() -> Result<()> {
    let stage = Stage::embedded().await?;
    let mut stream = TcpStream::connect(stage.edge.at.edge).await?;
    let body = "m f=1\n".repeat(2000);
    let head = format!(
        "POST /api/v2/write HTTP/1.1\r\nhost: edge\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body.as_bytes()[..100]).await?;
    // The answer is there before the rest is sent: only then is it an early one.
    wait_for("the refusal", DEADLINE, async || {
        let metrics = stage.admin(stage.edge.at.envoy_status, "/stats/prometheus").await.ok()?;
        let line = "envoy_http_downstream_rq_xx{envoy_response_code_class=\"4\",envoy_http_conn_manager_prefix=\"edge\"} 1";
        metrics.text().contains(line).then_some(())
    })
    .await?;
    // Envoy has no clock that a test could turn: longer than the second after which it used to reset.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stream.write_all(&body.as_bytes()[100..]).await?;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await?;
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 401");
    Ok(())
}

/// The same with a body that no socket buffers: the client sends until the connection is closed, and reads
/// then.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_a_client_that_sends_all_it_can_before_it_reads() -> Result<()> {
    let stage = Stage::embedded().await?;
    let mut stream = TcpStream::connect(stage.edge.at.edge).await?;
    let chunk = "m f=1\n".repeat(10_000);
    let head = "POST /api/v2/write HTTP/1.1\r\nhost: edge\r\ncontent-length: 600000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let sending = async { while stream.write_all(chunk.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, sending).await.context("Envoy to close the connection")?;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await?;
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 401");
    Ok(())
}

/// A secret that goes through every kind of route and every kind of answer stands nowhere afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_stays_in_any_log_metric_page_or_dump_of_envoy() -> Result<()> {
    let mut stage = Stage::with(Parts::Embedded, |options| {
        options.proxy.injected_pressure = true;
    })
    .await?;
    let key = stage.edge.issue_live_key("small", "ingest").await?;
    let secret = key.split('_').nth(3).context("a key has a secret")?.to_owned();
    let (token, bad) = (format!("Token {key}"), format!("Token {key}x"));
    let paths = [
        "/write",
        "/query",
        "/api/v2/write",
        "/api/v3/write_lp",
        "/api/v1/write",
        "/v1/metrics",
        "/v1/logs",
        "/api/v1/series",
        "/api/v2/series",
        "/api/beta/sketches",
        "/api/v1/check_run",
        "/api/v1/metadata",
        "/intake/",
        "/api/v1/validate",
        "/ping",
        "/health",
        "/any",
    ];
    let mut answers = Vec::new();
    for phase in ["allow and quota", "pressure", "authz away"] {
        match phase {
            "pressure" => stage.edge.set_pressure(1.0)?,
            "authz away" => {
                stage.edge.set_pressure(0.0)?;
                stage.edge.kill(Service::Authz);
            }
            _ => {}
        }
        for path in paths {
            for authorization in [&token, &bad] {
                answers.push(stage.post(path, &[("authorization", authorization)], "m f=1").await?);
            }
            for parameter in ["p", "api_key", "token"] {
                let path = format!("{path}?u=small&{parameter}={key}");
                answers.push(stage.post(&path, &[], "m f=1").await?);
            }
        }
    }
    let mut statuses: Vec<u16> = answers.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    assert!([204, 401, 429, 503].iter().all(|status| statuses.contains(status)), "{statuses:?}");
    for reply in &answers {
        let headers = format!("{:?}", reply.headers);
        assert!(!reply.text().contains(&secret) && !headers.contains(&secret), "{reply:?}");
    }
    let envoy = stage.edge.child(Part::Envoy).context("Envoy runs")?;
    assert!(!envoy.output().contains(&secret), "Envoy's log");
    // Its memory holds the keys of requests in flight, so it may leave no dump.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", envoy.pid()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.context("a limit of dumps")?.split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    for page in ["/stats", "/config_dump?include_eds", "/clusters", "/listeners", "/server_info"] {
        let text = stage.admin(stage.edge.at.envoy_admin, page).await?.text();
        assert!(!text.contains(&secret), "{page}");
    }
    Ok(())
}
