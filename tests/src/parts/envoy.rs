//! The real Envoy, on the bootstrap of `envoy-config/envoy.yaml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::parts_dir;
use crate::child::Child;
use crate::http::Http;

pub mod bootstrap;
pub mod charged;
pub mod classes;

pub use charged::Charged;
pub use classes::OutageClasses;

/// What the bootstrap needs to know of one deployment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub edge: SocketAddr,
    /// Envoy's admin interface, on loopback.
    pub admin: SocketAddr,
    /// The listener for probes and metrics.
    pub status: SocketAddr,
    /// gRPC of ext-authz, one for each replica.
    pub authz: Vec<SocketAddr>,
    /// gRPC of ratelimit-svc, one for each replica.
    pub ratelimit: Vec<SocketAddr>,
    /// HTTP of the gateway, one for each replica.
    pub gateway: Vec<SocketAddr>,
    /// OTLP collector for spans; no tracing without one.
    pub otlp: Option<SocketAddr>,
    /// Share of requests without a trace context of their own that are traced, whole percent.
    pub trace_sampling_percent: u8,
    /// How long ext-authz may take, as `0.25s`.
    pub authz_timeout: &'static str,
    /// How long ratelimit-svc may take, as `0.05s`.
    pub ratelimit_timeout: &'static str,
    /// Which classes pass, and which are refused, while ratelimit-svc is away.
    pub classes: OutageClasses,
    /// Which quotas there are beside those in requests.
    pub charged: Charged,
    /// Bounds that tests make small.
    pub limits: Limits,
    /// Origins whose pages may read what Envoy answers.
    pub cors_origins: Vec<String>,
    /// The break-glass listener, which is off when absent.
    pub break_glass: Option<BreakGlass>,
    /// Encryption of the hops to the services and of a second listener for clients.
    pub tls: Option<EdgeTls>,
    /// A file with a number from 0 to 1 that Envoy takes for pressure on a resource.
    pub pressure_file: Option<PathBuf>,
}

/// Bounds of the proxy.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests at the gateway at a time: of the classes that bypass, and of all the others.
    pub gateway_requests_max: u32,
    /// Requests per second and tenant while ratelimit-svc is away and does not refuse.
    pub local_limit: u32,
    /// Requests per second of one address, and twice as many at once.
    pub per_address: u32,
    /// Of every hundred requests that went well, how many have a line in the access log.
    pub access_log_success_percent: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            gateway_requests_max: 10_000,
            local_limit: 100,
            per_address: 10_000,
            access_log_success_percent: 10,
        }
    }
}

/// Encryption on both sides of Envoy.
#[derive(Clone, Debug)]
pub struct EdgeTls {
    /// Where clients connect over TLS.
    pub edge: SocketAddr,
    /// The directory of the files that tell Envoy of its certificates.
    pub sds: PathBuf,
    /// The name in the certificate of ext-authz.
    pub authz: String,
    /// The name in the certificate of ratelimit-svc.
    pub ratelimit: String,
    /// The name in the certificate of the gateway.
    pub gateway: String,
    /// The name in the certificate of the collector.
    pub otlp: String,
}

/// The break-glass listener.
#[derive(Clone, Debug)]
pub struct BreakGlass {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who it is and whom it trusts.
    pub files: TlsFiles,
}

/// PEM files of a TLS server that asks for client certificates.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of the clients' certificates.
    pub ca: PathBuf,
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
        std::fs::write(dir.join(BOOTSTRAP), bootstrap::render(&settings)?)?;
        let mut child = spawn(dir, &settings)?;
        let url = format!("http://{}/ready", settings.admin);
        let http = Http::new();
        let live = async || http.get(&url).await.ok().filter(|reply| reply.status.is_success());
        child.until("Envoy to be live", live).await?;
        Ok(Self { child, settings })
    }

    /// Starts it again on its old bootstrap, and does not wait for it.
    ///
    /// # Errors
    /// When Envoy is missing.
    pub fn spawn_again(&mut self, dir: &Path) -> Result<()> {
        self.child = spawn(dir, &self.settings)?;
        Ok(())
    }
}

/// The rendered bootstrap, in the edge's directory.
pub const BOOTSTRAP: &str = "envoy.yaml";

fn spawn(dir: &Path, settings: &Settings) -> Result<Child> {
    let mut command = Command::new(program()?);
    command.arg("-c").arg(dir.join(BOOTSTRAP));
    // Two Envoys of one base id would share memory.
    command.args(["--base-id", &settings.admin.port().to_string()]);
    command.args(["--file-flush-interval-msec", "100", "--concurrency", "2"]);
    command.args(["--disable-hot-restart", "--log-level", "warning"]);
    Child::start("envoy", dir, command)
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
