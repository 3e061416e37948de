//! Keys in a real Redis: issued, followed and changed by the commands, as keys of a file are.

use std::fs;

use ext_authz::admin::Event;
use ext_authz::check::record::{KeyRecord, Status};
use ext_authz::key_file::Rules;
use ext_authz::store::Store;
use ext_authz::store::redis::RedisStore;
use ext_authz::timestamp::Timestamp;
use redis::Commands;
use serde_json::Value;

use crate::cli::{keys, run, stderr, stdout};
use crate::redis_server::{
    AUDIT, RECORDS, REPLICAS, RedisServer, STATE, shown, wait_until_it_follows,
};
use crate::rig::{DEADLINE, Files, Running, bearer, keys_yaml, wait_for};

fn issue(files: &Files, tenant: &str, more: &[&str]) -> String {
    let issued = keys(files, &[&["issue", "--append", "--tenant", tenant], more].concat());
    stdout(&issued).trim().to_owned()
}

async fn wait_for_reason(running: &Running, key: &str, reason: Option<&str>) {
    wait_for(&format!("{reason:?}"), async || {
        let outcome = running.check(bearer(key)).await;
        outcome.reason() == reason && (reason.is_some() || outcome.tenant().is_some())
    })
    .await;
}

/// What every store does for every command; the same for a file and for Redis.
async fn every_command(files: &Files) {
    let first = issue(files, "acme", &["--comment", "the first"]);
    let id = &first[9..21];
    let running = Running::start_ready(files).await;
    wait_for_reason(&running, &first, None).await;

    let second = issue(files, "umbrella", &["--by", "ann"]);
    wait_for_reason(&running, &second, None).await;

    let suspended = keys(files, &["suspend", id, "--by", "ann"]);
    assert_eq!(stdout(&suspended), format!("key '{id}' is suspended\n"));
    let audit: Value = serde_json::from_str(stderr(&suspended).trim()).expect("one line of JSON");
    let audit = &audit["audit"];
    assert_eq!((&audit["who"], &audit["what"]), (&"ann".into(), &"suspend".into()));
    assert_eq!((&audit["key_id"], &audit["tenant"]), (&id.into(), &"acme".into()));
    assert!(audit["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{audit}");
    wait_for_reason(&running, &first, Some("suspended")).await;
    stdout(&keys(files, &["resume", id]));
    wait_for_reason(&running, &first, None).await;

    let third = stdout(&keys(files, &["rotate", id, "--overlap", "24h"])).trim().to_owned();
    wait_for_reason(&running, &third, None).await;
    assert_eq!(running.check(bearer(&third)).await.tenant(), Some("acme"));
    assert_eq!(running.check(bearer(&first)).await.tenant(), Some("acme"), "for a day yet");

    let foreign = "0123456789abcdef0123456789abcdef";
    let config = files.path("ext-authz.yaml");
    stdout(&run(&["keys", "import", "--append", "--tenant", "initech"], &config, foreign));
    wait_for_reason(&running, foreign, None).await;
    let again = run(&["keys", "import", "--append", "--tenant", "initech"], &config, foreign);
    assert_ne!(again.status.code(), Some(0), "one key has one owner");

    let verified = run(&["keys", "verify"], &config, &third);
    assert!(stdout(&verified).contains("of tenant 'acme' is valid"));
    let verified = run(&["keys", "verify"], &config, foreign);
    assert!(stdout(&verified).contains("of tenant 'initech' is valid"));
    let one = stdout(&keys(files, &["show", id, "--output", "json"]));
    let one: Value = serde_json::from_str(&one).expect("JSON");
    assert_eq!((&one["comment"], &one["state"]), (&"the first".into(), &"valid".into()));
    assert!(one["expires_at"].is_string(), "it has a successor: {one}");
    assert!(stdout(&keys(files, &["show", id])).contains("tenant: \"acme\""));
    let listed = stdout(&keys(files, &["list"]));
    for (part, of) in
        [("the first", "a comment"), ("umbrella", "a tenant"), (&third[9..21], "an id")]
    {
        assert!(listed.contains(part), "{of}: {listed}");
    }
    let exported = stdout(&keys(files, &["export"]));
    assert!(exported.starts_with("{\"count\": 4, \"keys\": ["), "{exported}");

    assert_eq!(stdout(&keys(files, &["revoke", id])), format!("key '{id}' is revoked\n"));
    wait_for_reason(&running, &first, Some("revoked")).await;
    for (args, said) in [
        (&["revoke", id][..], "is revoked already"),
        (&["resume", id], "cannot be undone"),
        (&["rotate", id, "--overlap", "1h"], "is revoked or suspended"),
        (&["revoke", "AAAAAAAAAAAA"], "there is no key"),
        (&["show", "AAAAAAAAAAAA"], "there is no key"),
        (&["suspend", &third[9..21], "--by", ""], "the name must have"),
    ] {
        let output = keys(files, args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
    }
    for text in [&listed, &exported, &stderr(&suspended)] {
        assert!(!text.contains(&first[22..]) && !text.contains(&third[22..]), "a secret");
    }
}

#[tokio::test]
async fn every_command_changes_keys_in_a_file() {
    every_command(&Files::new()).await;
}

#[tokio::test]
async fn every_command_changes_keys_in_redis() {
    let redis = RedisServer::start();
    every_command(&redis.files()).await;
    let mut raw = redis.connect();
    let state: (String, u64, String) = redis::cmd("HMGET")
        .arg(STATE)
        .arg(&["epoch", "generation", "origin"])
        .query(&mut raw)
        .expect("a state");
    assert_eq!((state.1, state.2.as_str(), state.0.len()), (7, "issue", 12));
    let events: u64 = redis::cmd("XLEN").arg(AUDIT).query(&mut raw).expect("a stream");
    assert_eq!(events, 7, "one for each change");
    let text: String = redis::cmd("XRANGE")
        .arg(AUDIT)
        .arg("-")
        .arg("+")
        .query::<redis::Value>(&mut raw)
        .map(|value| format!("{value:?}"))
        .expect("events");
    for what in ["issue", "suspend", "resume", "rotate", "import", "revoke", "ann"] {
        assert!(text.contains(&format!("\\\"{what}\\\"")), "{what}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_waits_for_every_replica_or_names_who_is_behind() {
    let redis = RedisServer::start();
    let files = redis.files();
    let (first, second) = (issue(&files, "acme", &[]), issue(&files, "acme", &[]));
    let replicas = [Running::start_ready(&files).await, Running::start_ready(&files).await];
    for replica in &replicas {
        wait_until_it_follows(replica).await;
    }
    let waited = keys(&files, &["revoke", &first[9..21], "--wait"]);
    assert!(stdout(&waited).ends_with("is revoked, in force at 2 replicas\n"), "{waited:?}");
    // No wait for it here: that is what the command was for.
    for replica in &replicas {
        assert_eq!(replica.check(bearer(&first)).await.reason(), Some("revoked"));
    }
    let mut raw = redis.connect();
    let ((now, _), epoch): ((u64, u64), String) = redis::pipe()
        .cmd("TIME")
        .cmd("HGET")
        .arg(STATE)
        .arg("epoch")
        .query(&mut raw)
        .expect("a state");
    // One that is behind, and one that has not been heard of for an hour.
    let _: () = raw.hset(REPLICAS, "behind:9001", format!("{epoch} 1 {now}")).expect("set");
    let _: () = raw.hset(REPLICAS, "gone:9001", format!("{epoch} 1 {}", now - 3600)).expect("set");
    let args = ["revoke", &second[9..21], "--wait", "--wait-timeout", "200ms", "--output", "json"];
    let waited = keys(&files, &args);
    assert_eq!(waited.status.code(), Some(1));
    let said = stderr(&waited);
    assert!(said.contains("behind:9001 (last heard of") && !said.contains("gone:"), "{said}");
    // Waiting again changes nothing, and is not refused as what was done already. A busy machine may need
    // more than one time of that length before both have it in force.
    wait_for("the two that follow", async || {
        let again = keys(&files, &args);
        assert_eq!(again.status.code(), Some(1));
        assert!(stderr(&again).contains("behind:9001 (last heard of"), "{again:?}");
        assert!(!stderr(&again).contains("audit"), "nothing was changed: {again:?}");
        let json: Value = serde_json::from_slice(&again.stdout).expect("JSON");
        let replicas = json["replicas"].as_array().expect("a list");
        replicas.iter().filter(|replica| replica["acknowledged"] == true).count() == 2
    })
    .await;

    // Those who end in order take their leave.
    let [a, b] = replicas;
    for replica in [a, b] {
        replica.shutdown.begin();
        replica.task.await.expect("no panic").expect("ended well");
    }
    let left: Vec<String> = raw.hkeys(REPLICAS).expect("names");
    assert!(left.iter().all(|name| name.ends_with(":9001")), "{left:?}");
    let file = Files::new();
    let key = issue(&file, "acme", &[]);
    assert_eq!(
        keys(&file, &["revoke", &key[9..21], "--wait"]).status.code(),
        Some(64),
        "no file acknowledges"
    );
}

/// As somebody reads it who is woken at night.
#[tokio::test]
async fn what_is_wrong_with_redis_is_said_once_and_in_words() {
    let mut redis = RedisServer::start();
    let files = redis.files_with("  password_file: password\n");
    let said = |args: &[&str], expected: &str| {
        let output = keys(&files, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        let text = stderr(&output);
        let text = text.lines().last().expect("a line");
        assert!(text.contains(expected), "{args:?}: {text}");
        assert_eq!(text.matches(expected).count(), 1, "{text}");
        assert_eq!(text.matches("Redis at 127.0.0.1:").count(), 1, "{text}");
    };
    said(&["list"], "cannot read");
    fs::write(files.path("password"), "wrong").expect("written");
    let mut raw = redis.connect();
    let mut set = |words: &[&str]| {
        redis::cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut raw).expect("set");
    };
    set(&["CONFIG", "SET", "requirepass", "right"]);
    said(&["list"], "cannot be reached: refuses the login");
    fs::write(files.path("password"), "right").expect("written");
    let key = issue(&files, "acme", &[]);
    let id = &key[9..21];

    let alone = keys(&files, &["suspend", id, "--wait"]);
    assert_eq!(alone.status.code(), Some(1));
    assert!(stderr(&alone).contains("suspended in Redis, and no replica is known to follow it"));
    set(&["REPLICAOF", "127.0.0.1", "1"]);
    for args in [&["issue", "--tenant", "acme"][..], &["resume", id], &["revoke", id]] {
        said(args, "is read-only: it is not the primary");
    }
    set(&["REPLICAOF", "NO", "ONE"]);
    set(&["CONFIG", "SET", "maxmemory", "1"]);
    said(&["resume", id], "takes no writes: its memory is full");
    set(&["CONFIG", "SET", "maxmemory", "0"]);
    set(&["ACL", "SETUSER", "default", "-hscan"]);
    said(&["list"], "does not let this user do that");
    redis.kill();
    said(&["revoke", id], "cannot be reached: Connection refused");
}

/// Keys in use, and keys that were never asked for; one after the other, each at every replica.
#[tokio::test(flavor = "multi_thread")]
async fn every_revocation_is_in_force_everywhere_when_it_was_acknowledged() {
    let redis = RedisServer::start();
    let files = redis.files();
    let mut all: Vec<(String, KeyRecord)> = (0..100).map(|_| files.issue("acme")).collect();
    let records: Vec<&KeyRecord> = all.iter().map(|(_, record)| record).collect();
    fs::write(files.path("all.yaml"), keys_yaml(&records)).expect("written");
    stdout(&keys(&files, &["load", files.path("all.yaml").to_str().expect("UTF-8")]));
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Running::start_ready(&files).await);
    }
    for replica in &replicas {
        wait_until_it_follows(replica).await;
    }
    let config = files.config();
    for (number, (key, record)) in all.drain(..).enumerate() {
        let is_idle = number % 2 == 0;
        for replica in replicas.iter().filter(|_| !is_idle) {
            assert_eq!(replica.check(bearer(&key)).await.tenant(), Some("acme"));
        }
        let (config, id) = (config.clone(), record.id);
        let revoke = move || {
            let keys = &config.keys;
            let rules = Rules { peppers: &keys.peppers, priority_classes: &keys.priority_classes };
            let settings = keys.redis.as_ref().expect("Redis");
            let store = RedisStore::open(settings, rules).expect("connected");
            let mut store = Store::Redis(Box::new(store));
            let (at, who) = (Timestamp::now(), "ann".to_owned());
            let mut event = Event { at, who, what: "revoke", key_id: Some(id), tenant: None };
            let position = store.set_status(id, Status::Revoked, &mut event).expect("revoked");
            let (position, Store::Redis(mut redis)) = (position.expect("a position"), store) else {
                panic!("Redis")
            };
            let said = redis.wait(&position, DEADLINE).expect("asked");
            (said.len(), said.iter().all(|replica| replica.has(&position)))
        };
        let acknowledged = tokio::task::spawn_blocking(revoke).await.expect("no panic");
        assert_eq!(acknowledged, (3, true));
        for replica in &replicas {
            assert_eq!(replica.check(bearer(&key)).await.reason(), Some("revoked"), "{number}");
        }
    }
}

#[tokio::test]
async fn a_tenant_is_suspended_and_a_whole_file_loaded() {
    let redis = RedisServer::start();
    let files = redis.files();
    let key = issue(&files, "acme", &[]);
    let running = Running::start_ready(&files).await;
    wait_for_reason(&running, &key, None).await;
    stdout(&keys(&files, &["suspend", "--tenant", "acme"]));
    wait_for_reason(&running, &key, Some("tenant_suspended")).await;
    assert_eq!(keys(&files, &["suspend", "--tenant", "acme"]).status.code(), Some(64), "already");
    assert_eq!(keys(&files, &["revoke", "--tenant", "acme"]).status.code(), Some(64));
    stdout(&keys(&files, &["resume", "--tenant", "acme"]));
    wait_for_reason(&running, &key, None).await;

    // All others at once; the key that was there is meant to go.
    let (other, record) = files.issue("umbrella");
    let (quiet, quiet_record) = files.issue("quiet");
    let text = keys_yaml(&[&record, &quiet_record]) + "tenants: [{name: quiet, suspended: true}]\n";
    fs::write(files.path("all.yaml"), text).expect("written");
    let path = files.path("all.yaml");
    let loaded = keys(&files, &["load", path.to_str().expect("UTF-8")]);
    assert!(stdout(&loaded).starts_with("2 keys are in Redis"));
    wait_for_reason(&running, &other, None).await;
    wait_for_reason(&running, &quiet, Some("tenant_suspended")).await;
    assert_eq!(running.check(bearer(&key)).await.reason(), Some("unknown_key"));
    let exported = stdout(&keys(&files, &["export"]));
    assert!(
        exported.contains("\"tenants\": [{\"name\":\"quiet\",\"suspended\":true}]"),
        "{exported}"
    );
    // Changes go on from there.
    stdout(&keys(&files, &["resume", "--tenant", "quiet"]));
    wait_for_reason(&running, &quiet, None).await;
    let shown = shown(&running).await;
    assert_eq!((&shown["count"], &shown["is_following"]), (&2.into(), &true.into()), "{shown}");
}

#[tokio::test]
async fn a_file_and_redis_are_both_in_force_and_share_no_key() {
    let redis = RedisServer::start();
    let files = redis.files_with("keys_file: keys.yaml");
    let (in_file, record) = files.issue("acme");
    files.write_keys(&keys_yaml(&[&record]));
    let running = Running::start(&files).await;
    // The keys of the file pass while Redis has none yet, and nobody is taken for a stranger.
    wait_for_reason(&running, &in_file, None).await;
    assert_eq!(running.get("/readyz").await.0, 503);
    let (stranger, other) = files.issue("acme");
    assert!(matches!(
        running.check(bearer(&stranger)).await,
        crate::rig::Outcome::Failed { status: 503, .. }
    ));
    assert_eq!(keys(&files, &["list"]).status.code(), Some(64), "which keys?");
    let in_redis = issue(&files, "umbrella", &["--store", "redis"]);
    wait_for_reason(&running, &in_redis, None).await;
    wait_for("ready", async || running.get("/readyz").await.0 == 200).await;
    assert_eq!(running.check(bearer(&stranger)).await.reason(), Some("unknown_key"));

    // The file may not have what Redis has.
    let id = &in_redis[9..21];
    let same_id = keys_yaml(&[&record, &other]).replace(other.id.as_str(), id);
    files.write_keys(&same_id);
    wait_for("the refusal", async || {
        running
            .get("/config")
            .await
            .1
            .contains(&format!("key id '{id}' is used twice, by the Redis"))
    })
    .await;
    wait_for_reason(&running, &in_file, None).await;
    files.write_keys(&keys_yaml(&[&record]));
    wait_for("no error", async || !running.get("/config").await.1.contains("used twice")).await;
    // Nor Redis what the file has; what else changes there does not wait for it.
    let mut raw = redis.connect();
    let text: String = raw.hget(RECORDS, id).expect("a record");
    let (before, after) = text.split_once("\"hmac_sha256\":\"").expect("a digest");
    let text = format!("{before}\"hmac_sha256\":\"00000000{}", &after[8..]);
    let text = text.replace(id, record.id.as_str());
    crate::redis_faults::change_by_hand(&mut raw, record.id.as_str(), &text);
    crate::redis_server::wait_for_error(&running, "is used twice").await;
    stdout(&keys(&files, &["revoke", id, "--store", "redis"]));
    wait_for_reason(&running, &in_redis, Some("revoked")).await;
    wait_for_reason(&running, &in_file, None).await;
}

/// The file was right all the time, and nobody edits it again because Redis has changed.
#[tokio::test]
async fn what_clashed_with_redis_is_in_force_once_redis_has_it_no_more() {
    let redis = RedisServer::start();
    let files = redis.files_with("keys_file: keys.yaml");
    let ((_, kept), (_, moved)) = (files.issue("acme"), files.issue("umbrella"));
    files.write_keys(&keys_yaml(&[&kept]));
    let running = Running::start(&files).await;
    let in_redis = issue(&files, "umbrella", &["--store", "redis"]);
    wait_for_reason(&running, &in_redis, None).await;
    let (in_file, record) = files.issue("quiet");
    let id = &in_redis[9..21];
    let same_id = keys_yaml(&[&kept, &moved]).replace(moved.id.as_str(), id);
    files.write_keys(&(same_id + keys_yaml(&[&record]).trim_start_matches("keys:\n")));
    let is_used_twice = async || running.get("/config").await.1.contains("is used twice");
    wait_for("the refusal", is_used_twice).await;

    let (_, other) = files.issue("acme");
    fs::write(files.path("all.yaml"), keys_yaml(&[&other])).expect("written");
    let path = files.path("all.yaml");
    stdout(&keys(&files, &["load", path.to_str().expect("UTF-8"), "--store", "redis"]));
    wait_for_reason(&running, &in_file, None).await;
    wait_for("no error", async || !is_used_twice().await).await;
}

/// Keys move from a file to Redis: they are put there first, and then taken out of the file.
#[tokio::test]
async fn keys_that_leave_the_file_are_those_of_redis_from_then_on() {
    let redis = RedisServer::start();
    let files = redis.files_with("keys_file: keys.yaml");
    let ((moving, record), (staying, kept)) = (files.issue("acme"), files.issue("umbrella"));
    files.write_keys(&keys_yaml(&[&record, &kept]));
    let running = Running::start(&files).await;
    wait_for_reason(&running, &moving, None).await;
    let (new, other) = files.issue("quiet");
    fs::write(files.path("all.yaml"), keys_yaml(&[&record, &other])).expect("written");
    let path = files.path("all.yaml");
    stdout(&keys(&files, &["load", path.to_str().expect("UTF-8"), "--store", "redis"]));
    wait_for_reason(&running, &new, None).await;
    files.write_keys(&format!("count: 1\n{}", keys_yaml(&[&kept])));
    wait_for("the file", async || {
        let config: Value = serde_json::from_str(&running.get("/config").await.1).expect("JSON");
        config["keys"]["count"] == 1
    })
    .await;
    wait_for_reason(&running, &moving, None).await;
    for key in [&staying, &new] {
        assert!(running.check(bearer(key)).await.tenant().is_some());
    }
}
