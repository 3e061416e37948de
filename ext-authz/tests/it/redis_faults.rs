//! A Redis that is away, lies, lags, loses its data or turns read-only: the records in force stay.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use redis::{Commands, Connection};

use crate::cli::{keys, stderr, stdout};
use crate::redis_server::{
    CHANGES, RECORDS, RedisServer, STATE, shown, start_impatient, wait_for_error,
    wait_until_it_follows,
};
use crate::rig::{Files, Outcome, Running, bearer, wait_for};

fn issue(files: &Files, more: &[&str]) -> String {
    let issued = keys(files, &[&["issue", "--tenant", "acme"], more].concat());
    stdout(&issued).trim().to_owned()
}

async fn passes(running: &Running, key: &str) -> bool {
    running.check(bearer(key)).await.tenant().is_some()
}

/// A change as the commands make it, of whatever text.
pub fn change_by_hand(raw: &mut Connection, id: &str, text: &str) {
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe.cmd("HSET").arg(RECORDS).arg(id).arg(text).ignore();
    pipe.cmd("HINCRBY").arg(STATE).arg("generation").arg(1);
    let generation: u64 = raw.hget(STATE, "generation").expect("a state");
    let entry = format!("{}-0", generation + 1);
    pipe.cmd("XADD").arg(CHANGES).arg(entry).arg("put").arg(text).ignore();
    let _: Vec<u64> = pipe.query(raw).expect("changed");
}

#[tokio::test]
async fn an_outage_and_a_loss_of_data_leave_the_keys_in_force() {
    let mut redis = RedisServer::start();
    let files = redis.files();
    let running = Running::start(&files).await;
    wait_for_error(&running, "holds no keys yet").await;
    assert_eq!(running.get("/readyz").await.0, 503);
    let key = issue(&files, &[]);
    wait_for("ready", async || running.get("/readyz").await.0 == 200).await;
    assert!(passes(&running, &key).await);

    redis.kill();
    wait_for_error(&running, "Redis at 127.0.0.1:").await;
    assert!(passes(&running, &key).await && running.get("/readyz").await.0 == 200);
    let metrics = running.get("/metrics").await.1;
    assert!(
        metrics.contains("\nauthz_redis_following 0") && !metrics.contains("stale_seconds 0.0\n")
    );
    let issued = keys(&files, &["issue", "--tenant", "acme"]);
    assert_eq!(issued.status.code(), Some(1), "{}", stderr(&issued));

    redis.restart();
    wait_for_error(&running, "lost its keys").await;
    assert!(passes(&running, &key).await);
    // Somebody who issues the next key then does not take all others away.
    let second = issue(&files, &[]);
    wait_for_error(&running, "lacks 1 of the 1 in force").await;
    assert!(passes(&running, &key).await && !passes(&running, &second).await);
    let exported = format!("keys: [{}]\n", serde_json::json!({}));
    std::fs::write(files.path("bad.yaml"), exported).expect("written");
    let bad = files.path("bad.yaml");
    assert_ne!(keys(&files, &["load", bad.to_str().expect("UTF-8")]).status.code(), Some(0));
    // What is loaded on purpose is believed.
    let all = stdout(&keys(&files, &["export"]));
    std::fs::write(files.path("all.json"), all).expect("written");
    let all = files.path("all.json");
    stdout(&keys(&files, &["load", all.to_str().expect("UTF-8")]));
    wait_for("the second key", async || passes(&running, &second).await).await;
    assert!(!passes(&running, &key).await);
    wait_for("no error", async || shown(&running).await["reload"]["last_error"].is_null()).await;
}

#[tokio::test]
async fn a_trimmed_stream_and_records_of_nonsense_hold_nobody_up() {
    let redis = RedisServer::start();
    let files = redis.files();
    let (first, second) = (issue(&files, &[]), issue(&files, &[]));
    let running = Running::start_ready(&files).await;
    assert!(passes(&running, &first).await && passes(&running, &second).await);
    let mut raw = redis.connect();
    // A generation that the stream does not have any more.
    let text: String = raw.hget(RECORDS, &first[9..21]).expect("a record");
    let revoked = text.replacen('{', "{\"revoked\":true,", 1);
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("HSET").arg(RECORDS).arg(&first[9..21]).arg(revoked).ignore();
    pipe.cmd("HINCRBY").arg(STATE).arg("generation").arg(1).ignore();
    pipe.query::<()>(&mut raw).expect("changed");
    wait_for("all keys anew", async || {
        running.check(bearer(&first)).await.reason() == Some("revoked")
    })
    .await;
    let metrics = running.get("/metrics").await.1;
    assert!(!metrics.contains("\nauthz_redis_resyncs_total 1\n"), "{metrics}");

    for (id, text) in [("AAAAAAAAAAAA", "nonsense"), (&second[9..21], "{\"id\": 1}")] {
        change_by_hand(&mut raw, id, text);
    }
    wait_for_error(&running, "2 records or changes cannot be used").await;
    assert!(passes(&running, &second).await, "the record before it stays");
    let third = issue(&files, &[]);
    wait_for("the third key", async || passes(&running, &third).await).await;
    // Another service starts with what can be used.
    let other = Running::start_ready(&files).await;
    assert!(passes(&other, &third).await && !passes(&other, &second).await);
    wait_for_error(&other, "2 records or changes cannot be used, the first '").await;

    // Fewer records than there must be are not believed by somebody new.
    let _: () = raw.hdel(RECORDS, &third[9..21]).expect("deleted");
    let new = Running::start(&files).await;
    wait_for_error(&new, "has 3 of its 4 records").await;
    assert_eq!(new.get("/readyz").await.0, 503);
    assert!(passes(&running, &third).await);
}

