//! Keys in a Redis that fails over, and in a cluster: found anew by every connection.

use std::cell::OnceCell;
use std::process::{Child, Command, Stdio};

use redis::Client;
use tempfile::TempDir;

use crate::redis_server::{RedisServer, free_port, wait_for_error, wait_until_it_follows};
use crate::rig::{Files, Running, bearer, wait_for};

/// Certificates of `localhost`, and how Redis is told of them.
struct Certificates {
    dir: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (ca, certificate, key) = crate::redis_faults::certificates();
        for (name, text) in [("ca", ca), ("node", certificate), ("key", key)] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        Self { dir }
    }

    /// Directives of a configuration file of Redis, one a line.
    fn directives(&self, port: &str) -> String {
        let dir = self.dir.path().display();
        format!(
            "port 0\ntls-port {port}\ntls-auth-clients no\ntls-ca-cert-file {dir}/ca\n\
             tls-cert-file {dir}/node\ntls-key-file {dir}/key\ntls-replication yes\n"
        )
    }

    /// The same as arguments of a command line.
    fn arguments(&self, more: &str) -> Vec<String> {
        let words = format!("{}{more}", self.directives("{PORT}").replace('\n', "\n--"));
        format!("--{words}").split_whitespace().map(str::to_owned).collect()
    }

    fn connect(&self, port: u16, password: &str) -> Option<redis::Connection> {
        chassis::tls::install_provider();
        let root_cert = std::fs::read(self.dir.path().join("ca")).ok();
        let tls = redis::TlsCertificates { client_tls: None, root_cert };
        let login = if password.is_empty() { String::new() } else { format!(":{password}@") };
        let url = format!("rediss://{login}localhost:{port}");
        Client::build_with_tls(url, tls).ok()?.get_connection().ok()
    }

    fn settings(&self) -> String {
        format!("  tls: {{ca_file: {}/ca}}\n", self.dir.path().display())
    }
}

/// A sentinel that takes a primary for down after a second.
struct Sentinel {
    _dir: TempDir,
    child: Child,
    port: u16,
}

impl Sentinel {
    fn start(primary: u16) -> Self {
        let port = free_port();
        Self::start_with(port, primary, &format!("bind 127.0.0.1\nport {port}\n"))
    }

    fn start_with(port: u16, primary: u16, settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n\
             sentinel monitor main localhost {primary} 1\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n\
             {settings}"
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

/// The sentinel has a login of its own, which is not that of Redis.
#[tokio::test]
async fn sentinels_over_tls_have_a_login_of_their_own() {
    let certificates = Certificates::new();
    let primary = RedisServer::start_with(&certificates.arguments("requirepass of-redis"));
    let port = free_port();
    let settings = format!(
        "bind 127.0.0.1\n{}requirepass of-sentinels\nsentinel auth-pass main of-redis\n",
        certificates.directives(&port.to_string())
    );
    let sentinel = Sentinel::start_with(port, primary.port, &settings);
    let files = files(&format!(
        "  address: localhost:{}\n  sentinel_primary: main\n  password_file: redis-password\n  \
         sentinel_password_file: sentinel-password\n{}",
        sentinel.port,
        certificates.settings()
    ));
    std::fs::write(files.path("redis-password"), "of-redis\n").expect("written");
    std::fs::write(files.path("sentinel-password"), "of-redis\n").expect("written");
    let running = Running::start(&files).await;
    // Not before the sentinel listens: until then its port is refused.
    wait_for("the sentinel", async || certificates.connect(port, "of-sentinels").is_some()).await;
    wait_for_error(&running, "refuses the login").await;
    std::fs::write(files.path("sentinel-password"), "of-sentinels\n").expect("written");
    let key = issue_in_time(&files).await;
    passes(&running, &key).await;
    wait_until_it_follows(&running).await;
}

fn cluster(server: &mut redis::Connection, words: &[&str]) {
    redis::cmd("CLUSTER").arg(words).query::<redis::Value>(server).expect("done");
}

#[tokio::test]
async fn the_node_of_a_cluster_that_has_the_keys_is_found() {
    let enabled = ["--cluster-enabled", "yes"].map(str::to_owned);
    let (asked, owner) = (RedisServer::start_with(&enabled), RedisServer::start_with(&enabled));
    cluster(&mut owner.connect(), &["ADDSLOTSRANGE", "0", "16383"]);
    cluster(&mut asked.connect(), &["MEET", "127.0.0.1", &owner.port.to_string()]);
    follows(&files(&format!("  address: 127.0.0.1:{}\n  cluster: true\n", asked.port))).await;
}

/// What nodes say where they are to be called by a name and have none.
#[tokio::test]
async fn a_node_of_a_cluster_that_does_not_know_its_host_is_where_it_was_asked() {
    for endpoint in ["hostname", "unknown-endpoint"] {
        let enabled = ["--cluster-enabled", "yes", "--cluster-preferred-endpoint-type", endpoint];
        let node = RedisServer::start_with(&enabled.map(str::to_owned));
        cluster(&mut node.connect(), &["ADDSLOTSRANGE", "0", "16383"]);
        let slots: redis::Value =
            redis::cmd("CLUSTER").arg("SLOTS").query(&mut node.connect()).expect("slots");
        assert!(!format!("{slots:?}").contains("127.0.0.1"), "it says nothing of use: {slots:?}");
        follows(&files(&format!("  address: 127.0.0.1:{}\n  cluster: true\n", node.port))).await;
    }
}

#[tokio::test]
async fn a_cluster_is_followed_over_tls() {
    let certificates = Certificates::new();
    let arguments = certificates.arguments(
        "cluster-enabled yes --tls-cluster yes --cluster-announce-hostname localhost \
         --cluster-preferred-endpoint-type hostname",
    );
    let (asked, owner) = (RedisServer::start_with(&arguments), RedisServer::start_with(&arguments));
    let connect = |node: &RedisServer| certificates.connect(node.port, "").expect("connected");
    cluster(&mut connect(&owner), &["ADDSLOTSRANGE", "0", "16383"]);
    cluster(&mut connect(&asked), &["MEET", "127.0.0.1", &owner.port.to_string()]);
    let address = format!("  address: localhost:{}\n  cluster: true\n", asked.port);
    follows(&files(&(address + &certificates.settings()))).await;
}

async fn follows(files: &Files) {
    let key = issue_in_time(files).await;
    let running = Running::start_ready(files).await;
    passes(&running, &key).await;
    wait_until_it_follows(&running).await;
}
