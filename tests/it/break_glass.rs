//! The listener for the critical class that needs neither ext-authz nor an Envoy at ease.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tests::edge::{Options, Parts, Service};
use tests::http::Reply;
use tests::parts::envoy::TlsFiles;
use tests::ports::is_free;
use tests::wait::{DEADLINE, wait_for};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stage::Stage;
use crate::stand_in::StandIn;

/// A certificate authority for the test.
struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name unlike those of the certificates it signs, or they would look self-signed.
        params.distinguished_name.push(DnType::CommonName, "break-glass authority");
        let certificate = params.self_signed(&key)?;
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Ok(Self { certificate: der, pem, issuer: Issuer::new(params, key) })
    }

    fn issue(&self, names: &[&str]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key })
    }
}

/// An edge with the listener on, whose Envoy can be put under pressure.
pub struct Open {
    /// The edge.
    pub stage: Stage,
    authority: Authority,
    _files: TempDir,
}

impl Open {
    /// Starts it; `change` may change what it is started with.
    pub async fn start(parts: Parts, change: impl FnOnce(&mut Options)) -> Result<Self> {
        let (authority, dir) = (Authority::new()?, tempfile::tempdir()?);
        let server = authority.issue(&["localhost"])?;
        let [certificate, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|f| dir.path().join(f));
        std::fs::write(&certificate, &server.pem)?;
        std::fs::write(&key, server.key.serialize_pem())?;
        std::fs::write(&ca, &authority.pem)?;
        let stage = Stage::with(parts, |options| {
            change(options);
            options.proxy.break_glass = Some(TlsFiles { certificate, key, ca });
            options.proxy.injected_pressure = true;
        })
        .await?;
        Ok(Self { stage, authority, _files: dir })
    }

    /// A certificate with these DNS names.
    pub fn issue(&self, names: &[&str]) -> Result<Identity> {
        self.authority.issue(names)
    }

    /// Writes a point over the listener, with headers that claim to be someone else.
    pub async fn write(&self, identity: Option<&Identity>, point: &str) -> Result<Reply> {
        let headers = [
            ("x-tidegate-tenant", "victim"),
            ("x-tidegate-priority", "background"),
            ("authorization", "Token wrong"),
        ];
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone())?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            Some(identity) => {
                let key = PrivateKeyDer::try_from(identity.key.serialize_der());
                let key = key.map_err(anyhow::Error::msg)?;
                config.with_client_auth_cert(vec![identity.certificate.clone()], key)?
            }
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.stage.edge.at.break_glass).await?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let path = "/write?db=d&u=me&p=wrong&api_key=wrong&precision=ns";
        let mut request = Request::post(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(point.to_owned())))?);
        let (parts, body) = tokio::time::timeout(DEADLINE, answer).await??.into_parts();
        let body = body.collect().await?.to_bytes();
        connection.abort();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ext_authz_a_certificate_lets_the_critical_class_in() -> Result<()> {
    let mut open = Open::start(Parts::Embedded, |_| ()).await?;
    let critical = open.stage.edge.issue_live_key("node", "system-node-critical").await?;
    let node = open.issue(&["node"])?;
    open.stage.edge.kill(Service::Authz);
    open.stage.edge.kill(Service::Ratelimit);
    assert_eq!(open.stage.write(&critical, "edge f=1").await?.status, 503);
    let reply = open.write(Some(&node), "broken f=1").await?;
    assert_eq!(reply.status, 204, "{}", reply.text());
    // The tenant is the certificate's, whatever the headers claim.
    let lines = open.stage.lines(|lines| !lines.is_empty()).await?;
    assert!(lines[0].starts_with("broken f=1"), "{lines:?}");
    let file = std::fs::read_to_string(open.stage.edge.points_file())?;
    assert!(file.contains("# CONTEXT-DATABASE: node__d\nbroken f=1"), "{file}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_in_by_the_break_glass_listener() -> Result<()> {
    let open = Open::start(Parts::Embedded, |_| ()).await?;
    let ours = open.issue(&["node"])?;
    assert_eq!(open.write(Some(&ours), "m f=1").await?.status, 204);
    assert!(open.write(None, "m f=1").await.is_err(), "no certificate");
    let theirs = Authority::new()?.issue(&["node"])?;
    assert!(open.write(Some(&theirs), "m f=1").await.is_err(), "another authority");
    let odd = open.issue(&["Node.Example"])?;
    assert!(open.write(Some(&odd), "m f=1").await.is_err(), "no name of a tenant");
    let nameless = open.issue(&[])?;
    assert!(open.write(Some(&nameless), "m f=1").await.is_err(), "no name");
    let two = open.issue(&["node", "victim"])?;
    assert_eq!(open.write(Some(&two), "m f=1").await?.status, 503, "two tenants");
    let cut = open.issue(&["node-"])?;
    assert!(open.write(Some(&cut), "m f=1").await.is_err(), "no name of a tenant");
    for reserved in ["unknown", "other"] {
        let reserved = open.issue(&[reserved])?;
        assert_eq!(open.write(Some(&reserved), "m f=1").await?.status, 403, "nobody's name");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_passes_the_break_glass_listener() -> Result<()> {
    let mut open = Open::start(Parts::Embedded, |_| ()).await?;
    let gateway = StandIn::take_over(&mut open.stage).await?;
    let node = open.issue(&["node"])?;
    assert_eq!(open.write(Some(&node), "m f=1").await?.status, 204);
    let seen = gateway.seen();
    let path = &seen[0][":path"][0];
    assert!(path.ends_with("/write?db=d&precision=ns"), "{path}");
    assert!(!format!("{seen:?}").contains("wrong"), "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_envoy_refuses_at_the_edge_and_serves_by_break_glass() -> Result<()> {
    let open = Open::start(Parts::Embedded, |_| ()).await?;
    let stage = &open.stage;
    let critical = stage.edge.issue_live_key("node", "system-node-critical").await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    let node = open.issue(&["node"])?;
    assert_eq!(stage.write(&ingest, "m f=1").await?.status, 204);

    stage.edge.set_pressure(1.0)?;
    stage.write_until(&ingest, "m f=1", 503).await?;
    for key in [&critical, &ingest] {
        let reply = stage.write(key, "m f=1").await?;
        ensure!(reply.status == 503, "{}: {}", reply.status, reply.text());
        reply.header("retry-after").context("says when to come back")?;
    }
    for _ in 0..3 {
        assert_eq!(open.write(Some(&node), "m f=1").await?.status, 204);
    }
    stage.edge.set_pressure(0.0)?;
    stage.write_until(&ingest, "m f=1", 204).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_break_glass_listener_is_off_unless_asked_for() -> Result<()> {
    let stage = Stage::embedded().await?;
    assert!(is_free(stage.edge.at.break_glass.port()));
    let url = format!("http://{}/listeners", stage.edge.at.envoy_admin);
    let listeners = wait_for("the list of listeners", DEADLINE, async || {
        stage.http.get(&url).await.ok().map(|reply| reply.text())
    })
    .await?;
    assert!(listeners.contains("edge::") && !listeners.contains("break_glass"), "{listeners}");
    Ok(())
}
