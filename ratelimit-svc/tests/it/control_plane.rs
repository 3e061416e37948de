//! A control plane: an aggregated discovery service whose state of the world a test sets, and
//! which shows the test what it was asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use chassis::drain::Shutdown;
use chassis::grpc::Options;
use chassis::readiness::Readiness;
use chassis::tls::{Acceptor, Protocols, ServerSettings};
use futures_util::{Stream, stream};
use prometheus_client::registry::Registry;
use prost::Message;
use proto::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::pb::google::protobuf::Any;
use proto::pb::ratelimit::config::ratelimit::v3::RateLimitConfig;
use ratelimit_svc::xds::TYPE_URL;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::redis_parts::free_port;
use crate::support::DEADLINE;

/// A running control plane.
pub struct ControlPlane {
    pub address: SocketAddr,
    world: watch::Sender<World>,
    asked: Mutex<mpsc::UnboundedReceiver<(MetadataMap, DiscoveryRequest)>>,
    running: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct World {
    is_silent: bool,
    version: String,
    resources: Vec<Any>,
    /// Streams of an earlier epoch are ended.
    epoch: u32,
}

struct Service {
    world: watch::Sender<World>,
    asked: mpsc::UnboundedSender<(MetadataMap, DiscoveryRequest)>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ControlPlane {
    pub async fn start() -> Self {
        // One that comes back finds its port free: no outgoing connection takes it meanwhile.
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], free_port()))).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let world = watch::Sender::new(World::default());
        let (sender, asked) = mpsc::unbounded_channel();
        let service = Service { world: world.clone(), asked: sender };
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(service))
            .serve_with_incoming(TcpIncoming::from(listener));
        let running = tokio::spawn(async move { server.await.expect("served") });
        Self { address, world, asked: Mutex::new(asked), running }
    }

    /// Over TLS, for clients with a certificate of these authorities.
    pub async fn start_tls((certificate, key): &(PathBuf, PathBuf), authorities: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let world = watch::Sender::new(World::default());
        let (sender, asked) = mpsc::unbounded_channel();
        let service = Service { world: world.clone(), asked: sender };
        let settings = ServerSettings {
            certificate: certificate.clone(),
            key: key.clone(),
            client_authorities: Some(authorities.to_owned()),
            client_subjects: Vec::new(),
            client_subjects_file: None,
            workload_api: None,
        };
        let (readiness, mut registry) = (Readiness::new(), Registry::default());
        let tls = Acceptor::start(Some(settings), Protocols::Grpc, &readiness, &mut registry);
        let tls = tls.expect("good files");
        let options = Options { tls, ..Options::default() };
        let routes = Routes::new(AggregatedDiscoveryServiceServer::new(service)).prepare();
        let server = chassis::grpc::serve(listener, routes, options, Shutdown::new());
        let running = tokio::spawn(async move { server.await.expect("served") });
        Self { address, world, asked: Mutex::new(asked), running }
    }

    /// Makes this the state of the world.
    pub fn publish(&self, version: &str, configs: &[RateLimitConfig]) {
        let any = |config: &RateLimitConfig| Any {
            type_url: TYPE_URL.to_owned(),
            value: config.encode_to_vec(),
        };
        self.world.send_modify(|world| {
            world.version = version.to_owned();
            world.resources = configs.iter().map(any).collect();
        });
    }

    /// Sends nothing on a new stream, not even headers, before the world changes.
    pub fn be_silent(&self) {
        self.world.send_modify(|world| world.is_silent = true);
    }

    /// Ends all streams.
    pub fn cut(&self) {
        self.world.send_modify(|world| world.epoch += 1);
    }

    /// The next request.
    pub async fn asked(&self) -> (MetadataMap, DiscoveryRequest) {
        let mut asked = self.asked.lock().await;
        let next = tokio::time::timeout(DEADLINE, asked.recv()).await;
        next.expect("asked in time").expect("the service lives")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.cut();
        self.running.abort();
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let headers = Arc::new(request.metadata().clone());
        let mut requests = request.into_inner();
        let asked = self.asked.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let _ = asked.send(((*headers).clone(), request));
            }
        });
        let mut world = self.world.subscribe();
        let epoch = world.borrow().epoch;
        if world.borrow().is_silent {
            // Headers go out with the first message.
            let _ = world.changed().await;
        }
        world.mark_changed();
        let answers = stream::unfold(world, move |mut world| async move {
            loop {
                world.changed().await.ok()?;
                let now = world.borrow_and_update().clone();
                if now.epoch != epoch {
                    return None;
                }
                if now.version.is_empty() {
                    continue;
                }
                let response = DiscoveryResponse {
                    nonce: format!("nonce of {}", now.version),
                    version_info: now.version,
                    resources: now.resources,
                    type_url: TYPE_URL.to_owned(),
                    ..DiscoveryResponse::default()
                };
                return Some((Ok(response), world));
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world only"))
    }
}
