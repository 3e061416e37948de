//! What a server is told of TLS: its files, who may be its client, and what the files hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use serde::Deserialize;

use super::bundles::Bundles;
use super::named::NamedClient;
use super::subject::{Subject, subjects};
use super::workload::{self, Names};
use super::{TlsError, bytes, certificates, private_key, provider, valid_now};
use crate::config::{ConfigError, Spanned, relative_to};
use crate::reload::{Snapshot, Source};

/// TLS of a listener, as written in a configuration file. Relative paths are relative to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawServerTls {
    /// The certificate and those between it and the authority, PEM.
    pub certificate_file: Option<Spanned<PathBuf>>,
    /// Its private key, PEM.
    pub key_file: Option<Spanned<PathBuf>>,
    /// The unix socket of a SPIFFE Workload API, in place of the files.
    pub workload_api: Option<Spanned<String>>,
    /// The authorities that clients need a certificate of, PEM.
    pub client_ca_file: Option<PathBuf>,
    /// The names of which a client's certificate must carry one, separated by commas.
    pub client_san: Option<Spanned<String>>,
    /// A file with more such names, one a line, which is followed.
    pub client_san_file: Option<Spanned<PathBuf>>,
}

/// The files of a server, and who may be its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// The certificate and those between it and the authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities that clients need a certificate of, PEM; none lets everyone in.
    pub client_authorities: Option<PathBuf>,
    /// The names of which a client's certificate must carry one; none, here and in the file, lets
    /// in whom the authorities signed.
    pub client_subjects: Vec<Subject>,
    /// A file with more such names.
    pub client_subjects_file: Option<PathBuf>,
    /// The unix socket of a SPIFFE Workload API that certificate, key and authorities come from; then
    /// these three are names and no files.
    pub workload_api: Option<String>,
}

/// The protocols that a listener offers in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2 alone, for gRPC.
    Grpc,
    /// HTTP/2 and HTTP/1.1.
    Http,
}

/// What a listener serves with until its files change.
pub(super) struct InForce {
    /// None until there is a certificate.
    pub(super) config: Option<Arc<ServerConfig>>,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) expires_at: Option<u64>,
}

impl InForce {
    /// What there is before the first certificate: nobody gets in.
    pub(super) fn nothing() -> Self {
        Self { config: None, verifier: WebPkiClientVerifier::no_client_auth(), expires_at: None }
    }
}

impl RawServerTls {
    /// Checks the section `key` of the file `path`.
    ///
    /// # Errors
    /// For names that cannot be any, and names without an authority.
    pub fn settings(&self, path: &Path, key: &str) -> Result<ServerSettings, ConfigError> {
        let spanned = |file: &Spanned<PathBuf>| relative_to(path, &file.value);
        let client_subjects = match &self.client_san {
            None => Vec::new(),
            Some(san) => {
                let message = |problem| format!("'{key}.client_san' {problem}");
                let names = subjects(&san.value);
                names.map_err(|problem| ConfigError::at(path, san, message(problem)))?
            }
        };
        let client_subjects_file = self.client_san_file.as_ref().map(spanned);
        if let Some(address) = &self.workload_api {
            let bad = |message: String| ConfigError::at(path, address, message);
            if self.certificate_file.is_some() || self.key_file.is_some() {
                return Err(bad(format!("'{key}.workload_api' is in place of files")));
            }
            if self.client_ca_file.is_some() {
                return Err(bad(format!("'{key}.workload_api' brings the authorities of clients")));
            }
            let settings = ServerSettings::by_workload_api(&address.value);
            let settings = settings.ok_or_else(|| {
                bad(format!(
                    "'{key}.workload_api' must be a socket as unix:///run/spire/agent.sock"
                ))
            })?;
            if client_subjects.is_empty() && client_subjects_file.is_none() {
                // Everybody in the trust domain has a certificate.
                return Err(bad(format!("'{key}.workload_api' needs 'client_san' or its file")));
            }
            return Ok(ServerSettings { client_subjects, client_subjects_file, ..settings });
        }
        let (Some(certificate), Some(private)) = (&self.certificate_file, &self.key_file) else {
            let message =
                format!("'{key}' needs 'certificate_file' and 'key_file', or 'workload_api'");
            return Err(match self.certificate_file.as_ref().or(self.key_file.as_ref()) {
                Some(one) => ConfigError::at(path, one, message),
                None => ConfigError::file(path, message),
            });
        };
        if self.client_ca_file.is_none() {
            // Without an authority anyone could make a certificate with this name.
            let needs = |name| format!("'{key}.{name}' needs 'client_ca_file'");
            if let Some(san) = &self.client_san {
                return Err(ConfigError::at(path, san, needs("client_san")));
            }
            if let Some(file) = &self.client_san_file {
                return Err(ConfigError::at(path, file, needs("client_san_file")));
            }
        }
        Ok(ServerSettings {
            certificate: spanned(certificate),
            key: spanned(private),
            client_authorities: self.client_ca_file.as_ref().map(|file| relative_to(path, file)),
            client_subjects,
            client_subjects_file,
            workload_api: None,
        })
    }
}

