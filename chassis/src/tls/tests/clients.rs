//! What files a client takes, and whom it speaks to.

use http::Uri;
use tokio::net::TcpListener;

use super::super::client::Connector;
use super::*;

/// How the refusal of bad files begins, `@` being their directory, and what makes them bad.
type Case = (&'static str, fn(&Pki));

/// Every way in which files can be bad.
fn bad_client_files() -> Vec<Case> {
    vec![
        ("certificate '@/envoy.pem' has expired", |pki| {
            pki.issue("envoy", "envoy.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
        }),
        ("certificate '@/envoy.pem' is not valid yet", |pki| {
            pki.issue("envoy", "envoy.test", |params| {
                params.not_before = date_time_ymd(2090, 1, 1);
            });
        }),
        ("certificate '@/envoy.pem' and its key cannot be used together", |pki| {
            pki.write("envoy.key", &KeyPair::generate().expect("generated").serialize_pem());
        }),
        ("'@/envoy.pem'", |pki| halve(pki, "envoy.pem")),
        ("'@/envoy.key'", |pki| halve(pki, "envoy.key")),
        ("'@/ca.pem'", |pki| halve(pki, "ca.pem")),
        ("'@/ca.pem' cannot be read", |pki| {
            fs::remove_file(pki.path("ca.pem")).expect("removed");
        }),
    ]
}

fn halve(pki: &Pki, name: &str) {
    let text = fs::read_to_string(pki.path(name)).expect("there");
    pki.write(name, &text[..text.len() / 2]);
}

fn client_settings(pki: &Pki) -> ClientSettings {
    ClientSettings {
        authorities: Some(pki.path("ca.pem")),
        identity: Some((pki.path("envoy.pem"), pki.path("envoy.key"))),
        server_name: Some(ServerName::try_from("server.test").expect("a name")),
        ..ClientSettings::default()
    }
}

#[test]
fn bad_files_of_a_client_are_named_at_the_start() {
    for (expected, spoil) in bad_client_files() {
        let pki = Pki::good();
        pki.issue("envoy", "envoy.test", |_| ());
        client_settings(&pki).check().expect("good before");
        spoil(&pki);
        let error = client_settings(&pki).check().expect_err(expected).to_string();
        let expected = expected.replace('@', &pki.dir.path().display().to_string());
        assert!(error.starts_with(&expected), "{error} is not {expected}");
    }
}

/// A server on loopback that takes one connection after the other.
pub(super) async fn serve(pki: &Pki) -> (Listener, Uri) {
    let listener = start(pki.settings()).expect("good files");
    let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let at = format!("https://{}", socket.local_addr().expect("bound"));
    let acceptor = listener.acceptor.clone();
    tokio::spawn(async move {
        while let Ok((connection, _)) = socket.accept().await {
            if let Some((mut connection, _)) = acceptor.accept(connection).await {
                // The client closes it.
                let _ = connection.read(&mut [0]).await;
            }
        }
    });
    (listener, at.parse().expect("an address"))
}

#[tokio::test]
async fn a_bad_rotation_of_a_client_changes_nothing_and_is_told() {
    for (expected, spoil) in bad_client_files() {
        let pki = Pki::good();
        pki.issue("envoy", "envoy.test", |_| ());
        let (_server, at) = serve(&pki).await;
        let (readiness, mut registry) = (Readiness::new(), Registry::default());
        let connector = Connector::start(
            client_settings(&pki),
            Protocols::Http,
            "database",
            &readiness,
            &mut registry,
        )
        .expect("good files");
        let page = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).expect("encoded");
            text
        };
        connector.connect(at.clone()).await.expect("good files");
        spoil(&pki);
        connector.connect(at.clone()).await.expect("the old ones");
        let expected = expected.replace('@', &pki.dir.path().display().to_string());
        let expected = format!("database: new files are refused, the old are in use: {expected}");
        let warnings = readiness.warnings();
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{warnings:?}");
        assert!(readiness.is_ready());
        assert!(page(&registry).contains("tls_client_files_refused 1"));
        pki.write("ca.pem", &pki.issuer.pem());
        pki.issue("envoy", "envoy.test", |_| ());
        connector.connect(at).await.expect("good files again");
        assert!(readiness.warnings().is_empty());
        assert!(page(&registry).contains("tls_client_files_refused 0"));
    }
}

#[tokio::test]
async fn bad_files_are_reported_to_who_never_connects() {
    for (expected, spoil) in bad_client_files() {
        let pki = Pki::good();
        pki.issue("envoy", "envoy.test", |_| ());
        let (readiness, mut registry) = (Readiness::new(), Registry::default());
        let settings = Some(client_settings(&pki));
        let files = FollowedFiles::new(settings, "collector", &readiness, &mut registry);
        let page = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
            text
        };
        let following = tokio::spawn(async move { files.follow(PERIOD).await });
        // The state at the start counts, too: only what comes after it is a change.
        tokio::task::yield_now().await;
        assert!(readiness.warnings().is_empty());
        spoil(&pki);
        while readiness.warnings().is_empty() {
            tokio::task::yield_now().await;
        }
        let expected = expected.replace('@', &pki.dir.path().display().to_string());
        let expected = format!("collector: new files are refused, the old are in use: {expected}");
        let warnings = readiness.warnings();
        assert!(warnings[0].starts_with(&expected), "{warnings:?}");
        assert!(readiness.is_ready());
        assert!(page().contains("collector_files_refused 1"));
        pki.write("ca.pem", &pki.issuer.pem());
        pki.issue("envoy", "envoy.test", |_| ());
        while !readiness.warnings().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(page().contains("collector_files_refused 0"));
        following.abort();
    }
}

#[tokio::test]
async fn a_client_speaks_only_to_the_right_server() {
    let pki = Pki::good();
    pki.issue("envoy", "envoy.test", |_| ());
    let (_server, at) = serve(&pki).await;
    let connect = async |settings: ClientSettings| {
        Connector::new(settings, Protocols::Http, "test").connect(at.clone()).await
    };
    connect(client_settings(&pki)).await.expect("the right one");
    let other = ServerName::try_from("other.test").expect("a name");
    let named = ClientSettings { server_name: Some(other), ..client_settings(&pki) };
    connect(named).await.map(drop).expect_err("another name");
    let (stranger, trusted) = (Pki::new(), pki.path("stranger.pem"));
    fs::write(&trusted, stranger.issuer.pem()).expect("written");
    let stranger = ClientSettings { authorities: Some(trusted), ..client_settings(&pki) };
    connect(stranger).await.map(drop).expect_err("another authority");
}
