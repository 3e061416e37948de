//! One request over TLS, to whoever listens there.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use chassis::tls::client::ClientSettings;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tests::http::Reply;
use tests::wait::DEADLINE;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// POSTs over HTTP/2 and reads the whole answer.
pub async fn post(
    at: SocketAddr,
    settings: &ClientSettings,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Reply> {
    let asked = (Method::POST, path);
    exchange(at, settings, b"h2", asked, headers, body).await.map(|(reply, _)| reply)
}

/// GETs over HTTP/2 and reads the whole answer.
pub async fn get(
    at: SocketAddr,
    settings: &ClientSettings,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Reply> {
    let asked = (Method::GET, path);
    exchange(at, settings, b"h2", asked, headers, "").await.map(|(reply, _)| reply)
}

/// A connection over HTTP/2 that stays open after one request: ends when the server ends it.
pub async fn hold(at: SocketAddr, settings: &ClientSettings) -> Result<JoinHandle<()>> {
    let stream = TcpStream::connect(at).await?;
    let name = ServerName::from(at.ip());
    let tls = TlsConnector::from(Arc::new(settings.config()?));
    let io = TokioIo::new(tls.connect(name, stream).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    let connection = tokio::spawn(connection);
    // Whatever it answers: a connection without a request would be closed for that.
    let request = Request::post(format!("https://{at}/held")).body(Full::new(Bytes::new()))?;
    tokio::time::timeout(DEADLINE, sender.send_request(request)).await??;
    Ok(tokio::spawn(async move {
        // However it ends. The sender lives as long, or the client would end it.
        let _ = connection.await;
        drop(sender);
    }))
}

/// POSTs a point over the protocol asked for, and tells which was agreed on.
pub async fn post_with(
    at: SocketAddr,
    settings: &ClientSettings,
    protocol: &[u8],
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(Reply, Vec<u8>)> {
    exchange(at, settings, protocol, (Method::POST, path), headers, "over_tls f=1").await
}

async fn exchange(
    at: SocketAddr,
    settings: &ClientSettings,
    protocol: &[u8],
    (method, path): (Method, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(Reply, Vec<u8>)> {
    let mut config = settings.config()?;
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(at).await?;
    let name = ServerName::from(at.ip());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol().context("a protocol")?.to_vec();
    let body = Full::new(Bytes::from(body.to_owned()));
    let mut request = Request::builder().method(method).uri(format!("https://{at}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let io = TokioIo::new(stream);
    let answer = if agreed == b"h2" {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        tokio::time::timeout(DEADLINE, sender.send_request(request.body(body)?)).await??
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let request = request.header("host", at.to_string()).uri(path).body(body)?;
        tokio::time::timeout(DEADLINE, sender.send_request(request)).await??
    };
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok((Reply { status: parts.status, headers: parts.headers, body }, agreed))
}
