//! When to come back, for clients that read it from a `google.rpc.Status`: OTLP over gRPC has no
//! `Retry-After`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prost::Message;
use proto::pb::google::protobuf::{Any, Duration};
use proto::pb::google::rpc::Status;

use crate::decide::decision::Header;

/// Where gRPC has the status that says more than a code.
const DETAILS_HEADER: &str = "grpc-status-details-bin";
/// Where the OTLP exporters of Python look, and nowhere else.
const PYTHON_HEADER: &str = "google.rpc.retryinfo-bin";

/// UNAVAILABLE: what Envoy says over gRPC where it says 429 over HTTP.
const CODE: i32 = 14;
/// As the shipped Envoy words it in other dialects.
const MESSAGE: &str = "the quota is used up, please retry later";
const TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Duration>,
}

/// What a refusal that is over in so many seconds says.
pub struct Told {
    /// An encoded `google.rpc.Status`.
    pub status: Vec<u8>,
    /// For gRPC clients, in base64.
    pub headers: [Header; 2],
}

impl Told {
    /// Of a number of seconds.
    pub fn new(seconds: u64) -> Self {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let info = RetryInfo { retry_delay: Some(Duration { seconds, nanos: 0 }) };
        let info = info.encode_to_vec();
        let header = |name: &str, value: &[u8]| Header {
            name: name.to_owned(),
            value: STANDARD_NO_PAD.encode(value),
        };
        let python = header(PYTHON_HEADER, &info);
        let detail = Any { type_url: TYPE.to_owned(), value: info };
        let status = Status { code: CODE, message: MESSAGE.to_owned(), details: vec![detail] };
        let status = status.encode_to_vec();
        Self { headers: [header(DETAILS_HEADER, &status), python], status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back() {
        for (seconds, expected) in [(1, 1), (86_400, 86_400), (u64::MAX, i64::MAX)] {
            let Told { status, headers: [details, python] } = Told::new(seconds);
            assert_eq!(details.name, DETAILS_HEADER);
            assert_eq!(STANDARD_NO_PAD.decode(details.value).as_ref(), Ok(&status));
            let status = Status::decode(&*status).expect("a status");
            assert_eq!((status.code, &*status.message), (CODE, MESSAGE));
            assert_eq!(status.details[0].type_url, TYPE);
            let info = RetryInfo::decode(&*status.details[0].value).expect("a detail");
            assert_eq!(info.retry_delay, Some(Duration { seconds: expected, nanos: 0 }));
            assert_eq!(python.name, PYTHON_HEADER);
            assert_eq!(STANDARD_NO_PAD.decode(python.value), Ok(info.encode_to_vec()));
        }
    }
}
