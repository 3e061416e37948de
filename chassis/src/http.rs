//! Serves a router over HTTP/1.1 and HTTP/2 on one port, with TLS or without, and gives silence no
//! slot.
//!
//! What a connection may do is bounded by [`Limits`]; what a request may do is the router's
//! affair.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::TryFutureExt;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service;

use crate::connections::{Limits, OpenRequest, Peer, Slot, Slots, accept_failed};
use crate::drain::Shutdown;
use crate::tls;

/// The largest head of a request, bytes.
pub const HEAD_BYTES_MAX: u32 = 32 << 10;
/// How often an idle HTTP/2 peer is asked whether it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a connection may take to close that was told to.
const GRACE: Duration = Duration::from_secs(5);
/// Connections of a listener for people and machines that look at a process.
const PAGES_CONNECTIONS_MAX: usize = 256;

/// How a router is served.
#[derive(Clone)]
pub struct Options {
    /// What a connection may do.
    pub limits: Limits,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// What one HTTP/2 stream may send ahead of being read, bytes.
    pub stream_window_bytes: u32,
    /// What all streams of a connection may send ahead, bytes.
    pub connection_window_bytes: u32,
    /// TLS, or clear text.
    pub tls: Option<Arc<tls::Acceptor>>,
}

impl Options {
    /// For short bodies: so many connections, and this long from the head of a request to the end
    /// of its answer.
    pub fn of(connections_max: usize, request: Duration) -> Self {
        Self { limits: Limits { request, ..Limits::of(connections_max) }, ..Self::pages() }
    }

    /// For pages that are looked at, with short bodies: 256 connections.
    pub fn pages() -> Self {
        Self {
            limits: Limits::of(PAGES_CONNECTIONS_MAX),
            streams_max: 64,
            stream_window_bytes: 64 << 10,
            connection_window_bytes: 256 << 10,
            tls: None,
        }
    }
}

/// Serves until `shutdown` begins, then finishes the requests that are open. `accepted` is called
/// for each connection that got a slot. Dropping the future cuts what is open.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: Options,
    shutdown: Shutdown,
    accepted: impl Fn(),
) {
    let builder = builder(&options);
    let slots = Slots::new(options.limits);
    let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
    let _cut_when_dropped = stop.clone().drop_guard();
    let accepting = async {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok((stream, peer)) => (stream, Peer::from(peer.ip())),
                Err(error) => {
                    accept_failed(&error, &slots).await;
                    continue;
                }
            };
            // A connection without a slot is closed by dropping it.
            let Some(slot) = slots.admit(peer).await else { continue };
            accepted();
            let serving = Serving {
                builder: builder.clone(),
                router: router.clone(),
                slot: Arc::new(slot),
                shutdown: shutdown.clone(),
            };
            let connection = serving.accepted(stream, options.tls.clone());
            let stop = stop.clone();
            connections.spawn(async move { stop.run_until_cancelled(connection).await });
        }
    };
    tokio::select! {
        () = shutdown.begun() => {}
        () = accepting => {}
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// What a connection is served with.
struct Serving {
    builder: Builder<TokioExecutor>,
    router: Router,
    slot: Arc<Slot>,
    shutdown: Shutdown,
}

impl Serving {
    async fn accepted(self, stream: TcpStream, tls: Option<Arc<tls::Acceptor>>) {
        // Answers are small and wait for nothing.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.connection(stream, None).await };
        let secured = tokio::select! {
            secured = tls.accept(stream) => secured,
            () = self.slot.evicted() => None,
            () = self.slot.expired() => None,
        };
        if let Some((stream, peer)) = secured {
            self.connection(stream, Some(peer)).await;
        }
    }

    async fn connection<IO>(self, stream: IO, peer: Option<tls::Peer>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { builder, router, slot, shutdown } = self;
        let service = Tracked { router, slot: slot.clone() };
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let lost = async {
            match peer {
                Some(peer) => peer.lost().await,
                None => std::future::pending().await,
            }
        };
        let until_cut = tokio::select! {
            ended = connection.as_mut() => return ended_with(ended),
            () = slot.evicted() => return,
            () = slot.expired() => Some(GRACE),
            () = lost => Some(tls::FAREWELL),
            () = shutdown.begun() => None,
        };
        connection.as_mut().graceful_shutdown();
        let cut = async {
            match until_cut {
                Some(left) => tokio::time::sleep(left).await,
                None => {
                    slot.expired().await;
                    tokio::time::sleep(GRACE).await;
                }
            }
        };
        tokio::select! {
            ended = connection => ended_with(ended),
            () = slot.evicted() => {}
            () = cut => {}
        }
    }
}

fn ended_with(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}

fn builder(options: &Options) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Counted by the slot, which bounds the wait between requests too.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_concurrent_streams(options.streams_max)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes);
    builder
}

