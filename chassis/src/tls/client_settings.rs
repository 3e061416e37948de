//! What a client is told of TLS: its files or its Workload API, who its server must be, and what they hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::bundles::Bundles;
use super::material::Material;
use super::named::NamedServer;
use super::subject::{Subject, subjects};
use super::workload::{self, Names};
use super::{ALPN, TlsError, authorities, bytes, certificates, private_key, provider, valid_now};
use crate::causes::error_chain;
use crate::config::{ConfigError, Spanned, relative_to};
use crate::process::UsageError;
use crate::reload::{Snapshot, Source};

/// TLS of a client, as written in a configuration file. Relative paths are relative to it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawClientTls {
    /// The authorities of the server, PEM; those of the system when absent.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate and those between it and its authority, PEM.
    pub certificate_file: Option<Spanned<PathBuf>>,
    /// Its private key, PEM.
    pub key_file: Option<Spanned<PathBuf>>,
    /// The unix socket of a SPIFFE Workload API, in place of certificate and key, and of the authorities
    /// where there is no file of them.
    pub workload_api: Option<Spanned<String>>,
    /// The name that the server's certificate must carry, where it is not the host's.
    pub server_name: Option<Spanned<String>>,
    /// Names of which the server's certificate must carry one, in place of the host's, separated by
    /// commas: those of SPIFFE.
    pub server_san: Option<Spanned<String>>,
}

/// The files of a client, and who its server must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// The authorities of servers, PEM; none means those of the system.
    pub authorities: Option<PathBuf>,
    /// The client's own certificate and private key, PEM, where servers want one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must carry, where it is not the host's.
    pub server_name: Option<ServerName<'static>>,
    /// Names of which the server's certificate must carry one, in place of the host's.
    pub server_subjects: Vec<Subject>,
    /// The unix socket of a SPIFFE Workload API that the identity comes from, and the authorities unless
    /// they are a file; then these are names and no files.
    pub workload_api: Option<String>,
}

/// What a client proves itself with and trusts, as PEM.
pub struct Pem {
    /// The authorities; none means those of the system.
    pub authorities: Option<Vec<u8>>,
    /// The certificate with its chain, and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl RawClientTls {
    /// Checks the section `key` of the file `path`.
    ///
    /// # Errors
    /// For half an identity, for two of them, and for a name that cannot be any.
    pub fn settings(&self, path: &Path, key: &str) -> Result<ClientSettings, ConfigError> {
        if let Some(address) = &self.workload_api {
            return self.by_workload_api(path, key, address);
        }
        let identity = match (&self.certificate_file, &self.key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some((relative_to(path, &certificate.value), relative_to(path, &key.value)))
            }
            (Some(one), None) => {
                let message = format!("'{key}.certificate_file' needs 'key_file'");
                return Err(ConfigError::at(path, one, message));
            }
            (None, Some(one)) => {
                let message = format!("'{key}.key_file' needs 'certificate_file'");
                return Err(ConfigError::at(path, one, message));
            }
        };
        if let (Some(san), None) = (&self.server_san, &self.ca_file) {
            // Public authorities sign for hosts: none of them vouches for such a name.
            let message = format!("'{key}.server_san' needs 'ca_file' or 'workload_api'");
            return Err(ConfigError::at(path, san, message));
        }
        Ok(ClientSettings {
            authorities: self.authorities(path),
            identity,
            server_name: self.server_name(path, key)?,
            server_subjects: self.server_subjects(path, key)?,
            workload_api: None,
        })
    }

    fn by_workload_api(
        &self,
        path: &Path,
        key: &str,
        address: &Spanned<String>,
    ) -> Result<ClientSettings, ConfigError> {
        let bad = |message: String| ConfigError::at(path, address, message);
        if self.certificate_file.is_some() || self.key_file.is_some() {
            return Err(bad(format!(
                "'{key}.workload_api' is in place of a certificate and its key"
            )));
        }
        let settings = ClientSettings::by_workload_api(&address.value).ok_or_else(|| {
            bad(format!("'{key}.workload_api' must be a socket as unix:///run/spire/agent.sock"))
        })?;
        Ok(ClientSettings {
            authorities: self.authorities(path).or(settings.authorities),
            server_name: self.server_name(path, key)?,
            server_subjects: self.server_subjects(path, key)?,
            ..settings
        })
    }

    fn authorities(&self, path: &Path) -> Option<PathBuf> {
        self.ca_file.as_ref().map(|file| relative_to(path, file))
    }

    fn server_name(
        &self,
        path: &Path,
        key: &str,
    ) -> Result<Option<ServerName<'static>>, ConfigError> {
        Ok(match &self.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.value.clone()).map_err(|_| {
                let message = format!("'{key}.server_name' is neither a DNS name nor an address");
                ConfigError::at(path, name, message)
            })?),
        })
    }

    fn server_subjects(&self, path: &Path, key: &str) -> Result<Vec<Subject>, ConfigError> {
        let Some(san) = &self.server_san else { return Ok(Vec::new()) };
        let bad = |message: String| ConfigError::at(path, san, message);
        if self.server_name.is_some() {
            return Err(bad(format!("'{key}.server_san' is in place of 'server_name'")));
        }
        let names = subjects(&san.value);
        let names = names.map_err(|problem| bad(format!("'{key}.server_san' {problem}")))?;
        match names.is_empty() {
            true => Err(bad(format!("'{key}.server_san' holds no name"))),
            false => Ok(names),
        }
    }
}

