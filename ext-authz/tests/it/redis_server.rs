//! A real Redis on loopback, and a service that follows it.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use ext_authz::config::Config;
use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo};
use tempfile::TempDir;

use crate::rig::{DEADLINE, Files, Running, wait_for};

/// What stands in Redis, by the names of the reference.
pub const STATE: &str = "tidegate:{keys}:state";
pub const RECORDS: &str = "tidegate:{keys}:records";
pub const CHANGES: &str = "tidegate:{keys}:changes";
pub const AUDIT: &str = "tidegate:{keys}:audit";
pub const REPLICAS: &str = "tidegate:{keys}:replicas";

/// A Redis that ends with its value.
pub struct RedisServer {
    dir: TempDir,
    child: Child,
    pub port: u16,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(arguments: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        // Another process may take the port before Redis does; then it ends, and another is tried.
        for _ in 0..20 {
            let port = free_port();
            let mut child = spawn(&dir, port, arguments);
            if answers(port, &mut child) {
                return Self { dir, child, port };
            }
        }
        panic!("no port for Redis");
    }

    /// Ends it at once. Nothing is kept.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, where it was.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.dir, self.port, &[]);
        assert!(answers(self.port, &mut self.child), "redis-server starts again");
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> Connection {
        let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), self.port);
        let client = Client::open(address.into_connection_info().expect("an address"));
        client.expect("a client").get_connection().expect("connected")
    }

    /// A configuration with this Redis alone.
    pub fn files(&self) -> Files {
        self.files_with("")
    }

    /// The same, with more settings of Redis, and of the file after a line break.
    pub fn files_with(&self, settings: &str) -> Files {
        let files = Files::new();
        let text = format!(
            "grpc_listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\npepper_files: {{1: pepper}}\n\
             retry_after: 3s\ndrain_delay: 0s\n\
             redis:\n  address: 127.0.0.1:{}\n{settings}\n",
            self.port
        );
        fs::write(files.path("ext-authz.yaml"), text).expect("written");
        files
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(dir: &TempDir, port: u16, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    if arguments.iter().all(|argument| argument != "--port") {
        command.args(["--port", &port.to_string()]);
    }
    let arguments = arguments.iter().map(|text| text.replace("{PORT}", &port.to_string()));
    command.args(arguments).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed (apt install redis-server)")
}

fn answers(port: u16, child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        if child.try_wait().expect("asked").is_some() {
            return false;
        }
        if let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", port))
            // A socket can connect to itself where nobody listens.
            && stream.local_addr().ok() != stream.peer_addr().ok()
        {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// A port that no other test gets, below those that the system gives to outgoing connections: it is still
/// free when a server binds it, and when one that was killed comes back for it.
pub fn free_port() -> u16 {
    const FIRST: u16 = 11_000;
    const COUNT: u16 = 9_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side begin at different places.
    let start = (std::process::id() as u16).wrapping_mul(61) % COUNT;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        // A node of a cluster listens 10,000 above as well.
        if [port, port + 10_000].iter().all(|it| TcpListener::bind(("127.0.0.1", *it)).is_ok()) {
            return port;
        }
    }
    panic!("no free port");
}

/// A service whose records are believed for less time than a configuration may say.
pub async fn start_impatient(files: &Files, max_staleness: Duration) -> Running {
    let mut config: Config = files.config();
    config.keys.redis.as_mut().expect("Redis").max_staleness = max_staleness;
    let running = Running::start_with(config).await;
    wait_for("ready", async || running.get("/readyz").await.0 == 200).await;
    running
}

/// What `/config` says of Redis.
pub async fn shown(running: &Running) -> serde_json::Value {
    let text = running.get("/config").await.1;
    serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["redis"].take()
}

/// Waits until it follows: keys are in force a moment before Redis has heard that they are.
pub async fn wait_until_it_follows(running: &Running) {
    wait_for("following", async || shown(running).await["is_following"] == true).await;
}

/// Waits until `/config` says so of the last error.
pub async fn wait_for_error(running: &Running, part: &str) {
    wait_for(part, async || {
        let error = shown(running).await["reload"]["last_error"].take();
        error.as_str().is_some_and(|error| error.contains(part))
    })
    .await;
}
