//! A real Apache Kafka: one node in KRaft mode, run from the jars of Maven Central.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

use super::{on_path, parts_dir};
use crate::child::Child;
use crate::pki::Pki;
use crate::ports::free_address;

/// Whom clients log in as, where the broker is encrypted.
pub const USER: &str = "tidegate";
/// With which password.
pub const PASSWORD: &str = "of this run's Kafka";

/// A running broker.
pub struct Kafka {
    /// The process.
    pub child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where clients need a certificate and no login, on an encrypted broker.
    pub mutual: SocketAddr,
    dir: PathBuf,
}

impl Kafka {
    /// Formats a log directory below `dir`, starts the broker and waits until it listens.
    ///
    /// # Errors
    /// When Java or the jars are missing, or the broker does not come up.
    pub async fn start(dir: &Path, address: SocketAddr) -> Result<Self> {
        Self::start_with(dir, address, None).await
    }

    /// The same for clients that speak TLS and log in by SCRAM or PLAIN as [`USER`], with a
    /// certificate that `pki` signed for `kafka`.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub async fn start_encrypted(dir: &Path, address: SocketAddr, pki: &Pki) -> Result<Self> {
        Self::start_with(dir, address, Some(pki)).await
    }

    async fn start_with(dir: &Path, address: SocketAddr, pki: Option<&Pki>) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let settings = dir.join("server.properties");
        let security = pki.map(|pki| security(dir, pki)).transpose()?;
        let mutual = free_address()?;
        let at = Listeners { client: address, mutual, controller: free_address()? };
        let text = properties(dir, &at, security.as_deref());
        std::fs::write(&settings, text)?;
        format(dir, &settings)?;
        let child = launch(dir, address).await?;
        Ok(Self { child, address, mutual, dir: dir.to_owned() })
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

/// Makes the directory of the log; what the tool of Kafka made once is copied after that, since it takes
/// Java two seconds to start, and every test with real parts has a broker.
fn format(dir: &Path, settings: &Path) -> Result<()> {
    static MADE: Mutex<BTreeMap<&str, Vec<u8>>> = Mutex::new(BTreeMap::new());
    const FILES: [&str; 2] = ["bootstrap.checkpoint", "meta.properties"];
    let logs = dir.join("logs");
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if made.len() == FILES.len() {
        std::fs::create_dir(&logs)?;
        return Ok(FILES
            .iter()
            .try_for_each(|name| std::fs::write(logs.join(name), &made[name]))?);
    }
    let mut format = java()?;
    format.args(["kafka.tools.StorageTool", "format", "-t", "dGlkZWdhdGUta2Fma2EtMQ", "-c"]);
    format.arg(settings).stdin(Stdio::null());
    // Where nobody logs in, nobody minds that somebody could.
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let user = format!("{mechanism}=[name={USER},password={PASSWORD}]");
        format.args(["--add-scram", &user]);
    }
    let output = format.output()?;
    if !output.status.success() {
        bail!("Kafka's log directory: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    for name in FILES {
        made.insert(name, std::fs::read(logs.join(name))?);
    }
    Ok(())
}

fn spawn(dir: &Path) -> Result<Child> {
    let mut command = java()?;
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.Kafka"]);
    command.arg(dir.join("server.properties")).current_dir(dir);
    Child::start("kafka", dir, command)
}

async fn launch(dir: &Path, address: SocketAddr) -> Result<Child> {
    let mut child = spawn(dir)?;
    let listens = async || tokio::net::TcpStream::connect(address).await.ok();
    child.until("Kafka to listen", listens).await?;
    Ok(child)
}

fn java() -> Result<Command> {
    let lib = std::env::var_os("TIDEGATE_KAFKA_LIB")
        .map_or_else(|| parts_dir().join("kafka/lib"), PathBuf::from);
    if !lib.join(".fetched").is_file() {
        bail!("Kafka's jars are missing from {}: make parts", lib.display());
    }
    let mut command = Command::new(on_path("java", "openjdk-17-jre-headless")?);
    command.args(["-Xms128m", "-Xmx512m"]);
    if cfg!(debug_assertions) {
        // In tests it lives for seconds, which the better compiler of Java would spend on two processors.
        command.arg("-XX:TieredStopAtLevel=1");
    }
    command.arg("-cp").arg(lib.join("*"));
    Ok(command)
}

/// The settings of a listener over TLS with a login; writes certificate and key as Kafka wants them.
fn security(dir: &Path, pki: &Pki) -> Result<String> {
    let (certificate, key) = (pki.certificate("kafka"), pki.key("kafka"));
    let pem = std::fs::read_to_string(key)? + &std::fs::read_to_string(certificate)?;
    let store = dir.join("kafka.pem");
    std::fs::write(&store, pem)?;
    let login = |module: &str| {
        format!(
            "org.apache.kafka.common.security.{module} required username=\"{USER}\" \
             password=\"{PASSWORD}\""
        )
    };
    let scram = login("scram.ScramLoginModule");
    let plain = login("plain.PlainLoginModule");
    Ok(format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\n\
         ssl.truststore.type=PEM\nssl.truststore.location={}\nssl.client.auth=requested\n\
         listener.name.mutual.ssl.client.auth=required\n\
         sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN,OAUTHBEARER\n\
         sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512\n\
         listener.name.client.scram-sha-512.sasl.jaas.config={scram};\n\
         listener.name.client.scram-sha-256.sasl.jaas.config={scram};\n\
         listener.name.client.plain.sasl.jaas.config={plain} user_{USER}=\"{PASSWORD}\";\n\
         listener.name.client.oauthbearer.sasl.jaas.config=\
         org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
         unsecuredLoginStringClaim_sub=\"broker\";\n\
         listener.name.client.oauthbearer.connections.max.reauth.ms=4000\n",
        store.display(),
        pki.authority().display()
    ))
}

/// Where a broker listens.
struct Listeners {
    client: SocketAddr,
    mutual: SocketAddr,
    controller: SocketAddr,
}

fn properties(dir: &Path, at: &Listeners, security: Option<&str>) -> String {
    let Listeners { client, mutual, controller } = at;
    let (protocol, mutual) = match security {
        Some(_) => ("SASL_SSL,MUTUAL:SSL", format!(",MUTUAL://{mutual}")),
        None => ("PLAINTEXT", String::new()),
    };
    let security = security.unwrap_or_default();
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.voters=1@{controller}\n\
         listeners=CLIENT://{client},CONTROLLER://{controller}{mutual}\n\
         advertised.listeners=CLIENT://{client}{mutual}\n\
         inter.broker.listener.name=CLIENT\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:{protocol}\n{security}\
         log.dirs={}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n",
        dir.join("logs").display()
    )
}