/// A router that says when its requests begin and end.
struct Tracked {
    router: Router,
    slot: Arc<Slot>,
}

impl hyper::service::Service<Request<Incoming>> for Tracked {
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let open = self.slot.begin();
        let answering = self.router.clone().call(request.map(Body::new));
        Box::pin(answering.map_ok(|answer| answer.map(|body| TrackedBody { body, _open: open })))
    }
}

/// The body of an answer; the request is open until it is dropped.
struct TrackedBody {
    body: Body,
    _open: OpenRequest,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::watch;
    use tokio::task::JoinHandle;

    use super::*;

    struct Running {
        address: std::net::SocketAddr,
        waiting: watch::Receiver<usize>,
        shutdown: Shutdown,
        served: JoinHandle<()>,
    }

    async fn start(limits: Limits) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let (began, waiting) = watch::channel(0);
        let never = move || {
            began.send_modify(|waiting| *waiting += 1);
            std::future::pending::<()>()
        };
        let router = Router::new().route("/", get(|| async { "here" })).route("/never", get(never));
        let shutdown = Shutdown::new();
        let options = Options { limits, ..Options::pages() };
        let served = tokio::spawn(serve(listener, router, options, shutdown.clone(), || {}));
        Running { address, waiting, shutdown, served }
    }

    impl Running {
        async fn open(&self, first: &[u8]) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.expect("connected");
            stream.write_all(first).await.expect("written");
            stream
        }

        /// The answer to a request on a connection of its own.
        async fn page(&self) -> String {
            let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let mut stream = self.open(request).await;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            answer
        }
    }

    /// What a peer says that never says enough: nothing, some of a head in either protocol, a
    /// connection of HTTP/2 without a stream.
    const SILENCE: [&[u8]; 5] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\nhost:",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ];

    #[tokio::test]
    async fn silence_costs_nobody_else_a_slot() {
        let running = start(Limits::of(8)).await;
        let mut held = Vec::new();
        for round in 0..20 {
            for first in SILENCE {
                held.push(running.open(first).await);
            }
            assert!(running.page().await.ends_with("here"), "round {round}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let running = start(Limits::of(64)).await;
        for first in SILENCE {
            let mut stream = running.open(first).await;
            let mut rest = Vec::new();
            // Ends by being closed, whatever was said before.
            let _ = stream.read_to_end(&mut rest).await;
        }
        let mut kept = running.open(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut answer = String::new();
        let _ = kept.read_to_string(&mut answer).await;
        assert!(answer.ends_with("here"), "{answer}");
        let mut never = running.open(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let _ = never.read_to_string(&mut answer).await;
        assert!(!running.served.is_finished());
    }

    #[tokio::test]
    async fn connections_with_open_requests_are_bounded_by_peer() {
        let mut running = start(Limits::of(4)).await;
        let mut held = Vec::new();
        for number in 1..=2 {
            held.push(running.open(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await);
            running.waiting.wait_for(|waiting| *waiting == number).await.expect("alive");
        }
        // The third is closed without an answer.
        assert_eq!(running.page_or_nothing().await, "");
        held.pop();
        while !running.page_or_nothing().await.ends_with("here") {}
        running.shutdown.begin();
        held.clear();
        running.served.await.expect("did not panic");
    }

    impl Running {
        async fn page_or_nothing(&self) -> String {
            let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let Ok(mut stream) = TcpStream::connect(self.address).await else {
                return String::new();
            };
            let mut answer = String::new();
            if stream.write_all(request).await.is_ok() {
                let _ = stream.read_to_string(&mut answer).await;
            }
            answer
        }
    }
}
