//! The writer from a disk journal into a file, in process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use chassis::drain::Shutdown;
use chassis::readiness::Readiness;
use ingest_filter::journal::config::{DiskConfig, JournalConfig};
use ingest_filter::record::Record;
use ingest_filter::writer::Writer;
use ingest_filter::writer::config::{TargetConfig, WriterConfig};

use crate::support::{append, appender, record, wait_for};

pub fn writer_config(target: TargetConfig) -> WriterConfig {
    let mut config = WriterConfig::new(target);
    config.admin_listen = "127.0.0.1:0".parse().unwrap();
    config.batch.linger = Duration::from_millis(20);
    config.retry.backoff_max = Duration::from_secs(1);
    config
}

/// A writer that runs in this process until it is stopped.
pub struct Running {
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    pub admin: std::net::SocketAddr,
    pub readiness: Readiness,
}

impl Running {
    pub async fn start(journal: &JournalConfig, config: WriterConfig) -> Self {
        let readiness = Readiness::new();
        // The lock of a writer that was aborted goes a moment later.
        let writer = wait_for("the journal", || async {
            Writer::bind(journal, config.clone(), readiness.clone()).await.ok()
        })
        .await;
        let admin = writer.admin_addr().unwrap();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(writer.run(shutdown.clone()));
        Self { shutdown, task, admin, readiness }
    }

    /// Ends it in the middle of whatever it does, as a crash; nothing is kept or handed back.
    pub async fn abort(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|error| error.is_cancelled()));
    }

    pub async fn stop(self) {
        self.shutdown.begin();
        self.task.await.expect("no panic").expect("an orderly end");
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn points_arrive_and_a_restart_neither_loses_nor_repeats_them() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalConfig::Disk(DiskConfig::new(directory.path().join("journal")));
    let path = directory.path().join("points.lp");
    let target = || TargetConfig::File(path.clone());
    let appender = appender(&journal);
    let mut expected = Vec::new();
    for round in 0..3_u64 {
        let running = Running::start(&journal, writer_config(target())).await;
        for number in round * 100..round * 100 + 100 {
            let record = record("acme", 0, number);
            expected.push(String::from_utf8(record.body.to_vec()).unwrap().trim_end().to_owned());
            append(&appender, vec![record]).await;
        }
        wait_for("all points", || async { (lines(&path).len() >= expected.len()).then_some(()) })
            .await;
        assert!(running.readiness.is_ready(), "{:?}", running.readiness.blockers());
        running.stop().await;
    }
    assert_eq!(lines(&path), expected);
}

#[tokio::test]
async fn the_admin_pages_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalConfig::Disk(DiskConfig::new(directory.path().join("journal")));
    let target = TargetConfig::File(directory.path().join("points.lp"));
    let running = Running::start(&journal, writer_config(target)).await;
    let appender = appender(&journal);
    append(&appender, vec![record("acme", 0, 1)]).await;
    let metrics = wait_for("a written point", || async {
        let text = get(running.admin, "/metrics").await;
        text.contains("ingest_writer_points_written_total 1").then_some(text)
    })
    .await;
    assert!(metrics.contains("ingest_journal_lag_bytes"), "{metrics}");
    assert!(metrics.contains("ingest_writer_dead_lettered_points_total{cause=\"poison\"} 0"));
    assert!(get(running.admin, "/readyz").await.contains("200 OK"));
    assert!(get(running.admin, "/config").await.contains("points.lp"));
    running.stop().await;
}

