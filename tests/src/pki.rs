//! A certificate authority for one run, and what it signs: each name in a directory of its own, with
//! the file names of a Kubernetes Secret.
//!
//! ```text
//! tls/ca.crt   tls/envoy/tls.crt   tls/envoy/tls.key   tls/gateway/tls.crt   …
//! ```

use std::path::{Path, PathBuf};

use anyhow::Result;
use chassis::tls::client::ClientSettings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// The authority.
pub struct Pki {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Pki {
    /// Makes an authority and writes its certificate into `dir`.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name unlike those of the certificates it signs, or they would look self-signed.
        params.distinguished_name.push(DnType::CommonName, "Tidegate, this run only");
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        std::fs::write(dir.join("ca.crt"), issuer.pem())?;
        Ok(Self { dir: dir.to_owned(), issuer })
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The certificate of a name.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.directory(name).join("tls.crt")
    }

    /// The key of a name.
    pub fn key(&self, name: &str) -> PathBuf {
        self.directory(name).join("tls.key")
    }

    /// Where certificate and key of a name are.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What a SPIFFE certificate of that name says.
    pub fn uri(name: &str) -> String {
        format!("spiffe://tidegate.test/{name}")
    }

    /// Signs for this name: as a URI, and for this machine's loopback.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn sign(&self, name: &str) -> Result<Identity> {
        self.sign_with(name, |_| ())
    }

    /// The same with something about the certificate changed.
    ///
    /// # Errors
    /// As [`Pki::sign`].
    pub fn sign_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Identity> {
        let loopback = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(loopback)?;
        params.subject_alt_names.push(SanType::URI(Self::uri(name).as_str().try_into()?));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Signs for this name and puts certificate and key in place of the old ones, each in one step.
    ///
    /// # Errors
    /// As [`Pki::sign`], and when the files cannot be written.
    pub fn issue(&self, name: &str) -> Result<()> {
        self.put(name, &self.sign(name)?)
    }

    /// Puts certificate and key in place of the old ones of this name.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn put(&self, name: &str, identity: &Identity) -> Result<()> {
        std::fs::create_dir_all(self.directory(name))?;
        replace(&self.certificate(name), &identity.certificate)?;
        replace(&self.key(name), &identity.key)
    }

    /// A client with the certificate of this name, for servers that this authority signed for.
    pub fn client(&self, name: &str) -> ClientSettings {
        ClientSettings {
            authorities: Some(self.authority()),
            identity: Some((self.certificate(name), self.key(name))),
            ..ClientSettings::default()
        }
    }
}

/// Writes beside the file and renames, as Envoy and followers of files want it.
///
/// # Errors
/// When the file cannot be written.
pub fn replace(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(&new, file)?)
}
