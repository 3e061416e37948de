//! Certificates from the SPIFFE Workload API, as SPIRE's agent serves it on a unix socket: what it sends
//! becomes PEM under names that no file has, and goes the way of files from there.
//!
//! ```text
//! away ─ connect ─► stream ─ SVID, SVID, … ─► ends ─► away, tried again after a growing pause
//! ```
//!
//! Bundles of federated trust domains come along under names of their own.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use spiffe::{WorkloadApiClient, X509Context};

use crate::causes::error_chain;
use crate::reload::Snapshot;

/// How long a connection may take to be made, and the answer to begin.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause before the API is asked again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Of so many federated trust domains bundles are kept.
const FEDERATED_MAX: usize = 64;
/// Columns of PEM.
const COLUMNS: usize = 64;

/// What there is to hear of the API.
pub(super) enum News {
    /// The certificate, its key and the authorities, under [`names`].
    Svid(Snapshot),
    /// It does not serve, and why.
    Away(String),
}

/// What stands in the place of the paths of certificate, key and authorities.
pub(super) struct Names {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authorities: PathBuf,
    address: String,
}

/// The names for what comes from one address.
pub(super) fn names(address: &str) -> Names {
    let name = |what: &str| PathBuf::from(format!("{what} from {address}"));
    Names {
        certificate: name("SVID"),
        key: name("key"),
        authorities: name("bundle"),
        address: address.to_owned(),
    }
}

impl Names {
    /// What stands in the place of the path of a federated bundle.
    fn federated(&self, domain: &str) -> PathBuf {
        PathBuf::from(format!("bundle of {domain} from {}", self.address))
    }
}

/// The federated bundles among these files: the trust domain of each, and its name.
pub(super) fn bundles<'a>(
    files: &'a Snapshot,
    address: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Path)> {
    files.keys().filter_map(move |path| {
        let from = path.to_str()?.strip_suffix(address)?.strip_suffix(" from ")?;
        Some((from.strip_prefix("bundle of ")?, path.as_path()))
    })
}

/// Whether this can be the address of a Workload API: a unix socket, as keys travel on it.
pub(super) fn is_address(text: &str) -> bool {
    text.strip_prefix("unix://").is_some_and(|path| path.starts_with('/') && path.len() > 1)
}

/// Hears of every certificate that the API sends. Never ends.
pub(super) async fn follow(address: &str, mut hear: impl FnMut(News)) -> Infallible {
    let mut pause = PAUSES.0;
    loop {
        let reason = stream(address, |files| {
            pause = PAUSES.0;
            hear(News::Svid(files));
        })
        .await;
        hear(News::Away(reason));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// One connection, to its end and the reason for it.
async fn stream(address: &str, mut hear: impl FnMut(Snapshot)) -> String {
    let begun = async {
        let client = WorkloadApiClient::connect_to(address).await?;
        client.stream_x509_contexts().await
    };
    let mut contexts = match tokio::time::timeout(CONNECT_TIMEOUT, begun).await {
        Ok(Ok(contexts)) => contexts,
        Ok(Err(error)) => return error_chain(&error),
        Err(_) => return "it does not answer".to_owned(),
    };
    loop {
        match contexts.next().await {
            Some(Ok(context)) => match files(&context, &names(address)) {
                Some(files) => hear(files),
                None => return "it sent no bundle of our trust domain".to_owned(),
            },
            Some(Err(error)) => return error_chain(&error),
            None => return "it closed the stream".to_owned(),
        }
    }
}

fn files(context: &X509Context, names: &Names) -> Option<Snapshot> {
    let svid = context.default_svid()?;
    let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain())?;
    let pems = |certificates: &[spiffe::cert::Certificate]| {
        let each = certificates.iter().map(|one| pem("CERTIFICATE", one.as_bytes()));
        Ok(each.collect::<String>().into_bytes())
    };
    let key = pem("PRIVATE KEY", svid.private_key().as_bytes());
    let mut files = Snapshot::from([
        (names.certificate.clone(), pems(svid.cert_chain())),
        (names.key.clone(), Ok(key.into_bytes())),
        (names.authorities.clone(), pems(bundle.authorities())),
    ]);
    for (domain, bundle) in context.bundle_set().iter() {
        // A bundle without authorities vouches for nobody; and our own is there already.
        if domain != svid.spiffe_id().trust_domain() && !bundle.authorities().is_empty() {
            let name = names.federated(domain.as_str());
            files.insert(name, pems(bundle.authorities()));
        }
        if files.len() >= 3 + FEDERATED_MAX {
            break;
        }
    }
    Some(files)
}

/// DER as PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(COLUMNS) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_unix_socket() {
        for (text, expected) in [
            ("unix:///run/spire/agent.sock", true),
            ("unix://", false),
            ("unix:///", false),
            ("unix://agent.sock", false),
            ("tcp://127.0.0.1:8081", false),
            ("/run/spire/agent.sock", false),
        ] {
            assert_eq!(is_address(text), expected, "{text}");
        }
    }

    #[test]
    fn der_becomes_lines_of_64() {
        let text = pem("CERTIFICATE", &[0; 49]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], "-----BEGIN CERTIFICATE-----");
        assert_eq!((lines[1].len(), lines[2]), (64, "AA=="));
        assert_eq!(lines[3], "-----END CERTIFICATE-----");
    }
}
