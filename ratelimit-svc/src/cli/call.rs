//! `call`: one request to a running rate limit service, and its answer for people or as JSON.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chassis::config::DurationText;
use chassis::tls::client::{self, ClientSettings};
use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use proto::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use rustls::pki_types::ServerName;
use serde_json::{Value as Json, json};
use tonic::transport::Endpoint;

use crate::cli::only_domain;
use crate::struct_json::from_struct;

/// The exit code of an answer OVER_LIMIT.
pub const EXIT_OVER_LIMIT: u8 = 2;

/// Which request, and to whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The service, as HOST:PORT or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub addr: String,
    /// The domain of the request; the only one of the service where it is not given.
    #[arg(long)]
    pub domain: Option<String>,
    /// The admin listener of the service, as HOST:PORT, which is asked for its only domain.
    #[arg(long, default_value = "127.0.0.1:6070", value_name = "HOST:PORT")]
    pub admin: String,
    /// A descriptor as key=value,key=value; give it again for each descriptor.
    #[arg(long = "descriptor", required = true, value_name = "K=V,...")]
    pub descriptors: Vec<String>,
    /// Hits of the request; 0 counts as 1.
    #[arg(long, default_value_t = 1)]
    pub hits: u32,
    /// Longest wait for the connection and for the answer.
    #[arg(long, default_value = "5s")]
    pub timeout: DurationText,
    #[command(flatten)]
    tls: TlsArgs,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How the service is reached over TLS.
#[derive(Debug, clap::Args)]
struct TlsArgs {
    /// Ask over TLS; the service must be HOST:PORT.
    #[arg(long)]
    tls: bool,
    /// PEM file of the authorities of the service; without it those of the system.
    #[arg(long, requires = "tls", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// PEM file of our own certificate.
    #[arg(long, requires = "tls", requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM file of our own private key.
    #[arg(long, requires = "tls", requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// The name in the certificate of the service, where it is not the host of --addr.
    #[arg(long, requires = "tls", value_name = "NAME")]
    tls_server_name: Option<String>,
}

impl TlsArgs {
    fn settings(&self) -> Result<Option<ClientSettings>, String> {
        if !self.tls {
            return Ok(None);
        }
        let name = self.tls_server_name.clone().map(|name| {
            ServerName::try_from(name)
                .map_err(|_| "--tls-server-name is neither a DNS name nor an address".to_owned())
        });
        Ok(Some(ClientSettings {
            authorities: self.tls_ca.clone(),
            identity: self.tls_cert.clone().zip(self.tls_key.clone()),
            server_name: name.transpose()?,
            ..ClientSettings::default()
        }))
    }
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Lines for people.
    Text,
    /// One JSON object.
    Json,
}

