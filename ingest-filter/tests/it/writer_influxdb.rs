//! The writer into a real InfluxDB 1.6.7.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ingest_filter::journal::config::{DiskConfig, JournalConfig};
use ingest_filter::record::Record;
use ingest_filter::writer::config::{InfluxdbV1Config, TargetConfig, WriterConfig};

use crate::influxd::Influxd;
use crate::support::{append, appender, record, wait_for};
use crate::writer_file::{Running, get, writer_config};

pub fn influxdb(url: String) -> WriterConfig {
    writer_config(TargetConfig::InfluxdbV1(InfluxdbV1Config {
        url,
        retention_policy: None,
        login: None,
        create_database: true,
        tls: None,
        request_timeout: Duration::from_secs(10),
    }))
}

pub fn journal_in(directory: &Path) -> (JournalConfig, PathBuf) {
    let place = directory.join("journal");
    (JournalConfig::Disk(DiskConfig::new(&place)), place.join("dead-letter.ndjson"))
}

pub fn letters(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn with_body(number: u64, body: impl Into<Bytes>) -> Record {
    let body = body.into();
    let points = body.iter().filter(|byte| **byte == b'\n').count() as u32;
    Record { points, body, ..record("acme", 0, number) }
}

#[tokio::test(flavor = "multi_thread")]
async fn points_arrive_in_a_database_that_is_made_for_them() {
    let server = Influxd::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(server.url())).await;
    let appender = appender(&journal);
    for number in 0..1000 {
        append(&appender, vec![record("acme", 0, number)]).await;
    }
    let rows = wait_for("all points", || async {
        let rows = server.rows("select v from m").await;
        (rows.len() >= 1000).then_some(rows)
    })
    .await;
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row[0], 1_700_000_000_000_000_000_u64 + number as u64, "in nanoseconds");
        assert_eq!(row[1], number as u64);
    }
    running.stop().await;
}

/// The same measurement in two databases of one tenant and in another tenant's: types and values
/// are each database's own, and a tag `tenant` is the client's.
#[tokio::test(flavor = "multi_thread")]
async fn databases_are_kept_apart() {
    let server = Influxd::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(server.url())).await;
    let of = |tenant: &str, database: &str, body: &'static str| Record {
        tenant: tenant.to_owned(),
        database: database.to_owned(),
        ..with_body(1, body)
    };
    let records = vec![
        of("acme", "telegraf", "cpu usage=1i 1000\n"),
        of("acme", "app", "cpu usage=2i 1000\n"),
        of("zeta", "", "cpu usage=1.5 1000\n"),
        of("zeta", "", "req,tenant=a n=1i 1000\nreq,tenant=b n=2i 1000\n"),
        of("a.b", "x/weekly", "cpu usage=true 1000\n"),
    ];
    append(&appender(&journal), records).await;
    let cases = [
        ("acme__telegraf", "select usage from cpu", serde_json::json!([[1000, 1]])),
        ("acme__app", "select usage from cpu", serde_json::json!([[1000, 2]])),
        ("zeta__default", "select usage from cpu", serde_json::json!([[1000, 1.5]])),
        (
            "zeta__default",
            "select n,tenant from req",
            serde_json::json!([[1000, 1, "a"], [1000, 2, "b"]]),
        ),
        ("a--2eb__x--2fweekly", "select usage from cpu", serde_json::json!([[1000, true]])),
    ];
    for (database, query, expected) in cases {
        wait_for(&format!("{query} of {database}"), || async {
            let rows = server.rows_of(database, query).await;
            (serde_json::json!(rows) == expected).then_some(())
        })
        .await;
    }
    assert!(letters(&dead).is_empty(), "{:?}", letters(&dead));
    let metrics = get(running.admin, "/metrics").await;
    assert!(metrics.contains("ingest_writer_databases_created_total 4\n"), "{metrics}");
    running.stop().await;
}

/// One point whose type conflicts costs itself and no neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn a_type_conflict_is_a_dead_letter() {
    let server = Influxd::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(server.url())).await;
    let appender = appender(&journal);
    append(&appender, vec![record("acme", 0, 0)]).await;
    wait_for("the first point", || async {
        (server.rows("select v from m").await.len() == 1).then_some(())
    })
    .await;
    let at = |n: u64| 1_700_000_000_000_000_000 + n;
    let bad = format!("m,tenant=acme v=\"text\" {}\n", at(50));
    let mut body = String::new();
    for number in 1..100 {
        match number {
            50 => body.push_str(&bad),
            _ => body.push_str(&format!("m,tenant=acme v={number}i {}\n", at(number))),
        }
    }
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mixed = Record { traceparent: Some(traceparent.to_owned()), ..with_body(1, body) };
    append(&appender, vec![mixed]).await;
    wait_for("the neighbours", || async {
        (server.rows("select v from m").await.len() == 99).then_some(())
    })
    .await;
    let found = wait_for("the dead letter", || async {
        let letters = letters(&dead);
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["body"], bad);
    assert_eq!(found[0]["cause"], "type_conflict");
    assert_eq!(found[0]["status"], 400);
    assert_eq!(found[0]["tenant"], "acme");
    assert_eq!(found[0]["traceparent"], traceparent);
    assert!(found[0]["message"].as_str().unwrap().contains("field type conflict"), "{}", found[0]);
    wait_for("the dead letter to be counted", || async {
        let metrics = get(running.admin, "/metrics").await;
        let counted = "ingest_writer_dead_lettered_points_total{cause=\"type_conflict\"} 1\n";
        metrics.contains(counted).then_some(())
    })
    .await;
    let shown = get(running.admin, "/config").await;
    assert!(
        shown.contains("\"acme__default\"") && shown.contains("field type conflict"),
        "{shown}"
    );
    running.stop().await;
}

