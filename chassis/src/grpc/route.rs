//! The shortest way from a request to the one service that nearly all requests are for.
//!
//! The router matches paths, boxes bodies and clones services on every call. The one busy service
//! of a listener is recognised by its path instead; the rest goes through the router.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::service::Routes;

/// What tonic generates for a service.
pub trait GrpcService:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + NamedService
    + Clone
    + Send
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + NamedService
        + Clone
        + Send
        + 'static
{
}

/// One service past the router, all others through it.
#[derive(Clone)]
pub struct Direct<S> {
    service: S,
    others: Routes,
}

impl<S: GrpcService> Direct<S> {
    /// `service` past the router of `others`.
    pub fn new(service: S, others: Routes) -> Self {
        Self { service, others: others.prepare() }
    }
}

impl<S: GrpcService> Service<Request<Incoming>> for Direct<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, <Routes as Service<Request<Incoming>>>::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Services that tonic generates, and its router, are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        match is_of(request.uri().path(), S::NAME) {
            true => Either::Left(self.service.call(request)),
            false => Either::Right(self.others.call(request)),
        }
    }
}

/// Whether `path` is `/service/Method`.
fn is_of(path: &str, service: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_service_it_names_in_full() {
        let check = |path, expected| assert_eq!(is_of(path, "a.v1.Service"), expected, "{path}");
        check("/a.v1.Service/Method", true);
        check("/a.v1.Service/", true);
        check("/a.v1.Service", false);
        check("/a.v1.Services/Method", false);
        check("a.v1.Service/Method", false);
        check("/", false);
        check("", false);
    }
}
