//! Threads that each serve their share of the connections on a runtime of their own.
//!
//! A connection goes to the worker with the fewest open ones. The kernel's way of sharing a port
//! (`SO_REUSEPORT`) picks by a hash of the addresses: fine for thousands of connections, but
//! Envoy opens one for each of its threads, and of four connections all can meet on one core.

use std::cell::Cell;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::connection::{self, Handler};
use super::{Options, ServeError};
use crate::connections::Slot;
use crate::drain::Shutdown;

/// Accepted connections that wait for a worker to take them up.
const QUEUE_MAX: usize = 64;

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which of its server's workers this thread is, from 0; none on every other thread. What runs on
/// a worker stays there, so it may keep to what belongs to this thread alone.
pub fn worker() -> Option<usize> {
    NUMBER.get()
}

/// A connection, not yet at home on any runtime.
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

/// A connection on its way to a worker.
struct Accepted {
    socket: Socket,
    slot: Slot,
    open: Open,
}

/// Counts a connection as open until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Worker {
    queue: mpsc::Sender<Accepted>,
    open: Arc<AtomicUsize>,
}

/// The threads. Dropping them ends their work at once.
pub(super) struct Workers {
    workers: Vec<Worker>,
    ended: FuturesUnordered<oneshot::Receiver<Finished>>,
    _stop: DropGuard,
}

/// A worker whose connections are all closed.
struct Finished;

impl Workers {
    /// Starts the threads.
    pub(super) fn start<H: Handler>(
        handler: &H,
        options: &Options,
        shutdown: &Shutdown,
    ) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut started = Self {
            workers: Vec::new(),
            ended: FuturesUnordered::new(),
            _stop: stop.clone().drop_guard(),
        };
        for number in 0..options.workers.get() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (queue, accepted) = mpsc::channel(QUEUE_MAX);
            let (report, ended) = oneshot::channel();
            let work = work(accepted, handler.clone(), options.clone(), shutdown.clone());
            let stop = stop.clone();
            let thread = std::thread::Builder::new().name(format!("grpc-{number}"));
            thread.spawn(move || {
                NUMBER.set(Some(number));
                let finished = runtime.block_on(stop.run_until_cancelled(work));
                // What was cut off is cleared away before anyone learns of the end.
                drop(runtime);
                if finished.is_some() {
                    // Nobody listens when the server itself was dropped.
                    let _ = report.send(Finished);
                }
            })?;
            started.workers.push(Worker { queue, open: Arc::default() });
            started.ended.push(ended);
        }
        Ok(started)
    }

    /// Gives a connection to the worker with the fewest.
    pub(super) async fn hand_on(&self, socket: Socket, slot: Slot) -> Result<(), ServeError> {
        let worker = self.workers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed));
        let worker = worker.expect("there is at least one worker");
        let accepted = Accepted { socket, slot, open: Open::new(&worker.open) };
        worker.queue.send(accepted).await.map_err(|_| ServeError::WorkerEnded)
    }

    /// Waits until every worker has closed its connections; `shutdown` must have begun.
    pub(super) async fn finish(&mut self) -> Result<(), ServeError> {
        self.workers.clear();
        while let Some(ended) = self.ended.next().await {
            let Finished = ended.map_err(|_| ServeError::WorkerEnded)?;
        }
        Ok(())
    }
}

/// Serves what is accepted until no more comes, and then what is open to its end.
async fn work<H: Handler>(
    mut accepted: mpsc::Receiver<Accepted>,
    handler: H,
    options: Options,
    shutdown: Shutdown,
) {
    let connections = TaskTracker::new();
    while let Some(accepted) = accepted.recv().await {
        connections.spawn(serve(accepted, handler.clone(), options.clone(), shutdown.clone()));
    }
    connections.close();
    connections.wait().await;
}

