//! Calls that are made at the same time share their way to Redis.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use ratelimit_svc::decide::hit::Mode;
use ratelimit_svc::store::Store;
use ratelimit_svc::store::backend::Backend;
use ratelimit_svc::store::redis::topology::link::Topology;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::store::{NOW, hit, settings, unconnected};
use crate::support::{RedisServer, wait_for};

/// Passes everything on to `server`, and counts the reads it takes to receive what is sent there.
fn counting(server: &RedisServer, at: PathBuf) -> Arc<AtomicUsize> {
    let reads = Arc::new(AtomicUsize::new(0));
    let (counted, to) = (reads.clone(), server.socket());
    let listener = UnixListener::bind(at).expect("bound");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&to).await.expect("connected");
            let (mut client_reads, mut client_writes) = client.into_split();
            let (mut server_reads, mut server_writes) = server.into_split();
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = client_reads.read(&mut buffer).await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    if server_writes.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            });
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut server_reads, &mut client_writes).await;
            });
        }
    });
    reads
}

#[tokio::test]
async fn concurrent_calls_share_writes() {
    const CALLS: usize = 64;
    let (server, dir) = (RedisServer::start().await, tempfile::tempdir().expect("directory"));
    let at = dir.path().join("counting.sock");
    let reads = counting(&server, at.clone());
    let store = unconnected(Topology::Unix(at), settings());
    wait_for("connected", async || store.probe().await.is_ok()).await;
    for mode in [Mode::CountAll, Mode::AllOrNothing] {
        // The first call makes the counters, and loads the script.
        let hits = [hit("shared", 1, 1_000_000)];
        store.count(&hits, mode, NOW).await.expect("counted");
        let before = reads.load(Ordering::Relaxed);
        let calls = (0..CALLS).map(|_| store.count(&hits, mode, NOW));
        assert!(join_all(calls).await.iter().all(Result::is_ok));
        let took = reads.load(Ordering::Relaxed) - before;
        assert!(took <= CALLS / 8, "{CALLS} calls in {took} reads");
    }
}
