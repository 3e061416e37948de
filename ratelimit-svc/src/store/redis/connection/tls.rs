//! Certificates for connections to Redis. The files are read anew for every connection, so that
//! they can be replaced while the service runs.

use std::path::{Path, PathBuf};

use chassis::tls::Material;
use chassis::tls::client::ClientSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisError, TlsCertificates,
};

use crate::store::redis::connection::address::HostPort;

/// Certificates, as PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Who signs for the servers; the roots of the system when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate with its chain, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Takes a certificate that is valid, but for another name.
    pub skip_hostname_verification: bool,
    /// The socket of a SPIFFE Workload API, which sends our certificate, and the authorities where there is
    /// no file of them.
    pub workload_api: Option<String>,
}

/// What a Workload API sends for connections to Redis.
#[derive(Clone, Debug)]
pub struct Sent {
    settings: ClientSettings,
    material: Material,
}

/// TLS settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// A file has no certificate in it.
    #[error("no certificate in {}", .0.display())]
    NoCertificate(PathBuf),
    /// What a Workload API sends cannot be used, or has not come yet.
    #[error("what the Workload API sends")]
    Sent(#[source] chassis::tls::TlsError),
    /// What the files hold is not what it should be.
    #[error("certificates cannot be used")]
    Unusable(#[source] RedisError),
}

impl TlsSettings {
    /// Asks the Workload API, where one is named, from now on.
    pub fn sent(&self) -> Option<Sent> {
        let settings = ClientSettings::by_workload_api(self.workload_api.as_deref()?)?;
        let authorities = self.ca.clone().or(settings.authorities);
        let settings = ClientSettings { authorities, ..settings };
        Some(Sent { material: settings.material(), settings })
    }

    /// The address of a server, with all that is needed to trust it.
    ///
    /// # Errors
    /// When the files, or what was sent, are not what they should be.
    pub fn address(
        &self,
        (host, port): &HostPort,
        sent: Option<&Sent>,
    ) -> Result<ConnectionAddr, TlsError> {
        let plain = ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        };
        let certificates = match sent {
            Some(sent) => sent.certificates()?,
            None => self.certificates()?,
        };
        let info = plain.into_connection_info().map_err(TlsError::Unusable)?;
        let client = Client::build_with_tls(info, certificates).map_err(TlsError::Unusable)?;
        let mut address = client.get_connection_info().addr().clone();
        address.set_danger_accept_invalid_hostnames(self.skip_hostname_verification);
        Ok(address)
    }

    fn certificates(&self) -> Result<TlsCertificates, TlsError> {
        let client_tls = match &self.client {
            None => None,
            Some((certificate, key)) => Some(ClientTlsConfig {
                client_cert: certificates(certificate)?,
                client_key: read(key)?,
            }),
        };
        let root_cert = self.ca.as_deref().map(certificates).transpose()?;
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

impl Sent {
    /// Whether nothing has come yet.
    pub fn is_awaited(&self) -> bool {
        self.material.awaits_the_first()
    }

    fn certificates(&self) -> Result<TlsCertificates, TlsError> {
        let pem = self.settings.pem(&self.material.read()).map_err(TlsError::Sent)?;
        let client_tls = pem
            .identity
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        Ok(TlsCertificates { client_tls, root_cert: pem.authorities })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read(path.to_owned(), error))
}

fn certificates(path: &Path) -> Result<Vec<u8>, TlsError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let pem = read(path)?;
    match pem.windows(BEGIN.len()).any(|window| window == BEGIN) {
        true => Ok(pem),
        false => Err(TlsError::NoCertificate(path.to_owned())),
    }
}
