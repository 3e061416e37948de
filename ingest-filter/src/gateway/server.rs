//! The listener: HTTP/1.1, HTTP/2 without TLS and gRPC on one port, and its end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use chassis::drain::Shutdown;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::gateway::edge::Edge;

/// How long a client may take to send the head of an HTTP/1.1 request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest head of a request, bytes.
const HEADER_BYTES_MAX: u32 = 32 << 10;
/// What one HTTP/2 stream may send ahead, bytes; the memory of a stream that is not read yet.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// What all streams of a connection may send ahead, bytes.
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// How often an idle HTTP/2 peer is asked whether it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after the system refused to accept, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `shutdown` begins, then finishes the requests that are open.
pub async fn serve(listener: TcpListener, router: Router, edge: Arc<Edge>, shutdown: Shutdown) {
    let builder = builder(&edge);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let connections_max = edge.config.connections_max as usize;
    loop {
        tokio::select! {
            () = shutdown.begun() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < connections_max => match accepted {
                Ok((stream, _)) => {
                    edge.metrics.connections.inc();
                    let watcher = graceful.watcher();
                    let (builder, router) = (builder.clone(), router.clone());
                    connections.spawn(async move {
                        connection(&builder, stream, router, watcher).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    graceful.shutdown().await;
    while connections.join_next().await.is_some() {}
}

async fn connection(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Answers are small and wait for nothing.
    let _ = stream.set_nodelay(true);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(error, "a connection broke");
    }
}

fn builder(edge: &Edge) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_concurrent_streams(edge.config.streams_max)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}
