//! Asking ext-authz as Envoy does.

use std::net::SocketAddr;

use anyhow::Result;
use chassis::tls::client::{self, ClientSettings};
use proto::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use proto::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use proto::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use proto::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use tonic::transport::{Channel, Endpoint};

/// A connection to ext-authz.
#[derive(Clone)]
pub struct Authz {
    client: AuthorizationClient<Channel>,
}

impl Authz {
    /// Connects, over TLS as a client with these files.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn connect(address: SocketAddr, tls: Option<&ClientSettings>) -> Result<Self> {
        let endpoint = Endpoint::try_from(format!("http://{address}"))?;
        let channel = match tls {
            Some(tls) => client::connect(endpoint, tls).await?,
            None => endpoint.connect().await?,
        };
        Ok(Self { client: AuthorizationClient::new(channel) })
    }

    /// Whether a request with this key as `x-api-key` is let through.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn allows(&mut self, key: &str) -> Result<bool> {
        let header = HeaderValue {
            key: "x-api-key".to_owned(),
            raw_value: key.as_bytes().to_vec(),
            ..HeaderValue::default()
        };
        let http = HttpRequest {
            method: "POST".to_owned(),
            path: "/write".to_owned(),
            header_map: Some(HeaderMap { headers: vec![header] }),
            ..HttpRequest::default()
        };
        let attributes = AttributeContext {
            request: Some(Request { http: Some(http), ..Request::default() }),
            ..AttributeContext::default()
        };
        let answer = self.client.check(CheckRequest { attributes: Some(attributes) }).await?;
        Ok(answer.into_inner().status.is_some_and(|status| status.code == 0))
    }
}