impl ClientSettings {
    /// A client by what the Workload API at this address sends; nothing where that is no address of a unix
    /// socket.
    pub fn by_workload_api(address: &str) -> Option<Self> {
        let Names { certificate, key, authorities, .. } = workload::names(address);
        workload::is_address(address).then(|| Self {
            authorities: Some(authorities),
            identity: Some((certificate, key)),
            workload_api: Some(address.to_owned()),
            ..Self::default()
        })
    }

    /// What there is of files and Workload API, to be read and followed.
    pub fn material(&self) -> Material {
        Material::open(self.source(), self.workload_api.as_deref())
    }

    /// The files on disk.
    pub fn source(&self) -> Source {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let all = self.authorities.iter().chain(identity);
        let sent = self.workload_api.as_deref().map(workload::names);
        let is_sent = |path: &Path| {
            sent.as_ref().is_some_and(|names| {
                [&names.certificate, &names.key, &names.authorities].contains(&&path.to_owned())
            })
        };
        Source::Files(all.filter(|path| !is_sent(path)).cloned().collect())
    }

    /// The same without what a Workload API sends.
    pub fn on_disk(&self) -> Self {
        match self.federation() {
            _ if self.workload_api.is_none() => self.clone(),
            Some(_) => {
                Self { authorities: None, identity: None, workload_api: None, ..self.clone() }
            }
            None => Self { identity: None, workload_api: None, ..self.clone() },
        }
    }

    /// Whether the files can be used now. What a Workload API sends may come later.
    ///
    /// # Errors
    /// When they cannot; the first of them is named.
    pub fn check(&self) -> Result<(), UsageError> {
        if self.federation().is_some() {
            return Ok(());
        }
        self.on_disk().config().map(drop).map_err(|error| UsageError(error_chain(&error)))
    }

    /// What the files hold now, and what the Workload API has sent.
    ///
    /// # Errors
    /// When they cannot be used; the first of them is named.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        self.read(&self.material().read())
    }

    /// What the files held when they were read together.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn read(&self, files: &Snapshot) -> Result<ClientConfig, TlsError> {
        let identity = match &self.identity {
            None => None,
            Some((certificate, key)) => {
                let chain = certificates(certificate, bytes(files, certificate)?)?;
                valid_now(certificate, &chain)?;
                Some((chain, private_key(key, bytes(files, key)?)?))
            }
        };
        let leaf = identity.as_ref().and_then(|(chain, _)| chain.first());
        let own = self.identity.as_ref().map_or_else(PathBuf::new, |(path, _)| path.clone());
        let bad = |error| TlsError::Identity(own.clone(), error);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(bad)?;
        let builder = match (&self.authorities, self.server_subjects.as_slice()) {
            (None, _) => builder.with_root_certificates(system_authorities()?),
            (Some(path), []) => {
                builder.with_root_certificates(authorities(path, bytes(files, path)?)?)
            }
            (Some(path), allowed) => {
                let bundles = Bundles::read(files, path, leaf, self.federation())?;
                let verifier = NamedServer::new(bundles, allowed.to_vec());
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(bad)?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// Authorities, certificate and key as PEM, for a client library that does not take ours.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn pem(&self, files: &Snapshot) -> Result<Pem, TlsError> {
        self.read(files)?;
        let held = |path: &PathBuf| bytes(files, path).map(<[u8]>::to_vec);
        let identity = self.identity.as_ref();
        Ok(Pem {
            authorities: self.authorities.as_ref().map(held).transpose()?,
            identity: identity.map(|(chain, key)| Ok((held(chain)?, held(key)?))).transpose()?,
        })
    }

    /// The Workload API whose bundles say who vouches for a server: none where that is a file.
    fn federation(&self) -> Option<&str> {
        let address = self.workload_api.as_deref()?;
        let is_sent = self.authorities.as_ref() == Some(&workload::names(address).authorities);
        is_sent.then_some(address)
    }
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A store of an operating system may hold a few that no one can parse.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match (added, found.errors.first()) {
        (0, Some(error)) => Err(TlsError::SystemRoots(error.to_string())),
        (0, None) => Err(TlsError::SystemRoots("there are none".to_owned())),
        _ => Ok(roots),
    }
}
