//! Through the built binary.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::rig::{Files, Running, bearer, get, request, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_ext-authz");

pub fn run(args: &[&str], config: &Path, input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(args)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // A command that does not read may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("ended")
}

pub fn keys(files: &Files, args: &[&str]) -> Output {
    run(&[&["keys"], args].concat(), &files.path("ext-authz.yaml"), "")
}

pub fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn keys_in_json_are_issued_served_and_revoked() {
    let files = Files::new();
    let first = stdout(&keys(&files, &["issue", "--tenant", "acme", "--append"]));
    let exported = stdout(&keys(&files, &["export"]));
    assert!(exported.starts_with("{\"count\": 1, \"keys\": [\n{\"id\":\""), "{exported}");
    fs::write(files.path("keys.json"), exported).expect("written");
    let config = fs::read_to_string(files.path("ext-authz.yaml")).expect("read");
    fs::write(files.path("ext-authz.yaml"), config.replace("keys.yaml", "keys.json"))
        .expect("written");

    let second = stdout(&keys(&files, &["issue", "--tenant", "umbrella", "--append"]));
    let running = Running::start_ready(&files).await;
    assert_eq!(running.check(bearer(first.trim())).await.tenant(), Some("acme"));
    assert_eq!(running.check(bearer(second.trim())).await.tenant(), Some("umbrella"));
    stdout(&keys(&files, &["revoke", &second[9..21]]));
    wait_for("the revocation", async || {
        running.check(bearer(second.trim())).await.reason() == Some("revoked")
    })
    .await;
    let text = fs::read_to_string(files.path("keys.json")).expect("read");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON still");
    assert_eq!(json["keys"][1]["revoked"], true, "{text}");
    let shown = stderr(&keys(&files, &["issue", "--tenant", "initech"]));
    assert!(shown.contains("\n{\"id\":\""), "as it is to be added: {shown}");
}

#[tokio::test]
async fn an_issued_key_is_accepted_until_it_is_revoked() {
    let files = Files::new();
    let kept = "# Keys of the test.\nkeys: []  # none yet\n";
    files.write_keys(kept);
    let args = ["issue", "--tenant", "acme", "--priority", "background", "--plan", "free"];
    let issued = keys(&files, &[&args[..], &["--scopes", "a,b", "--append"]].concat());
    let key = stdout(&issued).trim().to_owned();
    assert!(key.starts_with("tdg_live_") && !key.contains(char::is_whitespace));
    let id = &key[9..21];
    assert!(stderr(&issued).contains(id) && !stderr(&issued).contains(&key[22..]));

    let running = Running::start_ready(&files).await;
    assert_eq!(running.check(bearer(&key)).await.tenant(), Some("acme"));

    let second = stdout(&keys(&files, &["issue", "--tenant", "umbrella", "--append"]));
    wait_for("the second key", async || {
        running.check(bearer(second.trim())).await.tenant() == Some("umbrella")
    })
    .await;

    let text = fs::read_to_string(files.path("keys.yaml")).expect("read");
    assert!(text.starts_with("# Keys of the test.\nkeys:  # none yet\n  - id: "), "{text}");
    let listed = stdout(&keys(&files, &["list"]));
    assert!(listed.contains(id) && listed.contains("umbrella") && !listed.contains(&key[22..30]));
    let verified = run(&["keys", "verify"], &files.path("ext-authz.yaml"), &key);
    assert_eq!(stdout(&verified), format!("key '{id}' of tenant 'acme' is valid\n"));

    stdout(&keys(&files, &["revoke", id]));
    wait_for("the revocation", async || {
        running.check(bearer(&key)).await.reason() == Some("revoked")
    })
    .await;
    assert_eq!(running.check(bearer(second.trim())).await.tenant(), Some("umbrella"));
    let verified = run(&["keys", "verify"], &files.path("ext-authz.yaml"), &key);
    assert_eq!(verified.status.code(), Some(1));
    assert_eq!(keys(&files, &["revoke", id]).status.code(), Some(64), "already");
    assert_eq!(keys(&files, &["revoke", "AAAAAAAAAAAA"]).status.code(), Some(64), "unknown");
}

