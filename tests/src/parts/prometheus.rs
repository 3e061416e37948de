//! A real Prometheus in agent mode: scrapes, and writes on to the edge.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::on_path;
use crate::child::Child;
use crate::ports::free_address;

/// Starts a Prometheus that scrapes `targets` (job, address) every second and writes to `url`.
///
/// # Errors
/// When `prometheus` is missing.
pub fn start(dir: &Path, targets: &[(&str, SocketAddr)], url: &str, key: &str) -> Result<Child> {
    let mut settings = String::from("global: {scrape_interval: 1s}\nscrape_configs:\n");
    for (job, address) in targets {
        settings +=
            &format!("  - job_name: {job}\n    static_configs: [{{targets: ['{address}']}}]\n");
    }
    settings +=
        &format!("remote_write:\n  - url: {url}\n    authorization: {{credentials: {key}}}\n");
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, settings)?;
    let mut command = Command::new(on_path("prometheus", "prometheus")?);
    command.arg("--enable-feature=agent").arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.agent.path={}", dir.join("prometheus").display()));
    command.arg(format!("--web.listen-address={}", free_address()?));
    Child::start("prometheus", dir, command)
}
