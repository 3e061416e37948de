//! One process of a service, running or away, and what starts it. Knows nothing of the edge around it.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::service;
use crate::child::Child;
use crate::http::Http;
use crate::ports::free_address;
use crate::wait::DEADLINE;

/// The services of which an edge has replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// ratelimit-svc.
    Ratelimit,
    /// ext-authz.
    Authz,
    /// ingest-filter as gateway.
    Gateway,
    /// ingest-filter as writer.
    Writer,
}

impl Service {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 4] = [Self::Ratelimit, Self::Authz, Self::Gateway, Self::Writer];

    /// The name in logs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ratelimit => "ratelimit-svc",
            Self::Authz => "ext-authz",
            Self::Gateway => "gateway",
            Self::Writer => "writer",
        }
    }

    /// The program.
    pub(super) fn program(self) -> Result<std::path::PathBuf> {
        service(match self {
            Self::Ratelimit => "ratelimit-svc",
            Self::Authz => "ext-authz",
            Self::Gateway | Self::Writer => "ingest-filter",
        })
    }
}

/// One replica of a service: its addresses stay when its process ends and starts again.
pub struct Replica {
    /// What it is a replica of.
    pub service: Service,
    /// The first is 0.
    pub number: usize,
    /// Where it serves requests: gRPC, at the gateway HTTP as well. A writer serves none.
    pub listen: SocketAddr,
    /// HTTP of ratelimit-svc.
    pub http: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The process, unless it was taken away.
    pub child: Option<Child>,
}

impl Replica {
    pub(super) fn try_new(service: Service, number: usize) -> Result<Self> {
        Ok(Self {
            service,
            number,
            listen: free_address()?,
            http: free_address()?,
            admin: free_address()?,
            child: None,
        })
    }

    /// The service's name, and which of several: the first has no number.
    pub fn name(&self) -> String {
        numbered(self.service.name(), self.number)
    }

    /// Waits until the process is ready.
    ///
    /// # Errors
    /// When it is away, ends, or is not ready in time; with what stands in the way.
    pub async fn ready(&mut self) -> Result<()> {
        let what = format!("{} to be ready", self.name());
        let Some(child) = &mut self.child else { bail!("{what}, but it does not run") };
        let http = Http::new();
        let url = format!("http://{}/readyz", self.admin);
        let mut last = String::from("no answer from its admin listener");
        let end = std::time::Instant::now() + DEADLINE;
        loop {
            child.check_alive()?;
            match http.get(&url).await {
                Ok(reply) if reply.status.is_success() => return Ok(()),
                Ok(reply) => last = reply.text().trim().to_owned(),
                Err(_) if std::time::Instant::now() < end => {}
                Err(error) => return Err(error.context(what)),
            }
            if std::time::Instant::now() > end {
                bail!("waited {} s for {what}: {last}", DEADLINE.as_secs());
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
    }
}

/// A name that tells replicas apart: `gateway`, `gateway-2`, `gateway-3`.
pub(super) fn numbered(name: &str, number: usize) -> String {
    match number {
        0 => name.to_owned(),
        _ => format!("{name}-{}", number + 1),
    }
}
