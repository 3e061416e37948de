//! Certificates from a Workload API, served on a unix socket by a server of ours.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::routing::post;
use rcgen::KeyUsagePurpose;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::client::{Connector, RawClientTls};
use super::*;
use crate::causes::error_chain;

/// A Workload API that sends what is put into it, to every stream.
struct Api {
    dir: TempDir,
    answers: watch::Sender<Option<Bytes>>,
    serving: Option<JoinHandle<()>>,
}

impl Api {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir, answers: watch::Sender::new(None), serving: None }
    }

    fn address(&self) -> String {
        format!("unix://{}/agent.sock", self.dir.path().display())
    }

    fn serve(&mut self) {
        let socket = self.dir.path().join("agent.sock");
        // Left over from before, or not there.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).expect("bound");
        // No sender here: with the only one every stream ends.
        let answers = self.answers.subscribe();
        let stream = move || {
            let mut answers = answers.clone();
            answers.mark_changed();
            let frames = futures_util::stream::unfold(answers, |mut answers| async move {
                loop {
                    answers.changed().await.ok()?;
                    let answer = answers.borrow_and_update().clone();
                    if let Some(answer) = answer {
                        return Some((Ok::<_, std::io::Error>(answer), answers));
                    }
                }
            });
            let answer = Response::builder().header("content-type", "application/grpc");
            std::future::ready(answer.body(Body::from_stream(frames)).expect("an answer"))
        };
        let routes = Router::new().route("/SpiffeWorkloadAPI/FetchX509SVID", post(stream));
        let serving = async move { axum::serve(listener, routes).await.expect("served") };
        self.serving = Some(tokio::spawn(serving));
    }

    /// Ends every stream: connections are tasks of their own, so the stream ends with its source.
    fn stop(&mut self) {
        self.serving.take().expect("it serves").abort();
        fs::remove_file(self.dir.path().join("agent.sock")).expect("removed");
        self.answers = watch::Sender::new(None);
    }

    fn send(&self, message: Bytes) {
        self.answers.send_replace(Some(message));
    }
}

/// An `X509SVIDResponse` with one SVID, in a frame of gRPC.
fn svid(pki: &Pki, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Bytes {
    svid_and_bundles(pki, name, &[], change)
}

/// The same with bundles of federated trust domains.
fn svid_and_bundles(
    pki: &Pki,
    name: &str,
    federated: &[(&str, &Pki)],
    change: impl FnOnce(&mut CertificateParams),
) -> Bytes {
    let id = format!("spiffe://mesh.test/{name}");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().expect("ASCII"))];
    // Clients of these tests look for a DNS name.
    params.subject_alt_names.push(SanType::DnsName("server.test".try_into().expect("ASCII")));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    change(&mut params);
    let key = KeyPair::generate().expect("generated");
    let certificate = params.signed_by(&key, &pki.issuer).expect("signed");
    let mut inner = Vec::new();
    field(&mut inner, 1, id.as_bytes());
    field(&mut inner, 2, certificate.der());
    field(&mut inner, 3, &key.serialize_der());
    field(&mut inner, 4, pki.issuer.der());
    let mut message = Vec::new();
    field(&mut message, 1, &inner);
    for (domain, pki) in federated {
        let mut entry = Vec::new();
        field(&mut entry, 1, domain.as_bytes());
        field(&mut entry, 2, pki.issuer.der());
        field(&mut message, 3, &entry);
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// A field of bytes in protobuf.
fn field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}

fn listener(api: &Api, client: &str) -> Listener {
    let settings = ServerSettings::by_workload_api(&api.address()).expect("an address");
    let client_subjects = subjects(client).expect("names");
    start(ServerSettings { client_subjects, ..settings }).expect("nothing is read yet")
}

/// Waits until something is so; panics with what the listener says when that takes too long.
async fn until(listener: &Listener, what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(PERIOD).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    let readiness = &listener.readiness;
    waited.unwrap_or_else(|_| panic!("{:?} {:?}", readiness.blockers(), readiness.warnings()));
}

fn expiry(listener: &Listener) -> String {
    let page = listener.metrics();
    let line = page.lines().find(|line| line.starts_with("tls_certificate_expiry"));
    line.expect("a gauge").to_owned()
}

