//! TLS: who gets in, who does not, and certificates that change under load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use chassis::tls::client::{ClientSettings, connect};
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::control_plane::ControlPlane;
use crate::support::{Service, request, url, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 1000000}
";

/// Seconds of 2090-01-01.
const Y2090: f64 = 3_786_912_000.0;

/// Seconds of 2091-01-01.
const Y2091: f64 = 3_818_448_000.0;

/// A certificate authority with a directory for what it issues.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("generated");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { issuer, dir }
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Certificate and key for `name`, valid until the year given.
    pub fn issue(&self, name: &str, until: i32) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match name.contains("://") {
            true => SanType::URI(name.try_into().expect("ASCII")),
            false => SanType::DnsName(name.try_into().expect("ASCII")),
        }];
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("generated");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// The files of the same.
    pub fn issue_files(&self, name: &str, until: i32) -> (PathBuf, PathBuf) {
        let file =
            |kind| self.dir.path().join(format!("{}-{until}.{kind}", name.replace('/', "_")));
        let (certificate, key) = self.issue(name, until);
        fs::write(file("pem"), certificate).expect("written");
        fs::write(file("key"), key).expect("written");
        (file("pem"), file("key"))
    }

    /// A client that trusts this authority and expects a server called `server.test`.
    pub fn client(&self, identity: Option<(PathBuf, PathBuf)>) -> ClientSettings {
        ClientSettings {
            authorities: Some(self.file()),
            identity,
            server_name: Some("server.test".try_into().expect("a name")),
            ..ClientSettings::default()
        }
    }
}

/// Puts a file in the place of another in one step.
fn replace(path: &Path, text: impl AsRef<[u8]>) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn server_files(certificate: &Path, key: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("GRPC_SERVER_USE_TLS", "true".to_owned()),
        ("GRPC_SERVER_TLS_CERT", text(certificate)),
        ("GRPC_SERVER_TLS_KEY", text(key)),
    ]
}

pub type Client = RateLimitServiceClient<Channel>;

pub async fn client(service: &Service, settings: &ClientSettings) -> Result<Client, String> {
    let endpoint = Endpoint::from_shared(url(&service.addresses.grpc)).expect("an address");
    let channel = connect(endpoint, settings).await;
    let channel = channel.map_err(|error| chassis::telemetry::error_chain(&error))?;
    Ok(RateLimitServiceClient::new(channel))
}

/// Connects and asks once. In TLS 1.3 a client learns only then that it was turned away.
async fn ask(service: &Service, settings: &ClientSettings) -> Result<(), String> {
    let mut client = client(service, settings).await?;
    let answer = client.should_rate_limit(request("edge", &[&[("tenant", "a")]])).await;
    answer.map(drop).map_err(|status| format!("{status:?}"))
}

/// Connects as a client that does not look at its own certificate, and waits for the end.
async fn show_whatever_it_is(service: &Service, settings: &ClientSettings) {
    let (certificate, key) = settings.identity.as_ref().expect("a certificate");
    let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let authority = settings.authorities.as_ref().expect("an authority");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("an authority")).expect("added");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .expect("they belong together");
    let address = url(&service.addresses.grpc).replace("http://", "");
    let stream = TcpStream::connect(address).await.expect("connected");
    let name = settings.server_name.clone().expect("a name");
    if let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        // In TLS 1.3 the client is done before the server has looked.
        let _ = stream.read(&mut [0; 1]).await;
    }
}

async fn failures(service: &Service, reason: &str) -> f64 {
    let name = format!("ratelimit_tls_handshake_failures_total{{reason=\"{reason}\"}}");
    service.metric(&name).await.unwrap_or(0.0)
}

