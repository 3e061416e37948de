//! A real Apache Kafka: one node in KRaft mode, run from the jars of Maven Central.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::{on_path, parts_dir};
use crate::child::Child;
use crate::ports::free_address;
use crate::wait::{DEADLINE, wait_for};

/// A running broker.
pub struct Kafka {
    /// The process.
    pub child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    dir: PathBuf,
}

impl Kafka {
    /// Formats a log directory below `dir`, starts the broker and waits until it listens.
    ///
    /// # Errors
    /// When Java or the jars are missing, or the broker does not come up.
    pub async fn start(dir: &Path, address: SocketAddr) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let settings = dir.join("server.properties");
        std::fs::write(&settings, properties(dir, address, free_address()?))?;
        let mut format = java()?;
        format.args(["kafka.tools.StorageTool", "format", "-t", "dGlkZWdhdGUta2Fma2EtMQ", "-c"]);
        format.arg(&settings).stdin(Stdio::null());
        let output = format.output()?;
        if !output.status.success() {
            bail!("Kafka's log directory: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let child = launch(dir, address).await?;
        Ok(Self { child, address, dir: dir.to_owned() })
    }

    /// Starts the broker again on its old log and port, and does not wait for it.
    ///
    /// # Errors
    /// When Java or the jars are missing.
    pub fn spawn_again(&mut self) -> Result<()> {
        self.child = spawn(&self.dir)?;
        Ok(())
    }

    /// Starts the broker again on its old log and port, after it was killed.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.child = launch(&self.dir, self.address).await?;
        Ok(())
    }
}

fn spawn(dir: &Path) -> Result<Child> {
    let mut command = java()?;
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.Kafka"]);
    command.arg(dir.join("server.properties")).current_dir(dir);
    Child::start("kafka", dir, command)
}

async fn launch(dir: &Path, address: SocketAddr) -> Result<Child> {
    let mut child = spawn(dir)?;
    let listening = wait_for("Kafka to listen", DEADLINE, async || {
        tokio::net::TcpStream::connect(address).await.ok()
    });
    listening.await.or_else(|error| child.check_alive().and(Err(error)))?;
    Ok(child)
}

fn java() -> Result<Command> {
    let lib = std::env::var_os("TIDEGATE_KAFKA_LIB")
        .map_or_else(|| parts_dir().join("kafka/lib"), PathBuf::from);
    if !lib.join(".fetched").is_file() {
        bail!("Kafka's jars are missing from {}: make parts", lib.display());
    }
    let mut command = Command::new(on_path("java", "openjdk-17-jre-headless")?);
    command.args(["-Xms128m", "-Xmx512m", "-cp"]).arg(lib.join("*"));
    Ok(command)
}

fn properties(dir: &Path, client: SocketAddr, controller: SocketAddr) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.voters=1@{controller}\n\
         listeners=PLAINTEXT://{client},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{client}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         log.dirs={}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n",
        dir.join("logs").display()
    )
}
