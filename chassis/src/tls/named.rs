//! Verifies that a peer is vouched for by the right authorities and carries one of the names allowed.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use webpki::EndEntityCert;

use super::bundles::{Bundles, Vouched};
use super::provider;
use super::subject::Subject;

/// A peer is let through with one of these names. Of a federated trust domain only a URI counts: its
/// authority may sign for any host, ours among them.
fn carries_one(
    allowed: &[Subject],
    certificate: &CertificateDer<'_>,
    federated: bool,
) -> Result<(), Error> {
    let certificate = EndEntityCert::try_from(certificate)
        .map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let counts = |subject: &&Subject| !federated || matches!(subject, Subject::Uri(_));
    match allowed.iter().filter(counts).any(|subject| subject.is_in(&certificate)) {
        true => Ok(()),
        false => Err(CertificateError::NotValidForName.into()),
    }
}

/// Verifies clients.
#[derive(Debug)]
pub(super) struct NamedClient {
    verifiers: Bundles<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    allowed: Vec<Subject>,
}

impl NamedClient {
    /// With a verifier for each bundle.
    pub(super) fn new(
        verifiers: Bundles<Arc<dyn ClientCertVerifier>>,
        allowed: Vec<Subject>,
    ) -> Self {
        let hints = verifiers.all().flat_map(|one| one.root_hint_subjects().iter().cloned());
        Self { hints: hints.collect(), verifiers, allowed }
    }
}

impl ClientCertVerifier for NamedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (verifier, federated) = match self.verifiers.vouching(end_entity) {
            Vouched::Own(verifier) => (verifier, false),
            Vouched::Federated(verifier) => (verifier, true),
            Vouched::Unknown => return Err(CertificateError::UnknownIssuer.into()),
        };
        let verified = verifier.verify_client_cert(end_entity, intermediates, now)?;
        carries_one(&self.allowed, end_entity, federated)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifiers.own().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifiers.own().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifiers.own().supported_verify_schemes()
    }
}

/// Verifies servers that are known by their names in SPIFFE and not by their host.
#[derive(Debug)]
pub(super) struct NamedServer {
    bundles: Bundles<Arc<RootCertStore>>,
    allowed: Vec<Subject>,
    provider: Arc<CryptoProvider>,
}

impl NamedServer {
    /// A server must be vouched for by one of these bundles and carry one of these names.
    pub(super) fn new(bundles: Bundles<Arc<RootCertStore>>, allowed: Vec<Subject>) -> Self {
        Self { bundles, allowed, provider: provider() }
    }
}

impl ServerCertVerifier for NamedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (roots, federated) = match self.bundles.vouching(end_entity) {
            Vouched::Own(roots) => (roots, false),
            Vouched::Federated(roots) => (roots, true),
            Vouched::Unknown => return Err(CertificateError::UnknownIssuer.into()),
        };
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        carries_one(&self.allowed, end_entity, federated)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
