//! Over TCP, with Envoy's own messages.

use std::sync::Arc;

use ext_authz::check::abuse::FAILURES_BURST;
use ext_authz::check::decide::decide;
use ext_authz::check::digest::{Digest, Peppers};
use ext_authz::check::key::ApiKey;
use ext_authz::check::keyring::Keyring;
use ext_authz::check::record::{KeyRecord, Status};
use ext_authz::server::CHECK_REQUEST_BYTES_MAX;
use ext_authz::service::request::view;
use ext_authz::service::response::respond;
use ext_authz::timestamp::Timestamp;
use proptest::prelude::*;
use prost::Message;
use proto::pb::envoy::service::auth::v3::CheckRequest;
use proto::pb::google::rpc::Status as GoogleStatus;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::rig::{Files, Outcome, Running, bearer, keys_yaml, request, wait_for};

#[tokio::test]
async fn a_good_key_passes_with_its_identity() {
    let files = Files::new();
    let (key, record) = files.issue("acme");
    files.write_keys(&keys_yaml(&[&record]));
    let running = Running::start_ready(&files).await;

    let headers =
        [("x-api-key", key.as_str()), ("content-length", "2048"), ("x-tidegate-tenant", "spoofed")];
    let Outcome::Allowed { headers, removed, removed_parameters, metadata } =
        running.check(request("/api/v2/write", &headers, &[])).await
    else {
        panic!("denied")
    };
    let id = record.id.to_string();
    for (name, value) in [
        ("tenant", "acme"),
        ("key-id", &id),
        ("priority", "ingest"),
        ("plan", "gold"),
        ("scopes", "metrics:write"),
    ] {
        assert_eq!(headers[&format!("x-tidegate-{name}")], value);
        assert_eq!(metadata[&name.replace('-', "_")], value);
    }
    assert_eq!(metadata["cost"], "number 2048");
    assert!(!metadata.contains_key("unannounced_tenant"), "{metadata:?}");
    let request = request("/api/v2/write", &[("x-api-key", key.as_str())], &[]);
    let Outcome::Allowed { metadata, .. } = running.check(request).await else { panic!("denied") };
    assert_eq!((&*metadata["cost"], &*metadata["unannounced_tenant"]), ("number 1", "acme"));
    assert!(removed.contains(&"authorization".to_owned()), "{removed:?}");
    assert!(removed.contains(&"x-scope-orgid".to_owned()), "{removed:?}");
    assert!(removed.iter().all(|name| !headers.contains_key(name)), "a header in both lists goes");
    assert_eq!(removed_parameters, [""; 0]);
}

#[tokio::test]
async fn denials_over_the_wire() {
    let files = Files::new();
    let (good, good_record) = files.issue("acme");
    let (revoked, mut revoked_record) = files.issue("acme");
    let (expired, mut expired_record) = files.issue("acme");
    let (early, mut early_record) = files.issue("acme");
    let (stranger, _) = files.issue("acme");
    let (_, mut swapped_record) = files.issue("acme");
    let (swapped, other) = files.issue("acme");
    // The id of one key with the digest of another.
    swapped_record.id = other.id;
    revoked_record.status = Status::Revoked;
    expired_record.expires_at = Some(Timestamp::from_millis(1));
    early_record.not_before = Some("2999-01-01T00:00:00Z".parse().expect("a moment"));
    files.write_keys(&keys_yaml(&[
        &good_record,
        &revoked_record,
        &expired_record,
        &early_record,
        &swapped_record,
    ]));
    let running = Running::start_ready(&files).await;

    let mut answers = Vec::new();
    for (key, reason) in [
        (&revoked, "revoked"),
        (&expired, "expired"),
        (&early, "not_yet_valid"),
        (&stranger, "unknown_key"),
        (&swapped, "wrong_secret"),
        (&good.replace("tdg_test", "tdg_live"), "checksum"),
        (&"hello".to_owned(), "malformed"),
    ] {
        let outcome = running.check(bearer(key)).await;
        assert_eq!(outcome.reason(), Some(reason));
        let Outcome::Denied { status, headers, body, .. } = outcome else { unreachable!() };
        assert_eq!(status, 401);
        answers.push((headers, body));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "nobody learns why: {answers:?}");

    let missing = running.check(request("/write", &[], &[])).await;
    assert_eq!(missing.reason(), Some("missing"));
    let twice = [("x-api-key", good.as_str()), ("x-api-key", good.as_str())];
    let Outcome::Denied { status, reason, .. } =
        running.check(request("/write", &twice, &[])).await
    else {
        panic!("allowed")
    };
    assert_eq!((status, reason.as_str()), (400, "ambiguous"));

    let nothing = running.check(CheckRequest::default()).await;
    assert_eq!(nothing.reason(), Some("no_request"));
    assert_eq!(running.check(bearer(&good)).await.tenant(), Some("acme"));
    // The map mode of Envoy, without raw headers.
    let mut joined = bearer("");
    let http = joined.attributes.as_mut().and_then(|a| a.request.as_mut()?.http.as_mut());
    let http = http.expect("there");
    http.header_map = None;
    http.headers.insert("authorization".into(), format!("Token {good}"));
    assert_eq!(running.check(joined.clone()).await.tenant(), Some("acme"));
}