/// The database is away at start, dies with points under way, comes back: everything arrives.
#[tokio::test(flavor = "multi_thread")]
async fn points_wait_for_a_database_that_is_away() {
    let mut server = Influxd::stopped();
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let appender = appender(&journal);
    let running = Running::start(&journal, influxdb(server.url())).await;
    append(&appender, vec![record("acme", 0, 0)]).await;
    wait_for("a retry", || async {
        get(running.admin, "/metrics").await.contains("class=\"unreachable\"").then_some(())
    })
    .await;
    assert!(!running.readiness.is_ready());
    server.restart().await;
    wait_for("the first point", || async {
        (server.rows("select v from m").await.len() == 1).then_some(())
    })
    .await;
    for round in 0..3_u64 {
        let writing = async {
            for number in round * 300 + 1..=round * 300 + 300 {
                append(&appender, vec![record("acme", 0, number)]).await;
            }
        };
        let crashing = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            server.kill();
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.restart().await;
        };
        tokio::join!(writing, crashing);
    }
    wait_for("all points", || async {
        (server.rows("select v from m").await.len() == 901).then_some(())
    })
    .await;
    wait_for("readiness", || async { running.readiness.is_ready().then_some(()) }).await;
    running.stop().await;
    assert_eq!(letters(&dead), [] as [serde_json::Value; 0]);
}

/// A valid point with exactly 100 tags makes this version answer 500: found, buried, passed.
#[tokio::test(flavor = "multi_thread")]
async fn a_point_the_database_fails_on_is_found() {
    let mut server = Influxd::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(server.url())).await;
    let at = 1_700_000_000_000_000_000_u64;
    let tags: String = (0..100).map(|tag| format!(",t{tag:03}=x")).collect();
    let poison = format!("m{tags} v=1i {at}\n");
    let mut body = String::new();
    for number in 0..20_u64 {
        match number {
            7 => body.push_str(&poison),
            _ => body.push_str(&format!("m,tenant=acme v={number}i {}\n", at + number)),
        }
    }
    let appender = appender(&journal);
    append(&appender, vec![with_body(0, body)]).await;
    wait_for("the neighbours", || async {
        (server.rows("select v from m where tenant='acme'").await.len() == 19).then_some(())
    })
    .await;
    let found = wait_for("the dead letter", || async {
        let letters = letters(&dead);
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!((found.len(), &found[0]["cause"]), (1, &serde_json::json!("poison")));
    assert_eq!(found[0]["body"], poison);
    assert!(server.is_alive());
    // And alone, as the first thing in its batch, it does not stop what follows either.
    append(&appender, vec![with_body(1, poison)]).await;
    append(&appender, vec![with_body(2, format!("m,tenant=acme v=99i {}\n", at + 99))]).await;
    wait_for("what follows", || async {
        (server.rows("select v from m where tenant='acme'").await.len() == 20).then_some(())
    })
    .await;
    running.stop().await;
}

/// A retention policy that does not exist, which 1.6.7 answers with 500: the points wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_retention_policy_is_waited_for() {
    let server = Influxd::start().await;
    // Databases that the writer makes have the policy that it writes to.
    server.rows("create database acme__default").await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let mut config = influxdb(server.url());
    if let TargetConfig::InfluxdbV1(target) = &mut config.target {
        target.retention_policy = Some("absent".to_owned());
    }
    let running = Running::start(&journal, config).await;
    append(&appender(&journal), vec![record("acme", 0, 0)]).await;
    wait_for("the alarm", || async {
        let metrics = get(running.admin, "/metrics").await;
        let blockers = running.readiness.blockers().join("");
        (metrics.contains("class=\"retention_policy_missing\"")
            && blockers.contains("retention policy does not exist"))
        .then_some(())
    })
    .await;
    server.rows("create retention policy absent on acme__default duration inf replication 1").await;
    wait_for("the point", || async {
        (server.rows("select v from absent.m").await.len() == 1).then_some(())
    })
    .await;
    running.stop().await;
    assert!(letters(&dead).is_empty());
}

/// A line on which this version's process dies: with something that restarts the server, the line
/// is found and everything around it is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_kills_the_server_is_found() {
    let mut server = Influxd::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let mut config = influxdb(server.url());
    config.retry.poison_attempts = 2;
    let running = Running::start(&journal, config).await;
    let at = |number: u64| 1_700_000_000_000_000_000 + number;
    let killer = "0 \\\\=\"=\"\n";
    let mut body = String::new();
    for number in 0..8 {
        match number {
            5 => body.push_str(killer),
            _ => body.push_str(&format!("m,tenant=acme v={number}i {}\n", at(number))),
        }
    }
    append(&appender(&journal), vec![with_body(0, body)]).await;
    let mut crashes = 0;
    let until = tokio::time::Instant::now() + crate::support::DEADLINE;
    let found = loop {
        let found = letters(&dead);
        if !found.is_empty() {
            break found;
        }
        if !server.is_alive() {
            crashes += 1;
            // The line may be there again, and end it, before we see it up.
            server.start_once().await;
        }
        assert!(tokio::time::Instant::now() < until, "no dead letter after {crashes} crashes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(crashes >= 2, "the server died of something");
    assert_eq!((found.len(), &found[0]["cause"]), (1, &serde_json::json!("poison")));
    assert_eq!(found[0]["body"], killer);
    wait_for("the neighbours", || async {
        (server.rows("select v from m").await.len() == 7).then_some(())
    })
    .await;
    running.stop().await;
}
