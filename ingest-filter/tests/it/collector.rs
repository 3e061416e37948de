//! The TLS files of the collector of spans, which gateway and writer follow: bad ones at the start, and later.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::process::{config, output, started};
use crate::support::wait_for;
use crate::writer_file::get;

/// Each role, what its log says once it runs, and the beginning of its metrics.
const ROLES: [(&str, &str, &str); 2] = [
    ("gateway", "gateway is serving", "ingest_gateway"),
    ("writer", "writer is running", "ingest_writer"),
];

/// Writes an authority that signed for itself.
fn authority(path: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(path, issuer.pem()).unwrap();
}

/// Both roles on a disk journal, with spans for a collector where nobody listens.
fn settings(directory: &Path) -> String {
    let at = directory.display();
    format!(
        "journal: {{disk: {{directory: '{at}/j'}}}}\n\
         otlp_endpoint: https://127.0.0.1:1\notlp_tls: {{ca_file: collector.pem}}\n\
         gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}}\n\
         writer: {{admin_listen: '127.0.0.1:0', file: {{path: '{at}/points.lp'}}}}\n"
    )
}

#[test]
fn bad_files_for_the_collector_end_either_role_at_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = config(directory.path(), &settings(directory.path()));
    fs::write(directory.path().join("collector.pem"), "half an authority").unwrap();
    for (role, ..) in ROLES {
        let (code, error) = output(&[role, "--config", path.to_str().unwrap()]);
        assert_eq!(code, Some(64), "{role}: {error}");
        assert!(error.contains("collector.pem"), "{role}: {error}");
    }
}

#[tokio::test]
async fn bad_files_for_the_collector_are_reported_by_either_role_and_good_ones_taken() {
    for (role, line, prefix) in ROLES {
        let directory = tempfile::tempdir().unwrap();
        let path = config(directory.path(), &settings(directory.path()));
        let file = directory.path().join("collector.pem");
        authority(&file);
        let (_running, serving) = started(role, &path, line);
        let admin: SocketAddr = serving["admin"].as_str().unwrap().parse().unwrap();
        let refused = format!("{prefix}_otlp_tls_files_refused ");
        let state = async |warned: bool, value: u8| {
            wait_for(&format!("{refused}{value} of the {role}"), || async {
                let page = get(admin, "/readyz").await;
                let ready = page.starts_with("HTTP/1.1 200 ");
                let told = page.contains("warning: otlp_tls: new files are refused");
                let metrics = get(admin, "/metrics").await;
                let counted = metrics.contains(&format!("\n{refused}{value}\n"));
                (ready && told == warned && counted).then_some(())
            })
            .await;
        };
        state(false, 0).await;
        fs::write(&file, "half an authority").unwrap();
        state(true, 1).await;
        authority(&file);
        state(false, 0).await;
    }
}