#[tokio::test]
async fn only_the_right_clients_get_in() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (certificate, key) = ours.issue_files("server.test", 2090);
    let mut more = server_files(&certificate, &key);
    more.push(("GRPC_CLIENT_TLS_CACERT", text(&ours.file())));
    more.push(("GRPC_CLIENT_TLS_SAN", "spiffe://mesh/envoy".to_owned()));
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &more).await;
    assert!(service.readiness.is_ready());
    let expiry = service.metric("ratelimit_tls_certificate_expiry_timestamp_seconds").await;
    assert_eq!(expiry, Some(Y2090));

    let envoy = ours.issue_files("spiffe://mesh/envoy", 2090);
    let good = ours.client(Some(envoy.clone()));
    ask(&service, &good).await.expect("the right client");

    for (why, settings) in [
        ("no certificate", ours.client(None)),
        ("wrong name", ours.client(Some(ours.issue_files("spiffe://mesh/other", 2090)))),
        ("wrong authority", ours.client(Some(theirs.issue_files("spiffe://mesh/envoy", 2090)))),
    ] {
        // A client that is turned away may try again by itself, so there can be several.
        let before = failures(&service, "client_certificate").await;
        ask(&service, &settings).await.expect_err(why);
        wait_for(why, async || failures(&service, "client_certificate").await > before).await;
    }

    let expired = ours.client(Some(ours.issue_files("spiffe://mesh/envoy", 2020)));
    let error = ask(&service, &expired).await.expect_err("our own clients show none");
    assert!(error.contains("has expired"), "{error}");
    let before = failures(&service, "client_certificate").await;
    show_whatever_it_is(&service, &expired).await;
    wait_for("expired", async || failures(&service, "client_certificate").await > before).await;

    let stranger = theirs.client(Some(envoy.clone()));
    let error = ask(&service, &stranger).await.expect_err("a server of an unknown authority");
    assert!(error.contains("UnknownIssuer"), "{error}");
    let elsewhere = Some("elsewhere.test".try_into().expect("a name"));
    let elsewhere = ClientSettings { server_name: elsewhere, ..good.clone() };
    let error = ask(&service, &elsewhere).await.expect_err("a server of another name");
    assert!(error.contains("not valid for name"), "{error}");
    wait_for("both told us", async || failures(&service, "refused_by_client").await >= 2.0).await;

    let plain = RateLimitServiceClient::connect(url(&service.addresses.grpc)).await;
    let asked = request("edge", &[&[("tenant", "a")]]);
    let answer = match plain {
        Ok(mut plain) => plain.should_rate_limit(asked).await.map_err(|status| status.to_string()),
        Err(error) => Err(error.to_string()),
    };
    answer.expect_err("nothing in clear text");
    wait_for("it is counted", async || failures(&service, "not_tls").await >= 1.0).await;

    ask(&service, &good).await.expect("the right client, still");
    service.stop().await;
}

#[tokio::test]
async fn a_silent_client_is_let_go() {
    let ours = Authority::new("ours");
    let (certificate, key) = ours.issue_files("server.test", 2090);
    let more = server_files(&certificate, &key);
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &more).await;
    let address = url(&service.addresses.grpc).replace("http://", "");
    let mut silent = TcpStream::connect(address).await.expect("connected");
    wait_for("the end", async || {
        let read = tokio::time::timeout(crate::support::DEADLINE, silent.read(&mut [0; 1])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    })
    .await;
    wait_for("it is counted", async || failures(&service, "timeout").await == 1.0).await;
    ask(&service, &ours.client(None)).await.expect("without client authorities anyone");
    service.stop().await;
}

#[tokio::test]
async fn certificates_change_under_load() {
    let ours = Authority::new("ours");
    let (certificate, key) = ours.issue_files("server.test", 2090);
    let mut more = server_files(&certificate, &key);
    more.push(("GRPC_WORKER_THREADS", "2".to_owned()));
    let service = Arc::new(Service::start_with(&[("a.yaml", QUOTAS)], &more).await);

    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (service, settings) = (service.clone(), ours.client(None));
        let (done, asked) = (done.clone(), asked.clone());
        load.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                ask(&service, &settings).await.expect("never disturbed");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let more_answers = async || {
        let before = asked.load(Ordering::Relaxed);
        wait_for("answers", async || asked.load(Ordering::Relaxed) > before + 8).await;
    };
    let loads = async |result: &str| {
        let name = format!("ratelimit_tls_certificate_loads_total{{result=\"{result}\"}}");
        service.metric(&name).await.unwrap_or(0.0)
    };
    let expiry =
        async || service.metric("ratelimit_tls_certificate_expiry_timestamp_seconds").await;
    more_answers().await;

    let (next, next_key) = ours.issue("server.test", 2091);
    replace(&certificate, &next);
    wait_for("a certificate without its key", async || loads("error").await == 1.0).await;
    more_answers().await;
    assert_eq!(expiry().await, Some(Y2090));
    let (_, shown) = service.admin("/config").await;
    assert!(shown.contains("its key cannot be used together"), "{shown}");
    assert!(service.readiness.is_ready(), "a bad change costs no readiness");

    replace(&key, &next_key);
    wait_for("the new certificate", async || expiry().await == Some(Y2091)).await;
    more_answers().await;

    fs::remove_file(&key).expect("removed");
    wait_for("a key that is gone", async || loads("error").await == 2.0).await;
    more_answers().await;
    assert_eq!(loads("success").await, 2.0);
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("no client failed");
    }
    Arc::into_inner(service).expect("no one else").stop().await;
}

