//! Keys in a Redis that fails over, and in a cluster: found anew by every connection.

use std::cell::OnceCell;
use std::process::{Child, Command, Stdio};

use redis::Client;
use tempfile::TempDir;

use crate::redis_server::{RedisServer, free_port, shown};
use crate::rig::{Files, Running, bearer, wait_for};

/// A sentinel that takes a primary for down after a second.
struct Sentinel {
    _dir: TempDir,
    child: Child,
    port: u16,
}

impl Sentinel {
    fn start(primary: u16) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("temporary directory"), free_port());
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor main 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
        );
        std::fs::write(&file, text).expect("written");
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
        Self { _dir: dir, child: command.spawn().expect("redis-server is installed"), port }
    }

    /// How many replicas of the primary it knows, once it answers.
    fn replicas(&self) -> Option<usize> {
        let client = Client::open(format!("redis://127.0.0.1:{}", self.port)).ok()?;
        let mut connection = client.get_connection().ok()?;
        let ask = redis::cmd("SENTINEL").arg("REPLICAS").arg("main").to_owned();
        ask.query::<Vec<redis::Value>>(&mut connection).ok().map(|known| known.len())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files(settings: &str) -> Files {
    let files = Files::new();
    let text = format!(
        "grpc_listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\npepper_files: {{1: pepper}}\n\
         retry_after: 3s\ndrain_delay: 0s\nredis:\n{settings}"
    );
    std::fs::write(files.path("ext-authz.yaml"), text).expect("written");
    files
}

/// Issues a key by the command; nothing where Redis does not take it.
fn issue(files: &Files) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ext-authz"));
    command
        .args(["keys", "issue", "--tenant", "acme", "--config"])
        .arg(files.path("ext-authz.yaml"));
    let issued = command.output().expect("run");
    let key = String::from_utf8(issued.stdout).expect("text").trim().to_owned();
    issued.status.success().then_some(key)
}

/// The same, once Redis takes it.
async fn issue_in_time(files: &Files) -> String {
    let key = OnceCell::new();
    wait_for("a key", async || issue(files).is_some_and(|issued| key.set(issued).is_ok())).await;
    key.into_inner().expect("issued")
}

async fn passes(running: &Running, key: &str) {
    wait_for("the key", async || running.check(bearer(key)).await.tenant() == Some("acme")).await;
}

#[tokio::test]
async fn a_failover_is_followed() {
    let mut primary = RedisServer::start();
    let of = ["--replicaof".to_owned(), format!("127.0.0.1 {}", primary.port)];
    let replica = RedisServer::start_with(&of);
    let sentinel = Sentinel::start(primary.port);
    let files = files(&format!(
        "  address: 127.0.0.1:1,127.0.0.1:{}\n  sentinel_primary: main\n",
        sentinel.port
    ));
    let key = issue_in_time(&files).await;
    let running = Running::start_ready(&files).await;
    passes(&running, &key).await;
    wait_for("the replica", async || {
        let info: String =
            redis::cmd("INFO").arg("replication").query(&mut replica.connect()).expect("told");
        info.contains("master_link_status:up")
    })
    .await;
    wait_for("the sentinel to know it", async || sentinel.replicas() == Some(1)).await;
    primary.kill();
    passes(&running, &issue_in_time(&files).await).await;
    passes(&running, &key).await;
}

#[tokio::test]
async fn the_node_of_a_cluster_that_has_the_keys_is_found() {
    let cluster = ["--cluster-enabled", "yes"].map(str::to_owned);
    let (asked, owner) = (RedisServer::start_with(&cluster), RedisServer::start_with(&cluster));
    let run = |server: &RedisServer, words: &[&str]| {
        let mut command = redis::cmd("CLUSTER");
        for word in words {
            command.arg(word);
        }
        command.query::<redis::Value>(&mut server.connect()).expect("done")
    };
    run(&owner, &["ADDSLOTSRANGE", "0", "16383"]);
    run(&asked, &["MEET", "127.0.0.1", &owner.port.to_string()]);
    let files = files(&format!("  address: 127.0.0.1:{}\n  cluster: true\n", asked.port));
    let key = issue_in_time(&files).await;
    let running = Running::start_ready(&files).await;
    passes(&running, &key).await;
    assert_eq!(shown(&running).await["is_following"], true);
}
