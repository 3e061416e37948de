//! Who a peer may be: names of which its certificate has to carry one beside a good signature.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::ServerName;
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
    /// Whether a certificate carries the name. A URI must be its only one, as SPIFFE has it: who
    /// carries two could be taken for either.
    pub(super) fn is_in(&self, certificate: &EndEntityCert<'_>) -> bool {
        match self {
            Self::Host(name) => certificate.verify_is_valid_for_subject_name(name).is_ok(),
            Self::Uri(uri) => {
                let mut named = certificate.valid_uri_names();
                named.next() == Some(uri) && named.next().is_none()
            }
        }
    }
}

/// An allow-list of names, separated by commas or white space; lines that begin with `#` are
/// comments.
pub fn subjects(text: &str) -> Result<Vec<Subject>, String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let names = lines.flat_map(|line| line.split([',', ' ', '\t', '\r']));
    let names = names.filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|error| format!("'{name}' {error}"))).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[&str], uris: &[&str]) -> rcgen::Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        for uri in uris {
            let uri = SanType::URI((*uri).try_into().expect("ASCII"));
            params.subject_alt_names.push(uri);
        }
        let key = KeyPair::generate().expect("generated");
        params.self_signed(&key).expect("signed")
    }

    fn is_in(subject: &str, certificate: &rcgen::Certificate) -> bool {
        let subject: Subject = subject.parse().expect("a subject");
        subject.is_in(&EndEntityCert::try_from(certificate.der()).expect("a certificate"))
    }

    #[test]
    fn a_name_is_in_a_certificate_or_not() {
        let names = ["envoy.edge", "*.mesh.test", "10.0.0.7"];
        let certificate = certificate(&names, &["spiffe://mesh/envoy"]);
        for (subject, expected) in [
            ("envoy.edge", true),
            ("ENVOY.edge", true),
            ("a.mesh.test", true),
            ("10.0.0.7", true),
            ("spiffe://mesh/envoy", true),
            ("edge", false),
            ("a.b.mesh.test", false),
            ("10.0.0.8", false),
            ("spiffe://mesh/envoy2", false),
            ("spiffe://mesh", false),
        ] {
            assert_eq!(is_in(subject, &certificate), expected, "{subject}");
        }
        assert!("a b".parse::<Subject>().is_err());
        assert!("".parse::<Subject>().is_err());
    }

    #[test]
    fn a_uri_must_be_the_only_one() {
        let two = certificate(&["envoy.edge"], &["spiffe://mesh/envoy", "spiffe://mesh/other"]);
        assert!(!is_in("spiffe://mesh/envoy", &two) && !is_in("spiffe://mesh/other", &two));
        assert!(is_in("envoy.edge", &two));
    }

    #[test]
    fn lists_are_separated_by_commas_and_lines() {
        let list = subjects("# Envoy\nspiffe://mesh/envoy, envoy.edge\n\nnext.edge\r\n");
        let names: Vec<String> = list.expect("valid").iter().map(Subject::to_string).collect();
        assert_eq!(names, ["spiffe://mesh/envoy", "envoy.edge", "next.edge"]);
        assert_eq!(subjects(" \n# none\n"), Ok(Vec::new()));
        let error = subjects("envoy.edge, a..b").expect_err("no name");
        assert!(error.starts_with("'a..b' is neither"), "{error}");
    }
}
