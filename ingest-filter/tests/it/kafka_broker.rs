//! A real Apache Kafka broker in KRaft mode, started from its jars on free ports.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::support::wait_for;

/// The identity of every cluster.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// At once there are two brokers by themselves, or one cluster: brokers that starve fence each other,
/// which is not what is tested.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A broker that is killed when dropped.
pub struct Broker {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
    /// What stands for a full disk: no file grows beyond so many bytes, whoever runs the test and
    /// whatever it may mount.
    pub file_bytes_max: Option<u64>,
    /// One for the whole cluster; it ends with the last of its brokers.
    _turn: Arc<SemaphorePermit<'static>>,
}

/// Where the jars are: `TIDEGATE_KAFKA_LIB`, or where `make parts` puts them.
fn jars() -> PathBuf {
    let given = std::env::var_os("TIDEGATE_KAFKA_LIB").map(PathBuf::from);
    let lib = given
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/parts/kafka/lib"));
    assert!(
        lib.join(".fetched").exists(),
        "the Kafka jars are missing in {}: run `make parts`",
        lib.display()
    );
    lib.canonicalize().unwrap()
}

/// A port below those that the system gives to outgoing connections, so that it is still free
/// when a server that was killed comes back for it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 15_000 + start.wrapping_mul(61).wrapping_add(step) % 15_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Broker {
    /// One broker by itself, once it answers.
    pub async fn start() -> Self {
        Self::cluster(1).await.pop().expect("one broker")
    }

    /// One broker with other settings.
    pub async fn start_with(settings: &str) -> Self {
        Self::cluster_with(1, settings).await.pop().expect("one broker")
    }

    /// One broker at which the user `gateway` logs in with the password `secret` at another port,
    /// which is given too; rules may be set for it, and nobody else is bound by any.
    pub async fn start_with_rights() -> (Self, u16) {
        let client = free_port();
        let login = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let broker = Self::start_with(&format!(
            "listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},CLIENT://127.0.0.1:{client}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},CLIENT://127.0.0.1:{client}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CLIENT:SASL_PLAINTEXT\n\
             sasl.enabled.mechanisms=SCRAM-SHA-256\n\
             listener.name.client.scram-sha-256.sasl.jaas.config={login}\n\
             auto.create.topics.enable=true\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n\
             allow.everyone.if.no.acl.found=true\n"
        ))
        .await;
        (broker, client)
    }

    /// Brokers that form a cluster, once all of them answer.
    pub async fn cluster(size: usize) -> Vec<Self> {
        Self::cluster_with(size, "").await
    }

    /// Brokers that form a cluster, with other settings.
    pub async fn cluster_with(size: usize, settings: &str) -> Vec<Self> {
        let turns = if size > 1 { 2 } else { 1 };
        let turn = Arc::new(TURNS.acquire_many(turns).await.expect("never closed"));
        let ports: Vec<(u16, u16)> = (0..size).map(|_| (free_port(), free_port())).collect();
        let voters: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(index, (_, controller))| format!("{}@127.0.0.1:{controller}", index + 1))
            .collect();
        let mut brokers: Vec<Self> = ports
            .iter()
            .enumerate()
            .map(|(index, ports)| {
                Self::prepare((index + 1, *ports), &voters.join(","), size, settings, turn.clone())
            })
            .collect();
        // Controllers need each other, so all are started before any is waited for.
        for broker in &mut brokers {
            broker.child = Some(broker.java("kafka.Kafka", &[], "broker.log"));
        }
        for broker in &mut brokers {
            broker.wait().await;
        }
        brokers
    }

    /// Formats a new directory for one node.
    fn prepare(
        (node, (port, controller)): (usize, (u16, u16)),
        voters: &str,
        size: usize,
        settings: &str,
        turn: Arc<SemaphorePermit<'static>>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings
            .replace("{directory}", &directory.path().display().to_string())
            .replace("{port}", &port.to_string())
            .replace("{controller}", &controller.to_string());
        let in_sync = if size >= 3 { 2 } else { 1 };
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id={node}\n\
             controller.quorum.voters={voters}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor={size}\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor={size}\n\
             transaction.state.log.min.isr={in_sync}\n\
             share.coordinator.state.topic.replication.factor={size}\n\
             share.coordinator.state.topic.min.isr={in_sync}\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n{settings}",
            directory.path().join("data").display()
        );
        std::fs::write(directory.path().join("server.properties"), properties).unwrap();
        let broker = Self { directory, port, child: None, file_bytes_max: None, _turn: turn };
        broker.format(node);
        broker
    }

    /// Makes the directory of the log. What is the same in all of them the tool of Kafka writes once, as it
    /// takes Java two seconds to start; a node's own part is three lines.
    fn format(&self, node: usize) {
        static CHECKPOINT: OnceLock<Vec<u8>> = OnceLock::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let data = self.directory.path().join("data");
        let checkpoint = CHECKPOINT.get_or_init(|| {
            let user = "SCRAM-SHA-256=[name=gateway,password=secret]";
            let arguments = ["format", "-t", CLUSTER, "--add-scram", user, "-c"];
            let mut format = self.java("kafka.tools.StorageTool", &arguments, "format.log");
            assert!(format.wait().unwrap().success(), "{}", self.log("format.log"));
            let made = std::fs::read(data.join("bootstrap.checkpoint")).unwrap();
            std::fs::remove_dir_all(&data).unwrap();
            made
        });
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("bootstrap.checkpoint"), checkpoint).unwrap();
        // Each disk of a node is marked as one; the settings may name others.
        let settings = std::fs::read_to_string(self.directory.path().join("server.properties"));
        let settings = settings.unwrap();
        let disks = settings.lines().filter_map(|line| line.strip_prefix("log.dirs=")).next_back();
        let disks = disks.unwrap().split(',').map(PathBuf::from).filter(|disk| *disk != data);
        for disk in disks.chain([data.clone()]) {
            // Sixteen bytes in Base64, which no other disk has.
            let own = format!("tidegate-test-{:07}A", NEXT.fetch_add(1, Ordering::Relaxed));
            let text =
                format!("version=1\ncluster.id={CLUSTER}\nnode.id={node}\ndirectory.id={own}\n");
            std::fs::create_dir_all(&disk).unwrap();
            std::fs::write(disk.join("meta.properties"), text).unwrap();
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts the broker on the directory it had, and waits until it answers.
    pub async fn restart(&mut self) {
        self.child = Some(self.java("kafka.Kafka", &[], "broker.log"));
        self.wait().await;
    }

    /// As [`Broker::restart`], without waiting.
    pub fn begin(&mut self) {
        self.child = Some(self.java("kafka.Kafka", &[], "broker.log"));
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a broker that runs").id()
    }

    /// Waits until the process has ended by itself.
    pub async fn ends(&mut self) {
        let child = std::sync::Mutex::new(self.child.take().expect("a broker that runs"));
        wait_for("the end of the broker", || async {
            child.lock().unwrap().try_wait().unwrap().map(drop)
        })
        .await;
    }

    /// Runs a command line tool of Kafka against this broker.
    pub fn tool(&self, class: &str, arguments: &[&str]) {
        let output = Command::new("java")
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", jars().display()))
            .args([class, "--bootstrap-server", &self.address()])
            .args(arguments)
            .output()
            .expect("java runs");
        assert!(output.status.success(), "{class}: {}", String::from_utf8_lossy(&output.stderr));
    }

    async fn wait(&mut self) {
        let (port, log) = (self.port, self.directory.path().join("broker.log"));
        let child = self.child.as_mut().expect("a broker that was started");
        wait_for("the broker", || {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{ended:?}: {}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            async move { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() }
        })
        .await;
    }

    fn java(&self, class: &str, arguments: &[&str], log: &str) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join(log))
            .unwrap();
        let mut command = match self.file_bytes_max {
            None => Command::new("java"),
            Some(bytes) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--fsize={bytes}")).arg("java");
                limited
            }
        };
        command
            .args(["-Xms128m", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", jars().display()))
            .arg(class)
            .args(arguments)
            .arg(self.directory.path().join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("java: apt-get install openjdk-17-jre-headless")
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