#[tokio::test]
async fn a_route_demands_a_scope() {
    let files = Files::new();
    let (key, record) = files.issue("acme");
    files.write_keys(&keys_yaml(&[&record]));
    let running = Running::start_ready(&files).await;
    let ask = async |scope: &str| {
        let headers = [("dd-api-key", key.as_str())];
        running.check(request("/api/v2/series", &headers, &[("scope", scope)])).await
    };
    assert_eq!(ask("metrics:write").await.tenant(), Some("acme"));
    let Outcome::Denied { status, reason, .. } = ask("admin").await else { panic!("allowed") };
    assert_eq!((status, reason.as_str()), (403, "scope"));
}

#[tokio::test]
async fn serves_before_there_are_keys() {
    let files = Files::new();
    let (key, record) = files.issue("acme");
    let running = Running::start(&files).await;
    wait_for("the error to be known", async || {
        running.get("/config").await.1.contains("cannot be read")
    })
    .await;
    assert_eq!(running.get("/livez").await.0, 200);
    assert_eq!(running.get("/readyz").await.0, 503);
    let Outcome::Failed { status, headers, body } = running.check(bearer(&key)).await else {
        panic!("not our trouble")
    };
    assert_eq!(status, 503);
    assert!(headers.contains(&("retry-after".into(), "3".into())), "{headers:?}");
    assert!(headers.contains(&("content-type".into(), "application/problem+json".into())));
    assert!(body.contains("urn:tidegate:problem:unavailable"), "{body}");
    let Outcome::Failed { status: 503, .. } = running.check(CheckRequest::default()).await else {
        panic!("not our trouble")
    };

    files.write_keys("keys: [\n");
    wait_for("the bad file to be named", async || {
        let shown = running.get("/config").await.1;
        shown.contains("\"last_error\": \"") && !shown.contains("cannot be read")
    })
    .await;
    assert_eq!(running.get("/readyz").await.0, 503);

    files.write_keys(&keys_yaml(&[&record]));
    wait_for("ready", async || running.get("/readyz").await.0 == 200).await;
    assert_eq!(running.check(bearer(&key)).await.tenant(), Some("acme"));
}

