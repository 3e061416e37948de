//! A real Apache Kafka broker in KRaft mode, started from its jars on free ports.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::wait_for;

/// A broker that is killed when dropped.
pub struct Broker {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
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

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Broker {
    /// Formats a new directory, starts a broker on it and waits until it answers.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, controller) = (free_port(), free_port());
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n",
            directory.path().join("data").display()
        );
        std::fs::write(directory.path().join("server.properties"), properties).unwrap();
        let mut broker = Self { directory, port, child: None };
        let id = "MkU3OEVBNTcwNTJENDM2Qg";
        let mut format =
            broker.java("kafka.tools.StorageTool", &["format", "-t", id, "-c"], "format.log");
        assert!(format.wait().unwrap().success(), "{}", broker.log("format.log"));
        broker.restart().await;
        broker
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
        let port = self.port;
        wait_for("the broker", || async move {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
    }

    fn java(&self, class: &str, arguments: &[&str], log: &str) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join(log))
            .unwrap();
        Command::new("java")
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
