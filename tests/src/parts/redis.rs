//! A real Redis without persistence.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::on_path;
use crate::child::Child;
use crate::wait::{DEADLINE, wait_for};

/// A running Redis.
pub struct Redis {
    /// The process.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When `redis-server` is missing or does not come up.
    pub async fn start(dir: &Path, address: SocketAddr) -> Result<Self> {
        let mut child = spawn(dir, address)?;
        wait_for("Redis to answer", DEADLINE, async || ping(address).await.then_some(()))
            .await
            .or_else(|error| child.check_alive().and(Err(error)))?;
        Ok(Self { child, address })
    }
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
