//! Where spans go, and what they say of this process: `OTEL_EXPORTER_OTLP_ENDPOINT` and the `TRACING_`
//! variables of the reference.

use chassis::process::UsageError;
use chassis::telemetry::TraceSettings;
use chassis::tls::client::ClientSettings;

use super::Vars;

/// Where a collector on this machine listens for gRPC.
const ENDPOINT_DEFAULT: &str = "http://localhost:4317";

impl Vars<'_> {
    /// The collector, none for no spans, and how spans are made.
    pub(super) fn traces(&self) -> Result<(Option<String>, TraceSettings), UsageError> {
        let is_enabled = self.flag("TRACING_ENABLED")?;
        let rate: f64 = self.number("TRACING_SAMPLING_RATE")?;
        if !(0.0..=1.0).contains(&rate) {
            return Err(self.bad("TRACING_SAMPLING_RATE", "must be from 0 to 1"));
        }
        let set = |name| Some(self.text(name)).filter(|set| !set.is_empty());
        let of_traces = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let endpoint = of_traces.or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let is_said = self.environment.get("TRACING_ENABLED").is_some_and(|set| !set.is_empty());
        let endpoint = match is_enabled {
            true => endpoint.or_else(|| Some(ENDPOINT_DEFAULT.to_owned())),
            false if is_said => None,
            false => endpoint,
        };
        let attribute = |key: &str, name| set(name).map(|value| (key.to_owned(), value));
        let attributes = [
            attribute("service.namespace", "TRACING_SERVICE_NAMESPACE"),
            attribute("service.instance.id", "TRACING_SERVICE_INSTANCE_ID"),
        ];
        let settings = TraceSettings {
            service_name: set("TRACING_SERVICE_NAME").filter(|_| is_enabled),
            attributes: attributes.into_iter().flatten().collect(),
            // Without the switch the caller alone decides what is sampled.
            root_sampling_ppm: if is_enabled { (rate * 1e6).round() as u32 } else { 0 },
        };
        Ok((endpoint, settings))
    }

    /// TLS of the collector at an https endpoint, where files are named.
    pub(super) fn otlp_tls(&self) -> Result<Option<ClientSettings>, UsageError> {
        let path = |name| self.path(&format!("OTEL_EXPORTER_OTLP_{name}"));
        let (certificate, key) = (path("CLIENT_CERTIFICATE"), path("CLIENT_KEY"));
        if certificate.is_some() != key.is_some() {
            let message = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY \
                           need each other";
            return Err(UsageError(message.to_owned()));
        }
        let settings = ClientSettings {
            authorities: path("CERTIFICATE"),
            identity: certificate.zip(key),
            ..ClientSettings::default()
        };
        let settings = self.client_tls("OTEL_EXPORTER_OTLP_WORKLOAD_API", settings)?;
        Ok(Some(settings).filter(|settings| *settings != ClientSettings::default()))
    }
}
