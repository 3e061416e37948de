//! Metrics, logs and traces of one tenant on a real Kafka and InfluxDB: each in its own topic, and
//! what befalls one topic is no matter to the others.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ingest_filter::journal::config::{CreateTopic, JournalConfig, KafkaConfig};
use ingest_filter::journal::read_records;
use ingest_filter::signal::Signal;
use serde_json::{Value, json};

use crate::commands::Tool;
use crate::fake_influxdb::{FakeInfluxdb, Reply};
use crate::influxd::Influxd;
use crate::kafka_broker::Broker;
use crate::process;
use crate::support::{append, appender, wait_for};
use crate::writer_file::{Running, get};
use crate::writer_influxdb::{influxdb, with_body};

/// The answer to one request of the tenant `acme`, headers and all.
fn post(address: SocketAddr, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("listening");
    let content_type = if path == "/write" { "text/plain" } else { "application/json" };
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: a\r\nx-tidegate-tenant: acme\r\nconnection: close\r\n\
         content-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

/// A time that differs from every other, nanoseconds.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

/// What clients send.
struct Client(SocketAddr);

impl Client {
    fn metric(&self) -> u16 {
        status(&post(self.0, "/write", &format!("m v=1i {}\n", now_ns())))
    }

    fn log(&self) -> String {
        let record = json!({
            "timeUnixNano": now_ns().to_string(), "body": { "stringValue": "hello" }
        });
        let logs = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record] }] }] });
        post(self.0, "/v1/logs", &logs.to_string())
    }

    fn span(&self) -> u16 {
        let at = now_ns();
        let span = json!({
            "traceId": "5b8efff798038103d269b633813fc60c",
            "spanId": "eee19b7ec3c1b174",
            "name": "op",
            "startTimeUnixNano": at.to_string(),
            "endTimeUnixNano": (at + 1).to_string(),
        });
        let spans = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
        status(&post(self.0, "/v1/traces", &spans.to_string()))
    }
}

/// How many points each measurement has in the database.
async fn stored(server: &Influxd) -> [u64; 3] {
    let mut counts = [0; 3];
    for (count, field) in
        counts.iter_mut().zip(["v from m", "body from logs", "span_id from spans"])
    {
        *count = server.rows(&format!("select {field}")).await.len() as u64;
    }
    counts
}

fn config(broker: &Broker, more: &str) -> String {
    format!("kafka: {{brokers: '{}', topic: points{more}}}", broker.address())
}

/// A gateway that may make no topics, once it is ready.
async fn gateway(directory: &Path, journal: &str) -> (process::Running, Client, SocketAddr) {
    let text = format!(
        "journal: {{{journal}}}\n\
         gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}}\n"
    );
    let own = directory.join("gateway");
    std::fs::create_dir_all(&own).unwrap();
    let (running, serving) = process::gateway_that_serves(&process::config(&own, &text));
    let address = |key: &str| serving[key].as_str().unwrap().parse::<SocketAddr>().unwrap();
    let (address, admin) = (address("address"), address("admin"));
    wait_for("readiness", || async {
        get(admin, "/readyz").await.contains("200 OK").then_some(())
    })
    .await;
    (running, Client(address), admin)
}

fn journal(broker: &Broker, create_topic: Option<CreateTopic>) -> JournalConfig {
    JournalConfig::Kafka(KafkaConfig {
        topic: "points".to_owned(),
        dead_letter_topic: "points-dead-letter".to_owned(),
        types_topic: "points-types".to_owned(),
        logs_topic: Some("points-logs".to_owned()),
        traces_topic: Some("points-traces".to_owned()),
        create_topic,
        ..KafkaConfig::new(broker.address())
    })
}

