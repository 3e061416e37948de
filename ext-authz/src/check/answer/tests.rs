//! Tests of `check::answer`.

use super::*;
use crate::check::decide::Reason;

const ALL: [Dialect; 9] = [
    Dialect::Problem,
    Dialect::Influx,
    Dialect::OtlpJson,
    Dialect::OtlpProtobuf,
    Dialect::Text,
    Dialect::Datadog,
    Dialect::Splunk,
    Dialect::Elastic,
    Dialect::Grpc,
];
const REFUSALS: [Refusal; 6] = [
    Refusal::NoCredential,
    Refusal::BadCredential,
    Refusal::InvalidRequest,
    Refusal::Forbidden,
    Refusal::Throttled,
    Refusal::Unavailable,
];

/// A profile whose clients speak it.
fn profile(dialect: Dialect) -> Profile {
    match dialect {
        Dialect::OtlpJson => Profile::Otlp,
        Dialect::Grpc => Profile::Datadog,
        _ => Profile::ALL
            .into_iter()
            .find(|profile| profile.row().dialect == dialect)
            .expect("every dialect is somebody's"),
    }
}

fn worded(refusal: Refusal, dialect: Dialect, retry_after_seconds: u64) -> Answer {
    answer(refusal, profile(dialect), dialect, retry_after_seconds)
}