#[tokio::test]
async fn keys_change_while_it_runs() {
    let files = Files::new();
    let ((key, record), (new_key, new_record)) = (files.issue("acme"), files.issue("umbrella"));
    files.write_keys(&keys_yaml(&[&record]));
    let running = Running::start_ready(&files).await;
    assert_eq!(running.check(bearer(&new_key)).await.reason(), Some("unknown_key"));

    files.write_keys(&keys_yaml(&[&record, &new_record]));
    wait_for("the new key", async || running.check(bearer(&new_key)).await.tenant().is_some())
        .await;
    assert_eq!(running.check(bearer(&key)).await.tenant(), Some("acme"));

    let mut suspended = record.clone();
    Arc::make_mut(&mut suspended.grant).plan = "none".into();
    files.write_keys(&keys_yaml(&[&suspended, &new_record]));
    wait_for("another plan for the same key", async || {
        let outcome = running.check(bearer(&key)).await;
        matches!(outcome, Outcome::Allowed { headers, .. } if headers["x-tidegate-plan"] == "none")
    })
    .await;

    let fewer = keys_yaml(&[&record]);
    for (bad, named) in [
        (fewer.clone(), "state 'count: 1' in it"),
        (keys_yaml(&[]), "state 'count: 0' in it"),
        (format!("count: 2\n{fewer}"), "'count' says 2 keys and there are 1"),
        (keys_yaml(&[&record, &record]), "already used"),
        (keys_yaml(&[&record]).replace("ingest", "ingets"), "none of the classes"),
        (keys_yaml(&[&record])[..60].to_owned(), "keys.yaml:"),
        (String::new(), "\"last_error\": \""),
    ] {
        files.write_keys(&bad);
        wait_for(named, async || running.get("/config").await.1.contains(named)).await;
        assert_eq!(running.check(bearer(&key)).await.tenant(), Some("acme"), "{named}");
        assert_eq!(running.get("/readyz").await.0, 200);
        // Otherwise the next refusal could not be told from this one.
        files.write_keys(&keys_yaml(&[&record, &new_record]));
        wait_for("good again", async || {
            running.get("/config").await.1.contains("\"last_error\": null")
        })
        .await;
    }

    std::fs::remove_file(files.path("keys.yaml")).expect("deleted");
    wait_for("gone", async || running.get("/config").await.1.contains("cannot be read")).await;
    assert_eq!(running.check(bearer(&key)).await.tenant(), Some("acme"));
    let metrics = running.get("/metrics").await.1;
    assert!(!metrics.contains("authz_snapshot_stale_seconds 0.0\n"), "{metrics}");

    files.write_keys(&format!("count: 0\n{}", keys_yaml(&[])));
    wait_for("nobody may pass", async || {
        running.check(bearer(&key)).await.reason() == Some("unknown_key")
    })
    .await;
    assert_eq!(running.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn drains_and_ends() {
    let files = Files::new();
    files.write_keys(&keys_yaml(&[]));
    let running = Running::start_ready(&files).await;
    let endpoint = Endpoint::new(format!("http://{}", running.grpc)).expect("an address");
    let mut health = HealthClient::new(endpoint.connect().await.expect("connected"));
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        let request = HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.expect("known").into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    drop(health);
    running.shutdown.begin();
    running.task.await.expect("no panic").expect("an orderly end");
    let reconnected = tokio::net::TcpStream::connect(running.grpc).await;
    assert!(reconnected.is_err(), "the listener is closed");
}

#[tokio::test]
async fn refusals_in_protobuf_are_a_status() {
    let files = Files::new();
    let running = Running::start(&files).await;
    let ask = async |headers: &[(&str, &str)]| {
        let mut all = vec![("content-type", "application/x-protobuf")];
        all.extend(headers);
        let (Outcome::Denied { body, .. } | Outcome::Failed { body, .. }) =
            running.check(request("/v1/metrics", &all, &[("profile", "otlp")])).await
        else {
            panic!("allowed")
        };
        GoogleStatus::decode(body.as_bytes()).expect("a google.rpc.Status")
    };
    assert_eq!(ask(&[]).await.code, 14);
    files.write_keys(&keys_yaml(&[]));
    wait_for("ready", async || running.get("/readyz").await.0 == 200).await;
    let missing = ask(&[]).await;
    assert_eq!((missing.code, missing.message.as_str()), (16, "an API key is required"));
    assert_eq!(ask(&[("x-api-key", "a,b")]).await.code, 3);
}

#[tokio::test]
async fn large_requests_are_denied_or_not_even_read() {
    let files = Files::new();
    let (key, record) = files.issue("acme");
    files.write_keys(&keys_yaml(&[&record]));
    let running = Running::start_ready(&files).await;
    let long = "k".repeat(60_000);
    let denied = running.check(bearer(&long)).await;
    assert_eq!(denied.reason(), Some("oversize"));
    let many: Vec<String> = (0..100).map(|n| format!("x-header-{n}")).collect();
    let mut headers: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "v")).collect();
    headers.push(("x-api-key", &key));
    assert_eq!(running.check(request("/", &headers, &[])).await.tenant(), Some("acme"));

    let fill = |bytes: usize| {
        let fill = "f".repeat(bytes);
        let request = |fill: &str| request("/", &[("x-fill", fill), ("x-api-key", &key)], &[]);
        let spare = bytes - (request(&fill).encoded_len() - bytes);
        request(&fill[..spare])
    };
    let largest = fill(CHECK_REQUEST_BYTES_MAX);
    assert_eq!(largest.encoded_len(), CHECK_REQUEST_BYTES_MAX);
    assert_eq!(running.check(largest).await.tenant(), Some("acme"));
    let refused = running.client.clone().check(fill(CHECK_REQUEST_BYTES_MAX + 1)).await;
    assert_eq!(refused.expect_err("too large").code(), tonic::Code::OutOfRange);
}

