//! TLS for listeners and for clients: certificates from PEM files, cryptography from ring.
//!
//! What a peer must prove is settled here and nowhere else; which files there are, the services
//! say.

mod bundles;
pub mod client;
mod client_settings;
pub mod expiry;
mod followed;
pub mod https;
mod material;
mod metrics;
mod named;
mod peer;
mod server;
mod settings;
mod subject;
mod workload;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::reload::Snapshot;

pub use followed::FollowedFiles;
pub use material::Material;
pub use peer::{FAREWELL, Peer};
pub use server::{Acceptor, HANDSHAKE_TIMEOUT, Status};
pub use settings::{Protocols, RawServerTls, ServerSettings};
pub use subject::{Subject, subjects};

/// The protocol that both ends of a gRPC connection must agree on.
const ALPN: &[u8] = b"h2";

/// Makes ring the cryptography of the process, for every library that asks for a default.
pub fn install_provider() {
    // Fails only when a provider is already installed, and there is no other in the build.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What is wrong with TLS files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or not for us.
    #[error("'{0}' cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// The system's own certificate authorities are not there.
    #[error("the system's certificate authorities cannot be read: {0}")]
    SystemRoots(String),
    /// A file is not what it should be.
    #[error("'{0}' is not PEM")]
    Pem(PathBuf, #[source] pem::Error),
    /// A file has no certificates.
    #[error("'{0}' holds no certificate")]
    NoCertificate(PathBuf),
    /// A file has no key.
    #[error("'{0}' holds no private key")]
    NoKey(PathBuf),
    /// A certificate authority that cannot be one.
    #[error("'{0}' holds a certificate authority that cannot be used")]
    Authority(PathBuf, #[source] rustls::Error),
    /// A certificate that cannot be used, or not with this key.
    #[error("certificate '{0}' and its key cannot be used together")]
    Identity(PathBuf, #[source] rustls::Error),
    /// A certificate whose time is over or has not come.
    #[error("certificate '{0}' {1}")]
    Invalid(PathBuf, expiry::Invalid),
    /// A list of names that cannot be one.
    #[error("the names in '{0}' cannot be used: {1}")]
    Subjects(PathBuf, String),
    /// The authorities cannot verify anyone.
    #[error("client certificates cannot be verified")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// What a file held when all were read together.
fn bytes<'a>(files: &'a Snapshot, path: &Path) -> Result<&'a [u8], TlsError> {
    match files.get(path) {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) => Err(TlsError::Read(path.to_owned(), io::Error::other(error.clone()))),
        None => Err(TlsError::Read(path.to_owned(), io::ErrorKind::NotFound.into())),
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| TlsError::Pem(path.to_owned(), error))?;
    match certificates.is_empty() {
        true => Err(TlsError::NoCertificate(path.to_owned())),
        false => Ok(certificates),
    }
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey(path.to_owned()),
        other => TlsError::Pem(path.to_owned(), other),
    })
}

/// When the certificate of this file is valid, if that can be read; its time must be now.
fn valid_now(
    path: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<Option<expiry::Validity>, TlsError> {
    let validity = chain.first().and_then(|leaf| expiry::validity(leaf));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    if let Some(Err(invalid)) = validity.map(|validity| validity.check(now)) {
        return Err(TlsError::Invalid(path.to_owned(), invalid));
    }
    Ok(validity)
}

fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| TlsError::Authority(path.to_owned(), error))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
