//! A real Redis without persistence.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::on_path;
use crate::child::Child;
use crate::pki::Pki;

/// A running Redis.
pub struct Redis {
    /// The process.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    is_encrypted: bool,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When `redis-server` is missing or does not come up.
    pub async fn start(dir: &Path, address: SocketAddr) -> Result<Self> {
        let mut child = spawn(dir, address)?;
        let answers = async || ping(address).await.then_some(());
        child.until("Redis to answer", answers).await?;
        Ok(Self { child, address, is_encrypted: false })
    }

    /// The same over TLS alone, with a certificate that `pki` signed for `redis`.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start_encrypted(dir: &Path, address: SocketAddr, pki: &Pki) -> Result<Self> {
        let mut child = spawn_encrypted(dir, address, pki)?;
        // Who knows the certificate is ratelimit-svc's affair.
        let listens = async || TcpStream::connect(address).await.ok();
        child.until("Redis to listen", listens).await?;
        Ok(Self { child, address, is_encrypted: true })
    }

    /// Starts it again as it was, and does not wait for it.
    ///
    /// # Errors
    /// When `redis-server` is missing.
    pub fn spawn_again(&mut self, dir: &Path, pki: Option<&Pki>) -> Result<()> {
        self.child = match pki.filter(|_| self.is_encrypted) {
            Some(pki) => spawn_encrypted(dir, self.address, pki)?,
            None => spawn(dir, self.address)?,
        };
        Ok(())
    }
}

fn spawn_encrypted(dir: &Path, address: SocketAddr, pki: &Pki) -> Result<Child> {
    let mut command = Command::new(on_path("redis-server", "redis-server")?);
    command.args(["--bind", &address.ip().to_string(), "--port", "0"]);
    command.args(["--tls-port", &address.port().to_string(), "--tls-auth-clients", "no"]);
    command.arg("--tls-cert-file").arg(pki.certificate("redis"));
    command.arg("--tls-key-file").arg(pki.key("redis"));
    command.arg("--tls-ca-cert-file").arg(pki.authority());
    command.args(["--save", "", "--appendonly", "no"]).current_dir(dir);
    Child::start("redis", dir, command)
}

/// Starts one and does not wait for it.
///
/// # Errors
/// When `redis-server` is missing.
pub fn spawn(dir: &Path, address: SocketAddr) -> Result<Child> {
    let mut command = Command::new(on_path("redis-server", "redis-server")?);
    command.args(["--bind", &address.ip().to_string()]);
    command.args(["--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no"]).current_dir(dir);
    Child::start("redis", dir, command)
}

async fn ping(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut answer = [0; 7];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && &answer == b"+PONG\r\n"
}
