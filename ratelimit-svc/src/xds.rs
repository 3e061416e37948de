//! Quotas from a control plane: the client half of the aggregated discovery service, state of the
//! world. Translates and keeps the stream alive; what is valid decides `limits`.
//!
//! ```text
//! first request ─► response ─► all good: in force, ACK ─► response ─► ...
//!       ▲                 └──► else: nothing changes, NACK with the reason
//!       └── pause ◄── stream or connection lost; what is in force stays
//! ```

pub mod backoff;
pub mod resource;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use proto::pb::google::protobuf::{Struct, Value, value::Kind};
use proto::pb::google::rpc;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use crate::reload::Reloader;
use backoff::Backoff;
use chassis::telemetry::error_chain;
use chassis::tls::Protocols;
use chassis::tls::client::{self, ClientSettings, Connector};

/// The type of the only resource that is asked for.
pub const TYPE_URL: &str = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";

/// The longest reason in a NACK.
pub const NACK_BYTES_MAX: usize = 4096;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the control plane is pinged, so that one that is gone is noticed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A stream that was asked for and not refused for so long is a good one. A control plane that has
/// nothing new to say sends nothing, not even headers.
const QUIET: Duration = Duration::from_secs(1);

/// ACKs and NACKs that wait to be sent. There is one for each response, which come one by one.
const REQUESTS_MAX: usize = 4;

/// Where the control plane is, and who asks it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HOST:PORT`
    pub server: String,
    /// The control plane, checked.
    pub endpoint: Endpoint,
    /// TLS, or clear text.
    pub tls: Option<ClientSettings>,
    /// Which configuration is asked for.
    pub node_id: String,
    /// What else the control plane is told about this node.
    pub node_metadata: Vec<(String, String)>,
    /// Headers of the stream; their values are kept out of logs.
    pub headers: MetadataMap,
    /// Pause after an attempt to connect that failed.
    pub connect_retry: Duration,
    /// Pauses after a stream that ended.
    pub backoff: Backoff,
    /// The largest response.
    pub message_bytes_max: usize,
}

/// Follows the control plane. Never ends.
pub async fn follow(settings: Settings, reloader: Arc<Reloader>) {
    let mut backoff = settings.backoff.clone();
    // One for all connections: it keeps the last good files.
    let tls = settings.tls.clone().map(|tls| Connector::new(tls, Protocols::Grpc, "xds_tls"));
    let mut session = Session { settings, reloader, version: String::new() };
    loop {
        let endpoint = session.settings.endpoint.clone();
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_while_idle(true);
        let (reason, pause) = match connect(endpoint, tls.clone()).await {
            Ok(channel) => {
                let reason = session.run(channel, &mut backoff).await;
                (reason, backoff.next(random()))
            }
            Err(error) => {
                (format!("cannot connect: {}", error_chain(&error)), session.settings.connect_retry)
            }
        };
        let server = &session.settings.server;
        tracing::warn!(server, reason, pause_seconds = pause.as_secs_f64(), "xDS stream lost");
        session.reloader.source_lost(format!("xDS server {server}: {reason}"));
        tokio::time::sleep(pause).await;
    }
}

async fn connect(
    endpoint: Endpoint,
    tls: Option<Connector>,
) -> Result<Channel, tonic::transport::Error> {
    match tls {
        Some(tls) => client::connect_by(endpoint, tls).await,
        None => endpoint.connect().await,
    }
}

/// What outlives a stream.
struct Session {
    settings: Settings,
    reloader: Arc<Reloader>,
    /// The version in force, as the control plane calls it.
    version: String,
}

impl Session {
    /// One stream, to its end and the reason for it.
    async fn run(&mut self, channel: Channel, backoff: &mut Backoff) -> String {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let queue = stream::unfold(queue, |mut queue| async move {
            queue.recv().await.map(|request| (request, queue))
        });
        let mut request = tonic::Request::new(queue);
        *request.metadata_mut() = self.settings.headers.clone();
        if requests.send(self.request("", None)).await.is_err() {
            return "the stream ended".to_owned();
        }
        let mut client = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(self.settings.message_bytes_max);
        let mut stream = pin!(client.stream_aggregated_resources(request));
        let opened = match tokio::time::timeout(QUIET, &mut stream).await {
            Ok(opened) => opened,
            Err(_) => {
                self.reloader.source_found();
                stream.await
            }
        };
        let mut responses = match opened {
            Ok(responses) => responses.into_inner(),
            Err(status) => return refusal(&status),
        };
        self.reloader.source_found();
        loop {
            let response = match responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return "the stream ended".to_owned(),
                Err(status) => return refusal(&status),
            };
            backoff.reset();
            let refused = self.take(&response).await.err();
            if requests.send(self.request(&response.nonce, refused)).await.is_err() {
                return "the stream ended".to_owned();
            }
        }
    }

    /// Puts a response in force, or says why not.
    async fn take(&mut self, response: &DiscoveryResponse) -> Result<(), String> {
        let version = &response.version_info;
        let contents = match response.type_url.as_str() {
            TYPE_URL => resource::contents(&response.resources),
            other => Err(format!("unexpected type URL '{other}'")),
        };
        let outcome = match contents {
            Ok(contents) => self.reloader.apply_whole(contents).await,
            Err(reason) => {
                self.reloader.refuse_whole(&reason);
                Err(reason)
            }
        };
        match &outcome {
            Ok(()) => self.version.clone_from(version),
            Err(reason) => tracing::error!(version, reason, "xDS response refused"),
        }
        outcome
    }

    fn request(&self, nonce: &str, refused: Option<String>) -> DiscoveryRequest {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let pairs = self.settings.node_metadata.iter();
        let fields = pairs.map(|(key, value)| (key.clone(), text(value))).collect();
        let node = Node {
            id: self.settings.node_id.clone(),
            metadata: (!self.settings.node_metadata.is_empty()).then_some(Struct { fields }),
            user_agent_name: "ratelimit-svc".to_owned(),
            ..Node::default()
        };
        DiscoveryRequest {
            version_info: self.version.clone(),
            node: Some(node),
            type_url: TYPE_URL.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: refused.map(|mut message| {
                message.truncate(message.floor_char_boundary(NACK_BYTES_MAX));
                rpc::Status { code: tonic::Code::InvalidArgument.into(), message, details: vec![] }
            }),
            ..DiscoveryRequest::default()
        }
    }
}

fn refusal(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// A number for jitter; not for secrets.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
