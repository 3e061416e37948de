//! A TCP proxy before a Redis server that fails on command, and counts what comes.
//!
//! It takes one command at a time and passes its reply on before it takes the next, so a reply of
//! its own making stands where the server's would have stood.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::resp;

/// How the way to the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As it should be.
    Pass,
    /// Nobody listens.
    Refuse,
    /// Connections are taken, and nothing on them is ever read or answered.
    BlackHole,
    /// Every reply comes so much later.
    Delay(Duration),
    /// The server does what it is told, and its replies are lost.
    LoseReplies,
    /// Every reply ends in its middle, and the connection with it.
    CutMidReply,
    /// Connections are reset.
    Reset,
    /// Commands are answered with this error in the server's place.
    Error(&'static str),
    /// The same for commands that write.
    WriteError(&'static str),
}

/// Commands of ours that write.
const WRITES: &[&str] = &["INCRBY", "DECRBY", "EXPIRE", "SET", "EVAL", "EVALSHA", "ZADD", "DEL"];

/// The proxy. It ends with its test.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    fault: watch::Sender<Fault>,
    accepting: JoinHandle<()>,
    /// Keeps the port while nobody listens on it.
    _port: TcpSocket,
}

struct Shared {
    target: Mutex<PathBuf>,
    seen: Mutex<Seen>,
    listening: watch::Sender<bool>,
}

/// What came to the proxy, and when.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Connections.
    pub connections: Vec<Instant>,
    /// Commands, by name.
    pub commands: Vec<(Instant, String)>,
}

impl Seen {
    /// What came from `start` on.
    pub fn since(&self, start: Instant) -> Self {
        let connections = self.connections.iter().filter(|at| **at >= start);
        let commands = self.commands.iter().filter(|(at, _)| *at >= start);
        Self { connections: connections.copied().collect(), commands: commands.cloned().collect() }
    }

    /// Commands in each 100 ms from `start` on.
    pub fn per_100_ms(&self, start: Instant) -> Vec<usize> {
        let mut counts = Vec::new();
        for (at, _) in self.commands.iter().filter(|(at, _)| *at >= start) {
            let slot = (*at - start).as_millis() as usize / 100;
            counts.resize(counts.len().max(slot + 1), 0);
            counts[slot] += 1;
        }
        counts
    }
}

impl Proxy {
    /// Before the server on this socket.
    pub fn start(target: PathBuf) -> Self {
        let socket = reusable();
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        let (fault, faults) = watch::channel(Fault::Pass);
        let (target, seen) = (Mutex::new(target), Mutex::default());
        let shared = Arc::new(Shared { target, seen, listening: watch::channel(true).0 });
        let listener = listen(port);
        let accepting = tokio::spawn(accept(listener, port, shared.clone(), faults));
        Self { port, shared, fault, accepting, _port: socket }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns once it is so.
    pub async fn set(&self, fault: Fault) {
        let mut listening = self.shared.listening.subscribe();
        self.fault.send_replace(fault);
        let expected = fault != Fault::Refuse;
        let reached = listening.wait_for(|listening| *listening == expected).await;
        reached.expect("the proxy runs");
    }

    /// Another server from the next connection on, as when a name moves.
    pub fn retarget(&self, target: PathBuf) {
        *self.shared.target.lock().expect("not poisoned") = target;
    }

    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().expect("not poisoned").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn reusable() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("set");
    socket.set_reuseaddr(true).expect("set");
    socket
}

fn listen(port: u16) -> TcpListener {
    let socket = reusable();
    socket.bind(([127, 0, 0, 1], port).into()).expect("our port");
    socket.listen(128).expect("listening")
}

async fn accept(
    listener: TcpListener,
    port: u16,
    shared: Arc<Shared>,
    mut faults: watch::Receiver<Fault>,
) {
    let mut listener = Some(listener);
    // Connections end with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let refuse = *faults.borrow_and_update() == Fault::Refuse;
        if refuse {
            listener = None;
        }
        shared.listening.send_replace(!refuse);
        let accepted = async {
            match (&mut listener, refuse) {
                (_, true) => std::future::pending().await,
                (listener, false) => listener.get_or_insert_with(|| listen(port)).accept().await,
            }
        };
        tokio::select! {
            changed = faults.changed() => if changed.is_err() { return },
            accepted = accepted => if let Ok((client, _)) = accepted {
                shared.seen.lock().expect("not poisoned").connections.push(Instant::now());
                connections.spawn(serve(client, shared.clone(), faults.clone()));
            },
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection to its end. An error ends it as well.
async fn serve(
    mut client: TcpStream,
    shared: Arc<Shared>,
    mut faults: watch::Receiver<Fault>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut server: Option<Server> = None;
    let mut pending = Vec::new();
    loop {
        let fault = *faults.borrow_and_update();
        match fault {
            Fault::Refuse => return Ok(()),
            Fault::Reset => return client.set_zero_linger(),
            Fault::BlackHole => {
                let _ = faults.changed().await;
                return client.set_zero_linger();
            }
            _ => {}
        }
        let Some(len) = resp::frame_len(&pending) else {
            tokio::select! {
                _ = faults.changed() => {}
                read = client.read_buf(&mut pending) => if read? == 0 { return Ok(()) },
            }
            continue;
        };
        let command: Vec<u8> = pending.drain(..len).collect();
        let name = resp::command_name(&command);
        shared.seen.lock().expect("not poisoned").commands.push((Instant::now(), name.clone()));
        match fault {
            Fault::Error(error) => {
                client.write_all(format!("-{error}\r\n").as_bytes()).await?;
                continue;
            }
            Fault::WriteError(error) if WRITES.contains(&name.as_str()) => {
                client.write_all(format!("-{error}\r\n").as_bytes()).await?;
                continue;
            }
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            _ => {}
        }
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(Server::connect(&shared).await?),
        };
        let reply = server.ask(&command).await?;
        match fault {
            Fault::LoseReplies => {}
            Fault::CutMidReply => {
                client.write_all(&reply[..reply.len() / 2]).await?;
                return Ok(());
            }
            _ => client.write_all(&reply).await?,
        }
    }
}

struct Server {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Server {
    async fn connect(shared: &Shared) -> io::Result<Self> {
        let target = shared.target.lock().expect("not poisoned").clone();
        Ok(Self { stream: UnixStream::connect(target).await?, pending: Vec::new() })
    }

    async fn ask(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.write_all(command).await?;
        loop {
            if let Some(len) = resp::frame_len(&self.pending) {
                return Ok(self.pending.drain(..len).collect());
            }
            if self.stream.read_buf(&mut self.pending).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
