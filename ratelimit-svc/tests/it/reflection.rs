//! Server reflection, asked as grpcurl asks: which services, and the files behind one of them.

use std::collections::BTreeSet;

use futures_util::stream;
use prost::Message;
use proto::pb::google::protobuf::FileDescriptorProto;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{Service, url};

async fn asked(service: &Service, what: MessageRequest) -> Result<MessageResponse, tonic::Status> {
    let endpoint = Endpoint::from_shared(url(&service.addresses.grpc)).expect("an address");
    let mut client = ServerReflectionClient::new(endpoint.connect_lazy());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(what) };
    let mut answers = client.server_reflection_info(stream::iter([request])).await?.into_inner();
    let answer = answers.message().await?.expect("an answer");
    Ok(answer.message_response.expect("in it"))
}

async fn files(service: &Service, what: MessageRequest) -> Vec<FileDescriptorProto> {
    match asked(service, what).await.expect("answered") {
        MessageResponse::FileDescriptorResponse(found) => found
            .file_descriptor_proto
            .iter()
            .map(|file| FileDescriptorProto::decode(file.as_slice()).expect("a file"))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn services_are_listed_and_described() {
    let on = [("GRPC_REFLECTION", "true".to_owned())];
    let service = Service::start_with(&[("a.yaml", "domain: d")], &on).await;
    let listed = asked(&service, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(listed) = listed.expect("answered") else {
        panic!("not a list");
    };
    let listed: BTreeSet<String> = listed.service.into_iter().map(|one| one.name).collect();
    let expected = [
        "envoy.service.ratelimit.v3.RateLimitService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ];
    assert_eq!(listed, expected.map(str::to_owned).into());

    // Every file that the service needs can be had, one import after the other.
    let symbol = MessageRequest::FileContainingSymbol(expected[0].to_owned());
    let mut open = files(&service, symbol).await;
    let mut known = BTreeSet::new();
    while let Some(file) = open.pop() {
        if known.insert(file.name().to_owned()) {
            for import in file.dependency {
                open.extend(files(&service, MessageRequest::FileByFilename(import)).await);
            }
        }
    }
    assert!(known.contains("envoy/service/ratelimit/v3/rls.proto"), "{known:?}");
    assert!(known.contains("google/protobuf/struct.proto"), "{known:?}");
    service.stop().await;
}

#[tokio::test]
async fn without_the_switch_there_is_no_reflection() {
    let service = Service::start(&[("a.yaml", "domain: d")]).await;
    let error = asked(&service, MessageRequest::ListServices(String::new())).await;
    assert_eq!(error.expect_err("off").code(), Code::Unimplemented);
    service.stop().await;
}
