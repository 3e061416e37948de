//! gRPC server reflection: what the services of the listener look like, for grpcurl and the like.

use tonic::service::Routes;
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH;
use tonic_reflection::server::{Builder, Error};

/// Adds reflection to the services of `routes`, under both names that clients ask for.
pub(crate) fn add(routes: Routes) -> Result<Routes, Error> {
    let service = proto::descriptors::rate_limit_service();
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(&service)
            .register_encoded_file_descriptor_set(HEALTH)
    };
    let (v1, v1alpha) = (described().build_v1()?, described().build_v1alpha()?);
    Ok(routes.add_service(v1).add_service(v1alpha))
}