/// How many records the topic of a signal has.
async fn journalled(journal: &JournalConfig, signal: Signal) -> u64 {
    let stream = journal.stream_of(signal).journal;
    let count = move || {
        let mut count = 0;
        read_records(&stream, None, |_| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        })
        .map(|()| count)
    };
    tokio::task::spawn_blocking(count).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_signal_has_its_topic_and_none_holds_up_another() {
    let (broker, server) = (Broker::start().await, Influxd::start().await);
    let directory = tempfile::tempdir().unwrap();
    let made = ", create_topic: {partitions: 3, replication_factor: 1}";
    let makes = Tool::new(directory.path(), &config(&broker, made))
        .with(&format!("writer: {{influxdb_v1: {{url: '{}'}}}}\n", server.url()));
    assert_eq!(makes.lines(&["topics"]).await.len(), 7);
    let (_gateway, client, admin) = gateway(directory.path(), &config(&broker, "")).await;
    let journal = journal(&broker, None);
    let writer = Running::start(&journal, influxdb(server.url())).await;

    assert_eq!((client.metric(), status(&client.log()), client.span()), (204, 200, 200));
    wait_for("one of each", || async { (stored(&server).await == [1, 1, 1]).then_some(()) }).await;
    for signal in Signal::ALL {
        assert_eq!(journalled(&journal, signal).await, 1, "{}", signal.name());
    }
    the_books_are_of_all_topics(&makes).await;
    let at = server.rows("select body from logs").await[0][0].to_string();
    let found = makes.lines(&["audit", "find", "--tenant", "acme", "--at", &at]).await;
    let record = found[0]["record"].as_str().unwrap();
    assert!(found.len() == 1 && record.starts_with("logs/"), "{found:?}");
    let shown = makes.lines(&["audit", "record", record]).await;
    assert_eq!((&shown[0]["signal"], &shown[0]["state"]), (&"logs".into(), &"written".into()));
    let metrics = wait_for("the lanes of all topics", || async {
        let metrics = get(writer.admin, "/metrics").await;
        let lanes = |signal: &str| format!("ingest_journal_lanes{{signal=\"{signal}\"}} 3\n");
        let all = ["metrics", "logs", "traces"].map(lanes);
        all.iter().all(|line| metrics.contains(line)).then_some(metrics)
    })
    .await;
    assert!(metrics.contains("ingest_writer_points_written_total 3\n"), "{metrics}");

    // The topic of the logs is gone: its clients are told to come again, and nobody else is.
    broker.tool("org.apache.kafka.tools.TopicCommand", &["--delete", "--topic", "points-logs"]);
    let refused = wait_for("a refusal", || {
        assert_eq!((client.metric(), client.span()), (204, 200));
        let answer = client.log();
        std::future::ready((status(&answer) == 503).then_some(answer))
    })
    .await;
    assert!(refused.to_ascii_lowercase().contains("\r\nretry-after: "), "{refused}");
    wait_for("the warning", || async {
        let page = get(admin, "/readyz").await;
        assert!(page.contains("200 OK"), "{page}");
        page.contains("journal of logs: topic 'points-logs'").then_some(())
    })
    .await;
    let before = stored(&server).await;
    assert_eq!((client.metric(), client.span()), (204, 200));
    wait_for("points beside the topic that is gone", || async {
        let now = stored(&server).await;
        (now[0] > before[0] && now[2] > before[2]).then_some(())
    })
    .await;

    // It is made again.
    assert_eq!(makes.lines(&["topics"]).await.len(), 7);
    wait_for("logs", || std::future::ready((status(&client.log()) == 200).then_some(()))).await;
    wait_for("the log that came after", || async {
        (stored(&server).await[1] > before[1]).then_some(())
    })
    .await;
    writer.stop().await;
    let totals = makes.lines(&["audit", "totals"]).await;
    let all = totals.last().unwrap();
    let number = |key: &str| all[key].as_u64().unwrap();
    assert_eq!((number("queued"), &all["balances"]), (0, &true.into()), "{all}");
    assert_eq!(number("written"), number("journalled"));
    the_database_is_asked_what_it_has(&makes, &server).await;
}

/// The database has the values that the journal handed on, until somebody takes some away.
async fn the_database_is_asked_what_it_has(tool: &Tool, server: &Influxd) {
    let rows = tool.lines(&["audit", "stored", "--tenant", "acme"]).await;
    let (all, rows) = rows.split_last().unwrap();
    let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
    assert!(number(all, "missing") == 0 && number(all, "journalled") > 3, "{all}");
    let named: BTreeSet<_> = rows.iter().map(|row| row["measurement"].as_str().unwrap()).collect();
    assert_eq!(named, BTreeSet::from(["logs", "m", "spans"]));
    assert!(rows.iter().all(|row| row["stored_in"] == "acme__default"), "{rows:?}");
    assert_eq!(tool.lines(&["audit", "stored", "--tenant", "zeta"]).await.len(), 1);
    server.rows("drop measurement spans").await;
    let (code, rows) = tool.run(&["audit", "stored", "--signal", "traces"]).await;
    let (all, rows) = rows.split_last().unwrap();
    assert_eq!((code, number(all, "stored")), (Some(1), 0), "{rows:?}");
    assert_eq!(number(all, "missing"), number(all, "journalled"));
    let metrics = tool.lines(&["audit", "stored", "--signal", "metrics"]).await;
    assert_eq!(number(metrics.last().unwrap(), "missing"), 0);
}

