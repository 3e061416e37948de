//! The process itself: its exit codes, and a gateway that is told to end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rdkafka::mocking::MockCluster;

use crate::support::wait_for;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ingest-filter");

pub fn config(directory: &Path, text: &str) -> std::path::PathBuf {
    let path = directory.join("config.yaml");
    std::fs::write(&path, text).expect("written");
    path
}

pub fn output(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(PROGRAM).args(arguments).output().expect("started");
    (status.code(), String::from_utf8(stderr).expect("UTF-8"))
}

#[test]
fn settings_that_cannot_work_exit_64_and_are_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let journal = format!("journal: {{disk: {{directory: '{}/j'}}}}\n", directory.path().display());
    for (text, expected) in [
        ("gateway: {ratio_max: 1}\n", ":2:22: gateway.ratio_max is 1"),
        ("gateway: {listen: here}\n", ":2:19: gateway.listen is not an address"),
        ("gateway: {listen: 1}\n", "listen"),
        ("log_level: loud=very\ngateway: {}\n", "log level 'loud=very'"),
        ("writer: {file: {path: x}}\n", "has no section 'gateway'"),
    ] {
        let path = config(directory.path(), &format!("{journal}{text}"));
        let (code, error) = output(&["gateway", "--config", path.to_str().expect("UTF-8")]);
        assert_eq!(code, Some(64), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    for arguments in [&["gateway"][..], &[], &["gateway", "--config", "/nowhere.yaml"]] {
        assert_eq!(output(arguments).0, Some(64), "{arguments:?}");
    }
    assert_eq!(output(&["--help"]).0, Some(0));
}

/// A process that is killed with the test, whatever happens.
pub struct Running(Child);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn post(address: &str, body: &str) -> String {
    let request = format!(
        "POST /write HTTP/1.1\r\nhost: a\r\nx-tidegate-tenant: acme\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    ask(address, &request)
}

/// The answer to a request.
pub fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("listening");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

/// A gateway on a disk journal, and where it listens.
pub fn gateway(path: &Path) -> (Running, String) {
    let (running, serving) = gateway_that_serves(path);
    (running, serving["address"].as_str().expect("an address").to_owned())
}

/// A gateway, and what its log says once it serves.
pub fn gateway_that_serves(path: &Path) -> (Running, serde_json::Value) {
    started("gateway", path, "gateway is serving")
}

/// A process of one role, and the line of its log that has `text`.
pub fn started(role: &str, path: &Path, text: &str) -> (Running, serde_json::Value) {
    started_by(Command::new(PROGRAM), role, path, text)
}

/// The same with a file size limit, beyond which a write fails: what stands for a full disk.
pub fn started_confined(
    file_bytes_max: u64,
    role: &str,
    path: &Path,
    text: &str,
) -> (Running, serde_json::Value) {
    // The signal would end the process; the limit may be lifted later.
    let mut command = Command::new("env");
    command.arg("--ignore-signal=XFSZ").arg("prlimit");
    command.arg(format!("--fsize={file_bytes_max}:unlimited")).arg(PROGRAM);
    started_by(command, role, path, text)
}

fn started_by(
    mut command: Command,
    role: &str,
    path: &Path,
    text: &str,
) -> (Running, serde_json::Value) {
    let child = command
        .args([role, "--config", path.to_str().expect("UTF-8")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut running = Running(child);
    let log = BufReader::new(running.0.stdout.take().expect("piped"));
    let mut log = log.lines().map(|line| line.expect("UTF-8"));
    let serving = log.find(|line| line.contains(text)).expect("serves");
    let serving: serde_json::Value = serde_json::from_str(&serving).expect("JSON");
    // Its log is read to the end, so that it never waits for us.
    std::thread::spawn(move || log.for_each(drop));
    (running, serving)
}

/// The type of a field that was acknowledged is known after a crash: what InfluxDB would refuse
/// is refused before the answer.
#[test]
fn a_gateway_that_was_killed_knows_the_types_that_it_acknowledged() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = config(
        directory.path(),
        &format!(
            "journal: {{disk: {{directory: '{}/j'}}}}\n\
             gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}}\n",
            directory.path().display()
        ),
    );
    let (running, address) = gateway(&path);
    let answer = post(&address, "m f=1i 1\nm g=1i\n");
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    drop(running);
    let (_running, address) = gateway(&path);
    let answer = post(&address, "m f=1.5 2\nm g=2.0 2\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("is type float, already exists as type integer"), "{answer}");
    assert!(answer.contains("x-tidegate-points: 1"), "{answer}");
}

/// The smaller of two bounds counts: a record that is larger than a message may be would be refused
/// for ever, however often its client sent it again.
#[tokio::test(flavor = "multi_thread")]
async fn no_chunk_is_larger_than_the_topic_takes() {
    let brokers = MockCluster::new(1).expect("brokers");
    for topic in ["points", "points-types"] {
        brokers.create_topic(topic, 1, 1).expect("a topic");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = config(
        directory.path(),
        &format!(
            "journal: {{kafka: {{brokers: '{}', topic: points, message_bytes_max: 64KiB}}}}\n\
             gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}}\n",
            brokers.bootstrap_servers()
        ),
    );
    let (_running, address) = gateway(&path);
    let lines: String = (0..20_000).map(|at| format!("m,k=v f={at}i {at}\n")).collect();
    // The topics are not known at once.
    let answer = wait_for("an answer of the brokers", || async {
        Some(post(&address, &lines)).filter(|answer| !answer.starts_with("HTTP/1.1 503 "))
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(answer.contains("x-tidegate-points: 20000"), "{answer}");
}

#[test]
fn a_gateway_journals_and_ends_in_order() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = config(
        directory.path(),
        &format!(
            "journal: {{disk: {{directory: '{}/j'}}}}\ndrain_delay: 10ms\n\
             gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}}\n",
            directory.path().display()
        ),
    );
    let child = Command::new(PROGRAM)
        .args(["gateway", "--config", path.to_str().expect("UTF-8")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut running = Running(child);
    let log = BufReader::new(running.0.stdout.take().expect("piped"));
    let mut log = log.lines().map(|line| line.expect("UTF-8"));
    let serving = log.find(|line| line.contains("gateway is serving")).expect("serves");
    let serving: serde_json::Value = serde_json::from_str(&serving).expect("JSON");
    let address = serving["address"].as_str().expect("an address");

    let answer = post(address, "m f=1i 1\nbad\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let answer = post(address, "m f=1i 1\n");
    assert!(
        answer.starts_with("HTTP/1.1 204 ") && answer.contains("x-tidegate-points: 1"),
        "{answer}"
    );

    let pid = running.0.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
    assert!(killed.success());
    assert!(log.any(|line| line.contains("drained")), "the log says that it drained");
    assert_eq!(running.0.wait().expect("ends").code(), Some(0));
}