#[test]
fn a_key_can_be_issued_before_there_is_a_file() {
    let files = Files::new();
    let issued = keys(&files, &["issue", "--tenant", "acme"]);
    assert!(!files.path("keys.yaml").exists());
    assert!(stderr(&issued).contains("hmac_sha256: "));
    let scopes = "scopes: [\"metrics:write\", \"logs:write\", \"traces:write\"]";
    assert!(stderr(&issued).contains(scopes), "what the shipped routes demand");
    let none = keys(&files, &["issue", "--tenant", "acme", "--scopes", "-"]);
    assert!(stderr(&none).contains("scopes: []"), "{}", stderr(&none));
    let json = keys(&files, &["issue", "--tenant", "acme", "--append", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    let key = json["key"].as_str().expect("a key");
    let config = files.path("ext-authz.yaml");
    let verified = run(&["keys", "verify", "--output", "json"], &config, &format!("{key}\n"));
    let verified: serde_json::Value = serde_json::from_str(&stdout(&verified)).expect("JSON");
    assert_eq!((&verified["state"], &verified["key_id"]), (&"valid".into(), &json["key_id"]));
}

#[test]
fn what_the_caller_can_put_right_exits_64() {
    let files = Files::new();
    for (args, said) in [
        (&["issue", "--tenant", "Acme Corp"][..], "tenant \"Acme Corp\" must be"),
        (&["issue", "--tenant", "unknown"], "tenant 'unknown' is reserved"),
        (&["issue", "--tenant", "acme", "--priority", "vip"], "none of the classes"),
        (&["issue", "--tenant", "acme", "--plan", ""], "plan \"\" must be"),
        (&["issue", "--tenant", "acme", "--env", "pro_d"], "env \"pro_d\" must be"),
        (&["issue", "--tenant", "acme", "--scopes", "a,B"], "scope \"B\" must be"),
        (&["issue", "--tenant", "acme", "--scopes", "a,b,a"], "scope 'a' comes twice"),
        (&["issue", "--tenant", "acme", "--expires-at", "tomorrow"], "must be a UTC time"),
        (&["issue", "--tenant", "acme", "--expires-at", "2020-01-01T00:00:00Z"], "over already"),
        (&["load", "keys.yaml"], "the configuration names none in 'redis'"),
        (
            &[
                "issue",
                "--tenant",
                "acme",
                "--expires-at",
                "2030-01-01T00:00:00Z",
                "--not-before",
                "2030-01-01T00:00:00Z",
            ],
            "expires-at must be after not-before",
        ),
        (&["issue"], "--tenant"),
        (&["revoke", "short"], "must be 12 letters or digits"),
        (&["revoke", "AAAAAAAAAAAA"], "there is no keys file"),
        (&["list"], "keys.yaml: cannot be read"),
    ] {
        let output = keys(&files, args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    for bad in ["keys: [", "", "keys:\n", "limits: []\n"] {
        files.write_keys(bad);
        let output = keys(&files, &["issue", "--tenant", "acme", "--append"]);
        assert_eq!(output.status.code(), Some(64), "{bad:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "no key without a record");
        assert_eq!(fs::read_to_string(files.path("keys.yaml")).expect("read"), bad);
    }
    fs::write(files.path("ext-authz.yaml"), "keys_file: k\npepper_file: {}\n").expect("written");
    let output = run(&["serve"], &files.path("ext-authz.yaml"), "");
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("ext-authz.yaml:2:1: "), "{}", stderr(&output));
    let output = run(&["serve"], &files.path("absent.yaml"), "");
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn verify_says_what_is_wrong_and_never_repeats_the_key() {
    let files = Files::new();
    let (key, _) = files.issue("acme");
    files.write_keys("keys: []\n");
    let mistyped = key.replace("tdg_test", "tdg_live");
    for (input, said) in [
        (key.as_str(), "is not in "),
        (&mistyped, "checksum is wrong"),
        ("hunter2", "not of the form"),
        (&"x".repeat(100_000), "not of the form"),
    ] {
        let output = run(&["keys", "verify"], &files.path("ext-authz.yaml"), input);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
        let told = format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
        assert!(!told.contains(&key[22..30]) && !told.contains("hunter2"), "{told}");
    }
}

/// The address in a log line of the form `…"admin":"127.0.0.1:1234"…`.
fn address(log: &str, name: &str) -> std::net::SocketAddr {
    let (_, rest) = log.split_once(&format!("\"{name}\":\"")).expect("logged");
    rest.split('"').next().expect("closed").parse().expect("an address")
}

/// The program itself, which listens and ends with its value.
pub struct Started {
    pub child: tokio::process::Child,
    /// What it logs from now on.
    pub log: tokio::io::BufReader<tokio::process::ChildStdout>,
    /// What it has logged so far.
    pub told: String,
    pub grpc: std::net::SocketAddr,
    pub admin: std::net::SocketAddr,
}

/// Starts the program with the configuration of these files.
pub async fn started(files: &Files) -> Started {
    use tokio::io::AsyncBufReadExt;

    let mut child = tokio::process::Command::new(BINARY)
        .arg("serve")
        .arg("--config")
        .arg(files.path("ext-authz.yaml"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("started");
    let mut log = tokio::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut told = String::new();
    while !told.contains("\"message\":\"listening\"") {
        assert_ne!(log.read_line(&mut told).await.expect("read"), 0, "ended: {told}");
    }
    let (grpc, admin) = (address(&told, "grpc"), address(&told, "admin"));
    Started { child, log, told, grpc, admin }
}

#[tokio::test]
async fn the_binary_serves_logs_no_secret_and_drains_on_sigterm() {
    use tokio::io::AsyncReadExt;

    let files = Files::new();
    files.write_keys("keys: []\n");
    let key = stdout(&keys(&files, &["issue", "--tenant", "acme", "--append"])).trim().to_owned();
    let mut config = fs::read_to_string(files.path("ext-authz.yaml")).expect("read");
    config.push_str("log_level: trace\n");
    fs::write(files.path("ext-authz.yaml"), config).expect("written");
    let Started { mut child, mut log, mut told, grpc, admin } = started(&files).await;
    let reader = tokio::spawn(async move {
        log.read_to_string(&mut told).await.expect("read");
        told
    });
    wait_for("ready", async || get(admin, "/readyz").await.0 == 200).await;
    let mut shown = get(admin, "/config").await.1 + &get(admin, "/metrics").await.1;
    let mut client = crate::rig::connect(grpc).await;
    let wrong = format!("{}_{}{}", &key[..21], "w".repeat(32), &key[54..]);
    let basic = base64_of(&format!("user:{key}"));
    for credential in [
        format!("Bearer {key}"),
        format!("Basic {basic}"),
        format!("Bearer {wrong}"),
        format!("Digest {key}"),
        format!("Bearer {key},Bearer {key}"),
    ] {
        let request = crate::rig::request("/w", &[("authorization", &credential)], &[]);
        shown += &format!("{:?}", client.check(request).await.expect("answered"));
    }
    let query = format!("/api/v1/series?api_key={key}");
    let request = crate::rig::request(&query, &[], &[("profile", "datadog")]);
    shown += &format!("{:?}", client.check(request).await.expect("answered"));
    drop(client);
    shown += &get(admin, "/metrics").await.1;

    let id = child.id().expect("running").to_string();
    Command::new("kill").args(["-TERM", &id]).status().expect("signalled");
    assert_eq!(child.wait().await.expect("ended").code(), Some(0));
    shown += &reader.await.expect("read to the end");
    assert!(shown.contains("drained") && shown.contains("\"reason\":\"checksum\""), "{shown}");
    for secret in [&key[22..], &basic, "a pepper of enough bytes"] {
        for at in 0..=secret.len() - 8 {
            assert!(!shown.contains(&secret[at..at + 8]), "part of a secret was shown");
        }
    }
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn a_key_of_another_system_is_imported_suspended_and_resumed() {
    const FOREIGN: &str = "0123456789abcdef0123456789abcdef";
    let files = Files::new();
    files.write_keys("count: 0\nkeys: []\n");
    let config = files.path("ext-authz.yaml");
    let import = ["keys", "import", "--tenant", "acme", "--networks", "192.0.2.0/24", "--append"];
    let imported = run(&import, &config, &format!("{FOREIGN}\n"));
    let said = stdout(&imported);
    let id = said.split('\'').nth(1).expect("the id").to_owned();
    assert!(!said.contains(FOREIGN) && !stderr(&imported).contains(FOREIGN));
    let text = fs::read_to_string(files.path("keys.yaml")).expect("read");
    assert!(text.starts_with("count: 1\n") && text.contains("imported: true"), "{text}");
    let verified = run(&["keys", "verify"], &config, FOREIGN);
    assert_eq!(stdout(&verified), format!("key '{id}' of tenant 'acme' is valid\n"));

    let running = Running::start_ready(&files).await;
    let from = |address| {
        let headers = [("dd-api-key", FOREIGN), ("x-tidegate-client", address)];
        request("/api/v2/series", &headers, &[("profile", "datadog")])
    };
    assert_eq!(running.check(from("192.0.2.7")).await.tenant(), Some("acme"));
    assert_eq!(running.check(from("198.51.100.7")).await.reason(), Some("network"));
    stdout(&keys(&files, &["suspend", &id]));
    wait_for("the suspension", async || {
        running.check(from("192.0.2.7")).await.reason() == Some("suspended")
    })
    .await;
    stdout(&keys(&files, &["resume", &id]));
    wait_for("it to be over", async || {
        running.check(from("192.0.2.7")).await.tenant() == Some("acme")
    })
    .await;
    let text = fs::read_to_string(files.path("keys.yaml")).expect("read");
    files.write_keys(&format!("tenants: [{{name: acme, suspended: true}}]\n{text}"));
    wait_for("the tenant's suspension", async || {
        running.check(from("192.0.2.7")).await.reason() == Some("tenant_suspended")
    })
    .await;
    let verified = run(&["keys", "verify"], &config, FOREIGN);
    assert_eq!(verified.status.code(), Some(1), "{}", stderr(&verified));
    assert!(stderr(&verified).contains("is suspended with its tenant"), "{}", stderr(&verified));
    for bad in ["short", "tdg_live_0123456789abcdef", "0123456789abcdef,", ""] {
        assert_eq!(run(&import, &config, bad).status.code(), Some(64), "{bad}");
    }
}

#[tokio::test]
async fn a_pepper_is_added_without_a_restart() {
    let files = Files::new();
    fs::create_dir(files.path("peppers")).expect("created");
    fs::rename(files.path("pepper"), files.path("peppers").join("1")).expect("moved");
    let config = fs::read_to_string(files.path("ext-authz.yaml")).expect("read");
    let config = config.replace("pepper_files: {1: pepper}", "pepper_directory: peppers");
    fs::write(files.path("ext-authz.yaml"), config).expect("written");
    let old = stdout(&keys(&files, &["issue", "--tenant", "acme", "--append"]));
    let running = Running::start_ready(&files).await;
    fs::write(files.path("peppers").join("2"), "another pepper of enough").expect("written");
    let new = stdout(&keys(&files, &["issue", "--tenant", "umbrella", "--append"]));
    wait_for("the key under the new pepper", async || {
        running.check(bearer(new.trim())).await.tenant() == Some("umbrella")
    })
    .await;
    assert_eq!(running.check(bearer(old.trim())).await.tenant(), Some("acme"));
    let shown: serde_json::Value =
        serde_json::from_str(&running.get("/config").await.1).expect("JSON");
    assert_eq!(shown["pepper_versions"], serde_json::json!([1, 2]));
}

#[tokio::test]
async fn a_rotated_key_goes_on_for_a_while_beside_the_new_one() {
    let files = Files::new();
    files.write_keys("count: 0\nkeys: []\n");
    let args = ["issue", "--tenant", "acme", "--scopes", "a,b", "--plan", "gold", "--append"];
    let old = stdout(&keys(&files, &args));
    let id = old[9..21].to_owned();
    let new = stdout(&keys(&files, &["rotate", &id, "--overlap", "24h"]));
    let running = Running::start_ready(&files).await;
    for key in [&old, &new] {
        assert_eq!(running.check(bearer(key.trim())).await.tenant(), Some("acme"));
    }
    let listed = stdout(&keys(&files, &["list", "--output", "json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed[1]["scopes"], listed[0]["scopes"]);
    assert_eq!(listed[1]["comment"], format!("in place of {id}"));
    assert_eq!(listed[1]["expires_at"], serde_json::Value::Null);
    assert!(listed[0]["expires_at"].as_str().is_some_and(|end| end.ends_with('Z')), "{listed}");
    // The new one again, at once: an end that is there is replaced.
    let newest = stdout(&keys(&files, &["rotate", &new[9..21], "--overlap", "1h"]));
    stdout(&keys(&files, &["rotate", &id, "--overlap", "0s"]));
    wait_for("the old key to end", async || {
        running.check(bearer(old.trim())).await.reason() == Some("expired")
    })
    .await;
    assert_eq!(running.check(bearer(newest.trim())).await.tenant(), Some("acme"));
    for (args, said) in [
        (&["rotate", "AAAAAAAAAAAA", "--overlap", "1h"][..], "there is no key 'AAAAAAAAAAAA'"),
        (&["rotate", &id, "--overlap", "400d"], "overlap must be at most 366d"),
        (&["rotate", &old, "--overlap", "1h"], "not the whole key"),
        (&["revoke", &id, "--wait"], "nothing was changed: nobody acknowledges a keys file"),
        (&["verify", &old], "the key is read from standard input"),
    ] {
        let refused = keys(&files, args);
        assert_eq!(refused.status.code(), Some(64), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
        assert!(!stderr(&refused).contains(old.trim()), "no key is echoed: {}", stderr(&refused));
    }
}
