//! What the gateway writes is what a real InfluxDB 1.6.7 takes and gives back: nothing a client
//! sends may crash it or be read differently.

use std::borrow::Cow;

use ingest_filter::line_protocol::{Dialect, Lines, Precision};
use ingest_filter::point::{Point, encode};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::influxd::Influxd;

const DIALECT: Dialect =
    Dialect { precision: Precision::Nanoseconds, unsigned: false, line_bytes_max: 1 << 20 };

/// The canonical form of the good lines of a body, each with a measurement of its own, so that
/// the types of their fields cannot clash.
fn canonical(body: &[u8], next: &mut usize) -> Vec<u8> {
    let (mut lines, mut point, mut out) = (Lines::new(body, DIALECT), Point::default(), Vec::new());
    while let Some(line) = lines.next(&mut point) {
        if line.is_ok() {
            point.measurement = Cow::Owned(format!("c{next}{}", point.measurement));
            *next += usize::from(encode(&mut point, 1_700_000_000, &mut out).is_ok());
        }
    }
    out
}

async fn write(server: &Influxd, body: &[u8]) -> String {
    let address = server.url().trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /write?db=acme__default&precision=ns HTTP/1.1\r\nhost: {address}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn server() -> Influxd {
    let server = Influxd::start().await;
    server.rows("create database acme__default").await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn influxdb_takes_everything_that_is_accepted() {
    let mut server = server().await;
    let mut runner = TestRunner::deterministic();
    let name = r##"([a-c"\\#]|\\[, =]|é){1,6}"##;
    let value = r##"-?[0-9]{1,3}(\.[0-9]{0,3})?(e-?[0-9]{1,3})?|[0-9]{1,18}i|t|"([a, =\n\r\t\\#é]|\\"|\\\\){0,8}""##;
    let line = format!(
        "{name}(,{name}={name}){{0,3}} {name}=({value})(,{name}=({value})){{0,2}}( [0-9]{{1,18}})?"
    );
    let lines = proptest::string::string_regex(&line).unwrap();
    let (mut next, mut written) = (0, 0);
    for _ in 0..2000 {
        let body = lines.new_tree(&mut runner).unwrap().current();
        let canonical = canonical(body.as_bytes(), &mut next);
        if !canonical.is_empty() {
            let answer = write(&server, &canonical).await;
            let text = String::from_utf8_lossy(&canonical);
            assert!(answer.starts_with("HTTP/1.1 204 "), "{text:?} of {body:?}: {answer}");
            written += 1;
        }
    }
    assert!(written > 300, "{written}");
    let tags: String = (0..98).map(|index| format!(",t{index}=v")).collect();
    let many = canonical(format!("m{tags} f=1").as_bytes(), &mut next);
    assert!(write(&server, &many).await.starts_with("HTTP/1.1 204 "));
    assert!(server.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn influxdb_gives_back_what_was_sent() {
    let server = server().await;
    let body = concat!(
        r#"m,dir=C:\temp,a\ b=c\,d\=e big=1.7976931348623157e308,small=5e-324,whole=3,n=-9223372036854775808i,"#,
        r#"up=true,text="say \"hi\" \\ C:\new"#,
        "\n",
        r#"two, = é" 1700000000000000001"#,
    );
    let canonical = canonical(body.as_bytes(), &mut 0);
    let answer = write(&server, &canonical).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let rows = server.rows("select big,small,whole,up,text,dir,\"a b\" from c0m").await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row[1].as_f64(), Some(f64::MAX));
    assert!(row[2].as_f64().is_some_and(|small| small < 1e-323));
    assert_eq!(row[3].as_f64(), Some(3.0));
    assert_eq!(row[4], true);
    assert_eq!(row[5], "say \"hi\" \\ C:\\new\ntwo, = é");
    assert_eq!((&row[6], &row[7]), (&r"C:\temp".into(), &"c,d=e".into()));
}
