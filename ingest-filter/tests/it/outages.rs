//! One writer through every kind of outage of its target, on a real database behind something in
//! between that fails on demand: after each the database equals a model, and nothing is left over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ingest_filter::journal::Journal;
use ingest_filter::record::Record;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::influxd::Influxd;
use crate::support::{append, appender, record, wait_for};
use crate::writer_file::{Running, get};
use crate::writer_influxdb::{influxdb, journal_in, letters};

/// What the thing in between does to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Hands it on.
    Well,
    /// Breaks the connection, before the database has it or after.
    Away,
    /// Hands it on late.
    Slow,
    /// Says 400 to everything, in the words of a proxy.
    Refusing,
    /// Says 503 to every other one.
    Busy,
    /// Says 405 to everything, as a proxy that serves another site.
    Misrouted,
    /// Breaks the connection where the body holds a marked point.
    Poisoned,
}

/// A proxy before a database.
struct Between {
    url: String,
    mode: watch::Sender<Mode>,
    seen: Arc<AtomicU64>,
    _serving: JoinSet<()>,
}

impl Between {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (mode, current) = watch::channel(Mode::Well);
        let seen = Arc::new(AtomicU64::new(0));
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let mut serving = JoinSet::new();
        let count = seen.clone();
        serving.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (to, client) = (to.clone(), client.clone());
                let (current, seen) = (current.clone(), count.clone());
                let service = service_fn(move |request| {
                    hand_on(request, *current.borrow(), to.clone(), client.clone(), seen.clone())
                });
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    // A connection that breaks is part of the play.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        Self { url, mode, seen, _serving: serving }
    }

    /// Waits until so many more requests came.
    async fn sees(&self, more: u64) {
        let goal = self.seen.load(Ordering::Relaxed) + more;
        wait_for("requests", || async {
            (self.seen.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }
}

async fn hand_on(
    request: Request<Incoming>,
    mode: Mode,
    to: String,
    client: Client<HttpConnector, Full<Bytes>>,
    seen: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let number = seen.fetch_add(1, Ordering::Relaxed);
    let says = |status: u16, text: &'static str| {
        let body = Full::new(Bytes::from_static(text.as_bytes()));
        Ok(Response::builder().status(status).body(body).expect("a response"))
    };
    let broken = || Err(std::io::Error::other("broken"));
    let is_write = request.uri().path() == "/write";
    match mode {
        Mode::Refusing => return says(400, "<html>400 Bad Request</html>"),
        Mode::Misrouted => return says(405, "<html>405 Not Allowed</html>"),
        Mode::Busy if number.is_multiple_of(2) => return says(503, ""),
        Mode::Away if number.is_multiple_of(2) => return broken(),
        Mode::Slow => tokio::time::sleep(Duration::from_millis(200)).await,
        _ => {}
    }
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    if mode == Mode::Poisoned && is_write && inflated(&body).contains("mark=poison") {
        return broken();
    }
    parts.uri = format!("{to}{}", parts.uri).parse().map_err(std::io::Error::other)?;
    let request = Request::from_parts(parts, Full::new(body));
    let response = client.request(request).await.map_err(std::io::Error::other)?;
    if mode == Mode::Away {
        // The database has it, and the writer does not know.
        return broken();
    }
    let (parts, body) = response.into_parts();
    let body = match parts.status {
        StatusCode::NO_CONTENT => Bytes::new(),
        _ => body.collect().await.map_err(std::io::Error::other)?.to_bytes(),
    };
    Ok(Response::from_parts(parts, Full::new(body)))
}

fn inflated(body: &[u8]) -> String {
    use std::io::Read;
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(body).read_to_string(&mut text).unwrap();
    text
}

/// Appends records of ten points, some of them marked.
async fn append_points(journal: &Arc<dyn Journal>, numbers: std::ops::Range<u64>, marked: &[u64]) {
    for first in numbers.step_by(10) {
        let line = |number: u64| {
            let mark = if marked.contains(&number) { ",mark=poison" } else { "" };
            format!("m{mark} v={number}i {}\n", 1_700_000_000_000_000_000 + number)
        };
        let body: String = (first..first + 10).map(line).collect();
        let ten = Record { points: 10, body: body.into(), ..record("acme", 0, first) };
        append(journal, vec![ten]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_equals_the_model_after_every_outage() {
    let server = Influxd::start().await;
    let between = Between::start(server.url()).await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let journal_appender = appender(&journal);
    let mut config = influxdb(between.url.clone());
    config.batch.lines_max = 50;
    config.retry.backoff_max = Duration::from_millis(200);
    let mut running = Running::start(&journal, config.clone()).await;
    let modes =
        [Mode::Away, Mode::Slow, Mode::Busy, Mode::Refusing, Mode::Misrouted, Mode::Poisoned];
    let mut model = BTreeSet::new();
    for (round, mode) in (0..).zip(modes) {
        let first = round * 400;
        let poison = first + 205;
        // Known to be good before, so that a canary is at hand as it is in life.
        append_points(&journal_appender, first..first + 200, &[]).await;
        between.mode.send(mode).unwrap();
        let marked = [poison];
        let marked = if mode == Mode::Poisoned { &marked[..] } else { &[] };
        append_points(&journal_appender, first + 200..first + 300, marked).await;
        // A write that goes through is not seen again.
        let requests = if matches!(mode, Mode::Slow | Mode::Busy) { 1 } else { 4 };
        between.sees(requests).await;
        // The writer dies amid the outage too.
        running.abort().await;
        running = Running::start(&journal, config.clone()).await;
        append_points(&journal_appender, first + 300..first + 400, &[]).await;
        between.sees(requests).await;
        let over = Instant::now();
        if mode != Mode::Poisoned {
            between.mode.send(Mode::Well).unwrap();
        }
        model.extend((first..first + 400).filter(|number| !marked.contains(number)));
        wait_for(&format!("the model after {mode:?}"), || async {
            let rows = server.rows("select v from m").await;
            let stored: Vec<u64> = rows.iter().filter_map(|row| row[1].as_u64()).collect();
            (stored.len() == model.len() && stored.into_iter().collect::<BTreeSet<_>>() == model)
                .then_some(())
        })
        .await;
        wait_for(&format!("no lag after {mode:?}"), || async {
            get(running.admin, "/metrics")
                .await
                .contains("ingest_journal_lag_bytes{signal=\"all\"} 0\n")
                .then_some(())
        })
        .await;
        eprintln!("{mode:?}: drained {:?} after it was over", over.elapsed());
        between.mode.send(Mode::Well).unwrap();
    }
    running.stop().await;
    // No outage cost a point, but the one that kills whoever reads it.
    let found = letters(&dead);
    assert!(!found.is_empty());
    for letter in &found {
        assert_eq!(letter["cause"], "poison", "{letter}");
        assert!(letter["body"].as_str().unwrap().contains("mark=poison"), "{letter}");
        assert_eq!(letter["points"], 1);
    }
}
