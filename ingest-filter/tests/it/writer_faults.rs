//! The writer against a target that fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ingest_filter::writer::config::{InfluxdbV2Config, InfluxdbV3Config, TargetConfig};

use crate::fake_influxdb::{FakeInfluxdb, Reply, Write};
use crate::support::{append, appender, record, wait_for};
use crate::writer_file::{Running, get, writer_config};
use crate::writer_influxdb::{influxdb, journal_in, letters, with_body};

const OK: Reply = Reply::Status(204, None, "");
/// How a canary begins where no point of a client was taken yet.
const PROBE: &str = "tidegate_writer_probe ";

fn body(marked: &[u64]) -> String {
    (0..100)
        .map(|number| {
            let mark = if marked.contains(&number) { ",mark=poison" } else { "" };
            format!("m{mark} v={number}i {number}\n")
        })
        .collect()
}

async fn all_stored(fake: &FakeInfluxdb, lines: usize) {
    // A canary may have been taken beside them.
    let points = || fake.lines().into_iter().filter(|line| !line.starts_with(PROBE)).count();
    wait_for("the points", || async { (points() == lines).then_some(()) }).await;
}

/// A database that refuses the marked points, and takes all others.
async fn refuses_poison() -> FakeInfluxdb {
    FakeInfluxdb::start(|write| match write.body.contains("poison") {
        true => Reply::Status(400, None, "{\"error\":\"unable to parse 'm': bad\"}"),
        false => OK,
    })
    .await
}

/// A database that dies on a marked point: the marked points, and only they, are dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn points_that_kill_the_database_are_found() {
    let decide = |write: &Write| if write.body.contains("poison") { Reply::Crash } else { OK };
    let fake = FakeInfluxdb::start(decide).await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(fake.url())).await;
    append(&appender(&journal), vec![with_body(0, body(&[13, 77]))]).await;
    all_stored(&fake, 98).await;
    let found = wait_for("the dead letters", || async {
        let letters = letters(&dead);
        let points: u64 = letters.iter().map(|letter| letter["points"].as_u64().unwrap()).sum();
        (points == 2).then_some(letters)
    })
    .await;
    for letter in &found {
        assert_eq!((&letter["cause"], &letter["status"]), (&"poison".into(), &0.into()));
        assert!(letter["body"].as_str().unwrap().contains("poison"));
    }
    wait_for("the position", || async {
        get(running.admin, "/metrics")
            .await
            .contains("ingest_journal_lag_bytes{signal=\"all\"} 0")
            .then_some(())
    })
    .await;
    running.stop().await;
}

