//! Checks over TLS: Envoy with its certificate gets in, others do not.

use std::fs;

use chassis::tls::client::{ClientSettings, connect};
use ext_authz::server::Server;
use proto::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::Endpoint;

use crate::rig::{Files, Outcome, bearer, get, keys_yaml, wait_for};
use chassis::drain::Shutdown;

fn issue(files: &Files, issuer: &CertifiedIssuer<'_, KeyPair>, name: &str) {
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("generated");
    let certificate = params.signed_by(&key, issuer).expect("signed");
    fs::write(files.path(&format!("{name}.pem")), certificate.pem()).expect("written");
    fs::write(files.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
}

#[tokio::test]
async fn checks_over_tls_need_the_right_certificate() {
    let files = Files::new();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("generated"));
    let issuer = issuer.expect("signed");
    fs::write(files.path("ca.pem"), issuer.pem()).expect("written");
    for name in ["authz.test", "envoy.test", "other.test"] {
        issue(&files, &issuer, name);
    }
    let mut config = fs::read_to_string(files.path("ext-authz.yaml")).expect("there");
    config += "otlp_endpoint: https://127.0.0.1:1\notlp_tls: {ca_file: collector.pem}\n";
    fs::write(files.path("collector.pem"), issuer.pem()).expect("written");
    config += "grpc_tls: {certificate_file: authz.test.pem, key_file: authz.test.key, \
               client_ca_file: ca.pem, client_san: envoy.test}\nworker_threads: 2\n";
    fs::write(files.path("ext-authz.yaml"), config).expect("written");
    let (key, record) = files.issue("acme");
    files.write_keys(&keys_yaml(&[&record]));

    let server = Server::bind(files.config()).await.expect("bound");
    let (grpc, admin) =
        (server.grpc_address().expect("bound"), server.admin_address().expect("bound"));
    let shutdown = Shutdown::new();
    let serving = tokio::spawn(server.run(shutdown.clone()));
    wait_for("ready", async || get(admin, "/readyz").await.0 == 200).await;
    let ask = async |name: &str| {
        let settings = ClientSettings {
            authorities: Some(files.path("ca.pem")),
            identity: Some((
                files.path(&format!("{name}.pem")),
                files.path(&format!("{name}.key")),
            )),
            server_name: Some("authz.test".try_into().expect("a name")),
            ..ClientSettings::default()
        };
        let endpoint = Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
        let channel = connect(endpoint, &settings).await.ok()?;
        let answer = AuthorizationClient::new(channel).check(bearer(&key)).await.ok()?;
        Outcome::of(answer.into_inner()).tenant().map(str::to_owned)
    };
    assert_eq!(ask("envoy.test").await.as_deref(), Some("acme"));
    assert_eq!(ask("other.test").await, None);
    wait_for("the refusal is counted", async || {
        let failure = "authz_tls_handshake_failures_total{reason=\"client_certificate\"} ";
        get(admin, "/metrics").await.1.contains(failure)
    })
    .await;
    // Nobody connects to the collector, and bad files for it are reported all the same.
    fs::write(files.path("collector.pem"), "half an authority").expect("written");
    wait_for("the warning", async || {
        let (status, page) = get(admin, "/readyz").await;
        status == 200 && page.contains("warning: otlp_tls: new files are refused, the old are in")
    })
    .await;
    assert!(get(admin, "/metrics").await.1.contains("authz_otlp_tls_files_refused 1\n"));
    shutdown.begin();
    serving.await.expect("did not panic").expect("ended well");
}