#[tokio::test]
async fn the_workload_api_comes_and_goes() {
    let pki = Pki::good();
    pki.issue("envoy", "spiffe://mesh.test/envoy", |_| ());
    pki.issue("other", "spiffe://mesh.test/other", |_| ());
    let mut api = Api::new();
    let listener = listener(&api, "spiffe://mesh.test/envoy");
    let acceptor = listener.acceptor.clone();
    let following = tokio::spawn(async move { acceptor.follow(PERIOD).await });

    // Away at the start: nothing ends, nothing is ready, nobody gets in.
    let told = || listener.readiness.warnings().join("\n");
    until(&listener, || told().contains("is away, there is no certificate yet")).await;
    let blockers = listener.readiness.blockers();
    assert_eq!(blockers, ["tls: the Workload API has given no certificate yet"]);
    assert!(connect(&pki, &listener, "envoy").await.is_none());
    assert!(listener.metrics().contains("failures_total{reason=\"no_certificate\"} 1"));

    // It serves: ready, and those who are named get in.
    api.serve();
    api.send(svid(&pki, "gateway", |_| ()));
    until(&listener, || listener.readiness.is_ready()).await;
    assert!(listener.readiness.warnings().is_empty());
    let ((_, peer), _near) = connect(&pki, &listener, "envoy").await.expect("allowed");
    assert!(connect(&pki, &listener, "other").await.is_none());

    // A rotation leaves open connections alone.
    let (before, stays) = (expiry(&listener), tokio::spawn(peer.lost()));
    api.send(svid(&pki, "gateway", |params| params.not_after = date_time_ymd(2070, 1, 1)));
    until(&listener, || expiry(&listener) != before).await;
    connect(&pki, &listener, "envoy").await.expect("allowed");
    assert!(!stays.is_finished());

    // Away later: said, and the last certificate is in force.
    api.stop();
    until(&listener, || {
        told().contains("is away, the last certificate is in force until it expires")
    })
    .await;
    assert!(listener.readiness.is_ready());
    connect(&pki, &listener, "envoy").await.expect("allowed");

    // Back with another bundle: who was signed by the old authority is gone.
    let next = Pki::good();
    next.issue("envoy", "spiffe://mesh.test/envoy", |_| ());
    api.serve();
    api.send(svid(&next, "gateway", |_| ()));
    stays.await.expect("lost");
    assert!(listener.metrics().contains("ended_total{reason=\"not_allowed\"} 1"));
    assert!(connect(&pki, &listener, "envoy").await.is_none());
    connect(&next, &listener, "envoy").await.expect("allowed");
    following.abort();
}

#[tokio::test]
async fn what_the_workload_api_sends_is_good_or_changes_nothing() {
    let pki = Pki::good();
    pki.issue("envoy", "spiffe://mesh.test/envoy", |_| ());
    let mut api = Api::new();
    api.serve();
    let listener = listener(&api, "spiffe://mesh.test/envoy");
    let acceptor = listener.acceptor.clone();
    let following = tokio::spawn(async move { acceptor.follow(PERIOD).await });
    let soon = SystemTime::now() + Duration::from_secs(4);
    api.send(svid(&pki, "gateway", |params| params.not_after = soon.into()));
    until(&listener, || listener.readiness.is_ready()).await;
    api.send(svid(&pki, "gateway", |params| params.not_after = date_time_ymd(2020, 1, 1)));
    until(&listener, || !listener.readiness.warnings().is_empty()).await;
    let warning = listener.readiness.warnings().remove(0);
    assert!(warning.contains("the old are in force: certificate 'SVID from unix://"), "{warning}");
    assert!(warning.ends_with("has expired"), "{warning}");
    // The old one's time runs out too.
    until(&listener, || !listener.readiness.is_ready()).await;
    let blockers = listener.readiness.blockers();
    assert_eq!(blockers, ["tls: the last certificate of the Workload API has expired"]);
    api.send(svid(&pki, "gateway", |_| ()));
    until(&listener, || listener.readiness.is_ready()).await;
    connect(&pki, &listener, "envoy").await.expect("allowed");
    following.abort();
}

