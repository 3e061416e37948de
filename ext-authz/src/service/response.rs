//! `Decision` → `CheckResponse`. An empty `CheckResponse` means "allow" to Envoy, so every answer
//! is written out in full, and only `allow` writes status 0.

use std::collections::HashMap;

use proto::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proto::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use proto::pb::envoy::service::auth::v3::check_response::HttpResponse;
use proto::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use proto::pb::envoy::r#type::v3::HttpStatus;
use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{BoolValue, Struct, Value};
use proto::pb::google::rpc::Status;

use crate::check::answer::{Answer, answer, grpc_code};
use crate::check::decide::{Decision, Reason, Refusal};
use crate::check::extract::Request;
use crate::check::kept::KeptKey;
use crate::check::key::KeyId;
use crate::check::profile::{CREDENTIAL_HEADERS, Dialect, Profile, STRIPPED_HEADERS};

/// Stands for an empty list of scopes: Envoy may drop a header without a value, and then the
/// client's own would pass.
pub const NO_SCOPES: &str = "-";

/// The answer to a check. Where Envoy sent no HTTP request there is no client whose dialect could
/// be spoken, and the decision never is to let it pass.
pub fn respond(
    decision: &Decision<'_>,
    request: Option<&Request<'_>>,
    retry_after_seconds: u64,
) -> CheckResponse {
    let profile = request.and_then(|request| request.profile.ok()).unwrap_or(Profile::Default);
    let dialect = request.map_or(Dialect::Problem, Dialect::of);
    let worded = |refusal| answer(refusal, profile, dialect, retry_after_seconds);
    match decision {
        Decision::Allow { key, cost, is_announced } => allow(key, *cost, *is_announced, profile),
        Decision::Deny { reason, key_id } => deny(*reason, *key_id, &worded(reason.refusal())),
        Decision::Unavailable(_) => unavailable(worded(Refusal::Unavailable)),
    }
}

fn allow(key: &KeptKey, cost: u64, is_announced: bool, profile: Profile) -> CheckResponse {
    let grant = &key.terms.grant;
    let scopes = match grant.scopes.as_slice() {
        [] => NO_SCOPES.to_owned(),
        scopes => scopes.join(","),
    };
    let key_id = key.id.as_str();
    let identity = [
        ("tenant", "x-tidegate-tenant", &*key.tenant),
        ("key_id", "x-tidegate-key-id", key_id),
        ("priority", "x-tidegate-priority", &grant.priority),
        ("plan", "x-tidegate-plan", &grant.plan),
        ("scopes", "x-tidegate-scopes", &scopes),
    ];
    let headers = identity.iter().map(|(_, name, value)| overwrite(name, value)).collect();
    let mut fields = HashMap::with_capacity(identity.len() + 2);
    fields.extend(identity.iter().map(|(name, _, value)| ((*name).to_owned(), text(value))));
    // A number below 2^53 is exact in a double.
    fields.insert("cost".to_owned(), Value { kind: Some(Kind::NumberValue(cost as f64)) });
    if !is_announced {
        // Envoy counts such a body once it has passed, in this tenant's name.
        fields.insert("unannounced_tenant".to_owned(), text(&key.tenant));
    }
    CheckResponse {
        status: Some(Status { code: 0, message: String::new(), details: Vec::new() }),
        dynamic_metadata: Some(Struct { fields }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers,
            headers_to_remove: owned(CREDENTIAL_HEADERS.iter().chain(&STRIPPED_HEADERS)),
            query_parameters_to_remove: owned(profile.row().stripped_parameters),
            ..OkHttpResponse::default()
        })),
    }
}

fn deny(reason: Reason, key_id: Option<KeyId>, answer: &Answer) -> CheckResponse {
    let mut fields = HashMap::from([("denied_reason".to_owned(), text(reason.as_str()))]);
    if let Some(key_id) = key_id {
        fields.insert("key_id".to_owned(), text(key_id.as_str()));
    }
    CheckResponse {
        status: Some(rpc_status(answer)),
        dynamic_metadata: Some(Struct { fields }),
        http_response: Some(HttpResponse::DeniedResponse(http(answer))),
    }
}

/// An `error_response` leaves it to Envoy's failure mode whether the request passes.
fn unavailable(answer: Answer) -> CheckResponse {
    CheckResponse {
        status: Some(rpc_status(&answer)),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::ErrorResponse(http(&answer))),
    }
}

fn rpc_status(answer: &Answer) -> Status {
    let code = grpc_code(answer.status);
    Status { code, message: String::new(), details: Vec::new() }
}

fn http(answer: &Answer) -> DeniedHttpResponse {
    let mut seen = Vec::with_capacity(answer.headers.len());
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| {
            let again = seen.contains(name);
            seen.push(*name);
            let action = match again {
                true => HeaderAppendAction::AppendIfExistsOrAdd,
                false => HeaderAppendAction::OverwriteIfExistsOrAdd,
            };
            header(name, value, action)
        })
        .collect();
    let status = Some(HttpStatus { code: i32::from(answer.status) });
    DeniedHttpResponse { status, headers, body: answer.body.clone() }
}

fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    header(name, value, HeaderAppendAction::OverwriteIfExistsOrAdd)
}

#[expect(deprecated, reason = "it is still what some versions of Envoy go by")]
fn header(name: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: vec![] };
    // Some versions of Envoy read the older of the two fields alone, where it is absent as "append";
    // where it says so, Envoy 1.40 drops a header of a refusal that is not there already.
    let is_alone = action == HeaderAppendAction::OverwriteIfExistsOrAdd;
    let append = is_alone.then_some(BoolValue { value: false });
    HeaderValueOption {
        header: Some(header),
        append_action: action.into(),
        append,
        ..HeaderValueOption::default()
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn owned<'a>(names: impl IntoIterator<Item = &'a &'static str>) -> Vec<String> {
    names.into_iter().map(|name| (*name).to_owned()).collect()
}
