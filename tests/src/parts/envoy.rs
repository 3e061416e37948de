//! The real Envoy, on the bootstrap of `envoy-config/envoy.yaml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{parts_dir, workspace};
use crate::child::Child;
use crate::http::Http;
use crate::wait::{DEADLINE, wait_for};

/// What the bootstrap needs to know of one deployment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub edge: SocketAddr,
    /// Envoy's admin interface.
    pub admin: SocketAddr,
    /// gRPC of ext-authz.
    pub authz: SocketAddr,
    /// gRPC of ratelimit-svc.
    pub ratelimit: SocketAddr,
    /// HTTP of the gateway.
    pub gateway: SocketAddr,
    /// OTLP collector for spans.
    pub otlp: SocketAddr,
    /// Share of requests without a trace context of their own that are traced, whole percent.
    pub trace_sampling_percent: u8,
    /// How long ext-authz may take, as `0.25s`.
    pub authz_timeout: &'static str,
    /// How long ratelimit-svc may take, as `0.05s`.
    pub ratelimit_timeout: &'static str,
}

/// A running Envoy.
pub struct Envoy {
    /// The process.
    pub child: Child,
    /// What it was started with.
    pub settings: Settings,
}

impl Envoy {
    /// Renders the bootstrap into `dir`, starts Envoy and waits until it is live.
    ///
    /// # Errors
    /// When Envoy is missing or refuses the bootstrap.
    pub async fn start(dir: &Path, settings: Settings) -> Result<Self> {
        let bootstrap = dir.join("envoy.yaml");
        std::fs::write(&bootstrap, render(&settings)?)?;
        let mut command = Command::new(program()?);
        command.arg("-c").arg(&bootstrap);
        // Two Envoys of one base id would share memory.
        command.args(["--base-id", &settings.admin.port().to_string()]);
        command.args(["--file-flush-interval-msec", "100", "--concurrency", "2"]);
        command.args(["--disable-hot-restart", "--log-level", "warning"]);
        let mut child = Child::start("envoy", dir, command)?;
        let url = format!("http://{}/ready", settings.admin);
        let http = Http::new();
        let live = wait_for("Envoy to be live", DEADLINE, async || {
            http.get(&url).await.ok().filter(|reply| reply.status.is_success())
        });
        live.await.or_else(|error| child.check_alive().and(Err(error)))?;
        Ok(Self { child, settings })
    }
}

/// The Envoy program: `ENVOY_BIN`, or the one that `make parts` installed.
fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("ENVOY_BIN").map(PathBuf::from) {
        if !program.is_file() {
            bail!("ENVOY_BIN={} is no program", program.display());
        }
        return Ok(program);
    }
    let venv = parts_dir().join("envoy/lib");
    let pythons = std::fs::read_dir(&venv).into_iter().flatten().flatten();
    let programs = pythons.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    match programs.into_iter().find(|program| program.is_file()) {
        Some(program) => Ok(program),
        None => bail!("Envoy is missing from {}: make parts", venv.display()),
    }
}

/// Fills in the bootstrap template.
///
/// # Errors
/// When the template cannot be read or names something unknown.
pub fn render(settings: &Settings) -> Result<String> {
    let path = workspace().join("envoy-config/envoy.yaml");
    let template = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut values = BTreeMap::from([
        ("CONNECTIONS_MAX", "50000".to_owned()),
        ("HEAP_BYTES_MAX", (1_u64 << 31).to_string()),
        ("XFF_TRUSTED_HOPS", "0".to_owned()),
        ("PER_ADDRESS_BURST", "20000".to_owned()),
        ("PER_ADDRESS_PER_SECOND", "10000".to_owned()),
        ("TRACE_SAMPLING_PERCENT", settings.trace_sampling_percent.to_string()),
        ("AUTHZ_TIMEOUT", settings.authz_timeout.to_owned()),
        ("RATELIMIT_TIMEOUT", settings.ratelimit_timeout.to_owned()),
    ]);
    for (host, port, address) in [
        ("EDGE_ADDRESS", "EDGE_PORT", settings.edge),
        ("ADMIN_ADDRESS", "ADMIN_PORT", settings.admin),
        ("AUTHZ_HOST", "AUTHZ_PORT", settings.authz),
        ("RATELIMIT_HOST", "RATELIMIT_PORT", settings.ratelimit),
        ("GATEWAY_HOST", "GATEWAY_PORT", settings.gateway),
        ("OTLP_HOST", "OTLP_PORT", settings.otlp),
    ] {
        values.insert(host, address.ip().to_string());
        values.insert(port, address.port().to_string());
    }
    fill(&template, &values)
}

fn fill(template: &str, values: &BTreeMap<&str, String>) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    // In comments `${NAME}` speaks of placeholders and stays.
    for line in template.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').context("a placeholder without its end")?;
            let value = values.get(name).with_context(|| format!("unknown placeholder {name}"))?;
            text.push_str(before);
            text.push_str(value);
            rest = after;
        }
        text.push_str(rest);
        text.push('\n');
    }
    Ok(text)
}
