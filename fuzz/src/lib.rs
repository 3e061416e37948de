//! What is done with arbitrary bytes, one function for each input the edge reads: no panic, and
//! the promises that can be checked on any input. `fuzz_targets` hands them to libFuzzer.

mod authz;
mod ingest;
mod oracle;
mod ratelimit;

pub use authz::{api_key, check_request};
pub use ingest::{
    compressed_body, datadog, grpc_frame, journal_envelope, journal_frame, line_protocol,
    otlp_events, otlp_json, otlp_metrics, remote_write,
};
pub use oracle::line_protocol_oracle;
pub use ratelimit::{quota_yaml, rate_limit_request, xds_response};

#[cfg(test)]
mod tests;
