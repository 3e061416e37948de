//! Free loopback ports.
//!
//! They come from below the kernel's ephemeral range, so that no outgoing connection takes one
//! between the moment it is found free and the moment its server binds it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};
use tokio::net::TcpSocket;

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that nothing listens on and that this process has not handed out before.
///
/// # Errors
/// When every port of the range is taken.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side begin at different places.
    let offset = (std::process::id() as u16).wrapping_mul(97) % COUNT;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (offset + step) % COUNT;
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Whether a loopback port can be bound.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A loopback port that is kept for one server of ours until it is dropped. Envoy shares its port
/// with whoever lets it, so that two edges that find the same port free would share its clients.
#[derive(Debug)]
pub struct Held {
    /// Where the server is to listen.
    pub address: SocketAddr,
    /// Bound, and never listening.
    _socket: TcpSocket,
}

/// Keeps a port, unless somebody has it.
pub fn hold(port: u16) -> Option<Held> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let socket = TcpSocket::new_v4().ok()?;
    // Who does not share finds out whether anybody is there; who then shares lets the server in.
    if !is_free(port) {
        return None;
    }
    socket.set_reuseport(true).ok()?;
    socket.bind(address).ok()?;
    Some(Held { address, _socket: socket })
}

/// A free loopback address.
///
/// # Errors
/// As [`free_port`].
pub fn free_address() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_held_once_and_shared_with_its_server() {
        let port = free_port().expect("a free port");
        let held = hold(port).expect("free");
        assert!(hold(port).is_none() && !is_free(port), "held");
        let server = TcpSocket::new_v4().expect("a socket");
        server.set_reuseport(true).expect("set");
        server.bind(held.address).expect("as Envoy binds");
        drop((held, server));
        assert!(is_free(port));
    }
}
