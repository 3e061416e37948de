//! Who a client must be: a name that its certificate has to carry beside a good signature.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::EndEntityCert;

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A DNS name or an address; a certificate for `*.example.com` covers `a.example.com`.
    Host(ServerName<'static>),
    /// A URI as it stands, such as `spiffe://mesh/ns/edge/sa/envoy`.
    Uri(String),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Ok(Self::Uri(text.to_owned()));
        }
        let host = ServerName::try_from(text.to_owned());
        host.map(Self::Host).map_err(|_| "is neither a DNS name, an address nor a URI".to_owned())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(&name.to_str()),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

impl Subject {
    fn is_in(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
        match self {
            Self::Host(name) => certificate.verify_is_valid_for_subject_name(name).is_ok(),
            Self::Uri(uri) => certificate.valid_uri_names().any(|named| named == uri),
        }
    }
}

/// Verifies as another verifier does, and the name of the client too.
#[derive(Debug)]
pub(super) struct NamedClient {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) subject: Subject,
}

impl ClientCertVerifier for NamedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        match self.subject.is_in(end_entity) {
            true => Ok(verified),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_name_is_in_a_certificate_or_not() {
        let names = ["envoy.edge", "*.mesh.test", "10.0.0.7"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("names");
        let uri = "spiffe://mesh/envoy".try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
        let key = KeyPair::generate().expect("generated");
        let certificate = params.self_signed(&key).expect("signed");
        let check = |subject: &str, expected| {
            let subject: Subject = subject.parse().expect("a subject");
            assert_eq!(subject.is_in(certificate.der()), expected, "{subject}");
        };
        check("envoy.edge", true);
        check("ENVOY.edge", true);
        check("a.mesh.test", true);
        check("10.0.0.7", true);
        check("spiffe://mesh/envoy", true);
        check("edge", false);
        check("a.b.mesh.test", false);
        check("10.0.0.8", false);
        check("spiffe://mesh/envoy2", false);
        check("spiffe://mesh", false);
        assert!("a b".parse::<Subject>().is_err());
        assert!("".parse::<Subject>().is_err());
    }
}
