//! gRPC serving that every service does alike: health that follows readiness, and a server that
//! finishes its streams when told to stop.

use std::future::Future;

use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::drain::Shutdown;
use crate::readiness::Readiness;

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

/// Serves gRPC until `shutdown` begins, then sends GOAWAY and finishes open streams.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move { shutdown.begun().await })
        .await
}