/// Asks and prints the answer.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args) -> ExitCode {
    match ask(args) {
        Ok(answer) => {
            match args.output {
                Output::Text => print!("{}", text(&args.descriptors, &answer)),
                Output::Json => println!("{}", to_json(&args.descriptors, &answer)),
            }
            match answer.overall_code() {
                Code::Ok => ExitCode::SUCCESS,
                Code::OverLimit => ExitCode::from(EXIT_OVER_LIMIT),
                Code::Unknown => ExitCode::FAILURE,
            }
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn ask(args: &Args) -> Result<RateLimitResponse, String> {
    let descriptors = args.descriptors.iter().map(|text| descriptor(text));
    let request = RateLimitRequest {
        domain: match &args.domain {
            Some(domain) => domain.clone(),
            None => only_domain::of_service(&args.admin, args.timeout.0)?,
        },
        descriptors: descriptors.collect::<Result<_, _>>()?,
        hits_addend: args.hits,
    };
    let url = match args.addr.starts_with("unix:") {
        true => args.addr.clone(),
        false => format!("http://{}", args.addr),
    };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|_| format!("--addr '{}' is neither HOST:PORT nor unix:PATH", args.addr))?;
    let tls = args.tls.settings()?;
    if tls.is_some() && args.addr.starts_with("unix:") {
        return Err("--tls needs --addr HOST:PORT".to_owned());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime cannot be built: {error}"))?;
    runtime.block_on(exchange(endpoint, tls, args.timeout.0, request))
}

async fn exchange(
    endpoint: Endpoint,
    tls: Option<ClientSettings>,
    timeout: Duration,
    request: RateLimitRequest,
) -> Result<RateLimitResponse, String> {
    let endpoint = endpoint.connect_timeout(timeout).timeout(timeout);
    let channel = match &tls {
        Some(tls) => client::connect(endpoint, tls).await,
        None => endpoint.connect().await,
    };
    let channel = channel
        .map_err(|error| format!("cannot connect: {}", chassis::telemetry::error_chain(&error)))?;
    let answer = RateLimitServiceClient::new(channel).should_rate_limit(request).await;
    let answer =
        answer.map_err(|status| format!("answered {:?}: {}", status.code(), status.message()))?;
    Ok(answer.into_inner())
}

fn descriptor(text: &str) -> Result<RateLimitDescriptor, String> {
    let parsed = crate::explain::descriptor(text)?;
    let entry = |(key, value): (&str, &str)| Entry { key: key.to_owned(), value: value.to_owned() };
    Ok(RateLimitDescriptor {
        entries: parsed.entries.into_iter().map(entry).collect(),
        ..RateLimitDescriptor::default()
    })
}

/// The answer as lines.
fn text(descriptors: &[String], answer: &RateLimitResponse) -> String {
    let mut text = format!("{}\n", answer.overall_code().as_str_name());
    for (at, status) in answer.statuses.iter().enumerate() {
        let asked = descriptors.get(at).map_or("?", String::as_str);
        text += &format!("descriptor {asked}: {}", status.code().as_str_name());
        if let Some((requests_per_unit, unit, name)) = limit(status) {
            text += &format!(", limit {requests_per_unit} per {}", unit.to_lowercase());
            if !name.is_empty() {
                text += &format!(" '{name}'");
            }
            text += &format!(", remaining {}", status.limit_remaining);
        } else {
            text += ", no limit";
        }
        if let Some(reset) = &status.duration_until_reset {
            text += &format!(", reset in {} s", reset.seconds);
        }
        text.push('\n');
    }
    for (side, headers) in
        [("response", &answer.response_headers_to_add), ("request", &answer.request_headers_to_add)]
    {
        for header in headers {
            text += &format!("{side} header {}: {}\n", header.key, header.value);
        }
    }
    if let Some(metadata) = &answer.dynamic_metadata {
        text += &format!("dynamic metadata {}\n", from_struct(metadata));
    }
    text
}

/// The answer as JSON.
fn to_json(descriptors: &[String], answer: &RateLimitResponse) -> Json {
    let status = |(at, status): (usize, &DescriptorStatus)| {
        let limit = limit(status).map(|(requests_per_unit, unit, name)| {
            json!({"requests_per_unit": requests_per_unit, "unit": unit, "name": name})
        });
        json!({
            "descriptor": descriptors.get(at),
            "code": status.code().as_str_name(),
            "limit": limit,
            "limit_remaining": status.limit_remaining,
            "reset_seconds": status.duration_until_reset.as_ref().map(|reset| reset.seconds),
        })
    };
    let headers = |headers: &[proto::pb::envoy::config::core::v3::HeaderValue]| -> Vec<Json> {
        headers.iter().map(|header| json!([header.key, header.value])).collect()
    };
    json!({
        "overall_code": answer.overall_code().as_str_name(),
        "statuses": answer.statuses.iter().enumerate().map(status).collect::<Vec<_>>(),
        "response_headers_to_add": headers(&answer.response_headers_to_add),
        "request_headers_to_add": headers(&answer.request_headers_to_add),
        "dynamic_metadata": answer.dynamic_metadata.as_ref().map(from_struct),
    })
}

fn limit(status: &DescriptorStatus) -> Option<(u32, &'static str, &str)> {
    let limit = status.current_limit.as_ref()?;
    Some((limit.requests_per_unit, limit.unit().as_str_name(), &limit.name))
}
