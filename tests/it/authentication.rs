//! Who may write: only the bearer of exactly one valid key.

use std::process::Command;

use anyhow::Result;
use tests::edge::{Encryption, Options, Parts, Service, service};
use tests::wait::{DEADLINE, wait_for};

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_missing_duplicated_and_revoked_keys_are_refused() -> Result<()> {
    let stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let other = stage.edge.issue_live_key("acme", "ingest").await?;
    let point = "weather temperature=4.5";

    let reply = stage.write(&key, point).await?;
    assert_eq!(reply.status, 204, "{}", reply.text());

    let missing = stage.post("/write", &[], point).await?;
    assert_eq!(missing.status, 401);
    // Clients of libcurl that are not told what to use, as collectd, send Basic once they are asked.
    let challenges: Vec<_> = missing.headers.get_all("www-authenticate").iter().collect();
    let basic = challenges.iter().filter(|challenge| challenge.as_bytes().starts_with(b"Basic "));
    assert_eq!((challenges.len(), basic.count()), (2, 1), "{challenges:?}");

    // Well formed but never issued, and one with a letter changed.
    let mut forged = key.clone();
    let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
    forged.push(last);
    for wrong in ["wrong", "tdg_live_aaaaaaaaaaaa_x", &forged] {
        let reply = stage.write(wrong, point).await?;
        assert_eq!(reply.status, 401, "{}", reply.text());
        assert!(!reply.text().contains(wrong));
    }

    // Two credentials are ambiguous whatever they are: twice the same, or two that are valid.
    let token = format!("Token {key}");
    for second in [
        ("x-api-key", key.as_str()),
        ("x-api-key", other.as_str()),
        ("authorization", token.as_str()),
    ] {
        let reply = stage.post("/write", &[("authorization", &token), second], point).await?;
        assert_eq!(reply.status, 400, "{} {}", second.0, reply.text());
    }
    let reply =
        stage.post(&format!("/write?p={key}&u=acme"), &[("authorization", &token)], point).await?;
    assert_eq!(reply.status, 400, "{}", reply.text());

    let id = key.split('_').nth(2).unwrap_or_default();
    let revoked = Command::new(service("ext-authz")?)
        .args(["keys", "revoke", id, "--config"])
        .arg(stage.edge.authz_config())
        .output()?;
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    stage.write_until(&key, point, 401).await?;
    assert_eq!(stage.write(&other, point).await?.status, 204);
    Ok(())
}

/// By the same commands, over TLS; the command returns once the service has it in force.
#[tokio::test(flavor = "multi_thread")]
async fn keys_in_redis_are_issued_and_taken_back() -> Result<()> {
    let change = |options: &mut Options| {
        options.keys_in_redis = true;
        options.encryption = Encryption::On;
    };
    let stage = Stage::with(Parts::Real, change).await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let point = "weather temperature=4.5";
    let reply = stage.write(&key, point).await?;
    assert_eq!(reply.status, 204, "{}", reply.text());
    let id = key.split('_').nth(2).unwrap_or_default();
    stage.edge.keys_command(&["revoke", id, "--wait"])?;
    assert_eq!(stage.write(&key, point).await?.status, 401);
    let file = std::fs::read_to_string(stage.edge.keys_file())?;
    assert!(!file.contains(id), "the file has no part in it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_never_reaches_the_logs() -> Result<()> {
    let stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let secret = key.split('_').nth(3).unwrap_or_default();
    assert_eq!(stage.write(&key, "m f=1").await?.status, 204);
    let in_query = stage.post(&format!("/write?u=acme&p={key}"), &[], "m f=1").await?;
    assert_eq!(in_query.status, 204, "{}", in_query.text());
    let refused = stage.post(&format!("/write?u=acme&p={key}x"), &[], "m f=1").await?;
    assert_eq!(refused.status, 401, "{}", refused.text());
    stage.lines(|lines| lines.len() >= 2).await?;

    let edge = &stage.edge;
    let envoy = edge.envoy.as_ref().map(|envoy| &envoy.child);
    let services = Service::ALL.into_iter().flat_map(|service| edge.replicas(service));
    for child in services.filter_map(|replica| replica.child.as_ref()).chain(envoy) {
        assert!(!child.output().contains(secret), "{} logs the secret", child.name());
    }
    // Envoy writes its log every now and then.
    let log = wait_for("the access log to name the tenant", DEADLINE, async || {
        envoy.map(|child| child.output()).filter(|log| log.contains("\"tenant\":\"acme\""))
    })
    .await?;
    assert!(!log.contains(secret), "Envoy logs the secret");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_and_health_need_no_key() -> Result<()> {
    let stage = Stage::embedded().await?;
    assert_eq!(stage.http.get(&stage.edge.url("/ping")).await?.status, 204);
    assert_eq!(stage.http.get(&stage.edge.url("/health")).await?.status, 200);
    assert_eq!(stage.http.get(&stage.edge.url("/healthz")).await?.status, 200);
    assert_eq!(stage.http.get(&stage.edge.url("/elsewhere")).await?.status, 401);
    Ok(())
}

/// A method that skips the check would be a door for whoever sends it.
#[tokio::test(flavor = "multi_thread")]
async fn no_method_is_exempt() -> Result<()> {
    let stage = Stage::embedded().await?;
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"] {
        for headers in [
            &[][..],
            &[("origin", "https://a.example"), ("access-control-request-method", "POST")],
            &[
                ("connection", "upgrade, http2-settings"),
                ("upgrade", "h2c"),
                ("http2-settings", ""),
            ],
        ] {
            let mut request = http::Request::builder().method(method).uri(stage.edge.url("/write"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let reply = stage.http.send(request.body(http_body_util::Full::default())?).await?;
            // TRACE and upgrades may be refused before anybody asks who it is.
            let refused = matches!(reply.status.as_u16(), 401 | 403 | 405);
            assert!(refused, "{method} {headers:?}: {reply:?}");
        }
    }
    Ok(())
}