fn header<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    answer.headers.iter().filter(|(own, _)| *own == name).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn each_protocol_gets_its_own_words() {
    let bad = |dialect| worded(Refusal::BadCredential, dialect, 2);
    let table = [
        (
            Dialect::Problem,
            401,
            "application/problem+json",
            r#"{"type":"urn:tidegate:problem:unauthorized","title":"Unauthorized","status":401,"detail":"the API key is not valid"}"#,
        ),
        (
            Dialect::Influx,
            401,
            "application/json",
            r#"{"code":"unauthorized","message":"the API key is not valid"}"#,
        ),
        (
            Dialect::OtlpJson,
            401,
            "application/json",
            r#"{"code":16,"message":"the API key is not valid"}"#,
        ),
        (Dialect::Text, 401, "text/plain; charset=utf-8", "the API key is not valid\n"),
        (Dialect::Datadog, 403, "application/json", r#"{"errors":["Forbidden"]}"#),
        (Dialect::Splunk, 403, "application/json", r#"{"text":"Invalid token","code":4}"#),
        (
            Dialect::Elastic,
            401,
            "application/json",
            r#"{"error":{"root_cause":[{"type":"security_exception","reason":"the API key is not valid"}],"type":"security_exception","reason":"the API key is not valid"},"status":401}"#,
        ),
    ];
    for (dialect, status, content_type, body) in table {
        let answer = bad(dialect);
        assert_eq!((answer.status, answer.body.as_str()), (status, body));
        assert_eq!(header(&answer, "content-type"), [content_type]);
    }
    let grpc = bad(Dialect::Grpc);
    assert_eq!((grpc.status, grpc.body.as_str()), (401, "the API key is not valid"));
    assert_eq!(header(&grpc, "content-type"), [""; 0], "Envoy sets the one of gRPC");
}

#[test]
fn every_answer_keeps_the_rules() {
    for dialect in ALL {
        for refusal in REFUSALS {
            let answer = worded(refusal, dialect, 7);
            let what = format!("{dialect:?} {refusal:?} {answer:?}");
            assert!(answer.body.len() <= BODY_BYTES_MAX && answer.body.is_ascii(), "{what}");
            assert_eq!(header(&answer, "cache-control"), ["no-store"], "{what}");
            let waits = header(&answer, "retry-after");
            let wait = matches!(refusal, Refusal::Unavailable | Refusal::Throttled);
            assert_eq!(waits.contains(&"7"), wait, "{what}");
            let challenged = !header(&answer, "www-authenticate").is_empty();
            assert!(challenged || answer.status != 401, "{what}");
            let expected = match (refusal, dialect) {
                (Refusal::NoCredential | Refusal::BadCredential, Dialect::Datadog) => 403,
                (Refusal::BadCredential, Dialect::Splunk) => 403,
                (Refusal::NoCredential | Refusal::BadCredential, _) => 401,
                (Refusal::InvalidRequest, _) => 400,
                (Refusal::Forbidden, _) => 403,
                (Refusal::Throttled, Dialect::Problem | Dialect::Datadog) => 429,
                (Refusal::Throttled, Dialect::Elastic | Dialect::Grpc) => 429,
                // The first profile that speaks it: some of its clients keep data on 503 alone.
                (Refusal::Throttled, _) => 503,
                (Refusal::Unavailable, _) => 503,
            };
            assert_eq!(answer.status, expected, "{what}");
            let kind = header(&answer, "content-type");
            if kind.iter().any(|kind| kind.ends_with("json")) {
                serde_json::from_str::<serde_json::Value>(&answer.body).expect(&what);
            }
        }
    }
}

#[test]
fn otlp_protobuf_is_a_status_on_the_wire() {
    // Field 1, a varint; field 2, a length and the text.
    for refusal in REFUSALS {
        // With the longest wait there is no detail.
        let answer = worded(refusal, Dialect::OtlpProtobuf, 3600);
        let text = message(refusal);
        let mut expected = vec![0x08, grpc_code(answer.status) as u8, 0x12, text.len() as u8];
        expected.extend(text.bytes());
        assert!(text.len() < 128);
        assert_eq!(answer.body.as_bytes(), expected);
    }
}

#[test]
fn all_bad_keys_look_alike() {
    for dialect in ALL {
        let of = |reason: Reason| worded(reason.refusal(), dialect, 1);
        let unknown = of(Reason::UnknownKey);
        for reason in [
            Reason::Oversize,
            Reason::Scheme,
            Reason::Malformed,
            Reason::Checksum,
            Reason::WrongSecret,
            Reason::Revoked,
            Reason::Expired,
            Reason::NotYetValid,
        ] {
            assert_eq!(of(reason), unknown, "{reason:?}");
        }
    }
}

#[test]
fn the_dialect_follows_route_and_content_type() {
    let dialect = |profile, content_type: &'static str| {
        let headers = vec![("Content-Type", content_type.as_bytes())];
        let (profile, path) = (Ok(profile), "/");
        Dialect::of(&Request {
            profile,
            required_scope: None,
            headers,
            path,
            body_bytes: None,
            client: None,
        })
    };
    for profile in Profile::ALL {
        for content_type in ["application/grpc", "application/grpc+proto", "Application/GRPC-web"] {
            assert_eq!(dialect(profile, content_type), Dialect::Grpc);
        }
    }
    assert_eq!(dialect(Profile::Otlp, "application/json; charset=utf-8"), Dialect::OtlpJson);
    assert_eq!(dialect(Profile::Otlp, "application/x-protobuf"), Dialect::OtlpProtobuf);
    assert_eq!(dialect(Profile::Otlp, "é"), Dialect::OtlpProtobuf);
    assert_eq!(dialect(Profile::Default, "application/json"), Dialect::Problem);
    assert_eq!(dialect(Profile::InfluxV1, "text/plain"), Dialect::Influx);
    assert_eq!(dialect(Profile::Prometheus, "application/x-protobuf"), Dialect::Text);
    assert_eq!(dialect(Profile::Datadog, "application/json"), Dialect::Datadog);
}

#[test]
fn otlp_says_when_to_come_back() {
    let body = worded(Refusal::Unavailable, Dialect::OtlpJson, 7).body;
    let details =
        r#""details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"7s"}]"#;
    assert!(body.starts_with(r#"{"code":14,"message":""#) && body.contains(details), "{body}");
    let body = worded(Refusal::Throttled, Dialect::OtlpProtobuf, 7).body;
    let (_, info) = body.split_once("google.rpc.RetryInfo").expect("a detail");
    assert_eq!(info.as_bytes(), [0x12, 4, 0x0a, 2, 8, 7]);
    assert!(body.contains("\u{1a}\u{30}\n\u{28}type.googleapis.com/"), "the lengths: {body:?}");
    let long = worded(Refusal::Unavailable, Dialect::OtlpProtobuf, 3600);
    assert!(!long.body.contains("RetryInfo") && header(&long, "retry-after") == ["3600"]);
    for (seconds, info) in [(7, &[0x12, 4, 0x0a, 2, 8, 7][..]), (3600, &[8, 144, 28])] {
        let grpc = worded(Refusal::Throttled, Dialect::Grpc, seconds);
        let details = header(&grpc, "grpc-status-details-bin");
        let details = STANDARD_NO_PAD.decode(details[0]).expect("base64");
        assert!(details.starts_with(&[8, 14, 0x12]) && details.ends_with(info), "{details:?}");
        let python = STANDARD_NO_PAD.decode(header(&grpc, "google.rpc.retryinfo-bin")[0]);
        assert!(details.ends_with(&python.expect("base64")), "{details:?}");
    }
    let bad = worded(Refusal::BadCredential, Dialect::Grpc, 7);
    assert!(header(&bad, "grpc-status-details-bin").is_empty());
    assert!(!worded(Refusal::BadCredential, Dialect::OtlpJson, 7).body.contains("details"));
}
