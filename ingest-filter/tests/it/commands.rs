//! The commands for people, as processes, on a real broker and on disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ingest_filter::journal::config::{CreateTopic, DiskConfig, JournalConfig, KafkaConfig};
use serde_json::Value;

use crate::fake_influxdb::{FakeInfluxdb, Reply};
use crate::influxd::Influxd;
use crate::kafka_broker::Broker;
use crate::support::{append, appender, record, wait_for};
use crate::writer_file::Running;
use crate::writer_influxdb::{influxdb, with_body};

/// A configuration file, and commands that are given it.
pub struct Tool(PathBuf);

impl Tool {
    pub fn new(directory: &Path, journal: &str) -> Self {
        let path = directory.join("config.yaml");
        std::fs::write(&path, format!("journal:\n  {journal}\n")).unwrap();
        Self(path)
    }

    /// The same file with more in it.
    pub fn with(self, text: &str) -> Self {
        let before = std::fs::read_to_string(&self.0).unwrap();
        std::fs::write(&self.0, before + text).unwrap();
        self
    }

    /// Exit code and the lines of JSON.
    pub async fn run(&self, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingest-filter"));
        command.args(arguments).args(["--json", "--config"]).arg(&self.0);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code(), lines)
    }

    /// The lines of a command that succeeds. One that changes nothing is asked again until it does: it
    /// waits a few seconds for Kafka, which a busy machine may take.
    pub async fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let looks =
            matches!(arguments, ["lag" | "audit" | "topics", ..] | ["dlq", "list" | "show", ..]);
        wait_for(&format!("{arguments:?}"), || async {
            let (code, lines) = self.run(arguments).await;
            assert!(looks || code == Some(0), "{arguments:?}");
            (code == Some(0)).then_some(lines)
        })
        .await
    }
}

/// A refused point is listed, shown, replayed once, and arrives.
async fn a_letter_goes_round(tool: &Tool, journal: &JournalConfig) {
    let refuses = Arc::new(AtomicBool::new(true));
    let is_refusing = refuses.clone();
    let fake = FakeInfluxdb::start(move |write| {
        match write.body.contains("poison") && is_refusing.load(Ordering::Relaxed) {
            true => Reply::Status(400, None, "{\"error\":\"unable to parse 'm': not yet\"}"),
            false => Reply::Status(204, None, ""),
        }
    })
    .await;
    let running = Running::start(journal, influxdb(fake.url())).await;
    let body = "m v=1i 1\nm,mark=poison v=2i 2\nm v=3i 3\n";
    append(&appender(journal), vec![with_body(0, body)]).await;
    let found = wait_for("the letter", || async {
        let lines = tool.lines(&["dlq", "list", "--since", "1h"]).await;
        (lines.len() == 2).then_some(lines)
    })
    .await;
    assert_eq!((&found[0]["tenant"], &found[0]["cause"]), (&"acme".into(), &"refused".into()));
    assert_eq!((&found[0]["points"], &found[0]["replayed"]), (&1.into(), &false.into()));
    assert_eq!(
        found[1],
        serde_json::json!({
            "letters": 1, "points": 1, "letters_by_cause": { "refused": 1 }
        })
    );
    for other in [["--tenant", "zeta"], ["--cause", "poison"], ["--until", "1h"]] {
        let lines = tool.lines(&["dlq", "list", other[0], other[1]]).await;
        assert_eq!(lines[0]["letters"], 0, "{other:?}");
    }
    let id = found[0]["id"].as_str().unwrap();
    let shown = tool.lines(&["dlq", "show", id]).await;
    assert_eq!(shown[0]["body"], "m,mark=poison v=2i 2\n");
    assert_eq!(tool.run(&["dlq", "show", "no such"]).await.0, Some(1));
    assert_eq!(tool.run(&["dlq", "replay"]).await.0, Some(64), "nothing was chosen");

    refuses.store(false, Ordering::Relaxed);
    let counts = |line: &Value| {
        ["letters", "points", "letters_replayed_before"].map(|key| line[key].as_u64().unwrap())
    };
    let dry = tool.lines(&["dlq", "replay", "--tenant", "acme", "--dry-run"]).await;
    assert_eq!(counts(&dry[0]), [1, 1, 0]);
    let real = tool.lines(&["dlq", "replay", "--tenant", "acme"]).await;
    assert_eq!(counts(&real[0]), [1, 1, 0], "a dry run marks nothing");
    wait_for("the point", || async { fake.lines().contains("m,mark=poison v=2i 2").then_some(()) })
        .await;
    let again = tool.lines(&["dlq", "replay", "--everything"]).await;
    assert_eq!(counts(&again[0]), [0, 0, 1]);
    let listed = tool.lines(&["dlq", "list"]).await;
    assert_eq!((&listed[0]["replayed"], &listed[1]["letters"]), (&true.into(), &1.into()));
    wait_for("no lag", || async {
        let lines = tool.lines(&["lag"]).await;
        lines.iter().all(|line| line["held_up_by"] == "nothing").then_some(())
    })
    .await;
    match journal {
        JournalConfig::Kafka(_) => the_books_balance(tool, id).await,
        // The writer has deleted the segment of the first record, and soon that of the replay.
        JournalConfig::Disk(_) => {
            let lines = tool.lines(&["audit", "totals"]).await;
            let all = lines.last().unwrap();
            let [journalled, written, queued] =
                ["journalled", "written", "queued"].map(|key| all[key].as_i64().unwrap());
            assert!(journalled <= 1 && written == journalled && queued == 0, "{all}");
        }
    }
    running.stop().await;
    for number in 1..4 {
        append(&appender(journal), vec![record("acme", 0, number)]).await;
    }
    let lines = tool.lines(&["lag", "--points"]).await;
    let sum = |key: &str| lines.iter().map(|line| line[key].as_u64().unwrap_or(0)).sum::<u64>();
    assert_eq!((sum("records"), sum("points")), (3, 3), "{lines:?}");
    let late = lines.iter().find(|line| line["records"] != 0).unwrap();
    assert!(late["seconds"].as_f64().unwrap() > 0.0, "since its admission");
}