#[tokio::test]
async fn strangers_add_no_series() {
    let files = Files::new();
    files.write_keys(&keys_yaml(&[]));
    let running = Running::start_ready(&files).await;
    let series = async || {
        let metrics = running.get("/metrics").await.1;
        metrics.lines().filter(|line| line.starts_with("authz_")).count()
    };
    running.check(bearer(&files.issue("acme").0)).await;
    running.check(request("/", &[], &[("profile", "no such")])).await;
    let before = series().await;
    for n in 0..200 {
        let (key, _) = files.issue("acme");
        let headers = [("authorization", format!("Bearer {key}"))];
        let headers = [(headers[0].0, headers[0].1.as_str())];
        let outcome = running.check(request(&format!("/{key}"), &headers, &[])).await;
        assert_eq!(outcome.reason(), Some("unknown_key"));
        let profile = [("profile", &*format!("profile-{n}"))];
        let outcome = running.check(request("/", &headers, &profile)).await;
        let Outcome::Failed { status: 503, headers, .. } = outcome else { panic!("{outcome:?}") };
        assert!(headers.contains(&("retry-after".into(), "3".into())), "{headers:?}");
    }
    assert_eq!(series().await, before);
    let metrics = running.get("/metrics").await.1;
    let unlogged = metrics.lines().find(|line| line.starts_with("authz_denials_unlogged_total "));
    assert!(unlogged.is_some(), "{metrics}");
}

proptest! {
    /// Whatever bytes arrive as a request, nothing panics, and without a key nobody passes.
    #[test]
    fn no_bytes_pass_without_a_key(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let headers = [("authorization", "Bearer tdg_live_x"), ("content-type", "a/b")];
        let mut mutated =
            request("/?api_key=x", &headers, &[("profile", "datadog")]).encode_to_vec();
        let at = at.index(mutated.len());
        mutated[at] = byte;
        let pepper = Peppers::new([(1, vec![1; 16])].into()).expect("a pepper");
        let keys = Keyring::try_new([], Arc::new(pepper)).expect("no key");
        for bytes in [noise, mutated] {
            let Ok(check) = CheckRequest::decode(bytes.as_slice()) else { continue };
            let view = view(&check);
            let decision = decide(Timestamp::now(), Some(&keys), view.as_ref());
            let response = respond(&decision, view.as_ref(), 1);
            let outcome = Outcome::of(response);
            prop_assert!(!matches!(outcome, Outcome::Allowed { .. }), "{outcome:?}");
        }
    }
}

/// How many ask at a time.
const AT_ONCE: usize = 50;

#[tokio::test]
async fn who_fails_too_often_is_told_to_wait_and_nobody_else_is() {
    let files = Files::new();
    let (key, record) = files.issue("acme");
    files.write_keys(&keys_yaml(&[&record]));
    let running = Running::start_ready(&files).await;
    let from = |address: &str, key: &str, profile: &str| {
        let headers = [("x-api-key", key), ("x-tidegate-client", address)];
        request("/", &headers, &[("profile", profile)])
    };
    let (stranger, _) = files.issue("acme");
    // A neighbour in the same /64 has no other one.
    for (address, profile, expected) in [
        ("2001:db8::1", "otlp", 503),
        ("2001:db8::2", "influx-v2", 429),
        ("2001:db8::3", "datadog", 429),
    ] {
        let mut throttled = None;
        for _ in 0..FAILURES_BURST {
            // Many at once: one after the other a busy machine would not ask faster than a bucket refills.
            let mut asking = JoinSet::new();
            for _ in 0..AT_ONCE {
                let (mut client, asked) =
                    (running.client.clone(), from(address, &stranger, profile));
                asking.spawn(async move { client.check(asked).await });
            }
            for answer in asking.join_all().await {
                let outcome = Outcome::of(answer.expect("never a gRPC error").into_inner());
                match outcome.reason() {
                    Some("throttled") => throttled = Some(outcome),
                    reason => assert_eq!(reason, Some("unknown_key")),
                }
            }
            if throttled.is_some() {
                break;
            }
        }
        let Some(Outcome::Denied { status, headers, .. }) = throttled else {
            panic!("{profile}: never told to wait")
        };
        assert_eq!(status, expected, "{profile}");
        assert!(headers.contains(&("retry-after".into(), "3".into())), "{headers:?}");
    }
    let other = running.check(from("2001:db8:0:1::1", &stranger, "otlp")).await;
    assert_eq!(other.reason(), Some("unknown_key"), "another source");
    let good = running.check(from("2001:db8::1", &key, "otlp")).await;
    assert_eq!(good.tenant(), Some("acme"), "a good key passes from anywhere");
    // The very key that was refused so often works as soon as it is in force.
    let peppers = files.config().keys.peppers;
    let shown = ApiKey::parse(stranger.as_bytes()).expect("a key");
    let digest =
        Digest { pepper: 1, hmac_sha256: peppers.hmac(1, stranger.as_bytes()).expect("1") };
    let issued = KeyRecord { id: shown.id(), digest, ..record.clone() };
    files.write_keys(&keys_yaml(&[&record, &issued]));
    wait_for("the key that was denied", async || {
        running.check(from("2001:db8::1", &stranger, "otlp")).await.tenant().is_some()
    })
    .await;
}
