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

/// The certificate of the collector, where there is one.
pub const COLLECTOR: &str = "collector";

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
        for name in ["redis", "kafka", "influxdb", COLLECTOR] {
            pki.issue(name)?;
        }
        std::fs::write(dir.join("clients"), format!("{}\n", Pki::uri(ENVOY)))?;
        // As an editor leaves it: the end of the line is no part of it.
        std::fs::write(dir.join("kafka-password"), format!("{}\n", kafka::PASSWORD))?;
        Ok(pki)
    }

    /// The file with the names that the services let in: Envoy's alone.
    pub fn names_file(&self) -> PathBuf {
        self.options.dir.join("clients")
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
            "{key}: {{certificate_file: {}, key_file: {}, client_ca_file: {}, client_san_file: {}}}\n",
            certificate.display(),
            private.display(),
            pki.authority().display(),
            self.names_file().display()
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
        command.env("GRPC_CLIENT_TLS_SAN_FILE", self.names_file());
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
        certificate_secret(&sds, "otlp", pki, ENVOY)?;
        authorities_secret(&sds, "upstream", pki)?;
        authorities_secret(&sds, "otlp", pki)?;
        let name = |service: Service| Pki::uri(service.name());
        Ok(Some(EdgeTls {
            edge,
            sds,
            authz: name(Service::Authz),
            ratelimit: name(Service::Ratelimit),
            gateway: name(Service::Gateway),
            otlp: Pki::uri(COLLECTOR),
        }))
    }

    /// What a service's configuration file says of the collector.
    pub(super) fn collector(&self, service: &str) -> String {
        let Some(at) = self.options.otlp else { return String::new() };
        let Some(pki) = &self.pki else { return format!("otlp_endpoint: http://{at}\n") };
        format!(
            "otlp_endpoint: https://{at}\n\
             otlp_tls: {{ca_file: {}, certificate_file: {}, key_file: {}}}\n",
            pki.authority().display(),
            pki.certificate(service).display(),
            pki.key(service).display()
        )
    }

    /// The same for ratelimit-svc, by its environment.
    pub(super) fn ratelimit_collector(&self, command: &mut Command) {
        let Some(at) = self.options.otlp else { return };
        let Some(pki) = &self.pki else {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{at}"));
            return;
        };
        let name = Service::Ratelimit.name();
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{at}"));
        command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", pki.authority());
        command.env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", pki.certificate(name));
        command.env("OTEL_EXPORTER_OTLP_CLIENT_KEY", pki.key(name));
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

fn authorities_secret(sds: &Path, secret: &str, pki: &Pki) -> Result<()> {
    let authority = pki.authority();
    let directory = authority.parent().unwrap_or(Path::new("/"));
    let text = format!(
        "resources:\n- \"@type\": {SECRET}\n  name: {secret}_authorities\n  validation_context:\n\
         \x20   trusted_ca: {{filename: \"{}\"}}\n    watched_directory: {{path: \"{}\"}}\n",
        authority.display(),
        directory.display()
    );
    Ok(std::fs::write(sds.join(format!("{secret}-authorities.yaml")), text)?)
}
