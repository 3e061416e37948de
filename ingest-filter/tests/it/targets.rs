//! What every target keeps to, as one suite: InfluxDB 1.6.7 and VictoriaMetrics as they are, 2.x and
//! 3 as documented, and a file.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use ingest_filter::destination::Destination;
use ingest_filter::target::Target;
use ingest_filter::target::answer::Answer;
use ingest_filter::writer::config::TargetConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fake_influxdb::{FakeInfluxdb, Reply};
use crate::support::wait_for;
use crate::target_subjects::{APIS, Api, BODY_BYTES_MAX, SECRET, Server, Subject};
use crate::target_subjects::{config, open, secret};

/// In milliseconds, which is as fine as VictoriaMetrics has it.
const TIME: i64 = 1_700_000_000_000;

async fn all() -> Vec<Subject> {
    vec![
        Subject::influxd().await,
        Subject::victoria(Api::V1).await,
        Subject::victoria(Api::V2).await,
        Subject::documented(Api::V2).await,
        Subject::documented(Api::V3).await,
        Subject::file(),
    ]
}

fn to(name: &str) -> Destination {
    Destination { name: name.to_owned(), tags: String::new() }
}

fn lines(values: impl IntoIterator<Item = i64>) -> Bytes {
    let line = |value| format!("m,a=b v={value}i {}000000\n", TIME + value);
    Bytes::from(values.into_iter().map(line).collect::<String>())
}

fn points(values: impl IntoIterator<Item = i64>) -> BTreeSet<(i64, i64)> {
    values.into_iter().map(|value| (TIME + value, value)).collect()
}

/// Writes into a database that is made where it is missing, as the writer does.
async fn write(target: &dyn Target, to: &Destination, body: Bytes) -> Answer {
    match target.write(to, body.clone(), None).await {
        Answer::DatabaseMissing => {
            assert!(target.create(to).await, "{} is not made", to.name);
            target.write(to, body, None).await
        }
        answer => answer,
    }
}

