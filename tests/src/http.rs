//! A small HTTP client for trying things: one request, one whole answer.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use chassis::tls::Protocols;
use chassis::tls::client::{ClientSettings, Connector};
use chassis::tls::https::HttpsConnector;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's first value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Whether a connection ended before there was any answer.
fn was_closed(error: &anyhow::Error) -> bool {
    let of_hyper = error.chain().filter_map(|cause| cause.downcast_ref::<hyper::Error>());
    of_hyper.into_iter().any(|error| error.is_incomplete_message())
}

/// A client with a connection pool of its own.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpsConnector, Full<Bytes>>,
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl Http {
    /// An HTTP/1.1 client.
    pub fn new() -> Self {
        Self::trusting(None)
    }

    /// The same, over TLS for https.
    pub fn trusting(tls: Option<ClientSettings>) -> Self {
        let tls = tls.map(|settings| Connector::new(settings, Protocols::Http, "test"));
        let connector = HttpsConnector::new(tls);
        Self { client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When no answer arrives within 30 seconds.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply> {
        let uri = request.uri().clone();
        let exchange = async {
            let response = self.client.request(request).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .context("no answer in 30 s")?
            .with_context(|| format!("{uri}"))
    }

    /// GETs a URL; once more where a server has just closed the connection that was kept for it.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn get(&self, url: &str) -> Result<Reply> {
        let ask = || anyhow::Ok(Request::get(url).body(Full::default())?);
        match self.send(ask()?).await {
            Err(error) if was_closed(&error) => self.send(ask()?).await,
            reply => reply,
        }
    }

    /// GETs a URL with headers.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn get_with(&self, url: &str, headers: &[(&str, &str)]) -> Result<Reply> {
        let mut request = Request::get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::default())?).await
    }

    /// POSTs a body with headers.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        let mut request = Request::post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(body.into()))?).await
    }
}