/// Three points admitted, one a dead letter, which was replayed: four in the journal.
async fn the_books_balance(tool: &Tool, letter: &str) {
    let lines = tool.lines(&["audit", "totals", "--tenant", "acme"]).await;
    let all = lines.last().unwrap();
    let numbers = ["admitted", "replayed", "journalled", "written", "dead_lettered", "queued"]
        .map(|key| all[key].as_i64().unwrap());
    assert_eq!((numbers, &all["balances"]), ([3, 1, 4, 3, 1, 0], &true.into()), "{lines:?}");
    assert_eq!(lines[0]["hour"], "2023-11-14T22:00:00Z");

    let found = tool.lines(&["audit", "find", "--tenant", "acme", "--at", "2"]).await;
    assert_eq!(found.len(), 2, "the record and the one of the replay: {found:?}");
    assert_eq!(found[0]["points_found"], serde_json::json!(["m,mark=poison v=2i 2"]));
    let first = found.iter().find(|found| found["dead_letters"] != serde_json::json!([])).unwrap();
    assert_eq!(
        (&first["state"], &first["dead_letters"][0]["id"]),
        (&"written".into(), &letter.into())
    );
    let name = first["record"].as_str().unwrap();
    let record = tool.lines(&["audit", "record", name]).await;
    assert_eq!((&record[0]["tenant"], &record[0]["points"]), (&"acme".into(), &3.into()));
    assert!(record[0]["body"].as_str().unwrap().contains("m,mark=poison v=2i 2\n"));
    for none in [["--tenant", "zeta", "--at", "2"], ["--tenant", "acme", "--at", "1970-01-01"]] {
        let arguments = [&["audit", "find"][..], &none].concat();
        let found = if none[3] == "2" { Some(1) } else { Some(0) };
        assert_eq!(tool.run(&arguments).await.0, found, "{none:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("journal");
    let tool = Tool::new(directory.path(), &format!("disk: {{directory: '{}'}}", place.display()));
    a_letter_goes_round(&tool, &JournalConfig::Disk(DiskConfig::new(place))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_on_kafka() {
    let broker = Broker::start().await;
    let directory = tempfile::tempdir().unwrap();
    let address = broker.address();
    let one = "logs_topic: tidegate-points, traces_topic: tidegate-points";
    let tool = Tool::new(directory.path(), &format!("kafka: {{brokers: '{address}', {one}}}"));
    let config = KafkaConfig {
        create_topic: Some(CreateTopic { partitions: 3, replication_factor: 1 }),
        logs_topic: None,
        traces_topic: None,
        ..KafkaConfig::new(address)
    };
    a_letter_goes_round(&tool, &JournalConfig::Kafka(config)).await;
    let lines = tool.lines(&["lag"]).await;
    let late = lines.iter().find(|line| line["records"] != 0).unwrap();
    assert_eq!((late["held_up_by"].as_str(), &late["points"]), (Some("no_writer"), &Value::Null));
}

/// Gateways that confirmed more of a tenant's hour than the journal holds: that is said, by the
/// exit code too.
#[tokio::test(flavor = "multi_thread")]
async fn what_gateways_confirmed_must_be_in_the_journal() {
    use axum::routing::get;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("j");
    let tool = Tool::new(directory.path(), &format!("disk: {{directory: '{}'}}", place.display()));
    let journal = JournalConfig::Disk(DiskConfig::new(&place));
    let journal = appender(&journal);
    for number in 0..3 {
        append(&journal, vec![record("acme", 0, number)]).await;
    }
    let hour = 1_699_999_200_000_u64;
    let cases = [
        ("acme", hour, 3, 0),
        ("acme", hour, 2, 0),
        ("acme", hour, 4, 1),
        ("acme", hour + 3_600_000, 1, 1),
        ("zeta", hour, 1, 1),
    ];
    for (tenant, hour_ms, confirmed, code) in cases {
        let hours = serde_json::json!([{ "hour_ms": hour_ms, "points": { tenant: confirmed } }]);
        let page = serde_json::json!({ "left_out": 0, "hours": hours }).to_string();
        let pages = axum::Router::new().route("/confirmed", get(async move || page));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move { axum::serve(listener, pages).await });
        let (ended, lines) = tool.run(&["audit", "totals", "--gateway", &address]).await;
        assert_eq!(ended, Some(code), "{lines:?}");
        let last = lines.last().unwrap();
        assert_eq!((&last["confirmed"], &last["journalled"]), (&confirmed.into(), &3.into()));
        let row = |line: &&Value| line["tenant"] == tenant && line["confirmed"] == confirmed;
        let row = lines.iter().find(row).unwrap();
        assert_eq!(row["balances"], code == 0, "{row}");
        serving.abort();
    }
    let (ended, _) = tool.run(&["audit", "totals", "--gateway", "127.0.0.1:1"]).await;
    assert_eq!(ended, Some(1), "one that does not say is no zero");
}

/// What holds a partition up is asked of its writer; without an answer nothing is claimed.
#[tokio::test(flavor = "multi_thread")]
async fn lag_says_what_a_partition_waits_for() {
    let mut server = Influxd::stopped();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("j");
    let tool = Tool::new(directory.path(), &format!("disk: {{directory: '{}'}}", place.display()));
    let journal = JournalConfig::Disk(DiskConfig::new(&place));
    append(&appender(&journal), vec![record("acme", 0, 1)]).await;
    let held_up_by = async |writer: &str| {
        let lines = tool.lines(&["lag", "--writer", writer]).await;
        lines[0]["held_up_by"].as_str().unwrap().to_owned()
    };
    assert_eq!(held_up_by("127.0.0.1:1").await, "no_writer");
    let running = Running::start(&journal, influxdb(server.url())).await;
    let admin = running.admin.to_string();
    wait_for("the reason", || async { (held_up_by(&admin).await == "target_away").then_some(()) })
        .await;
    server.restart().await;
    wait_for("the point", || async { (held_up_by(&admin).await == "nothing").then_some(()) }).await;
    let metrics = crate::writer_file::get(running.admin, "/metrics").await;
    let watermark = "ingest_writer_watermark_seconds{tenant=\"acme\"} 1700000000.0";
    assert!(metrics.contains(watermark), "{metrics}");
    running.stop().await;
}

/// All databases of a tenant go, on the real InfluxDB, and none of a tenant with a similar name.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_deleted_and_no_other() {
    let server = Influxd::start().await;
    let directory = tempfile::tempdir().unwrap();
    let journal = format!("disk: {{directory: '{}'}}", directory.path().join("j").display());
    let tool = Tool::new(directory.path(), &journal)
        .with(&format!("writer: {{influxdb_v1: {{url: '{}'}}}}\n", server.url()));
    for name in ["acme__default", "acme__app", "acme_x__app", "acme-x__app", "acm__app", "acme"] {
        server.rows(&format!("create database \"{name}\"")).await;
    }
    let left = async || {
        let rows = server.rows("show databases").await;
        let names = rows.iter().map(|row| row[0].as_str().unwrap().to_owned());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let all = left().await;
    let dry = tool.lines(&["tenant", "delete", "acme"]).await;
    assert_eq!(dry[0]["databases"].as_array().unwrap().len(), 2, "{dry:?}");
    assert_eq!(left().await, all, "nothing without --yes");
    let real = tool.lines(&["tenant", "delete", "acme", "--yes"]).await;
    assert_eq!(real[0]["deleted"].as_array().unwrap().len(), 2);
    let gone: Vec<_> = all.difference(&left().await).cloned().collect();
    assert_eq!(gone, ["acme__app", "acme__default"]);
    let shared = tool.with("destinations: {database: all}\n");
    assert_eq!(shared.run(&["tenant", "delete", "acme", "--yes"]).await.0, Some(64));
}

/// The same by the APIs of 2.x, which lists its buckets in pages, and of 3.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_deleted_from_versions_2_and_3() {
    let fake = FakeInfluxdb::start(|_| Reply::Status(204, None, "")).await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let (url, token) = (fake.url(), token.display().to_string());
    let journal = format!("disk: {{directory: '{}'}}", directory.path().join("j").display());
    for target in [
        format!("influxdb_v2: {{url: '{url}', org: o, token_file: '{token}'}}"),
        format!("influxdb_v3: {{url: '{url}', token_file: '{token}'}}"),
    ] {
        let others = (0..150).map(|number| format!("other-{number}__app"));
        let own = ["zeta__app".to_owned(), "zeta__x".to_owned()];
        *fake.databases.lock().unwrap() = others.chain(own).collect();
        let tool = Tool::new(directory.path(), &journal).with(&format!("writer: {{{target}}}\n"));
        let lines = tool.lines(&["tenant", "delete", "zeta", "--yes"]).await;
        assert_eq!(lines[0]["deleted"], serde_json::json!(["zeta__app", "zeta__x"]), "{target}");
        assert_eq!(fake.databases.lock().unwrap().len(), 150);
    }
}

/// Topics are made with what the journal demands of them, found again, and refused where they would lose records.
#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_and_held_to_their_demands() {
    let broker = Broker::start().await;
    let directory = tempfile::tempdir().unwrap();
    let journal = |name: &str, more: &str| {
        format!("kafka: {{brokers: '{}', topic: {name}{more}}}", broker.address())
    };
    let made = ", create_topic: {partitions: 3, replication_factor: 1}";
    let tool = Tool::new(directory.path(), &journal("made", made));
    for _ in 0..2 {
        let lines = tool.lines(&["topics"]).await;
        let found: Vec<_> =
            lines.iter().map(|line| (&line["topic"], &line["partitions"])).collect();
        let wanted = [
            ("made", 3),
            ("made-dead-letter", 1),
            ("made-types", 1),
            ("made-logs", 3),
            ("made-logs-dead-letter", 1),
            ("made-traces", 3),
            ("made-traces-dead-letter", 1),
        ];
        let wanted = wanted.map(|(topic, partitions)| (topic.into(), partitions.into()));
        assert_eq!(found, wanted.iter().map(|(t, p): &(Value, Value)| (t, p)).collect::<Vec<_>>());
    }
    // Whoever may not make topics finds those that were made.
    let tool = Tool::new(directory.path(), &journal("made", ""));
    assert_eq!(tool.lines(&["topics"]).await.len(), 7);
    let two_copies = journal("made", ", replication_factor_min: 2");
    let tool = Tool::new(directory.path(), &two_copies);
    are_refused(&tool, 0, "has 1 copies of 2").await;
    let tool = Tool::new(directory.path(), &journal("nowhere", ""));
    are_refused(&tool, 2, "does not exist").await;
    let tool = Tool::new(directory.path(), "disk: {directory: journal}");
    assert_eq!(tool.run(&["topics"]).await, (Some(1), vec![]));
}

/// Topics are refused, one of them in these words; nobody who answers in time is another reason.
async fn are_refused(tool: &Tool, at: usize, words: &str) {
    wait_for(words, || async {
        let (code, lines) = tool.run(&["topics", "--within", "1"]).await;
        assert_eq!(code, Some(1));
        lines.get(at)?["error"].as_str()?.contains(words).then_some(())
    })
    .await;
}
