//! A server that somebody else has started and that speaks the protocol, measured beside ours: which
//! processes it is, and the cells that load it. Starts nothing, and changes nothing of it.
//!
//! ```text
//! PROGRAM:PORT            the processes that listen on 127.0.0.1:PORT, if they run PROGRAM
//! PROGRAM:PORT:REDIS      and the Redis that listens on 127.0.0.1:REDIS, whose commands are counted
//! ```

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::rig::RedisAt;
use super::rounds::Cell;
use crate::load::engine::{Engine, Target};
use crate::load::scenario::Scenario;
use crate::load::wire::Meaning;
use crate::load::wire::grpc::{RATE_LIMIT_PATH, grpc};

/// What a peer is asked: workloads that every server of the protocol can be set up for.
const WORKLOADS: [Scenario; 3] = [Scenario::W1, Scenario::W2, Scenario::W3];
/// As much load as ours are given.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 16;
/// In front of the names of peers in the results.
const PREFIX: &str = "peer ";
/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAt {
    /// The program that it runs, so that nobody measures another by mistake.
    pub program: PathBuf,
    /// Its gRPC port on loopback.
    pub port: u16,
    /// The port of its Redis on loopback, where that is to be measured.
    pub redis_port: Option<u16>,
}

/// Text that names no peer.
#[derive(Debug, thiserror::Error)]
#[error("a peer is PROGRAM:PORT or PROGRAM:PORT:REDIS_PORT")]
pub struct PeerFault;

impl FromStr for PeerAt {
    type Err = PeerFault;

    fn from_str(text: &str) -> Result<Self, PeerFault> {
        let (rest, last) = text.rsplit_once(':').ok_or(PeerFault)?;
        let last: u16 = last.parse().map_err(|_| PeerFault)?;
        let before =
            rest.rsplit_once(':').and_then(|(path, port)| Some((path, port.parse().ok()?)));
        let (program, port, redis_port) = match before {
            Some((program, port)) => (program, port, Some(last)),
            None => (rest, last, None),
        };
        match program {
            "" => Err(PeerFault),
            program => Ok(Self { program: program.into(), port, redis_port }),
        }
    }
}

impl PeerAt {
    /// Its name in the results.
    pub fn name(&self) -> String {
        let program = self.program.file_name().unwrap_or(self.program.as_os_str());
        format!("{PREFIX}{}:{}", program.to_string_lossy(), self.port)
    }

    /// The processes that listen there.
    ///
    /// # Errors
    /// When there are none, when they belong to another user, or when they run another program.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let pids = listeners(self.port)?;
        let program = self.program.canonicalize();
        let program = program.with_context(|| format!("no {}", self.program.display()))?;
        for pid in &pids {
            let runs = std::fs::read_link(format!("/proc/{pid}/exe"))?;
            ensure!(
                runs == program,
                "port {} is served by {}, not by {}",
                self.port,
                runs.display(),
                program.display()
            );
        }
        Ok(pids)
    }

    fn redis(&self) -> Result<Option<RedisAt>> {
        let Some(port) = self.redis_port else { return Ok(None) };
        let pid = listeners(port)?[0];
        Ok(Some(RedisAt { pid, address: (Ipv4Addr::LOCALHOST, port).into() }))
    }
}

/// Whether that is the name of a peer's cell.
pub fn is_peer(cell: &str) -> bool {
    cell.starts_with(PREFIX)
}

/// The cells of all peers.
///
/// # Errors
/// When one of them is not there.
pub fn cells(peers: &[PeerAt]) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for peer in peers {
        let (processes, redis) = (peer.processes()?, peer.redis()?);
        for scenario in WORKLOADS {
            let addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, peer.port))];
            let target = Target { addresses, connections: CONNECTIONS, streams: STREAMS };
            let speak = grpc(RATE_LIMIT_PATH, Meaning::RateLimit);
            let engine = Engine::connect(&target, scenario.traffic()?, speak)?;
            let name = format!("{}/{}", peer.name(), scenario.name());
            cells.push(Cell::of_processes(name, processes.clone(), redis, engine));
        }
    }
    Ok(cells)
}

/// The processes that listen on a TCP port; at least one.
fn listeners(port: u16) -> Result<Vec<u32>> {
    let mut sockets = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A machine may have no IPv6.
        let text = std::fs::read_to_string(table).unwrap_or_default();
        sockets.extend(text.lines().filter_map(|line| socket_at(line, port)));
    }
    let listens = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|to| is_of(&to, &sockets))
    };
    let all = std::fs::read_dir("/proc")?.flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids: Vec<u32> = pids.filter(listens).collect();
    match pids.is_empty() {
        true => Err(anyhow!("no process of ours to see listens on port {port}")),
        false => Ok(pids),
    }
}

fn is_of(link: &Path, sockets: &BTreeSet<String>) -> bool {
    let name = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'));
    name.is_some_and(|inode| sockets.contains(inode))
}

/// The inode of a line of `/proc/net/tcp`, if it is a socket that listens on that port.
fn socket_at(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let is_it = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTENING;
    is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_program_a_port_and_perhaps_a_redis() {
        let check = |text: &str, expected: Option<(&str, u16, Option<u16>)>| {
            let peer = text.parse::<PeerAt>().ok();
            let expected = expected.map(|(program, port, redis_port)| PeerAt {
                program: program.into(),
                port,
                redis_port,
            });
            assert_eq!(peer, expected, "{text}");
        };
        check("/bin/ratelimit:8081", Some(("/bin/ratelimit", 8081, None)));
        check("/bin/ratelimit:8081:6379", Some(("/bin/ratelimit", 8081, Some(6379))));
        check("./a:b:1", Some(("./a:b", 1, None)));
        for bad in ["", "8081", ":8081", "/bin/ratelimit", "/bin/x:70000", "/bin/x:0x1"] {
            check(bad, None);
        }
    }

    #[test]
    fn only_a_socket_that_listens_is_taken() {
        let line = |local: &str, state: &str| {
            format!(
                "   0: 0100007F:{local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 4242 1"
            )
        };
        assert_eq!(socket_at(&line("1F91", "0A"), 8081).as_deref(), Some("4242"));
        assert_eq!(socket_at(&line("1F91", "01"), 8081), None, "a connection");
        assert_eq!(socket_at(&line("1F90", "0A"), 8081), None, "another port");
        assert_eq!(socket_at("  sl  local_address rem_address   st", 8081), None);
    }
}