#[tokio::test]
async fn a_redis_that_is_read_only_or_went_back_is_not_believed_for_long() {
    let redis = RedisServer::start();
    let files = redis.files();
    let key = issue(&files, &[]);
    let critical = issue(&files, &["--priority", "system-node-critical"]);
    let suspended = issue(&files, &[]);
    stdout(&keys(&files, &["revoke", &suspended[9..21]]));
    let running = start_impatient(&files, Duration::from_secs(4)).await;
    assert!(passes(&running, &key).await && passes(&running, &critical).await);
    let mut raw = redis.connect();
    let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query(&mut raw).expect("a replica");
    wait_for_error(&running, "is read-only").await;
    // For longer than records are believed: the critical class passes, the others come again.
    wait_for("stale", async || {
        matches!(running.check(bearer(&key)).await, Outcome::Failed { status: 503, .. })
    })
    .await;
    assert!(passes(&running, &critical).await);
    assert_eq!(running.check(bearer(&suspended)).await.reason(), Some("revoked"));
    let ready = running.get("/readyz").await;
    assert!(ready.0 == 503 && ready.1.contains("not heard of for too long"), "{ready:?}");
    let metrics = running.get("/metrics").await.1;
    assert!(metrics.contains("reason=\"stale\""), "{metrics}");

    let _: () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query(&mut raw).expect("a primary");
    wait_for("believed again", async || {
        passes(&running, &key).await && running.get("/readyz").await.0 == 200
    })
    .await;

    let generation: u64 = raw.hget(STATE, "generation").expect("a state");
    let _: () = raw.hset(STATE, "generation", generation - 1).expect("set");
    wait_for_error(&running, &format!("went back from generation {generation}")).await;
    assert!(passes(&running, &critical).await);
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_followed_all_the_same() {
    let redis = RedisServer::start();
    let files = redis.files();
    let key = issue(&files, &[]);
    // It is heard of every second, and later on a busy machine.
    let running = start_impatient(&files, Duration::from_secs(30)).await;
    let mut raw = redis.connect();
    let limit = |raw: &mut Connection, bytes: &str| {
        let _: () =
            redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query(raw).expect("set");
    };
    limit(&mut raw, "1");
    wait_for_error(&running, "takes no writes").await;
    let issued = keys(&files, &["issue", "--tenant", "acme"]);
    assert_eq!(issued.status.code(), Some(1), "{}", stderr(&issued));
    let silence = || async {
        let metrics = running.get("/metrics").await.1;
        let line = metrics.lines().find(|line| line.starts_with("authz_redis_silence_seconds"));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok()).expect("a number")
    };
    // Heard of again and again, though nothing can be written.
    for _ in 0..2 {
        wait_for("a while of silence", async || silence().await > 0.5).await;
        wait_for("it is heard of", async || silence().await < 0.5).await;
    }
    assert!(passes(&running, &key).await && running.get("/readyz").await.0 == 200);
    limit(&mut raw, "0");
    wait_for("no error", async || shown(&running).await["reload"]["last_error"].is_null()).await;
}

#[tokio::test]
async fn what_is_no_redis_is_named_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let redis = RedisServer::start();
    let files = redis.files();
    let path = files.path("ext-authz.yaml");
    let text = std::fs::read_to_string(&path).expect("read");
    let text = text.replace(&format!(":{}\n", redis.port), &format!(":{port}\n"));
    std::fs::write(&path, text).expect("written");
    let running = Running::start(&files).await;
    wait_for_error(&running, &format!("Redis at 127.0.0.1:{port}")).await;
    assert_eq!(running.get("/readyz").await.0, 503);
    assert!(matches!(running.check(bearer("x")).await, Outcome::Failed { status: 503, .. }));
}

/// An authority and a server's certificate of it, as PEM files beside the server's data.
pub fn certificates() -> (String, String, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("valid");
    ca.distinguished_name.push(DnType::CommonName, "authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = ca.self_signed(&ca_key).expect("signed");
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let server = params.signed_by(&key, &issuer).expect("signed");
    (certificate.pem(), server.pem(), key.serialize_pem())
}

#[tokio::test]
async fn redis_is_reached_over_tls_with_a_user_and_a_password_of_a_file() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (ca, certificate, key) = certificates();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let ca = file("ca.pem", &ca);
    let (certificate, key) = (file("server.pem", &certificate), file("server.key", &key));
    let arguments = format!(
        "--port 0 --tls-port {{PORT}} --tls-auth-clients no --tls-ca-cert-file {ca} \
         --tls-cert-file {certificate} --tls-key-file {key} --user default off \
         --user authz on >secret {}",
        crate::documents::redis_rights()
    );
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let redis = RedisServer::start_with(&arguments);
    let settings = format!("  user: authz\n  password_file: password\n  tls: {{ca_file: {ca}}}\n");
    let files = redis.files_with(&settings);
    let path = files.path("ext-authz.yaml");
    let text = std::fs::read_to_string(&path)
        .expect("read")
        .replace("address: 127.0.0.1", "address: localhost");
    std::fs::write(&path, text).expect("written");
    std::fs::write(files.path("password"), "wrong\n").expect("written");
    let running = Running::start(&files).await;
    wait_for_error(&running, "cannot be reached").await;
    // The file is read anew for every attempt.
    std::fs::write(files.path("password"), "secret\n").expect("written");
    let key = issue(&files, &[]);
    wait_for("the key", async || passes(&running, &key).await).await;
    wait_until_it_follows(&running).await;
    let redis = shown(&running).await;
    assert!(redis["reload"]["last_error"].is_null(), "it may do all it needs: {redis}");
    assert!(!running.get("/config").await.1.contains("secret"));
}
