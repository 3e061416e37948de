//! gRPC serving that every service does alike: health that follows readiness, and a server that
//! finishes its streams when told to stop.
//!
//! ```text
//!                 ┌─ worker 0: one thread, one runtime ─ its connections
//! accept ── the ──┤
//!          least  └─ worker n: …                            everything else: the caller's runtime
//!          busy
//! ```
//!
//! A connection stays on the thread that it was given to: its calls never move between cores and
//! never wait for a lock of the scheduler.

mod connection;
mod route;
mod unix_socket;
mod workers;

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::net::TcpListener;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::connections::{Limits, Peer, Slots, accept_failed};
use crate::drain::Shutdown;
use crate::readiness::Readiness;
use crate::tls;
pub use connection::{ConnectionAge, Handler, STREAMS_MAX};
pub use route::{Direct, GrpcService};
pub use unix_socket::UnixSocket;
pub use workers::worker;
use workers::{Socket, Workers};

/// Connections at once. Envoy opens one for each of its threads.
pub const CONNECTIONS_MAX: usize = 8192;

/// Connections at once that are still in their handshake or have not brought a call.
pub const SILENT_MAX: usize = 512;

/// How connections are bounded: by their number, and until their first call also in time.
fn limits() -> Limits {
    Limits { silent_max: SILENT_MAX, ..Limits::of(CONNECTIONS_MAX) }
}

/// The gRPC health service for the whole server (`""`) and the services named, and the task that
/// keeps it in step with readiness.
pub fn health(
    readiness: &Readiness,
    services: &'static [&'static str],
) -> (HealthServer<impl Health>, impl Future<Output = ()> + Send + use<>) {
    let (reporter, server) = tonic_health::server::health_reporter();
    let mut ready = readiness.subscribe();
    let follow = async move {
        loop {
            let status = match *ready.borrow_and_update() {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            for service in std::iter::once(&"").chain(services) {
                reporter.set_service_status(*service, status).await;
            }
            if ready.changed().await.is_err() {
                return;
            }
        }
    };
    (server, follow)
}

/// Where gRPC is served.
pub enum Listener {
    /// On a port.
    Tcp(TcpListener),
    /// On a unix socket.
    Unix(UnixSocket),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Socket::Tcp(stream.into_std()?), Peer::from(peer.ip())))
            }
            Self::Unix(socket) => {
                Ok((Socket::Unix(socket.accept().await?.into_std()?), Peer::Local))
            }
        }
    }
}

/// How gRPC is served.
#[derive(Clone)]
pub struct Options {
    /// How old connections get.
    pub age: ConnectionAge,
    /// How many threads serve connections.
    pub workers: NonZeroUsize,
    /// TLS, or clear text.
    pub tls: Option<Arc<tls::Acceptor>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { age: ConnectionAge::default(), workers: workers_default(), tls: None }
    }
}

/// One worker for each core that this process may use.
pub fn workers_default() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Why gRPC is no longer served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The operating system gave no thread or no runtime.
    #[error("cannot start a gRPC worker")]
    Start(#[source] io::Error),
    /// A worker is gone, with its connections.
    #[error("a gRPC worker ended")]
    WorkerEnded,
}

/// Serves gRPC until `shutdown` begins, then sends GOAWAY and finishes open streams. The same
/// happens to each connection that reaches its age.
///
/// # Errors
/// When workers cannot be started, or one ends.
pub async fn serve<H: Handler>(
    listener: impl Into<Listener>,
    handler: H,
    options: Options,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let listener = listener.into();
    let mut workers = Workers::start(&handler, &options, &shutdown).map_err(ServeError::Start)?;
    let accepting = accept(&listener, &workers);
    tokio::select! {
        // What was accepted before the end is served.
        biased;
        () = shutdown.begun() => {}
        ended = accepting => return Err(ended),
    }
    drop(listener);
    workers.finish().await
}

/// Accepts until a worker is gone.
async fn accept(listener: &Listener, workers: &Workers) -> ServeError {
    let slots = Slots::new(limits());
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                accept_failed(&error, &slots).await;
                continue;
            }
        };
        // A connection without a slot is closed by dropping it.
        let Some(slot) = slots.admit(peer).await else { continue };
        if let Err(ended) = workers.hand_on(socket, slot).await {
            return ended;
        }
    }
}
