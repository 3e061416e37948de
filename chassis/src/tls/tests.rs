//! What files a listener takes, and how long a client may stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsConnector, client, server};

use super::client::ClientSettings;
use super::*;
use crate::readiness::Readiness;

mod clients;
mod workload;

const PERIOD: Duration = Duration::from_millis(10);

/// An authority and a directory for what it signs.
struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("generated"));
        let this = Self {
            issuer: issuer.expect("signed"),
            dir: tempfile::tempdir().expect("a directory"),
        };
        this.write("ca.pem", &this.issuer.pem());
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        // As a whole: half a file is a test of its own.
        fs::write(self.path("new"), text).expect("written");
        fs::rename(self.path("new"), self.path(name)).expect("renamed");
    }

    /// Writes `<file>.pem` and `<file>.key` for a name.
    fn issue(&self, file: &str, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match name.contains("://") {
            true => SanType::URI(name.try_into().expect("ASCII")),
            false => SanType::DnsName(name.try_into().expect("ASCII")),
        }];
        change(&mut params);
        let key = KeyPair::generate().expect("generated");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        self.write(&format!("{file}.key"), &key.serialize_pem());
        self.write(&format!("{file}.pem"), &certificate.pem());
    }

    fn settings(&self) -> ServerSettings {
        ServerSettings {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_authorities: Some(self.path("ca.pem")),
            client_subjects: Vec::new(),
            client_subjects_file: Some(self.path("names")),
            workload_api: None,
        }
    }

    /// A server, its certificate and the list of its clients.
    fn good() -> Self {
        let this = Self::new();
        this.issue("server", "server.test", |_| ());
        this.write("names", "envoy.test\nspiffe://mesh/envoy\n");
        this
    }
}

struct Listener {
    acceptor: Arc<Acceptor>,
    readiness: Readiness,
    registry: Registry,
}

fn start(settings: ServerSettings) -> Result<Listener, String> {
    let (readiness, mut registry) = (Readiness::new(), Registry::default());
    let acceptor = Acceptor::start(Some(settings), Protocols::Http, &readiness, &mut registry);
    let acceptor = acceptor.map_err(|error| error.to_string())?.expect("there is to be TLS");
    Ok(Listener { acceptor, readiness, registry })
}

impl Listener {
    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encoded");
        text
    }
}

type Ends = ((server::TlsStream<DuplexStream>, Peer), client::TlsStream<DuplexStream>);

async fn connect(pki: &Pki, listener: &Listener, client: &str) -> Option<Ends> {
    connect_from(pki, &pki.path("ca.pem"), listener, client).await
}

/// The same for a client whose authority is another than the listener's.
async fn connect_from(
    pki: &Pki,
    trusted: &Path,
    listener: &Listener,
    client: &str,
) -> Option<Ends> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (certificate, key) =
        (pki.path(&format!("{client}.pem")), pki.path(&format!("{client}.key")));
    let settings = ClientSettings {
        authorities: Some(trusted.to_owned()),
        identity: Some((certificate, key)),
        ..ClientSettings::default()
    };
    let config = Arc::new(settings.config().ok()?);
    let name = ServerName::try_from("server.test").expect("a name");
    let connecting = async move {
        let mut stream = TlsConnector::from(config).connect(name, near).await.ok()?;
        stream.write_all(b"x").await.ok()?;
        Some(stream)
    };
    let accepting = async {
        let (mut stream, peer) = listener.acceptor.accept(far).await?;
        stream.read_exact(&mut [0]).await.ok()?;
        Some((stream, peer))
    };
    let (accepted, connected) = tokio::join!(accepting, connecting);
    Some((accepted?, connected?))
}