async fn serve<H: Handler>(accepted: Accepted, handler: H, options: Options, shutdown: Shutdown) {
    let Accepted { socket, slot, open: _open } = accepted;
    // A socket that cannot be registered is closed, which its peer notices.
    match socket {
        Socket::Tcp(socket) => {
            let Ok(io) = TcpStream::from_std(socket) else { return };
            secure_and_serve(io, slot, handler, options, shutdown).await;
        }
        Socket::Unix(socket) => {
            let Ok(io) = UnixStream::from_std(socket) else { return };
            secure_and_serve(io, slot, handler, options, shutdown).await;
        }
    }
}

async fn secure_and_serve<IO, H>(
    io: IO,
    slot: Slot,
    handler: H,
    options: Options,
    shutdown: Shutdown,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let Some(tls) = options.tls else {
        return connection::serve(io, None, slot, handler, options.age, shutdown).await;
    };
    let secured = tokio::select! {
        secured = tls.accept(io) => secured,
        () = slot.evicted() => return,
    };
    if let Some((io, peer)) = secured {
        connection::serve(io, Some(peer), slot, handler, options.age, shutdown).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::num::NonZeroUsize;
    use std::task::{Context, Poll};

    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;
    use tonic::body::Body;
    use tonic::codegen::Service;

    use super::*;

    /// Answers with the name of the thread that it runs on.
    #[derive(Clone)]
    struct Where;

    impl Service<Request<Incoming>> for Where {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Incoming>) -> Self::Future {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            let number = worker().expect("called on a worker");
            assert_eq!(name, format!("grpc-{number}"));
            let thread = name;
            let response = Response::builder().header("thread", thread).body(Body::empty());
            ready(Ok(response.expect("a header")))
        }
    }

    #[tokio::test]
    async fn connections_are_spread_evenly_and_finish() {
        assert_eq!(worker(), None, "of the test's own thread");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let workers = NonZeroUsize::new(3).expect("not 0");
        let options = Options { workers, ..Options::default() };
        let shutdown = Shutdown::new();
        let serving = tokio::spawn(super::super::serve(listener, Where, options, shutdown.clone()));
        let mut threads: BTreeMap<String, u32> = BTreeMap::new();
        let mut open = Vec::new();
        for _ in 0..6 {
            let io = TokioIo::new(TcpStream::connect(address).await.expect("connected"));
            let (mut client, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(connection);
            for _ in 0..2 {
                let request = Request::builder().uri("http://a/").body(Body::empty());
                let answer = client.send_request(request.expect("a request")).await;
                let answer = answer.expect("answered");
                let thread = answer.headers()["thread"].to_str().expect("ASCII").to_owned();
                *threads.entry(thread).or_default() += 1;
            }
            open.push(client);
        }
        let even = [("grpc-0", 4), ("grpc-1", 4), ("grpc-2", 4)];
        assert_eq!(threads, even.map(|(name, calls)| (name.to_owned(), calls)).into());
        shutdown.begin();
        serving.await.expect("did not panic").expect("idle connections end by GOAWAY");
        assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    }

    #[tokio::test]
    async fn silent_peers_hold_up_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let options = Options { workers: NonZeroUsize::MIN, ..Options::default() };
        let shutdown = Shutdown::new();
        let serving = tokio::spawn(super::super::serve(listener, Where, options, shutdown.clone()));
        let mut silent = Vec::new();
        for _ in 0..super::super::SILENT_MAX + 10 {
            silent.push(TcpStream::connect(address).await.expect("connected"));
        }
        let io = TokioIo::new(TcpStream::connect(address).await.expect("connected"));
        let (mut client, connection) =
            http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::builder().uri("http://a/").body(Body::empty());
        client.send_request(request.expect("a request")).await.expect("answered");
        // The first of the silent ones made room.
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut silent[0], &mut rest).await;
        // One that has spoken is not silent, however many come after it.
        for _ in 0..super::super::SILENT_MAX + 10 {
            silent.push(TcpStream::connect(address).await.expect("connected"));
        }
        let request = Request::builder().uri("http://a/").body(Body::empty());
        client.send_request(request.expect("a request")).await.expect("answered");
        drop(client);
        shutdown.begin();
        serving.await.expect("did not panic").expect("an orderly end");
    }
}