#[tokio::test]
async fn a_federated_peer_gets_in_by_the_bundle_of_its_own_domain() {
    let (mesh, partner, stranger) = (Pki::good(), Pki::good(), Pki::good());
    mesh.issue("envoy", "spiffe://mesh.test/envoy", |_| ());
    mesh.issue("partner", "spiffe://partner.test/envoy", |_| ());
    partner.issue("envoy", "spiffe://partner.test/envoy", |_| ());
    partner.issue("other", "spiffe://partner.test/other", |_| ());
    partner.issue("mesh", "spiffe://mesh.test/envoy", |_| ());
    partner.issue("host", "spiffe://partner.test/host", |params| {
        params.subject_alt_names.push(SanType::DnsName("envoy.test".try_into().expect("ASCII")));
    });
    partner.issue("bare", "envoy.test", |_| ());
    stranger.issue("envoy", "spiffe://stranger.test/envoy", |_| ());
    let mut api = Api::new();
    api.serve();
    let names = "spiffe://mesh.test/envoy, spiffe://partner.test/envoy, \
                 spiffe://stranger.test/envoy, envoy.test";
    let listener = listener(&api, names);
    let acceptor = listener.acceptor.clone();
    let following = tokio::spawn(async move { acceptor.follow(PERIOD).await });
    api.send(svid_and_bundles(&mesh, "gateway", &[("partner.test", &partner)], |_| ()));
    until(&listener, || listener.readiness.is_ready()).await;
    let trusted = mesh.path("ca.pem");
    for (who, pki, client, expected) in [
        ("ours", &mesh, "envoy", true),
        ("a partner's that is listed", &partner, "envoy", true),
        ("a partner's that is not listed", &partner, "other", false),
        ("a partner's in our name", &partner, "mesh", false),
        ("a partner's with a host of ours", &partner, "host", false),
        ("a partner's with a host of ours and no URI", &partner, "bare", false),
        ("ours in a partner's name", &mesh, "partner", false),
        ("listed, of a domain without a bundle", &stranger, "envoy", false),
    ] {
        let connected = connect_from(pki, &trusted, &listener, client).await.is_some();
        assert_eq!(connected, expected, "{who}");
    }
    // The federation ends: open connections, too.
    let open = connect_from(&partner, &trusted, &listener, "envoy").await;
    let ((_, peer), _near) = open.expect("allowed");
    let ((_, ours), _near) = connect(&mesh, &listener, "envoy").await.expect("allowed");
    let stays = tokio::spawn(ours.lost());
    api.send(svid(&mesh, "gateway", |_| ()));
    peer.lost().await;
    assert!(connect_from(&partner, &trusted, &listener, "envoy").await.is_none());
    assert!(!stays.is_finished());
    following.abort();
}

