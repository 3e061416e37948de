//! What reaches the gateway is what ext-authz said, whatever the client claims.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use tests::wait::DEADLINE;
use tokio::net::TcpListener;

use crate::stage::Stage;

type Seen = Arc<Mutex<Vec<BTreeMap<String, Vec<String>>>>>;

async fn record(State(seen): State<Seen>, request: Request) -> StatusCode {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.to_string()).or_default().push(value);
    }
    headers.insert(":path".to_owned(), vec![request.uri().to_string()]);
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(headers);
    StatusCode::NO_CONTENT
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_of_a_client_never_reach_the_upstream() -> Result<()> {
    let mut stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    // In the gateway's place stands a server that notes what it is sent.
    let gateway = stage.edge.gateway.take().context("a gateway runs")?;
    gateway.stop(DEADLINE).await;
    let listener = TcpListener::bind(stage.edge.at.gateway).await?;
    let seen = Seen::default();
    let upstream = Router::new().fallback(record).with_state(Arc::clone(&seen));
    let server = tokio::spawn(axum::serve(listener, upstream).into_future());

    let token = format!("Token {key}");
    for (name, value) in [
        ("x-tidegate-tenant", "victim"),
        ("X-Tidegate-Tenant", "victim"),
        ("x-tidegate-priority", "system-node-critical"),
        ("x-tidegate-anything", "victim"),
        ("x-envoy-auth-failure-mode-allowed", "true"),
        ("x-scope-orgid", "victim"),
    ] {
        let headers = [("authorization", token.as_str()), (name, value), (name, value)];
        let reply = stage.post("/write", &headers, "m f=1").await?;
        assert_eq!(reply.status, 204, "{name}: {}", reply.text());
    }
    let reply = stage.post(&format!("/write?db=x&u=acme&p={key}"), &[], "m f=1").await?;
    assert_eq!(reply.status, 204, "{}", reply.text());
    // Upstreams that follow CGI would read an underscore as the same name.
    let underscore = [("authorization", token.as_str()), ("x_tidegate_tenant", "victim")];
    assert_eq!(stage.post("/write", &underscore, "m f=1").await?.status, 400);

    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(seen.len(), 7);
    for headers in seen {
        assert_eq!(headers["x-tidegate-tenant"], ["acme"]);
        assert_eq!(headers["x-tidegate-priority"], ["ingest"]);
        let text = format!("{headers:?}");
        assert!(!text.contains("victim") && !text.contains("system-node-critical"), "{text}");
        assert!(!text.contains("failure-mode"), "{text}");
        assert!(!text.contains(&key), "the key itself stays at the edge: {text}");
    }
    server.abort();
    Ok(())
}
