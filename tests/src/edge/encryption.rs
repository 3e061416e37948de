//! The edge's certificates, and the files by which Envoy follows its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use chassis::tls::client::ClientSettings;

use super::{Edge, Service};
use crate::parts::envoy::EdgeTls;
use crate::parts::kafka;
use crate::pki::Pki;

/// The certificate that Envoy shows to the services.
pub const ENVOY: &str = "envoy";
/// The certificate that Envoy shows to clients.
pub const LISTENER: &str = "edge";

/// Whether hops are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Every hop, with certificates of an authority made for the run.
    On,
    /// None: everything on loopback in clear text.
    Off,
}

impl Edge {
    /// Makes the authority and signs for everything that has a certificate.
    pub(super) fn new_pki(dir: &Path) -> Result<Pki> {
        let pki = Pki::new(&dir.join("tls"))?;
        let services = Service::ALL.map(Service::name);
        for name in services.into_iter().chain([ENVOY, LISTENER]) {
            pki.issue(name)?;
        }
        for name in ["redis", "kafka", "influxdb"] {
            pki.issue(name)?;
        }
        // As an editor leaves it: the end of the line is no part of it.
        std::fs::write(dir.join("kafka-password"), format!("{}\n", kafka::PASSWORD))?;
        Ok(pki)
    }

    /// What the certificate of this run's clients of services is, where they need one: Envoy's.
    pub fn client_of_services(&self) -> Option<ClientSettings> {
        self.pki.as_ref().map(|pki| pki.client(ENVOY))
    }

    /// The section of a service's configuration that makes its listener encrypted.
    pub(super) fn listener_tls(&self, key: &str, service: Service) -> String {
        let Some(pki) = &self.pki else { return String::new() };
        let (certificate, private) = (pki.certificate(service.name()), pki.key(service.name()));
        format!(
            "{key}: {{certificate_file: {}, key_file: {}, client_ca_file: {}, client_san: '{}'}}\n",
            certificate.display(),
            private.display(),
            pki.authority().display(),
            Pki::uri(ENVOY)
        )
    }

    /// The same for ratelimit-svc, by its environment.
    pub(super) fn ratelimit_tls(&self, command: &mut Command) {
        let Some(pki) = &self.pki else { return };
        let name = Service::Ratelimit.name();
        command.env("GRPC_SERVER_USE_TLS", "true");
        command.env("GRPC_SERVER_TLS_CERT", pki.certificate(name));
        command.env("GRPC_SERVER_TLS_KEY", pki.key(name));
        command.env("GRPC_CLIENT_TLS_CACERT", pki.authority());
        command.env("GRPC_CLIENT_TLS_SAN", Pki::uri(ENVOY));
    }

    /// How ratelimit-svc speaks to Redis.
    pub(super) fn redis_tls(&self, command: &mut Command) {
        let Some(pki) = &self.pki else { return };
        command.env("REDIS_TLS", "true").env("REDIS_TLS_CACERT", pki.authority());
    }

    /// What ext-authz is told of Redis beside its address.
    pub(super) fn keys_tls(&self) -> String {
        let Some(pki) = &self.pki else { return String::new() };
        format!("  tls: {{ca_file: {}}}\n", pki.authority().display())
    }

    /// What ingest-filter is told of Kafka beside its address.
    pub(super) fn kafka_security(&self) -> String {
        let Some(pki) = &self.pki else { return String::new() };
        format!(
            "    tls: {{ca_file: {}}}\n\
             \x20   sasl: {{mechanism: SCRAM-SHA-512, username: {}, password_file: {}}}\n",
            pki.authority().display(),
            kafka::USER,
            self.options.dir.join("kafka-password").display()
        )
    }

    /// What the writer is told of InfluxDB beside its address.
    pub(super) fn influxdb_tls(&self) -> String {
        let Some(pki) = &self.pki else { return String::new() };
        format!("    tls: {{ca_file: {}}}\n", pki.authority().display())
    }

    /// What Envoy is told of encryption; writes the files that it follows.
    pub(super) fn envoy_tls(&self, edge: SocketAddr) -> Result<Option<EdgeTls>> {
        let Some(pki) = &self.pki else { return Ok(None) };
        let sds = self.options.dir.join("sds");
        std::fs::create_dir_all(&sds)?;
        certificate_secret(&sds, "upstream", pki, ENVOY)?;
        certificate_secret(&sds, "edge", pki, LISTENER)?;
        let authority = pki.authority();
        let directory = authority.parent().unwrap_or(Path::new("/"));
        let text = format!(
            "resources:\n- \"@type\": {SECRET}\n  name: upstream_authorities\n  validation_context:\n\
             \x20   trusted_ca: {{filename: \"{}\"}}\n    watched_directory: {{path: \"{}\"}}\n",
            authority.display(),
            directory.display()
        );
        std::fs::write(sds.join("upstream-authorities.yaml"), text)?;
        let name = |service: Service| Pki::uri(service.name());
        Ok(Some(EdgeTls {
            edge,
            sds,
            authz: name(Service::Authz),
            ratelimit: name(Service::Ratelimit),
            gateway: name(Service::Gateway),
        }))
    }

    /// How the gateway is addressed.
    pub fn scheme_of_services(&self) -> &'static str {
        if self.pki.is_some() { "https" } else { "http" }
    }

    /// The certificate of the run's authority, where there is one.
    pub fn authority(&self) -> Option<PathBuf> {
        self.pki.as_ref().map(Pki::authority)
    }
}

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

fn certificate_secret(sds: &Path, secret: &str, pki: &Pki, name: &str) -> Result<()> {
    let text = format!(
        "resources:\n- \"@type\": {SECRET}\n  name: {secret}_certificate\n  tls_certificate:\n\
         \x20   certificate_chain: {{filename: \"{}\"}}\n    private_key: {{filename: \"{}\"}}\n\
         \x20   watched_directory: {{path: \"{}\"}}\n",
        pki.certificate(name).display(),
        pki.key(name).display(),
        pki.directory(name).display()
    );
    Ok(std::fs::write(sds.join(format!("{secret}-certificate.yaml")), text)?)
}