/// The bytes of an intact frame with this payload.
fn frame(payload: &[u8]) -> Vec<u8> {
    use ingest_filter::journal::disk::frame;
    let mut bytes = frame::MAGIC.to_vec();
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&frame::crc(payload.len(), payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A frame that is intact and no record becomes a dead letter, and the lane goes on.
#[tokio::test]
async fn what_is_no_record_becomes_a_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("journal");
    fs::create_dir(&place).unwrap();
    fs::write(place.join(format!("{:020}.seg", 0)), frame(&[2, 1, 2, 3])).unwrap();

    let journal = JournalConfig::Disk(DiskConfig::new(&place));
    let path = directory.path().join("points.lp");
    let running = Running::start(&journal, writer_config(TargetConfig::File(path.clone()))).await;
    append(&appender(&journal), vec![record("acme", 0, 1)]).await;
    wait_for("the point", || async { (lines(&path).len() == 1).then_some(()) }).await;
    running.stop().await;
    let letters = lines(&place.join("dead-letter.ndjson"));
    assert_eq!(letters.len(), 1);
    assert!(letters[0].contains("\"cause\":\"malformed\""), "{}", letters[0]);
    assert!(letters[0].contains("a field is missing"), "{}", letters[0]);
}

/// A record of a newer version, as after a rollback: it is no dead letter, nothing passes it, and
/// a writer that understands it finds it where it was.
#[tokio::test]
async fn a_record_of_a_newer_version_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("journal");
    fs::create_dir(&place).unwrap();
    let journal = JournalConfig::Disk(DiskConfig::new(&place));
    let newer = frame(&[9, 1, 2, 3]);
    append(&appender(&journal), vec![record("acme", 0, 1)]).await;
    let segment = place.join(format!("{:020}.seg", 0));
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.len() as u64;
    bytes.extend_from_slice(&newer);
    fs::write(&segment, &bytes).unwrap();
    append(&appender(&journal), vec![record("acme", 0, 2)]).await;

    let path = directory.path().join("points.lp");
    for _ in 0..2 {
        let running =
            Running::start(&journal, writer_config(TargetConfig::File(path.clone()))).await;
        wait_for("the alarm", || async {
            let metrics = get(running.admin, "/metrics").await;
            let blockers = running.readiness.blockers().join("");
            (metrics.contains("ingest_writer_held_partitions 1\n")
                && blockers.contains("newer version"))
            .then_some(())
        })
        .await;
        running.stop().await;
        assert_eq!(lines(&path).len(), 1, "what is in front is written once, nothing behind");
        assert_eq!(fs::read_to_string(place.join("position")).unwrap().trim(), at.to_string());
        assert!(lines(&place.join("dead-letter.ndjson")).is_empty());
    }
    // A writer that reads it: here, what was newer becomes a record of ours.
    let mut sound = Vec::new();
    let body = "m v=7 7";
    let filler = record("acme", 0, 3);
    let ours = Record { body: body.into(), request_id: None, ..filler };
    assert!(ingest_filter::journal::disk::frame::encode(&ours, &mut sound));
    let behind = bytes.split_off(at as usize + newer.len());
    assert!(behind.is_empty());
    bytes.truncate(at as usize);
    bytes.extend_from_slice(&sound);
    fs::write(&segment, &bytes).unwrap();
    let running = Running::start(&journal, writer_config(TargetConfig::File(path.clone()))).await;
    wait_for("all points", || async { (lines(&path).len() == 3).then_some(()) }).await;
    assert!(running.readiness.is_ready(), "{:?}", running.readiness.blockers());
    running.stop().await;
}

#[tokio::test]
async fn a_string_with_a_line_break_stays_one_point() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalConfig::Disk(DiskConfig::new(directory.path().join("journal")));
    let path = directory.path().join("points.lp");
    let running = Running::start(&journal, writer_config(TargetConfig::File(path.clone()))).await;
    let body = "m v=\"a\nb\" 1\nm v=\"c\" 2\n";
    let two = Record { points: 2, body: Bytes::from(body), ..record("acme", 0, 1) };
    append(&appender(&journal), vec![two]).await;
    wait_for("two points", || async { (lines(&path).len() == 3).then_some(()) }).await;
    wait_for("two points to be counted", || async {
        let metrics = get(running.admin, "/metrics").await;
        metrics.contains("ingest_writer_points_written_total 2\n").then_some(())
    })
    .await;
    running.stop().await;
}

/// A plain GET, headers and all.
pub async fn get(address: std::net::SocketAddr, path: &str) -> String {
    get_as(address, path, "").await
}

/// The same with further headers, each with its line break.
pub async fn get_as(address: std::net::SocketAddr, path: &str, headers: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A writer that is killed again and again loses nothing; what it had in hand is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalConfig::Disk(DiskConfig {
        segment_bytes: 64 << 10,
        ..DiskConfig::new(directory.path().join("journal"))
    });
    let path = directory.path().join("points.lp");
    let mut config = writer_config(TargetConfig::File(path.clone()));
    config.batch.lines_max = 10;
    let appender = appender(&journal);
    let appending = async {
        for number in 0..2000 {
            append(&appender, vec![record("acme", 0, number)]).await;
        }
    };
    let killing = async {
        for round in 1..=5 {
            let running = Running::start(&journal, config.clone()).await;
            wait_for("some points", || async { (lines(&path).len() >= round * 50).then_some(()) })
                .await;
            running.abort().await;
        }
        Running::start(&journal, config.clone()).await
    };
    let ((), running) = tokio::join!(appending, killing);
    wait_for("all points", || async {
        let got: std::collections::BTreeSet<_> = lines(&path).into_iter().collect();
        (got.len() == 2000).then_some(())
    })
    .await;
    running.stop().await;
    assert!(lines(&path).len() < 2200, "only what was in hand is repeated");
}