#[test]
fn bad_files_are_named_at_the_start() {
    let check = |expected: &str, spoil: &dyn Fn(&Pki)| {
        let pki = Pki::good();
        start(pki.settings()).map(drop).expect("good before");
        spoil(&pki);
        let error = start(pki.settings()).map(drop).expect_err(expected);
        let expected = expected.replace('@', &pki.dir.path().display().to_string());
        assert!(error.starts_with(&expected), "{error} is not {expected}");
    };
    check("certificate '@/server.pem' has expired", &|pki| {
        pki.issue("server", "server.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
    });
    check("certificate '@/server.pem' is not valid yet", &|pki| {
        pki.issue("server", "server.test", |params| params.not_before = date_time_ymd(2090, 1, 1));
    });
    check("certificate '@/server.pem' and its key cannot be used together", &|pki| {
        pki.write("server.key", &KeyPair::generate().expect("generated").serialize_pem());
    });
    for name in ["server.pem", "server.key", "ca.pem"] {
        check(&format!("'@/{name}'"), &|pki| {
            let text = fs::read_to_string(pki.path(name)).expect("there");
            pki.write(name, &text[..text.len() / 2]);
        });
        check(&format!("'@/{name}'"), &|pki| pki.write(name, ""));
        check(&format!("'@/{name}' cannot be read"), &|pki| {
            fs::remove_file(pki.path(name)).expect("removed");
        });
    }
    check("the names in '@/names' cannot be used: it holds no name", &|pki| {
        pki.write("names", "\n# envoy.test\n");
    });
    check("the names in '@/names' cannot be used: 'a..b' is neither", &|pki| {
        pki.write("names", "a..b\n");
    });
}

#[tokio::test]
async fn a_client_needs_the_right_certificate() {
    let pki = Pki::good();
    let listener = start(pki.settings()).expect("good files");
    pki.issue("envoy", "envoy.test", |_| ());
    pki.issue("spiffe", "spiffe://mesh/envoy", |_| ());
    pki.issue("other", "other.test", |_| ());
    pki.issue("two", "spiffe://mesh/envoy", |params| {
        let uri = "spiffe://mesh/other".try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
    });
    for (client, expected) in [("envoy", true), ("spiffe", true), ("other", false), ("two", false)]
    {
        assert_eq!(connect(&pki, &listener, client).await.is_some(), expected, "{client}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_list_is_lost() {
    let pki = Pki::good();
    let listener = start(pki.settings()).expect("good files");
    pki.issue("envoy", "envoy.test", |_| ());
    pki.issue("spiffe", "spiffe://mesh/envoy", |_| ());
    let ((_, envoy), _near) = connect(&pki, &listener, "envoy").await.expect("allowed");
    let ((_, spiffe), _near) = connect(&pki, &listener, "spiffe").await.expect("allowed");
    let stays = tokio::spawn(spiffe.lost());
    let acceptor = listener.acceptor.clone();
    let following = tokio::spawn(async move { acceptor.follow(PERIOD).await });
    pki.write("names", "spiffe://mesh/envoy\n");
    envoy.lost().await;
    assert!(connect(&pki, &listener, "envoy").await.is_none());
    assert!(!stays.is_finished());
    assert!(listener.metrics().contains("ended_total{reason=\"not_allowed\"} 1"));
    following.abort();
}

#[tokio::test]
async fn a_client_is_lost_when_its_certificate_expires() {
    let pki = Pki::good();
    let listener = start(pki.settings()).expect("good files");
    pki.issue("envoy", "envoy.test", |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(2)).into();
    });
    // A client that finds its own certificate expired at once, on a busy machine, is turned away too.
    if let Some(((_, envoy), _near)) = connect(&pki, &listener, "envoy").await {
        envoy.lost().await;
        assert!(listener.metrics().contains("ended_total{reason=\"expired\"} 1"));
    }
    assert!(connect(&pki, &listener, "envoy").await.is_none());
}

#[tokio::test]
async fn a_bad_rotation_changes_nothing_and_is_told() {
    let pki = Pki::good();
    let listener = start(pki.settings()).expect("good files");
    pki.issue("envoy", "envoy.test", |_| ());
    let ((_, envoy), _near) = connect(&pki, &listener, "envoy").await.expect("allowed");
    let stays = tokio::spawn(envoy.lost());
    let acceptor = listener.acceptor.clone();
    let following = tokio::spawn(async move { acceptor.follow(PERIOD).await });
    let good = fs::read_to_string(pki.path("server.pem")).expect("there");
    pki.write("server.pem", &good[..good.len() / 2]);
    while listener.readiness.warnings().is_empty() {
        tokio::task::yield_now().await;
    }
    let warning = listener.readiness.warnings().remove(0);
    assert!(warning.contains("the old are in force: '") && warning.contains("server.pem'"));
    assert!(listener.readiness.is_ready());
    assert!(listener.metrics().contains("tls_files_refused 1"));
    assert!(connect(&pki, &listener, "envoy").await.is_some());
    pki.issue("server", "server.test", |_| ());
    while !listener.readiness.warnings().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(listener.metrics().contains("tls_files_refused 0"));
    assert!(connect(&pki, &listener, "envoy").await.is_some());
    assert!(!stays.is_finished());
    following.abort();
}
