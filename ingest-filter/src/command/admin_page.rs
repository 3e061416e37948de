//! A page of another process's admin listener, which speaks plain HTTP.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, ensure};

/// How long a process may take for each step of its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of an answer is read: some thousand lanes, or a hundred thousand tenants and hours.
const PAGE_BYTES_MAX: u64 = 32 << 20;

/// The page at `path` of the listener at `host:port`.
///
/// # Errors
/// When it does not answer in time, or with another status than 200.
pub(super) fn get(listener: &str, path: &str) -> anyhow::Result<String> {
    let address = listener.to_socket_addrs()?.next().context("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {listener}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, page) = answer.split_once("\r\n\r\n").context("the answer broke off")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "it answers '{status}'");
    Ok(page.to_owned())
}
