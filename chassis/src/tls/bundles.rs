//! Whose authorities vouch for a peer. A name of SPIFFE is vouched for by the bundle of its own trust domain
//! and by no other: a partner's authority must not make names of ours, nor ours a partner's.
//!
//! ```text
//! certificate ─ no URI ───────────────────► our authorities
//!             ├ spiffe://ours/… ──────────► our authorities
//!             ├ spiffe://partner/… ───────► the partner's, where the Workload API gave its bundle
//!             └ any other trust domain ───► nobody vouches
//! ```
//!
//! Without a Workload API no trust domain is known, and the authorities of the file vouch for all names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::{TlsError, authorities, bytes, workload};
use crate::reload::Snapshot;

/// Authorities by trust domain.
#[derive(Debug)]
pub(super) struct Bundles<T> {
    own: T,
    /// Our trust domain; none where there is no Workload API.
    domain: Option<String>,
    federated: BTreeMap<String, T>,
}

/// Who vouches for a peer.
#[derive(Debug)]
pub(super) enum Vouched<'a, T> {
    /// Our authorities: every name counts.
    Own(&'a T),
    /// A partner's: only a URI of its trust domain counts.
    Federated(&'a T),
    /// Nobody.
    Unknown,
}

impl Bundles<Arc<RootCertStore>> {
    /// What the files hold. `own` is the file of our authorities, and `leaf` our own certificate, from which
    /// our trust domain is read where they came from the Workload API at `address`.
    pub(super) fn read(
        files: &Snapshot,
        own: &Path,
        leaf: Option<&CertificateDer<'_>>,
        address: Option<&str>,
    ) -> Result<Self, TlsError> {
        let store = |path: &Path| Ok(Arc::new(authorities(path, bytes(files, path)?)?));
        let (mut domain, mut federated) = (None, BTreeMap::new());
        if let Some(address) = address {
            // Without a name of ours no URI is vouched for.
            let named = leaf.and_then(|leaf| trust_domains(leaf)?.into_iter().next());
            domain = Some(named.unwrap_or_default());
            for (name, path) in workload::bundles(files, address) {
                if Some(name) != domain.as_deref() {
                    federated.insert(name.to_owned(), store(path)?);
                }
            }
        }
        Ok(Self { own: store(own)?, domain, federated })
    }
}

impl<T> Bundles<T> {
    /// The same with something made of each.
    pub(super) fn try_map<U, E>(self, make: impl Fn(T) -> Result<U, E>) -> Result<Bundles<U>, E> {
        let federated = self.federated.into_iter();
        let federated = federated.map(|(domain, one)| Ok((domain, make(one)?)));
        Ok(Bundles {
            own: make(self.own)?,
            domain: self.domain,
            federated: federated.collect::<Result<_, E>>()?,
        })
    }

    /// All of them, our own first.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.own).chain(self.federated.values())
    }

    /// Our own.
    pub(super) fn own(&self) -> &T {
        &self.own
    }

    /// Who vouches for the peer with this certificate.
    pub(super) fn vouching(&self, leaf: &CertificateDer<'_>) -> Vouched<'_, T> {
        let Some(ours) = &self.domain else { return Vouched::Own(&self.own) };
        let Some(named) = trust_domains(leaf) else { return Vouched::Unknown };
        match named.as_slice() {
            [] => Vouched::Own(&self.own),
            [domain] if domain == ours => Vouched::Own(&self.own),
            [domain] => self.federated.get(domain).map_or(Vouched::Unknown, Vouched::Federated),
            // Who carries two could be taken for either.
            _ => Vouched::Unknown,
        }
    }
}

/// The trust domains that a certificate names, each once; nothing where it cannot be read.
fn trust_domains(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut domains: Vec<String> = Vec::new();
    for uri in certificate.valid_uri_names() {
        let name = uri.strip_prefix("spiffe://").unwrap_or(uri);
        let domain = name.split('/').next().unwrap_or(name);
        if !domains.iter().any(|known| known == domain) {
            domains.push(domain.to_owned());
        }
    }
    Some(domains)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["envoy.test".to_owned()]).expect("a name");
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().expect("ASCII")));
        }
        let key = KeyPair::generate().expect("generated");
        params.self_signed(&key).expect("signed").der().clone()
    }

    #[test]
    fn each_trust_domain_is_vouched_for_by_its_own_bundle() {
        let federated = BTreeMap::from([("partner.test".to_owned(), "theirs")]);
        let bundles = Bundles { own: "ours", domain: Some("mesh.test".to_owned()), federated };
        for (uris, expected) in [
            (vec![], "Own(\"ours\")"),
            (vec!["spiffe://mesh.test/envoy"], "Own(\"ours\")"),
            (vec!["spiffe://partner.test/envoy"], "Federated(\"theirs\")"),
            (vec!["spiffe://other.test/envoy"], "Unknown"),
            (vec!["spiffe://partner.test.mesh.test/envoy"], "Unknown"),
            (vec!["spiffe://mesh.test/a", "spiffe://partner.test/b"], "Unknown"),
            (vec!["https://partner.test/envoy"], "Unknown"),
        ] {
            let found = format!("{:?}", bundles.vouching(&certificate(&uris)));
            assert_eq!(found, expected, "{uris:?}");
        }
        let of_files = Bundles { own: "ours", domain: None, federated: BTreeMap::new() };
        let leaf = certificate(&["spiffe://other.test/envoy"]);
        assert!(matches!(of_files.vouching(&leaf), Vouched::Own(_)));
    }
}
