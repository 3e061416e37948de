//! A real InfluxDB 1.x, with a database and the means to ask it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use chassis::tls::client::ClientSettings;

use super::on_path;
use crate::child::Child;
use crate::http::Http;
use crate::pki::Pki;
use crate::ports::free_address;

/// A running InfluxDB.
pub struct InfluxDb {
    /// The process.
    pub child: Child,
    /// Where its HTTP API listens.
    pub address: SocketAddr,
    dir: PathBuf,
    /// Whom to trust where it speaks TLS.
    trust: Option<ClientSettings>,
}

impl InfluxDb {
    /// Starts one with its data below `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When `influxd` is missing or does not come up.
    pub async fn start(dir: &Path, address: SocketAddr) -> Result<Self> {
        Self::start_with(dir, address, None).await
    }

    /// The same over https, with a certificate that `pki` signed for `influxdb`.
    ///
    /// # Errors
    /// As [`InfluxDb::start`].
    pub async fn start_encrypted(dir: &Path, address: SocketAddr, pki: &Pki) -> Result<Self> {
        Self::start_with(dir, address, Some(pki)).await
    }

    async fn start_with(dir: &Path, address: SocketAddr, pki: Option<&Pki>) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut config = settings(dir, address, free_address()?);
        let trust = pki.map(|pki| ClientSettings { identity: None, ..pki.client("influxdb") });
        if let Some(pki) = pki {
            config += &format!(
                "  https-enabled = true\n  https-certificate = \"{}\"\n  https-private-key = \"{}\"\n",
                pki.certificate("influxdb").display(),
                pki.key("influxdb").display()
            );
        }
        std::fs::write(dir.join(CONFIG), config)?;
        let mut child = spawn(dir)?;
        let url = format!("{}/ping", url(address, trust.as_ref()));
        let http = Http::trusting(trust.clone());
        let answers = async || http.get(&url).await.ok();
        child.until("InfluxDB to answer", answers).await?;
        Ok(Self { child, address, dir: dir.to_owned(), trust })
    }

    /// Starts it again on its old data and port, and does not wait for it.
    ///
    /// # Errors
    /// When `influxd` is missing.
    pub fn spawn_again(&mut self) -> Result<()> {
        self.child = spawn(&self.dir)?;
        Ok(())
    }

    /// Scheme, host and port.
    pub fn url(&self) -> String {
        url(self.address, self.trust.as_ref())
    }

    /// Runs one InfluxQL query and returns the rows of its first series, as JSON arrays.
    ///
    /// # Errors
    /// When the database cannot be asked or refuses the query.
    pub async fn rows(&self, database: &str, query: &str) -> Result<Vec<serde_json::Value>> {
        self.rows_with(database, query, "").await
    }

    /// The same with times in nanoseconds.
    ///
    /// # Errors
    /// As [`InfluxDb::rows`].
    pub async fn rows_in_ns(&self, database: &str, query: &str) -> Result<Vec<serde_json::Value>> {
        self.rows_with(database, query, "&epoch=ns").await
    }

    async fn rows_with(
        &self,
        database: &str,
        query: &str,
        more: &str,
    ) -> Result<Vec<serde_json::Value>> {
        let encode =
            |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        let url = format!("{}/query?db={database}{more}&q={}", self.url(), encode(query));
        let reply = Http::trusting(self.trust.clone()).get(&url).await?;
        let answer: serde_json::Value = serde_json::from_slice(&reply.body)
            .with_context(|| format!("InfluxDB answered {} {}", reply.status, reply.text()))?;
        let result = &answer["results"][0];
        if let Some(error) = result["error"].as_str().or(answer["error"].as_str()) {
            bail!("InfluxDB refused '{query}': {error}");
        }
        Ok(result["series"][0]["values"].as_array().cloned().unwrap_or_default())
    }
}

fn url(address: SocketAddr, trust: Option<&ClientSettings>) -> String {
    let scheme = if trust.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

const CONFIG: &str = "influxdb.conf";

fn spawn(dir: &Path) -> Result<Child> {
    let mut command = Command::new(on_path("influxd", "influxdb")?);
    command.arg("run").arg("-config").arg(dir.join(CONFIG)).env("HOME", dir);
    Child::start("influxdb", dir, command)
}

fn settings(dir: &Path, http: SocketAddr, rpc: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "reporting-disabled = true\nbind-address = \"{rpc}\"\n\
         [meta]\n  dir = \"{dir}/meta\"\n\
         [data]\n  dir = \"{dir}/data\"\n  wal-dir = \"{dir}/wal\"\n\
         [monitor]\n  store-enabled = false\n\
         [http]\n  bind-address = \"{http}\"\n  log-enabled = false\n"
    )
}