#[tokio::test]
async fn a_client_proves_itself_by_the_workload_api() {
    let (mesh, partner) = (Pki::good(), Pki::good());
    mesh.issue("server", "spiffe://mesh.test/database", |_| ());
    mesh.write("names", "spiffe://mesh.test/writer\n");
    let (server, at) = super::clients::serve(&mesh).await;
    let mut api = Api::new();
    let settings = |names: &str| ClientSettings {
        server_subjects: subjects(names).expect("names"),
        ..ClientSettings::by_workload_api(&api.address()).expect("an address")
    };
    let ours = settings("spiffe://mesh.test/database");
    let other = settings("spiffe://mesh.test/other");
    let theirs = settings("spiffe://partner.test/database");
    let (readiness, mut registry) = (Readiness::new(), Registry::default());
    let files = FollowedFiles::new(Some(ours.clone()), "database", &readiness, &mut registry);
    let following = tokio::spawn(async move { files.follow(PERIOD).await });
    let connector = |settings: &ClientSettings| {
        settings.check().expect("nothing on disk is needed");
        Connector::new(settings.clone(), Protocols::Http, "test")
    };
    let (ours, other, theirs) = (connector(&ours), connector(&other), connector(&theirs));
    let told = async |what: &str| {
        let waiting = async {
            while !readiness.warnings().join("\n").contains(what) {
                tokio::time::sleep(PERIOD).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        waited.unwrap_or_else(|_| panic!("{what}: {:?}", readiness.warnings()));
    };

    // Away at the start: said, and no connection is made.
    told("the Workload API has given no certificate yet; ").await;
    let error = ours.connect(at.clone()).await.map(drop).expect_err("without a certificate");
    assert!(error_chain(&error).contains("has given no certificate yet"), "{error:?}");

    // It serves: the right server is spoken to, and no other.
    api.serve();
    api.send(svid(&mesh, "writer", |_| ()));
    let connected = async |connector: &Connector| {
        let Ok(mut stream) = connector.connect(at.clone()).await else { return false };
        // The server refuses a client after its own handshake: a byte comes back from neither.
        stream.write_all(b"x").await.is_ok()
    };
    while !connected(&ours).await {
        tokio::time::sleep(PERIOD).await;
    }
    let handshakes = || server.metrics();
    assert!(!handshakes().contains("client_certificate"), "{}", handshakes());
    assert!(!connected(&other).await && !connected(&theirs).await);
    while !readiness.warnings().is_empty() {
        tokio::time::sleep(PERIOD).await;
    }

    // One that has expired changes nothing.
    api.send(svid(&mesh, "writer", |params| params.not_after = date_time_ymd(2020, 1, 1)));
    told("database: new files are refused, the old are in use: certificate 'SVID from unix://")
        .await;
    assert!(connected(&ours).await);

    // A federated server, by its own bundle: the partner cannot speak for ours.
    let federated = [("partner.test", &partner)];
    api.send(svid_and_bundles(&mesh, "writer", &federated, |_| ()));
    while !readiness.warnings().is_empty() {
        tokio::time::sleep(PERIOD).await;
    }
    partner.write("ca.pem", &mesh.issuer.pem());
    partner.write("names", "spiffe://mesh.test/writer\n");
    partner.issue("server", "spiffe://partner.test/database", |_| ());
    let (_theirs, at) = super::clients::serve(&partner).await;
    theirs.connect(at.clone()).await.expect("the partner's server");
    ours.connect(at).await.map(drop).expect_err("another name");
    partner.issue("server", "spiffe://mesh.test/database", |_| ());
    let (_posing, at) = super::clients::serve(&partner).await;
    ours.connect(at).await.map(drop).expect_err("a partner's in our name");

    // Away later: said, and the last certificate is used.
    api.stop();
    told("the last certificate is used until it expires, no new one comes: ").await;
    assert!(connected(&ours).await);
    following.abort();
}

#[test]
fn a_client_by_workload_api_is_named_with_what_is_wrong() {
    let check = |text: &str| {
        let raw: RawClientTls =
            crate::config::parse_yaml("s.yaml".as_ref(), text.as_bytes()).expect("a section");
        raw.settings("s.yaml".as_ref(), "tls").map_err(|error| error.to_string())
    };
    let settings = check("workload_api: unix:///a.sock\nca_file: /ca.pem\n").expect("valid");
    assert_eq!(settings.authorities.as_deref(), Some("/ca.pem".as_ref()));
    assert_eq!(settings.source().paths(), [Path::new("/ca.pem")]);
    assert!(settings.check().expect_err("absent").to_string().contains("'/ca.pem' cannot be read"));
    let settings = check("workload_api: unix:///a.sock\nserver_san: spiffe://a/b\n");
    let settings = settings.expect("valid");
    assert!(settings.source().paths().is_empty() && settings.server_subjects.len() == 1);
    for (text, expected) in [
        ("workload_api: tcp://a:1\n", "must be a socket"),
        ("workload_api: unix:///a.sock\nkey_file: k\n", "in place of a certificate and its key"),
        ("server_san: spiffe://a/b\n", "needs 'ca_file' or 'workload_api'"),
        ("ca_file: c\nserver_san: ' '\n", "holds no name"),
        ("ca_file: c\nserver_san: a..b\n", "is neither"),
        ("ca_file: c\nserver_san: a\nserver_name: b\n", "in place of 'server_name'"),
    ] {
        let error = check(text).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_listener_by_workload_api_is_named_with_what_is_wrong() {
    let check = |text: &str| {
        let raw: RawServerTls =
            crate::config::parse_yaml("s.yaml".as_ref(), text.as_bytes()).expect("a section");
        raw.settings("s.yaml".as_ref(), "tls").map_err(|error| error.to_string())
    };
    let good = "workload_api: unix:///a.sock\nclient_san: spiffe://mesh.test/envoy\n";
    let settings = check(good).expect("valid");
    assert_eq!(settings.workload_api.as_deref(), Some("unix:///a.sock"));
    for (text, expected) in [
        ("workload_api: unix:///a.sock\n", "needs 'client_san'"),
        ("workload_api: tcp://a:1\nclient_san: a\n", "must be a socket"),
        ("workload_api: unix:///a.sock\nkey_file: k\n", "in place of files"),
        ("workload_api: unix:///a.sock\nclient_ca_file: c\n", "brings the authorities"),
        ("certificate_file: c\n", "needs 'certificate_file' and 'key_file'"),
        ("{}\n", "needs 'certificate_file' and 'key_file'"),
    ] {
        let error = check(text).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}
