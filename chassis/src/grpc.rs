//! gRPC serving that every service does alike: health that follows readiness, and a server that
//! finishes its streams when told to stop.

mod connection;
mod unix_socket;

use std::future::Future;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::drain::Shutdown;
use crate::readiness::Readiness;
use connection::Aged;
pub use connection::ConnectionAge;
pub use unix_socket::UnixSocket;

/// How often an idle connection is pinged.
const KEEPALIVE: Duration = Duration::from_secs(30);

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

/// Serves gRPC until `shutdown` begins, then sends GOAWAY and finishes open streams. The same
/// happens to each connection that reaches its age.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listener: impl Into<Listener>,
    routes: Routes,
    age: ConnectionAge,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let age = age.jittered(connection::random());
    let mut server = Server::builder().http2_keepalive_interval(Some(KEEPALIVE));
    if let Some(max) = age.max {
        server = server.max_connection_age(max);
    }
    let router = server.add_routes(routes);
    // The transport has a grace of its own, which takes the place of GOAWAY; ours follows it.
    match listener.into() {
        Listener::Tcp(listener) => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let stop = async move { shutdown.begun().await };
            router
                .serve_with_incoming_shutdown(incoming.map(move |io| Aged::accept(io, age)), stop)
                .await
        }
        Listener::Unix(socket) => {
            let incoming =
                stream::unfold(
                    socket,
                    |socket| async move { Some((socket.accept().await, socket)) },
                );
            let stop = async move { shutdown.begun().await };
            router
                .serve_with_incoming_shutdown(incoming.map(move |io| Aged::accept(io, age)), stop)
                .await
        }
    }
}
