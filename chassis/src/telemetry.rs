//! Logs and traces of our own: JSON lines on stdout, and OTLP spans joined to the caller's
//! `traceparent` when a collector is configured.
//!
//! Spans are exported where the caller sampled: Envoy decides, not we, unless a share of requests without
//! a trace is asked for.

mod collector;

use std::collections::HashMap;

use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use crate::causes::error_chain;
use crate::process::UsageError;
use crate::tls::client::ClientSettings;

/// What is logged and where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// `info`, or per module as in `info,h2=warn`.
    pub log_level: String,
    /// The collector's gRPC endpoint, as `http://127.0.0.1:4317`; none means no spans.
    pub otlp_endpoint: Option<String>,
    /// The files of an endpoint with `https`; without them the system's authorities are trusted.
    pub otlp_tls: Option<ClientSettings>,
    /// How spans are made.
    pub traces: TraceSettings,
}

/// What spans say of the process, and which there are beside those that callers sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceSettings {
    /// `service.name`; none for the name of the program.
    pub service_name: Option<String>,
    /// More attributes of the process, by name.
    pub attributes: Vec<(String, String)>,
    /// Of requests that bring no trace context, so many millionths are sampled.
    pub root_sampling_ppm: u32,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_level: "info".to_owned(),
            otlp_endpoint: None,
            otlp_tls: None,
            traces: TraceSettings::default(),
        }
    }
}

/// Keeps telemetry going; call [`Telemetry::flush`] at the end of `main`.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Installs logging and tracing for the process. Must run inside a tokio runtime.
///
/// # Errors
/// For a log level or an endpoint that cannot work.
pub fn init(service: &'static str, config: &TelemetryConfig) -> Result<Telemetry, UsageError> {
    let level: Targets = config
        .log_level
        .parse()
        .map_err(|error| UsageError(format!("log level '{}': {error}", config.log_level)))?;
    let logs = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_filter(level);
    let provider = match &config.otlp_endpoint {
        Some(endpoint) => Some(provider(service, endpoint, config)?),
        None if config.otlp_tls.is_some() => {
            return Err(UsageError("TLS files of a collector need its address".to_owned()));
        }
        None => None,
    };
    let spans = provider.as_ref().map(|provider| {
        let ours = Targets::new()
            .with_target("ratelimit_svc", tracing::Level::INFO)
            .with_target("ext_authz", tracing::Level::INFO)
            .with_target("ingest_filter", tracing::Level::INFO);
        tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(ours)
    });
    tracing_subscriber::registry().with(spans).with(logs).init();
    Ok(Telemetry { provider })
}

fn provider(
    service: &'static str,
    endpoint: &str,
    config: &TelemetryConfig,
) -> Result<SdkTracerProvider, UsageError> {
    let traces = &config.traces;
    let exporter = collector::exporter(endpoint, config.otlp_tls.as_ref())?;
    let name = traces.service_name.clone().unwrap_or_else(|| service.to_owned());
    let attributes = traces.attributes.iter();
    let attributes = attributes.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder().with_service_name(name).with_attributes(attributes);
    let root = match traces.root_sampling_ppm {
        0 => Sampler::AlwaysOff,
        ppm => Sampler::TraceIdRatioBased(f64::from(ppm) / 1e6),
    };
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_sampler(Sampler::ParentBased(Box::new(root)))
        .with_batch_exporter(exporter)
        .build())
}

impl Telemetry {
    /// Sends what spans are left. Blocks for a moment, so call it outside the runtime's tasks.
    pub fn flush(self) {
        if let Some(provider) = self.provider {
            // A collector that is gone must not keep the process from ending.
            let _ = provider.shutdown();
        }
    }
}

/// Makes `span` a child of the W3C trace context that came with the request.
pub fn continue_trace(span: &Span, traceparent: Option<&str>) {
    if let Some(traceparent) = traceparent {
        let context = TraceContextPropagator::new().extract(&Carrier(traceparent));
        // Refused only when the span is disabled, and then there is nothing to join.
        let _ = span.set_parent(context);
    }
}

/// The trace context to hand on from inside `span`: the span's own, or what came in where no
/// spans are recorded.
pub fn traceparent(span: &Span, incoming: Option<&str>) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove("traceparent").or_else(|| incoming.map(str::to_owned))
}

struct Carrier<'a>(&'a str);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}
