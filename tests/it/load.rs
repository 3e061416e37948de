//! The load generator against servers that are good, absent, dying, silent or wrong: a run with
//! anything but verdicts in it has no figures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::child::Child;
use tests::load::engine::{Engine, Target};
use tests::load::scenario::Scenario;
use tests::load::schedule::{Amount, Pace};
use tests::load::traffic::Traffic;
use tests::load::wire::grpc::{RATE_LIMIT_PATH, grpc};
use tests::load::wire::http1::Http1;
use tests::load::wire::{Connection, Meaning};
use tests::ports::{free_address, free_port};
use tests::wait::{DEADLINE, wait_for};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate-load");

async fn echo(dir: &tempfile::TempDir) -> (Child, SocketAddr) {
    let port = free_port().expect("a port");
    let mut command = Command::new(PROGRAM);
    command.args(["echo", "--port", &port.to_string()]);
    let child = Child::start("echo", dir.path(), command).expect("started");
    let address = ([127, 0, 0, 1], port).into();
    wait_for("the echo", DEADLINE, async || tokio::net::TcpStream::connect(address).await.ok())
        .await
        .expect("listening");
    (child, address)
}

fn target(address: SocketAddr) -> Target {
    Target { addresses: vec![address], connections: 2, streams: 4 }
}

fn engine(address: SocketAddr) -> anyhow::Result<Engine> {
    let traffic = Scenario::W2.traffic()?;
    Engine::connect(&target(address), traffic, grpc(RATE_LIMIT_PATH, Meaning::RateLimit))
}

/// A server of one connection that answers whatever it reads with `answer`, if anything.
fn server_that_says(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut input = [0; 4096];
            if stream.read(&mut input).is_ok() && stream.write_all(answer).is_ok() {
                open.push(stream);
            }
        }
    });
    address
}

fn write_to(address: SocketAddr) -> Engine {
    let target = Target { addresses: vec![address], connections: 1, streams: 1 };
    let traffic = Traffic::cycle(vec![b"m f=1".to_vec()]);
    let speak = |authority: &str| -> Box<dyn Connection + Send> {
        Box::new(Http1::new(authority, "/write", &[]))
    };
    Engine::connect(&target, traffic, speak).expect("connected")
}

#[tokio::test]
async fn every_answer_is_counted_once_in_both_loops() {
    let dir = tempfile::tempdir().unwrap();
    let (_echo, address) = echo(&dir).await;
    let mut engine = engine(address).unwrap();
    for pace in [Pace::Closed, Pace::Open(5_000.0)] {
        let tally = engine.run(pace, Amount::Requests(1_000)).unwrap();
        let total = tally.total();
        assert_eq!((total.sent, total.admitted, total.refused), (1_000, 1_000, 0));
        assert_eq!(tally.latency().len(), 1_000);
        assert!(tally.own_cpu > Duration::ZERO);
    }
}

#[tokio::test]
async fn the_command_prints_json_of_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let (_echo, address) = echo(&dir).await;
    let address = address.to_string();
    let run = |args: &[&str]| {
        let output = Command::new(PROGRAM).args(args).args(["--address", &address]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let common = ["--requests", "300", "--output", "json"];
    let descriptor = ["rls", "--descriptor", "tenant=t-{key},route=/w", "--keys", "10"];
    let outcome = run(&[&descriptor[..], &common].concat());
    assert_eq!(outcome["all"]["admitted"], 300);
    assert!(outcome["all"]["latency_us"]["p99"].as_f64().unwrap() > 0.0);
    let outcome = run(&[&["scenario", "w6"][..], &common].concat());
    assert_eq!(outcome["classes"].as_array().unwrap().len(), 4);
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "key-one\nkey-two\n").unwrap();
    let check = ["check", "--keys-file", keys.to_str().unwrap()];
    assert_eq!(run(&[&check[..], &common].concat())["all"]["admitted"], 300);
}

#[test]
fn a_server_that_is_not_there_fails_the_command() {
    let address = free_address().unwrap().to_string();
    let output =
        Command::new(PROGRAM).args(["scenario", "w1", "--address", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "no figures of a run that failed");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("cannot connect to {address}")), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_in_the_run_fails_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let (echo, address) = echo(&dir).await;
    let mut load = Command::new(PROGRAM)
        .args(["scenario", "w2", "--seconds", "600", "--address", &address.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("listening");
    let cpu = || tests::load::cpu::of_process(echo.pid()).unwrap();
    let idle = cpu();
    wait_for("the load to arrive", DEADLINE, async || {
        (cpu() > idle + Duration::from_millis(20)).then_some(())
    })
    .await
    .unwrap();
    drop(echo);
    let ended = wait_for("the load to fail", DEADLINE, async || load.try_wait().unwrap()).await;
    assert_eq!(ended.unwrap().code(), Some(1));
    let output = load.wait_with_output().unwrap();
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("connection") && error.contains("during the run"), "{error}");
}

#[test]
fn a_server_that_answers_with_errors_ends_the_run() {
    let unavailable = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let mut engine = write_to(server_that_says(unavailable));
    let error = engine.run(Pace::Closed, Amount::Requests(10)).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("answered with an error after 0 good answers"), "{error}");
    assert!(error.contains("HTTP status 503"), "{error}");
    let mut engine = write_to(server_that_says(b"220 smtp.example.com\r\n\r\n"));
    assert!(engine.run(Pace::Closed, Amount::Requests(10)).is_err());
}

#[tokio::test]
async fn a_method_that_is_not_served_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (_echo, address) = echo(&dir).await;
    let traffic = Scenario::W2.traffic().unwrap();
    let speak = grpc("/no.such.Service/Method", Meaning::RateLimit);
    let mut engine = Engine::connect(&target(address), traffic, speak).expect("connected");
    let error = engine.run(Pace::Closed, Amount::Requests(10)).unwrap_err();
    assert!(format!("{error:#}").contains("gRPC status 12"), "{error:#}");
}

#[test]
fn a_server_that_says_nothing_ends_the_run() {
    let mut engine = write_to(server_that_says(b"")).with_patience(Duration::from_millis(300));
    let error = engine.run(Pace::Closed, Amount::Requests(10)).unwrap_err();
    assert!(format!("{error:#}").contains("no answer from"), "{error:#}");
}

#[test]
fn a_stage_that_fails_leaves_no_figure_and_fails_the_bench() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM)
        .args(["bench", "--quick", "--only", "parser", "--dir"])
        .arg(dir.path())
        .env("LINE_PROTOCOL_PEER", "/bin/false")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED parser: /bin/false"), "{said}");
    let results = std::fs::read(dir.path().join("quick/results.json")).unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&results).unwrap();
    assert!(rows.is_empty(), "{rows:?}");
    let report = std::fs::read_to_string(dir.path().join("quick/report.html")).unwrap();
    assert!(report.contains("FAILED parser: /bin/false"), "{report}");
}

#[test]
fn the_readme_needs_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM)
        .args(["bench", "--readme", "--dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("run make bench first"), "{error}");
    let wrong = Command::new(PROGRAM).args(["bench", "--only", "cost,nothing"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64));
}