/// A database that fails on everything gets no points declared dead, however long it fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_fails_on_everything_loses_no_point() {
    let writes = Arc::new(AtomicU32::new(0));
    let seen = writes.clone();
    let fake = FakeInfluxdb::start(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
        0..30 => Reply::Status(500, None, "{\"error\":\"no space left on device\"}"),
        _ => OK,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let mut config = influxdb(fake.url());
    config.retry.backoff_max = std::time::Duration::from_millis(20);
    let running = Running::start(&journal, config).await;
    append(&appender(&journal), vec![with_body(0, "m v=1i 1\n")]).await;
    append(&appender(&journal), vec![with_body(1, "m v=2i 2\n")]).await;
    wait_for("the points", || async {
        let lines = fake.lines();
        (lines.contains("m v=1i 1") && lines.contains("m v=2i 2")).then_some(())
    })
    .await;
    running.stop().await;
    assert!(letters(&dead).is_empty());
    assert!(writes.load(Ordering::Relaxed) > 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_database_is_waited_for() {
    let writes = Arc::new(AtomicU32::new(0));
    let seen = writes.clone();
    let fake = FakeInfluxdb::start(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Status(429, Some(1), ""),
        1 => Reply::Status(503, None, ""),
        _ => OK,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(fake.url())).await;
    append(&appender(&journal), vec![with_body(0, body(&[]))]).await;
    all_stored(&fake, 100).await;
    let metrics = get(running.admin, "/metrics").await;
    assert!(metrics.contains("ingest_writer_retries_total{class=\"busy\"} 2"), "{metrics}");
    assert_eq!(writes.load(Ordering::Relaxed), 3, "no write in between");
    running.stop().await;
    assert!(letters(&dead).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_is_halved() {
    let fake = FakeInfluxdb::start(|write| match write.body.len() > 300 {
        true => Reply::Status(413, None, "{\"error\":\"Request Entity Too Large\"}"),
        false => OK,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(fake.url())).await;
    let large = format!("m v=\"{}\" 7\n", "x".repeat(500));
    append(&appender(&journal), vec![with_body(0, body(&[]) + &large)]).await;
    all_stored(&fake, 100).await;
    wait_for("the dead letter", || async { (letters(&dead).len() == 1).then_some(()) }).await;
    running.stop().await;
    assert_eq!(
        (&letters(&dead)[0]["cause"], &letters(&dead)[0]["body"]),
        (&"too_large".into(), &large.into(),)
    );
}

/// A target that refuses everything, and takes everything again while the batch is being halved: it
/// was not about the points, so all of them are written and none becomes a dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_heals_in_the_middle_of_a_batch_costs_no_point() {
    let refuses = "{\"error\":\"partial write: something new dropped=1\"}";
    for (status, words) in [(413, ""), (400, refuses)] {
        // While 100 points are halved down to the first, one by one, and before a canary is due.
        for until in [8, 10, 15, 20] {
            let writes = AtomicU32::new(0);
            let fake = FakeInfluxdb::start(move |_| {
                match writes.fetch_add(1, Ordering::Relaxed) < until {
                    true => Reply::Status(status, None, words),
                    false => OK,
                }
            })
            .await;
            let directory = tempfile::tempdir().unwrap();
            let (journal, dead) = journal_in(directory.path());
            let running = Running::start(&journal, influxdb(fake.url())).await;
            append(&appender(&journal), vec![with_body(0, body(&[]))]).await;
            wait_for("the position", || async {
                let metrics = get(running.admin, "/metrics").await;
                let done = metrics.contains("ingest_journal_lag_bytes{signal=\"all\"} 0");
                (done && metrics.contains("\ningest_writer_batches_total 1\n")).then_some(())
            })
            .await;
            running.stop().await;
            assert!(letters(&dead).is_empty(), "{status}, {until} times");
            all_stored(&fake, 100).await;
        }
    }
}

/// Not known until something answers so: what stands in front of the database, or a database that
/// refuses whatever it is given. No point is given up, and all of them arrive afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_about_points_give_none_up() {
    let refuses = "{\"error\":\"partial write: field type conflict dropped=1\"}";
    let answers = [
        (405, "<html>405 Not Allowed</html>", "failed"),
        (408, "", "failed"),
        (415, "{\"error\":\"unsupported\"}", "failed"),
        (431, "", "failed"),
        (400, "{\"error\":\"timeout\"}", "failed"),
        (400, "<html>The plain HTTP request was sent to HTTPS port</html>", "failed"),
        (200, "<html>please log in</html>", "failed"),
        (302, "", "failed"),
        (500, "{\"error\":\"retention policy not found: x\"}", "retention_policy_missing"),
        (400, refuses, "refusing"),
        (422, refuses, "refusing"),
        (413, "", "refusing"),
    ];
    for (status, text, class) in answers {
        let away = Arc::new(AtomicBool::new(true));
        let heals = Arc::new(AtomicBool::new(false));
        let (is_away, may_heal) = (away.clone(), heals.clone());
        // From a canary on that is not taken: what is refused before one that is was refused by a database that
        // takes points.
        let fake = FakeInfluxdb::start(move |write| {
            let heals = write.body.starts_with(PROBE) && may_heal.load(Ordering::Relaxed);
            match is_away.fetch_and(!heals, Ordering::Relaxed) {
                true => Reply::Status(status, None, text),
                false => OK,
            }
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let (journal, dead) = journal_in(directory.path());
        let mut config = influxdb(fake.url());
        config.retry.backoff_max = Duration::from_millis(20);
        let running = Running::start(&journal, config).await;
        append(&appender(&journal), vec![with_body(0, body(&[3]))]).await;
        let enough = if class == "failed" { 30 } else { 3 };
        wait_for("tries", || async {
            let metrics = get(running.admin, "/metrics").await;
            let name = format!("ingest_writer_retries_total{{class=\"{class}\"}} ");
            let tries: u64 = metrics.split(&name).nth(1)?.lines().next()?.parse().ok()?;
            (tries >= enough).then_some(())
        })
        .await;
        assert!(!running.readiness.is_ready(), "{status}");
        assert!(letters(&dead).is_empty(), "{status} {text}: {:?}", letters(&dead));
        heals.store(true, Ordering::Relaxed);
        if class == "retention_policy_missing" {
            // That is no answer to a point, so no canary follows.
            away.store(false, Ordering::Relaxed);
        }
        all_stored(&fake, 100).await;
        wait_for("readiness", || async { running.readiness.is_ready().then_some(()) }).await;
        running.stop().await;
        assert!(letters(&dead).is_empty(), "{status} {text}");
    }
}

/// A database at its bound of series comes back: it takes no point of the batch, so no write tells that it is
/// there, and none may come for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_back_is_ready_though_it_takes_no_point_of_the_batch() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    let full =
        "{\"error\":\"partial write: max-series-per-database limit exceeded: (1) dropped=1\"}";
    let fake = FakeInfluxdb::start(move |_| match is_away.load(Ordering::Relaxed) {
        true => Reply::Status(503, None, "{\"error\":\"starting\"}"),
        false => Reply::Status(400, None, full),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let mut config = influxdb(fake.url());
    config.retry.backoff_max = Duration::from_millis(20);
    let running = Running::start(&journal, config).await;
    append(&appender(&journal), vec![with_body(0, body(&[]))]).await;
    let waits = async || get(running.admin, "/lanes").await.contains("target_");
    wait_for("the outage", || async { waits().await.then_some(()) }).await;
    assert!(!running.readiness.is_ready());
    away.store(false, Ordering::Relaxed);
    wait_for("the letters", || async { (!letters(&dead).is_empty()).then_some(()) }).await;
    wait_for("readiness", || async { running.readiness.is_ready().then_some(()) }).await;
    wait_for("nothing to wait for", || async { (!waits().await).then_some(()) }).await;
    running.stop().await;
}

/// A point that is written once more, to see whether the database takes any, is one that no later
/// point of its series and time was written after.
#[tokio::test(flavor = "multi_thread")]
async fn a_canary_does_not_bring_back_an_older_value() {
    let fake = refuses_poison().await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(fake.url())).await;
    let appender = appender(&journal);
    append(&appender, vec![with_body(0, "m v=1i 1\nm v=2i 1\n")]).await;
    wait_for("the points", || async { fake.lines().contains("m v=2i 1").then_some(()) }).await;
    append(&appender, vec![with_body(1, "poison v=1i 1\n")]).await;
    wait_for("the dead letter", || async { (letters(&dead).len() == 1).then_some(()) }).await;
    running.stop().await;
    let stored = fake.stored.lock().unwrap().clone();
    let lines: Vec<&str> = stored.iter().flat_map(|write| write.body.lines()).collect();
    assert!(lines.len() > 2, "a canary was written: {lines:?}");
    assert_eq!(lines.last(), Some(&"m v=2i 1"), "{lines:?}");
}

/// A login that is refused holds everything back until the password file is right again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_held_until_the_password_is_right() {
    let fake = FakeInfluxdb::start(|write| match write.authorization.as_deref() {
        // writer:right
        Some("Basic d3JpdGVyOnJpZ2h0") => OK,
        _ => Reply::Status(401, None, "{\"error\":\"authorization failed\"}"),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let password = directory.path().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let mut config = influxdb(fake.url());
    if let TargetConfig::InfluxdbV1(target) = &mut config.target {
        target.login = Some(("writer".to_owned(), password.clone()));
    }
    let running = Running::start(&journal, config).await;
    append(&appender(&journal), vec![with_body(0, body(&[]))]).await;
    wait_for("the alarm", || async {
        running.readiness.blockers().join("").contains("refuses our login").then_some(())
    })
    .await;
    std::fs::write(&password, "right\n").unwrap();
    all_stored(&fake, 100).await;
    running.stop().await;
    assert!(letters(&dead).is_empty());
}

/// A batch of one trace hands the trace on.
#[tokio::test(flavor = "multi_thread")]
async fn the_trace_reaches_the_database() {
    let fake = FakeInfluxdb::start(|_| OK).await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(fake.url())).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut traced = record("acme", 0, 1);
    traced.traceparent = Some(traceparent.to_owned());
    append(&appender(&journal), vec![traced]).await;
    all_stored(&fake, 1).await;
    let stored = fake.stored.lock().unwrap().clone();
    assert_eq!(stored[0].traceparent.as_deref(), Some(traceparent));
    assert_eq!(stored[0].target, "/write?precision=n&db=acme__default");
    running.stop().await;
}

/// Dead letters that cannot be stored stop the lane; nothing is skipped, and it goes on after.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_stored_blocks() {
    let fake = refuses_poison().await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(fake.url())).await;
    // A directory in the place of the file.
    std::fs::remove_file(&dead).unwrap();
    std::fs::create_dir(&dead).unwrap();
    let appender = appender(&journal);
    append(&appender, vec![with_body(0, body(&[5]))]).await;
    wait_for("the failure", || async {
        let metrics = get(running.admin, "/metrics").await;
        let failures = metrics.split("\ningest_writer_dead_letter_failures_total ").nth(1)?;
        (!failures.starts_with("0\n")).then_some(())
    })
    .await;
    append(&appender, vec![with_body(1, "later v=1i 1\n")]).await;
    assert!(!fake.lines().contains("later v=1i 1"), "nothing passes a letter that is not stored");
    std::fs::remove_dir(&dead).unwrap();
    wait_for("what follows", || async { fake.lines().contains("later v=1i 1").then_some(()) })
        .await;
    running.stop().await;
    assert_eq!(letters(&dead).len(), 1);
}

/// A process that ends while the database is away loses nothing: the next one writes it.
#[tokio::test(flavor = "multi_thread")]
async fn stopping_while_the_database_is_away_keeps_the_points() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = journal_in(directory.path());
    append(&appender(&journal), vec![with_body(0, body(&[]))]).await;
    let away = format!("http://127.0.0.1:{}", crate::kafka_broker::free_port());
    let running = Running::start(&journal, influxdb(away)).await;
    wait_for("a retry", || async {
        get(running.admin, "/metrics").await.contains("class=\"unreachable\"").then_some(())
    })
    .await;
    running.stop().await;
    let fake = FakeInfluxdb::start(|_| OK).await;
    let running = Running::start(&journal, influxdb(fake.url())).await;
    all_stored(&fake, 100).await;
    running.stop().await;
}

/// The newer APIs, by their own names, with a token; what they answer to bad points isolates
/// these too.
#[tokio::test(flavor = "multi_thread")]
async fn versions_2_and_3_are_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let v2 = |url| {
        TargetConfig::InfluxdbV2(InfluxdbV2Config {
            url,
            org: "our org".to_owned(),
            create_bucket: true,
            token_file: token.clone(),
            tls: None,
            request_timeout: Duration::from_secs(10),
        })
    };
    let v3 = |url| {
        TargetConfig::InfluxdbV3(InfluxdbV3Config {
            url,
            token_file: Some(token.clone()),
            tls: None,
            request_timeout: Duration::from_secs(10),
        })
    };
    let refused_v2 = Reply::Status(
        422,
        None,
        "{\"code\":\"invalid\",\"message\":\"partial write: conflict dropped=1\"}",
    );
    let refused_v3 = Reply::Status(
        400,
        None,
        "{\"error\":\"partial write\",\"data\":[{\"line_number\":1,\"error_message\":\"conflict\"}]}",
    );
    struct Version<'a> {
        target: &'a dyn Fn(String) -> TargetConfig,
        refused: Reply,
        path: &'a str,
        authorization: &'a str,
        message: &'a str,
    }
    let versions = [
        Version {
            target: &v2,
            refused: refused_v2,
            path: "/api/v2/write?org=our%20org&precision=ns&bucket=acme__default&db=acme__default",
            authorization: "Token s3cret",
            message: "partial write: conflict dropped=1",
        },
        Version {
            target: &v3,
            refused: refused_v3,
            path: "/api/v3/write_lp?precision=nanosecond&db=acme__default",
            authorization: "Bearer s3cret",
            message: "partial write: conflict",
        },
    ];
    for Version { target, refused, path, authorization, message } in versions {
        let Reply::Status(status, _, text) = refused else { panic!("a status") };
        let fake = FakeInfluxdb::start(move |write| match write.body.contains("poison") {
            true => Reply::Status(status, None, text),
            false => OK,
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let (journal, dead) = journal_in(directory.path());
        let running = Running::start(&journal, writer_config(target(fake.url()))).await;
        append(&appender(&journal), vec![with_body(0, body(&[41]))]).await;
        all_stored(&fake, 99).await;
        wait_for("the dead letter", || async { (letters(&dead).len() == 1).then_some(()) }).await;
        running.stop().await;
        let stored = fake.stored.lock().unwrap().clone();
        assert_eq!(stored[0].target, path);
        assert_eq!(stored[0].authorization.as_deref(), Some(authorization));
        assert_eq!(letters(&dead)[0]["message"], message);
    }
}

/// 1.x echoes what it refuses; however much that is, a letter holds little of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_is_cut() {
    let endless: &'static str =
        Box::leak(format!("unable to parse '{}", "bad ".repeat(1 << 20)).into_boxed_str());
    let fake = FakeInfluxdb::start(move |write| match write.body.contains("poison") {
        true => Reply::Status(400, None, endless),
        false => OK,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let running = Running::start(&journal, influxdb(fake.url())).await;
    append(&appender(&journal), vec![with_body(0, body(&[5]))]).await;
    all_stored(&fake, 99).await;
    wait_for("the dead letter", || async { (letters(&dead).len() == 1).then_some(()) }).await;
    running.stop().await;
    let message = letters(&dead)[0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("bad bad ") && message.len() <= 1024, "{}", message.len());
}

/// A lane that does not keep up writes several requests at once; each series stays in order.
#[tokio::test(flavor = "multi_thread")]
async fn strands_are_written_at_once_and_series_in_order() {
    let writes = AtomicU32::new(0);
    let fake = FakeInfluxdb::start(move |_| match writes.fetch_add(1, Ordering::Relaxed) {
        // The first batch is written as one request.
        0 => OK,
        _ => Reply::StoreTogether,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = journal_in(directory.path());
    let appender = appender(&journal);
    for number in 0..400_u64 {
        let shard = (number % 16) as u32;
        let body = format!("m,s={shard} v={number}i {number}\n");
        let record = ingest_filter::record::Record { shard, ..with_body(number, body) };
        append(&appender, vec![record]).await;
    }
    let mut config = influxdb(fake.url());
    config.batch.lines_max = 50;
    let running = Running::start(&journal, config).await;
    all_stored(&fake, 400).await;
    running.stop().await;
    let stored = fake.stored.lock().unwrap().clone();
    let mut last = std::collections::BTreeMap::new();
    for line in stored.iter().flat_map(|write| write.body.lines()) {
        let (series, rest) = line.split_once(' ').unwrap();
        let time: u64 = rest.split(' ').nth(1).unwrap().parse().unwrap();
        let before = last.insert(series.to_owned(), time);
        assert!(before.is_none_or(|before| before < time), "{line}");
    }
    assert_eq!(last.len(), 16);
}