#[tokio::test]
async fn without_a_certificate_the_process_ends() {
    let ours = Authority::new("ours");
    let (certificate, key) = ours.issue_files("server.test", 2090);
    fs::write(&certificate, "not a certificate").expect("written");
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ratelimit-svc"));
        command.envs(server_files(&certificate, &key)).env("BACKEND_TYPE", "memory");
        command.env("RUNTIME_ROOT", certificate.parent().expect("a directory"));
        for port in ["GRPC_PORT", "PORT", "DEBUG_PORT"] {
            command.env(port, "0");
        }
        let output = command.output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), certificate)
    };
    let (code, error, certificate) = tokio::task::spawn_blocking(run).await.expect("ran");
    let expected = format!("'{}' holds no certificate", certificate.display());
    assert!(code == Some(64) && error.contains(&expected), "{code:?} {error}");
}

#[tokio::test]
async fn a_control_plane_over_tls() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = ours.issue_files("plane.test", 2090);
    let plane = ControlPlane::start_tls(&server, &theirs.file()).await;
    plane.publish("1", &[crate::xds::good(3)]);
    let own = theirs.issue_files("edge.test", 2090);
    let mut more = vec![
        ("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true".to_owned()),
        ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", text(&ours.file())),
        ("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "plane.test".to_owned()),
        ("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", text(&own.0)),
        ("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", text(&own.1)),
    ];
    let service = crate::xds::start_with(plane.address, &more).await;
    wait_for("quotas", async || service.readiness.is_ready()).await;
    assert_eq!(crate::reload::limit(&service, "a").await, Some(3));

    // Files that cannot be used are reported at once, and the next connection has the old ones.
    let good = fs::read(&own.0).expect("there");
    replace(&own.0, "half a certificate");
    wait_for("the warning", async || {
        let page = service.admin("/readyz").await.1;
        page.contains("warning: xds_tls: new files are refused, the old are in use: '")
    })
    .await;
    let refused = async |value: u8| {
        let line = format!("ratelimit_xds_tls_files_refused {value}\n");
        service.admin("/metrics").await.1.contains(&line)
    };
    assert!(refused(1).await);
    plane.cut();
    plane.publish("2", &[crate::xds::good(4)]);
    wait_for("the next quotas", async || crate::reload::limit(&service, "a").await == Some(4))
        .await;
    replace(&own.0, good);
    wait_for("good files", async || refused(0).await).await;
    service.stop().await;

    // Not the one that was asked for.
    more[2].1 = "other.test".to_owned();
    let service = crate::xds::start_with(plane.address, &more).await;
    wait_for("the reason", async || {
        service.admin("/readyz").await.1.contains("not valid for name")
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn the_command_line_asks_over_tls() {
    let ours = Authority::new("ours");
    let (certificate, key) = ours.issue_files("server.test", 2090);
    let mut more = server_files(&certificate, &key);
    more.push(("GRPC_CLIENT_TLS_CACERT", text(&ours.file())));
    more.push(("GRPC_CLIENT_TLS_SAN", "cli.test".to_owned()));
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &more).await;
    let address = url(&service.addresses.grpc).replace("http://", "");
    let (own, own_key) = ours.issue_files("cli.test", 2090);
    let call = async |tls: &[&str]| {
        let mut arguments = vec!["call", "--addr", &address, "--domain", "edge"];
        arguments.extend(["--descriptor", "tenant=a"].iter().chain(tls));
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let run = move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ratelimit-svc"));
            command.args(arguments).output().expect("runs")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("ran");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ca, own, own_key) = (text(&ours.file()), text(&own), text(&own_key));
    let mut flags = vec!["--tls", "--tls-ca", &ca, "--tls-server-name", "server.test"];
    let (code, error) = call(&flags).await;
    assert_eq!(code, Some(1), "{error}");
    flags.extend(["--tls-cert", &own, "--tls-key", &own_key]);
    assert_eq!(call(&flags).await, (Some(0), String::new()));
    let (code, error) = call(&["--tls-ca", &ca]).await;
    assert!(code == Some(64) && error.contains("--tls"), "{error}");
    service.stop().await;
}
