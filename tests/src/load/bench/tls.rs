//! Handshakes: how many a second each service takes, what one costs it, and what the requests notice
//! that pass meanwhile.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::results::{Aim, min};
use super::{Context, rig};
use crate::edge::encryption::ENVOY;
use crate::edge::{Edge, Encryption, Options, Part, Parts, Patience, Proxy, Service};
use crate::load::cpu;
use crate::steady::SteadyLoad;

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: day, requests_per_unit: 100000000}
";
/// How a client begins in HTTP/2 (RFC 9113, 3.4): the preface and settings without any. The gateway, which
/// takes HTTP/1.1 too, says nothing before it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Clients that do nothing but connect.
const CLIENTS: usize = 4;
/// Requests that pass meanwhile.
const PER_SECOND: u64 = 100;

/// Runs the stage.
///
/// # Errors
/// When the edge does not come up, or a request fails.
pub async fn measure(cx: &mut Context) -> Result<()> {
    cx.step("tls: starting the edge");
    let options = Options {
        dir: rig::stage_dir(&cx.dir, "tls")?.join("edge"),
        parts: Parts::Embedded,
        replicas: 1,
        port: None,
        quotas: QUOTAS.to_owned(),
        otlp: None,
        patience: Patience::DESK,
        proxy: Proxy::default(),
        encryption: Encryption::On,
        keys_in_redis: false,
    };
    let edge = Edge::start(options, |_| ()).await?;
    let mut config = edge.pki.as_ref().context("the edge is encrypted")?.client(ENVOY).config()?;
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    for service in [Service::Authz, Service::Ratelimit, Service::Gateway] {
        cx.step(&format!("tls: handshakes with {}", service.name()));
        let load = SteadyLoad::start(&edge, "bench", PER_SECOND).await?;
        let pid = edge.child(Part::Replica(service, 0)).context("it runs")?.pid();
        let at = edge.replicas(service)[0].listen;
        let (mut rates, mut costs, mut turned_away) = (Vec::new(), Vec::new(), 0);
        for _ in 0..cx.rounds() {
            let (before, began) = (cpu::of_process(pid)?, Instant::now());
            let Counted { shaken, closed } = handshakes(at, &config, cx.slice() * 2).await?;
            turned_away += closed;
            let (spent, took) = (cpu::of_process(pid)?.saturating_sub(before), began.elapsed());
            rates.push(shaken as f64 / took.as_secs_f64());
            costs.push(spent.as_secs_f64() * 1e6 / shaken.max(1) as f64);
        }
        let noticed = load.finish().await?;
        ensure!(noticed.failures() == 0, "{}: {:?}", service.name(), noticed.failed);
        let of = |what: &str| format!("tls/{}, {what}", service.name());
        let most = rates.iter().copied().fold(0.0, f64::max);
        cx.results.add(of("handshakes"), most, "1/s", Aim::None);
        // The requests that pass are in it.
        cx.results.add(of("CPU a handshake"), min(&costs), "us", Aim::None);
        cx.results.add(of("connections turned away"), turned_away as f64, "", Aim::None);
        let wait = noticed.longest_wait.as_secs_f64() * 1e3;
        cx.results.add(of("longest wait of a request meanwhile"), wait, "ms", Aim::None);
    }
    // Dropping kills it: whoever measures has no time for a drain.
    drop(edge);
    Ok(())
}

/// What became of the connections of one slice.
struct Counted {
    shaken: u64,
    /// By a server that had no room for them.
    closed: u64,
}

/// Connects again and again for a while, and counts the handshakes that the server has taken.
async fn handshakes(
    at: SocketAddr,
    config: &Arc<ClientConfig>,
    time: std::time::Duration,
) -> Result<Counted> {
    let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let away = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (config, done, count) = (config.clone(), done.clone(), count.clone());
        let away = away.clone();
        clients.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let socket = TcpStream::connect(at).await?;
                // Two small writes follow each other: the second must not wait for an acknowledgement.
                socket.set_nodelay(true)?;
                let tls = TlsConnector::from(config.clone());
                let shaken = async {
                    let mut stream = tls.connect(ServerName::from(at.ip()), socket).await?;
                    stream.write_all(PREFACE).await?;
                    // With its settings the server has taken our certificate.
                    stream.read_u8().await
                };
                match shaken.await.map_err(|error| error.kind()) {
                    Ok(_) => count.fetch_add(1, Ordering::Relaxed),
                    Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                        away.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(kind) => bail!("a handshake failed: {kind}"),
                };
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(time).await;
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let (shaken, closed) = (count.load(Ordering::Relaxed), away.load(Ordering::Relaxed));
    Ok(Counted { shaken, closed })
}
