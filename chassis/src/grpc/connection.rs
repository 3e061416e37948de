//! One connection: HTTP/2 until its age, its end, or the end of the process.
//!
//! ```text
//! accepted        max (±10 %)           grace
//! ───┴──── serving ────┴─ GOAWAY, streams ─┴─ cut
//! ```

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::Service;

use crate::connections::Slot;
use crate::drain::Shutdown;
use crate::tls::{FAREWELL, Peer};

/// How often an idle connection is pinged.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long the answer to a ping may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Calls that are open on one connection at a time. Peers learn of it and open another one.
pub const STREAMS_MAX: u32 = 1024;

/// What answers requests. It is cloned for each of them, and always ready.
pub trait Handler:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Handler for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// How long connections live; by default without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionAge {
    /// From accepting a connection to its GOAWAY; each connection adds or takes up to 10 %, so
    /// that callers do not come back all at once.
    pub max: Option<Duration>,
    /// From GOAWAY to the cutting of what is still open.
    pub grace: Option<Duration>,
}

impl ConnectionAge {
    /// The age moved by up to 10 % either way, evenly over `random`.
    fn jittered(self, random: u64) -> Self {
        let factor = 0.9 + 0.2 * (random as f64 / u64::MAX as f64);
        Self { max: self.max.map(|max| max.mul_f64(factor)), ..self }
    }
}

/// A number for jitter; not for secrets.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The connection to its end. Over TLS it ends as well when its client may not stay.
pub(super) async fn serve<IO, H>(
    io: IO,
    peer: Option<Peer>,
    slot: Slot,
    handler: H,
    age: ConnectionAge,
    shutdown: Shutdown,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let age = age.jittered(random());
    let spoken = Arc::new(Spoken { slot, has_spoken: AtomicBool::new(false) });
    let handler = Unshared { handler, spoken: spoken.clone() };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        // Nothing of gRPC reads it.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), handler);
    let mut connection = pin!(connection);
    let old = async {
        tokio::select! {
            () = after(age.max) => age.grace,
            () = shutdown.begun() => age.grace,
            () = lost(peer) => Some(FAREWELL),
        }
    };
    let grace = tokio::select! {
        // How a connection ended is its peer's affair.
        _ = connection.as_mut() => return,
        () = spoken.slot.evicted() => return,
        () = spoken.stays_silent() => return,
        grace = old => grace,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = spoken.slot.evicted() => {}
        () = spoken.stays_silent() => {}
        () = after(grace) => {}
    }
}

async fn lost(peer: Option<Peer>) {
    match peer {
        Some(peer) => peer.lost().await,
        None => std::future::pending().await,
    }
}

async fn after(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Whether a connection has brought a call. Until then it may have to make room for others; after
/// that pings tell whether its peer is there.
struct Spoken {
    slot: Slot,
    has_spoken: AtomicBool,
}

impl Spoken {
    fn called(&self) {
        // A load costs a call nothing; the table is told once.
        if !self.has_spoken.load(Ordering::Relaxed)
            && !self.has_spoken.swap(true, Ordering::Relaxed)
        {
            self.slot.keep();
        }
    }

    /// Resolves when the connection brought no call in time.
    async fn stays_silent(&self) {
        self.slot.expired().await;
        if self.has_spoken.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

/// A service of tower, which wants to be called alone, as one of hyper, which is shared.
struct Unshared<H> {
    handler: H,
    spoken: Arc<Spoken>,
}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for Unshared<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = H::Future;

    fn call(&self, request: Request<Incoming>) -> H::Future {
        self.spoken.called();
        self.handler.clone().call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_at_most_a_tenth() {
        let age = ConnectionAge { max: Some(Duration::from_secs(100)), grace: None };
        let seconds = |random| age.jittered(random).max.map(|max| max.as_secs_f64().round());
        assert_eq!(seconds(0), Some(90.0));
        assert_eq!(seconds(u64::MAX / 2), Some(100.0));
        assert_eq!(seconds(u64::MAX), Some(110.0));
        assert_eq!(ConnectionAge::default().jittered(7), ConnectionAge::default());
    }
}
