//! A server in process on free ports, with files in a temporary directory.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chassis::drain::Shutdown;
use ext_authz::check::key::NewKey;
use ext_authz::check::record::{Grant, KeyRecord, Kind, Status};
use ext_authz::config::Config;
use ext_authz::key_file::edit::render;
use ext_authz::server::Server;
use proto::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use proto::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use proto::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use proto::pb::envoy::service::auth::v3::check_response::HttpResponse;
use proto::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use proto::pb::google::protobuf::value::Kind as ValueKind;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Longer than anything here takes on a machine that eight others use as well; a test that passes never
/// waits that long.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Files of a service: a configuration, a pepper, and perhaps keys.
pub struct Files {
    dir: TempDir,
}

impl Files {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("pepper"), "a pepper of enough bytes\n").expect("written");
        let config = "grpc_listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nkeys_file: keys.yaml\n\
                      pepper_files: {1: pepper}\nretry_after: 3s\ndrain_delay: 0s\n";
        fs::write(dir.path().join("ext-authz.yaml"), config).expect("written");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> Config {
        Config::load(&self.path("ext-authz.yaml")).expect("a good configuration")
    }

    pub fn write_keys(&self, text: &str) {
        // As an operator's tools do it: never half a file.
        fs::write(self.path("keys.new"), text).expect("written");
        fs::rename(self.path("keys.new"), self.path("keys.yaml")).expect("renamed");
    }

    /// A key made under the pepper, and its record.
    pub fn issue(&self, tenant: &str) -> (String, KeyRecord) {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let mut state = SEED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let Ok(key) = NewKey::generate("test", |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            Ok::<(), Infallible>(())
        });
        let key = key.expect("a good environment");
        let record = KeyRecord {
            id: key.id(),
            tenant: tenant.into(),
            grant: Arc::new(Grant {
                priority: "ingest".into(),
                plan: "gold".into(),
                scopes: vec!["metrics:write".into()],
                networks: Vec::new(),
            }),
            digest: self.config().keys.peppers.digest(&key),
            not_before: None,
            expires_at: None,
            status: Status::Active,
            kind: Kind::Issued,
        };
        (key.expose().to_owned(), record)
    }
}

/// A keys file of these records.
pub fn keys_yaml(records: &[&KeyRecord]) -> String {
    if records.is_empty() {
        return "keys: []\n".to_owned();
    }
    let item = |record: &&KeyRecord| format!("  - {}\n", render(record, None).join("\n    "));
    format!("keys:\n{}", records.iter().map(item).collect::<String>())
}

/// A running server.
pub struct Running {
    pub client: AuthorizationClient<Channel>,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    pub shutdown: Shutdown,
    pub task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub async fn start(files: &Files) -> Self {
        Self::start_with(files.config()).await
    }

    pub async fn start_with(config: Config) -> Self {
        let server = Server::bind(config).await.expect("bound");
        let grpc = server.grpc_address().expect("bound");
        let admin = server.admin_address().expect("bound");
        let shutdown = Shutdown::new();
        let task = tokio::spawn(server.run(shutdown.clone()));
        let client = connect(grpc).await;
        Self { client, grpc, admin, shutdown, task }
    }

    pub async fn start_ready(files: &Files) -> Self {
        let running = Self::start(files).await;
        wait_for("ready", async || running.get("/readyz").await.0 == 200).await;
        running
    }

    pub async fn check(&self, request: CheckRequest) -> Outcome {
        let response = self.client.clone().check(request).await.expect("never a gRPC error");
        Outcome::of(response.into_inner())
    }

    /// Status and body of an admin page.
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.admin, path).await
    }
}

pub async fn connect(grpc: SocketAddr) -> AuthorizationClient<Channel> {
    AuthorizationClient::connect(format!("http://{grpc}")).await.expect("connected")
}

/// Status and body of an admin page.
pub async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("received");
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// Polls until the condition holds.
pub async fn wait_for<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What Envoy would make of an answer.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Allowed {
        headers: HashMap<String, String>,
        removed: Vec<String>,
        removed_parameters: Vec<String>,
        metadata: HashMap<String, String>,
    },
    Denied {
        status: i32,
        headers: Vec<(String, String)>,
        body: String,
        reason: String,
    },
    Failed {
        status: i32,
        headers: Vec<(String, String)>,
        body: String,
    },
}

impl Outcome {
    pub fn of(response: CheckResponse) -> Self {
        let code = response.status.as_ref().expect("always a status").code;
        let metadata: HashMap<String, String> = response
            .dynamic_metadata
            .into_iter()
            .flat_map(|metadata| metadata.fields)
            .map(|(name, value)| match value.kind {
                Some(ValueKind::StringValue(text)) => (name, text),
                Some(ValueKind::NumberValue(number)) => (name, format!("number {number}")),
                other => panic!("metadata of no use to Envoy: {other:?}"),
            })
            .collect();
        let named = |headers: Vec<proto::pb::envoy::config::core::v3::HeaderValueOption>| {
            headers
                .into_iter()
                .filter_map(|option| option.header)
                .map(|header| (header.key, header.value))
        };
        match response.http_response.expect("always an answer") {
            HttpResponse::OkResponse(ok) => {
                assert_eq!(code, 0);
                assert!(ok.headers.iter().all(|header| header.append_action == 2), "overwrites");
                Self::Allowed {
                    headers: named(ok.headers).collect(),
                    removed: ok.headers_to_remove,
                    removed_parameters: ok.query_parameters_to_remove,
                    metadata,
                }
            }
            HttpResponse::DeniedResponse(denied) => {
                assert_ne!(code, 0);
                Self::Denied {
                    status: denied.status.expect("a status").code,
                    headers: named(denied.headers).collect(),
                    body: denied.body,
                    reason: metadata["denied_reason"].clone(),
                }
            }
            HttpResponse::ErrorResponse(error) => {
                assert_eq!(code, 14);
                Self::Failed {
                    status: error.status.expect("a status").code,
                    headers: named(error.headers).collect(),
                    body: error.body,
                }
            }
        }
    }

    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Allowed { headers, .. } => Some(&headers["x-tidegate-tenant"]),
            _ => None,
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Denied { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// A check as Envoy sends it with `encode_raw_headers`.
pub fn request(path: &str, headers: &[(&str, &str)], context: &[(&str, &str)]) -> CheckRequest {
    let headers = headers
        .iter()
        .map(|(key, value)| HeaderValue {
            key: (*key).to_owned(),
            value: String::new(),
            raw_value: value.as_bytes().to_vec(),
        })
        .collect();
    let http = HttpRequest {
        method: "POST".into(),
        path: path.into(),
        header_map: Some(HeaderMap { headers }),
        size: -1,
        ..HttpRequest::default()
    };
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(Request { http: Some(http), ..Request::default() }),
            context_extensions: context.iter().map(owned).collect(),
            ..AttributeContext::default()
        }),
    }
}

pub fn bearer(key: &str) -> CheckRequest {
    request("/write?db=x", &[("authorization", &format!("Bearer {key}"))], &[])
}
