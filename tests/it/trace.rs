//! One trace from the client to the database.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tests::edge::encryption::COLLECTOR;
use tests::edge::{Encryption, Parts};
use tests::pki::Pki;
use tests::wait::{DEADLINE, wait_for};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::stage::Stage;

const TRACE_ID: [u8; 16] = *b"tidegate-trace-1";

/// Notes which services sent spans of the trace.
#[derive(Clone, Default)]
struct Collector {
    services: Arc<Mutex<BTreeSet<String>>>,
    /// Everything that was sent, in words.
    spans: Arc<Mutex<String>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for spans in request.into_inner().resource_spans {
            let words = format!("{spans:?}");
            self.spans.lock().unwrap_or_else(PoisonError::into_inner).push_str(&words);
            let ours = spans.scope_spans.iter().flat_map(|scope| &scope.spans);
            if !ours.into_iter().any(|span| span.trace_id == TRACE_ID) {
                continue;
            }
            let attributes = spans.resource.map(|resource| resource.attributes);
            for attribute in attributes.unwrap_or_default() {
                if let ("service.name", Some(Value::StringValue(name))) =
                    (attribute.key.as_str(), attribute.value.and_then(|value| value.value))
                {
                    self.services.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_joins_envoy_and_every_service_up_to_the_writer() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let collector = Collector::default();
    let server = Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);
    let stage = Stage::traced(address).await?;
    one_trace(&stage, &collector).await?;
    server.abort();
    Ok(())
}

/// A collector that lets in only who has a certificate of the run's authority.
#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_over_mutual_tls() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let stage = Stage::with(Parts::Embedded, |options| {
        options.otlp = Some(address);
        options.encryption = Encryption::On;
    })
    .await?;
    let pki = stage.edge.pki.as_ref().context("the edge is encrypted")?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config(pki)?));
    let (sender, connections) = tokio::sync::mpsc::channel(1);
    let accepting = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // Whoever has no certificate is turned away, and the next is served.
            let Ok(mut connection) = acceptor.accept(socket).await else { continue };
            let (mut inside, server) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move { copy_bidirectional(&mut connection, &mut inside).await });
            if sender.send(Ok::<_, std::io::Error>(server)).await.is_err() {
                return;
            }
        }
    });
    let collector = Collector::default();
    let incoming = futures_util::stream::unfold(connections, |mut connections| async move {
        connections.recv().await.map(|connection| (connection, connections))
    });
    let server = Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(incoming);
    let server = tokio::spawn(server);
    one_trace(&stage, &collector).await?;
    accepting.abort();
    server.abort();
    Ok(())
}

fn server_config(pki: &Pki) -> Result<ServerConfig> {
    let certificates = |path| -> Result<Vec<CertificateDer<'static>>> {
        Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(pki.authority())?);
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let chain = certificates(pki.certificate(COLLECTOR))?;
    let key = PrivateKeyDer::from_pem_file(pki.key(COLLECTOR))?;
    let config = ServerConfig::builder().with_client_cert_verifier(verifier);
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Follows one request by the spans of all it touches, and looks for keys in them.
async fn one_trace(stage: &Stage, collector: &Collector) -> Result<()> {
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let trace_id: String = TRACE_ID.iter().map(|byte| format!("{byte:02x}")).collect();
    let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let token = format!("Token {key}");
    let headers = [("authorization", token.as_str()), ("traceparent", traceparent.as_str())];
    assert_eq!(stage.post("/write", &headers, "traced f=1").await?.status, 204);

    // A client may force sampling, so what is refused is in spans as well: with its path, without its key.
    let secret = key.split('_').nth(3).unwrap_or_default();
    for (query, status) in [("", 204), ("x", 401)] {
        let path = format!("/write?u=acme&p={key}{query}");
        let reply = stage.post(&path, &headers[1..], "traced f=2").await?;
        assert_eq!(reply.status, status, "{}", reply.text());
    }

    let expected = ["envoy", "ext-authz", "ingest-gateway", "ingest-writer", "ratelimit-svc"];
    let services = &collector.services;
    let complete = wait_for("spans of every service", DEADLINE, async || {
        let seen = services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        expected.iter().all(|name| seen.contains(*name)).then_some(())
    });
    if complete.await.is_err() {
        let seen = services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        panic!("of {expected:?} only {seen:?} sent spans of the trace");
    }
    let refused = wait_for("the span of the refusal", DEADLINE, async || {
        let spans = collector.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spans.contains("StringValue(\"401\")").then_some(spans)
    })
    .await?;
    assert!(refused.contains("url.path") && refused.contains("/write"), "{refused}");
    assert!(!refused.contains(secret), "a key is in a span");
    Ok(())
}