impl Protocols {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Grpc => vec![b"h2".to_vec()],
            Self::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

impl ServerSettings {
    /// What the Workload API at this address gives, and every client of its trust domain; nothing
    /// where that is no address of a unix socket.
    pub fn by_workload_api(address: &str) -> Option<Self> {
        let Names { certificate, key, authorities, .. } = workload::names(address);
        workload::is_address(address).then(|| Self {
            certificate,
            key,
            client_authorities: Some(authorities),
            client_subjects: Vec::new(),
            client_subjects_file: None,
            workload_api: Some(address.to_owned()),
        })
    }

    pub(super) fn source(&self) -> Source {
        let Self { certificate, key, client_authorities, client_subjects_file, .. } = self;
        if self.workload_api.is_some() {
            return Source::Files(client_subjects_file.iter().cloned().collect());
        }
        let files = [certificate, key].into_iter().chain(client_authorities);
        Source::Files(files.chain(client_subjects_file).cloned().collect())
    }

    /// What these files make of the listener.
    pub(super) fn read(&self, files: &Snapshot, protocols: Protocols) -> Result<InForce, TlsError> {
        let chain = certificates(&self.certificate, bytes(files, &self.certificate)?)?;
        let key = private_key(&self.key, bytes(files, &self.key)?)?;
        let validity = valid_now(&self.certificate, &chain)?;
        let verifier = self.verifier(files, chain.first())?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Identity(self.certificate.clone(), error))?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain, key);
        let mut config =
            config.map_err(|error| TlsError::Identity(self.certificate.clone(), error))?;
        config.alpn_protocols = protocols.alpn();
        // Connections live for hours, and a resumed one would skip the client's certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let expires_at = validity.map(|validity| validity.not_after);
        Ok(InForce { config: Some(Arc::new(config)), verifier, expires_at })
    }

    fn verifier(
        &self,
        files: &Snapshot,
        leaf: Option<&CertificateDer<'_>>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let Some(path) = &self.client_authorities else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let bundles = Bundles::read(files, path, leaf, self.workload_api.as_deref())?;
        let verifiers = bundles.try_map(|roots| {
            WebPkiClientVerifier::builder_with_provider(roots, provider()).build()
        });
        let verifiers = verifiers.map_err(TlsError::Verifier)?;
        let allowed = self.allowed(files)?;
        Ok(match allowed.is_empty() {
            true => verifiers.own().clone(),
            false => Arc::new(NamedClient::new(verifiers, allowed)),
        })
    }

    /// The names of which a client must carry one; none lets in whom the authorities signed.
    pub(super) fn allowed(&self, files: &Snapshot) -> Result<Vec<Subject>, TlsError> {
        let mut allowed = self.client_subjects.clone();
        if let Some(path) = &self.client_subjects_file {
            let text = String::from_utf8_lossy(bytes(files, path)?).into_owned();
            let names = subjects(&text);
            let names = names.map_err(|problem| TlsError::Subjects(path.clone(), problem))?;
            if names.is_empty() {
                // A file that lost its lines must not let everybody in, nor turn everybody out.
                return Err(TlsError::Subjects(path.clone(), "it holds no name".to_owned()));
            }
            allowed.extend(names);
        }
        Ok(allowed)
    }
}