async fn arrives(subject: &Subject, database: &str, expected: &BTreeSet<(i64, i64)>) {
    let what = format!("points of {database} in {}", subject.name);
    wait_for(&what, || async { (subject.points(database).await == *expected).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_stored_where_they_belong_and_twice_is_once() {
    for subject in all().await {
        let name = &subject.name;
        assert!(subject.target.ping().await, "{name}");
        for _ in 0..2 {
            let answer = write(&*subject.target, &to("acme__default"), lines(0..100)).await;
            assert_eq!(answer, Answer::Written, "{name}");
        }
        // The same series and times of another tenant, and of another database of the same one.
        for (other, values) in [("zeta__default", 50..150), ("acme__app", 0..1)] {
            let answer = write(&*subject.target, &to(other), lines(values)).await;
            assert_eq!(answer, Answer::Written, "{name}");
        }
        arrives(&subject, "acme__default", &points(0..100)).await;
        arrives(&subject, "zeta__default", &points(50..150)).await;
        arrives(&subject, "acme__app", &points(0..1)).await;
        // Nothing to write is no failure, and changes nothing.
        let answer = write(&*subject.target, &to("acme__app"), Bytes::new()).await;
        assert_eq!(answer, Answer::Written, "{name}");
        arrives(&subject, "acme__app", &points(0..1)).await;
    }
}

/// A database is made when it is first written to, once and again.
#[tokio::test(flavor = "multi_thread")]
async fn databases_are_made_where_there_are_any() {
    for subject in all().await {
        let name = &subject.name;
        let answer = subject.target.write(&to("new__x"), lines(0..1), None).await;
        let makes = match &subject.server {
            Server::Influxd(_) => true,
            Server::Fake(_) => name.starts_with("V2"),
            Server::Victoria(_) | Server::File(_) => false,
        };
        let expected = if makes { Answer::DatabaseMissing } else { Answer::Written };
        assert_eq!(answer, expected, "{name}");
        if makes {
            assert!(subject.target.create(&to("new__x")).await, "{name}");
            assert!(subject.target.create(&to("new__x")).await, "{name}: by another writer");
            let answer = subject.target.write(&to("new__x"), lines(0..1), None).await;
            assert_eq!(answer, Answer::Written, "{name}");
        }
        arrives(&subject, "new__x", &points(0..1)).await;
    }
}

/// One point of another type among good ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_point_is_named() {
    for subject in all().await {
        let (name, to) = (&subject.name, to("acme__default"));
        assert_eq!(write(&*subject.target, &to, lines(0..1)).await, Answer::Written, "{name}");
        let bad = format!("m,a=b v=\"x\" {}000000\n", TIME + 1);
        let body = [&lines(2..3)[..], bad.as_bytes(), &lines(3..4)[..]].concat();
        let answer = subject.target.write(&to, body.into(), None).await;
        match &subject.server {
            // The other two say nothing: a file has no types, VictoriaMetrics stores a 0.
            Server::Influxd(_) | Server::Fake(_) => {
                let Answer::Refused { message, .. } = &answer else { panic!("{name}: {answer:?}") };
                let words = message.contains("type conflict") || message.contains("column type");
                assert!(words, "{name}: {message}");
            }
            Server::Victoria(_) | Server::File(_) => assert_eq!(answer, Answer::Written, "{name}"),
        }
        // A neighbour by itself is taken by all.
        assert_eq!(write(&*subject.target, &to, lines(2..4)).await, Answer::Written, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_told_from_what_fails() {
    for subject in all().await {
        let (name, to) = (&subject.name, to("acme__default"));
        // 1.6.7 counts compressed bytes, so this is nothing that compresses well.
        let noise = |number: i64| number.wrapping_mul(6_364_136_223_846_793_005).rotate_left(17);
        let line = |number| format!("m,a=b v={}i {}000000\n", noise(number), TIME + number);
        let large: String = (0..BODY_BYTES_MAX as i64 / 5).map(line).collect();
        let answer = write(&*subject.target, &to, large.into()).await;
        match &subject.server {
            Server::Influxd(_) | Server::Fake(_) => assert_eq!(answer, Answer::TooLarge, "{name}"),
            Server::File(_) => assert_eq!(answer, Answer::Written, "{name}"),
            Server::Victoria(_) => {
                assert_eq!(answer, Answer::Written, "{name}");
                // Its bound is on a line.
                let line = format!("m,a={} v=1i {TIME}000000\n", "x".repeat(300 << 10));
                let answer = write(&*subject.target, &to, line.into()).await;
                assert!(matches!(answer, Answer::Refused { .. }), "{name}: {answer:?}");
            }
        }
    }
}

/// A login that is wrong is told apart from all else, and the file is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_followed() {
    for subject in all().await {
        let (name, to) = (&subject.name, to("acme__default"));
        let has_login = match &subject.server {
            Server::Victoria(_) => name.ends_with("V1"),
            Server::Influxd(_) | Server::Fake(_) => true,
            Server::File(_) => false,
        };
        assert_eq!(write(&*subject.target, &to, lines(0..1)).await, Answer::Written, "{name}");
        if !has_login {
            continue;
        }
        // The server's secret is another one from here on, as far as this client goes.
        std::fs::write(&subject.secret, "wrong\n").unwrap();
        let api = match &subject.server {
            Server::Fake(_) if name.starts_with("V2") => Api::V2,
            Server::Fake(_) => Api::V3,
            _ => Api::V1,
        };
        let url = match &subject.server {
            Server::Influxd(server) => server.url(),
            Server::Victoria(server) => server.url(),
            Server::Fake(server) => server.url(),
            Server::File(_) => String::new(),
        };
        let target = open(&config(api, url, &subject.secret));
        let answer = target.write(&to, lines(1..2), None).await;
        assert_eq!(answer, Answer::Unauthorized, "{name}");
        std::fs::write(&subject.secret, format!("{SECRET}\n")).unwrap();
        // The refusal after the change is what makes it read the file.
        let answer = target.write(&to, lines(1..2), None).await;
        assert_eq!(answer, Answer::Unauthorized, "{name}");
        assert_eq!(target.write(&to, lines(1..2), None).await, Answer::Written, "{name}");
        arrives(&subject, "acme__default", &points(0..2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_or_silent_is_no_refusal() {
    let (_directory, secret) = secret();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent_url, closed_url) = (url(&silent), url(&closed));
    drop(closed);
    for api in APIS {
        let away = open(&config(api, closed_url.clone(), &secret));
        let answer = away.write(&to("x"), lines(0..1), None).await;
        assert!(matches!(answer, Answer::Unreachable(_)), "{api:?}: {answer:?}");
        assert!(!away.ping().await);
        assert!(!away.create(&to("x")).await);
        assert!(away.databases().await.is_err());
        let mut config = config(api, silent_url.clone(), &secret);
        let request_timeout = Duration::from_millis(50);
        match &mut config {
            TargetConfig::InfluxdbV1(it) => it.request_timeout = request_timeout,
            TargetConfig::InfluxdbV2(it) => it.request_timeout = request_timeout,
            TargetConfig::InfluxdbV3(it) => it.request_timeout = request_timeout,
            TargetConfig::File(_) => {}
        }
        let answer = open(&config).write(&to("x"), lines(0..1), None).await;
        assert!(matches!(&answer, Answer::Broken(why) if why.contains("no answer")), "{answer:?}");
    }
    let file = Subject::file();
    let Server::File(path) = &file.server else { panic!("a file") };
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let answer = file.target.write(&to("x"), lines(0..1), None).await;
    assert!(matches!(answer, Answer::Unreachable(_)), "{answer:?}");
    assert!(!file.target.ping().await);
}

fn url(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

/// A proxy that redirects, does not know the method, or answers with a page of its own: none of it
/// is about a point, nothing counts as written, and no redirect is followed.
#[tokio::test(flavor = "multi_thread")]
async fn what_something_in_between_says_is_no_refusal() {
    const PAGE: &str = "<html><body>a proxy's page</body></html>";
    let (_directory, secret) = secret();
    for status in [200, 301, 302, 307, 308, 400, 405, 407, 408, 415, 422, 431, 500, 502, 504] {
        let fake = FakeInfluxdb::start(move |_| Reply::Status(status, None, PAGE)).await;
        for api in APIS {
            let target = open(&config(api, fake.url(), &secret));
            let answer = target.write(&to("x"), lines(0..1), None).await;
            assert!(matches!(answer, Answer::Failed { .. }), "{api:?} {status}: {answer:?}");
        }
    }
    for status in [429, 503] {
        let fake = FakeInfluxdb::start(move |_| Reply::Status(status, Some(7), PAGE)).await;
        for api in APIS {
            let target = open(&config(api, fake.url(), &secret));
            let answer = target.write(&to("x"), lines(0..1), None).await;
            let expected = Answer::Busy { retry_after: Some(Duration::from_secs(7)) };
            assert_eq!(answer, expected, "{api:?} {status}");
        }
    }
}

/// A 200 means "written" only where it is known to have no body: not where the body never came, and
/// not where its words are empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_200_whose_body_breaks_off_is_not_written() {
    let (_directory, secret) = secret();
    let answers = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n", "broken"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "broken"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"error\":\"\",\"ok\":\"no\"}", "failed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "written"),
    ];
    for (answer, expected) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(&listener);
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    assert!(stream.read(&mut request).await.unwrap() > 0);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                    // What is not read would break the answer off too.
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
        for api in APIS {
            let target = open(&config(api, url.clone(), &secret));
            let said = target.write(&to("x"), lines(0..1), None).await;
            let said = match said {
                Answer::Broken(_) => "broken",
                Answer::Failed { .. } => "failed",
                Answer::Written => "written",
                other => panic!("{other:?}"),
            };
            assert_eq!(said, expected, "{api:?}: {answer}");
        }
        server.abort();
    }
}

/// VictoriaMetrics has no databases that could be listed: that is said, and is not "none".
#[tokio::test(flavor = "multi_thread")]
async fn databases_that_cannot_be_listed_are_not_none() {
    let subject = Subject::victoria(Api::V1).await;
    let said = subject.target.databases().await.expect_err("no list");
    assert!(said.contains("VictoriaMetrics"), "{said}");
    let influxd = Subject::influxd().await;
    assert_eq!(write(&*influxd.target, &to("acme__x"), lines(0..1)).await, Answer::Written);
    let listed = influxd.target.databases().await.expect("a list");
    assert!(listed.iter().any(|database| database.name == "acme__x"), "{listed:?}");
}
