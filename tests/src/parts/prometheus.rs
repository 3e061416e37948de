//! A real Prometheus in agent mode: scrapes, and writes on to the edge.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::on_path;
use crate::child::Child;
use crate::http::Http;
use crate::ports::free_address;

/// A running Prometheus.
pub struct Prometheus {
    /// Where it shows its own metrics.
    pub address: SocketAddr,
    /// Its process.
    pub child: Child,
}

impl Prometheus {
    /// Starts one that scrapes `targets` (job, address) every second and writes to `url`. All else
    /// is as Prometheus has it.
    ///
    /// # Errors
    /// When `prometheus` is missing.
    pub fn start(dir: &Path, targets: &[(&str, SocketAddr)], url: &str, key: &str) -> Result<Self> {
        let mut settings = String::from("global: {scrape_interval: 1s}\nscrape_configs:\n");
        for (job, target) in targets {
            settings +=
                &format!("  - job_name: {job}\n    static_configs: [{{targets: ['{target}']}}]\n");
        }
        settings +=
            &format!("remote_write:\n  - url: {url}\n    authorization: {{credentials: {key}}}\n");
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, settings)?;
        let address = free_address()?;
        let mut command = Command::new(on_path("prometheus", "prometheus")?);
        command.arg("--enable-feature=agent").arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.agent.path={}", dir.join("prometheus").display()));
        command.arg(format!("--web.listen-address={address}"));
        Ok(Self { address, child: Child::start("prometheus", dir, command)? })
    }

    /// One of its counters of remote writing, all labels together.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn remote_storage(&self, counter: &str) -> Result<f64> {
        let reply = Http::new().get(&format!("http://{}/metrics", self.address)).await?;
        let name = format!("prometheus_remote_storage_{counter}");
        let text = reply.text();
        let lines = text.lines().filter(|line| line.starts_with(&name));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}
