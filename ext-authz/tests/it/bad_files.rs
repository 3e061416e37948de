//! Keys files as they must not be, put before a running service: the keys before them stay in force,
//! one line says what is wrong, and a metric counts.

use std::fs;
use std::process::Command;

use ext_authz::check::record::KeyRecord;
use tokio::io::AsyncBufReadExt;

use crate::cli::{Started, started};
use crate::rig::{Files, Outcome, Running, bearer, connect, get, keys_yaml, wait_for};

/// The size of a file that nobody meant to put there.
const LARGE_BYTES: u64 = 100_000_000;

#[tokio::test]
async fn what_is_no_keys_file_changes_nothing_and_is_named() {
    let files = Files::new();
    let ((key, record), (_, other)) = (files.issue("acme"), files.issue("umbrella"));
    let good = keys_yaml(&[&record]);
    files.write_keys(&good);
    let running = Running::start_ready(&files).await;

    let same_id = KeyRecord { id: record.id, ..other.clone() };
    let same_digest = KeyRecord { digest: record.digest.clone(), ..other.clone() };
    let twice = format!("key id '{}' is already used in line", record.id);
    for (bad, named) in [
        (keys_yaml(&[&record, &same_id]), &*twice),
        (keys_yaml(&[&record, &same_digest]), "have the same digest"),
        (good.replace("\"ingest\"", "\"inject\""), "none of the classes"),
        (format!("{good}    colour: \"red\"\n"), "colour"),
        (good.replace("pepper: 1", "pepper: 7"), "pepper"),
        (format!("{good}keys: []\n"), "keys.yaml:"),
        ("\u{feff}".to_owned(), "keys.yaml"),
    ] {
        files.write_keys(&bad);
        refused(&running, named, &key).await;
        files.write_keys(&good);
        accepted(&running).await;
    }

    fs::remove_file(files.path("keys.yaml")).expect("removed");
    fs::create_dir(files.path("keys.yaml")).expect("a directory");
    refused(&running, "must hold 1 to 1000 keys files, not 0", &key).await;
    fs::remove_dir(files.path("keys.yaml")).expect("removed");
    files.write_keys(&good);
    accepted(&running).await;

    // Without blocks on the disk.
    let large = fs::File::create(files.path("keys.new")).expect("created");
    large.set_len(LARGE_BYTES).expect("made longer");
    fs::rename(files.path("keys.new"), files.path("keys.yaml")).expect("renamed");
    refused(&running, "must be a map in JSON", &key).await;

    // An editor of another system.
    let both = keys_yaml(&[&record, &other]).replace('\n', "\r\n");
    files.write_keys(&format!("\u{feff}{both}"));
    accepted(&running).await;
    assert!(running.get("/config").await.1.contains("\"count\": 2"));
}

/// While no descriptor is left no file can be read, and none changes because there are some again: a key
/// that was taken out meanwhile must not stay.
#[tokio::test]
async fn a_key_that_goes_while_descriptors_have_run_out_is_gone_once_there_are_some() {
    let files = Files::new();
    let ((key, record), (_, other)) = (files.issue("acme"), files.issue("umbrella"));
    files.write_keys(&keys_yaml(&[&record, &other]));
    let Started { child, mut log, grpc, admin, .. } = started(&files).await;
    wait_for("ready", async || get(admin, "/readyz").await.0 == 200).await;
    let client = connect(grpc).await;
    let check = async || {
        let answer = client.clone().check(bearer(&key)).await.expect("answered");
        Outcome::of(answer.into_inner())
    };
    assert_eq!(check().await.tenant(), Some("acme"));
    let id = child.id().expect("running").to_string();
    let descriptors = |most: &str| {
        let limit = Command::new("prlimit").args(["--pid", &id, most]).status();
        assert!(limit.expect("util-linux").success());
    };
    descriptors("--nofile=0:");
    files.write_keys(&format!("count: 1\n{}", keys_yaml(&[&other])));
    let mut line = String::new();
    while !line.contains("Too many open files") {
        line.clear();
        assert_ne!(log.read_line(&mut line).await.expect("read"), 0, "it ended");
    }
    assert_eq!(check().await.tenant(), Some("acme"), "those before stay in force");
    descriptors("--nofile=1024:");
    wait_for("the key to go", async || check().await.reason() == Some("unknown_key")).await;
    drop(child);
}

async fn refused(running: &Running, named: &str, key: &str) {
    wait_for(named, async || last_error(running).await.contains(named)).await;
    assert!(!last_error(running).await.contains('\n'), "one line");
    assert_eq!(running.check(bearer(key)).await.tenant(), Some("acme"), "{named}");
    let (status, text) = running.get("/readyz").await;
    assert!(status == 200 && text.contains("warning: keys: "), "{text}");
    let metrics = running.get("/metrics").await.1;
    assert!(!metrics.contains("authz_snapshot_refusals_total 0\n"), "{metrics}");
}

async fn accepted(running: &Running) {
    wait_for("good again", async || last_error(running).await.is_empty()).await;
    assert_eq!(running.get("/readyz").await, (200, "ready\n".to_owned()));
}

/// What `/config` says of the keys files; nothing while they are in force.
async fn last_error(running: &Running) -> String {
    let config: serde_json::Value =
        serde_json::from_str(&running.get("/config").await.1).expect("JSON");
    config["keys"]["reload"]["last_error"].as_str().unwrap_or_default().to_owned()
}