/// One point of each signal is in the books once, under the name of its topic.
async fn the_books_are_of_all_topics(tool: &Tool) {
    let lines = wait_for("no lag", || async {
        let lines = tool.lines(&["lag"]).await;
        lines.iter().all(|line| line["held_up_by"] == "nothing").then_some(lines)
    })
    .await;
    let of = |signal: &str| lines.iter().filter(|line| line["signal"] == signal).count();
    assert_eq!(["metrics", "logs", "traces"].map(of), [3, 3, 3], "{lines:?}");
    let lag = tool.lines(&["lag", "--signal", "traces"]).await;
    assert!(lag.len() == 3 && lag.iter().all(|line| line["signal"] == "traces"), "{lag:?}");
    let journalled = async |signal: &[&str]| {
        let arguments = [&["audit", "totals"], signal].concat();
        let lines = tool.lines(&arguments).await;
        let all = lines.last().unwrap();
        assert_eq!((&all["written"], &all["balances"]), (&all["journalled"], &true.into()));
        all["journalled"].as_u64().unwrap()
    };
    assert_eq!(journalled(&[]).await, 3);
    assert_eq!(journalled(&["--signal", "logs"]).await, 1);
}

/// A letter is of its topic: listed under its name, and put back where it came from.
#[tokio::test(flavor = "multi_thread")]
async fn letters_of_logs_are_replayed_as_logs() {
    let broker = Broker::start().await;
    let directory = tempfile::tempdir().unwrap();
    let made = ", create_topic: {partitions: 1, replication_factor: 1}";
    let tool = Tool::new(directory.path(), &config(&broker, made));
    let refuses = Arc::new(AtomicBool::new(true));
    let is_refusing = refuses.clone();
    let fake = FakeInfluxdb::start(move |write| {
        match write.body.contains("poison") && is_refusing.load(Ordering::Relaxed) {
            true => Reply::Status(400, None, "{\"error\":\"unable to parse 'm': not yet\"}"),
            false => Reply::Status(204, None, ""),
        }
    })
    .await;
    let create_topic = CreateTopic { partitions: 1, replication_factor: 1 };
    let journal = journal(&broker, Some(create_topic));
    let writer = Running::start(&journal, influxdb(fake.url())).await;
    for signal in [Signal::Metrics, Signal::Logs] {
        let body = format!("m,mark=poison,of={} v=2i 2\n", signal.name());
        let appender = appender(&journal.stream_of(signal).journal);
        append(&appender, vec![with_body(0, body.clone())]).await;
    }
    let listed = wait_for("both letters", || async {
        let lines = tool.lines(&["dlq", "list"]).await;
        (lines.len() == 3).then_some(lines)
    })
    .await;
    let ids: Vec<_> = listed[..2].iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["0:0", "logs/0:0"]);
    let of_logs = tool.lines(&["dlq", "list", "--signal", "logs"]).await;
    assert_eq!((of_logs.len(), &of_logs[0]["id"]), (2, &Value::from("logs/0:0")));
    let shown = tool.lines(&["dlq", "show", "logs/0:0"]).await;
    assert_eq!(shown[0]["body"], "m,mark=poison,of=logs v=2i 2\n");

    refuses.store(false, Ordering::Relaxed);
    let replayed = tool.lines(&["dlq", "replay", "--signal", "logs"]).await;
    assert_eq!(replayed[0]["letters"], 1);
    wait_for("the point", || async {
        fake.lines().contains("m,mark=poison,of=logs v=2i 2").then_some(())
    })
    .await;
    assert!(!fake.lines().contains("m,mark=poison,of=metrics v=2i 2"), "of another topic");
    let listed = tool.lines(&["dlq", "list"]).await;
    assert_eq!((&listed[0]["replayed"], &listed[1]["replayed"]), (&false.into(), &true.into()));
    assert_eq!(journalled(&journal, Signal::Logs).await, 2);
    assert_eq!(journalled(&journal, Signal::Metrics).await, 1);
    wait_for("balanced books", || async {
        let lines = tool.lines(&["audit", "totals"]).await;
        let all = lines.last().unwrap();
        let numbers = ["admitted", "replayed", "journalled", "written", "dead_lettered"]
            .map(|key| all[key].as_i64().unwrap());
        (numbers == [2, 1, 3, 1, 2]).then_some(())
    })
    .await;
    writer.stop().await;
}
