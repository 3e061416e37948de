//! The gateway as a process on a real Kafka while both are killed, frozen, locked out and cut off:
//! whatever was answered with success is in the journal, and who is refused is told so at once.
//!
//! `TIDEGATE_FAULT_POINTS=1000000` makes the run as long as that; the table is printed at the end.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ingest_filter::journal::config::{CreateTopic, JournalConfig, KafkaConfig};

use crate::kafka_broker::{Broker, free_port};
use crate::support::{read_until, reader, wait_for};
use crate::writer_file::get;

const CLIENTS: u64 = 8;
const POINTS_A_REQUEST: u64 = 50;
/// Points of a run that is a test among others.
const POINTS: u64 = 20_000;
/// An answer takes no longer than the gateway's deadline and some.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A gateway that can be killed and comes back at the same address.
struct Gateway {
    config: std::path::PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
    child: Child,
}

impl Gateway {
    fn start(directory: &Path, brokers: &str, topic: &str, copies: usize, login: &str) -> Self {
        let [address, admin] =
            [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let config = directory.join("gateway.yaml");
        let text = format!(
            "log_level: error\n\
             journal: {{kafka: {{brokers: '{brokers}', topic: {topic}, {login}delivery_timeout: 5s, \
             create_topic: {{partitions: 6, replication_factor: {copies}}}}}}}\n\
             gateway: {{listen: '{address}', admin_listen: '{admin}'}}\n"
        );
        std::fs::write(&config, text).unwrap();
        Self { child: spawn(&config), config, address, admin }
    }

    /// SIGKILL, and another process in its place.
    fn replace(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.config);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ingest-filter"))
        .args(["gateway", "--config", config.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The status of an answer, and whether it says when to come back; 0 where there is none.
fn post(address: SocketAddr, body: &str) -> (u16, bool) {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        write!(
            stream,
            "POST /write HTTP/1.1\r\nhost: a\r\nx-tidegate-tenant: acme\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().unwrap_or_default();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.to_ascii_lowercase().contains("\r\nretry-after: "))
}

fn body(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("m,k={} v={number}i {number}\n", number % 97)).collect()
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    acknowledged: Mutex<Vec<u64>>,
    count: AtomicU64,
    statuses: Mutex<BTreeMap<u16, u64>>,
    refused_without_retry_after: AtomicU64,
    stop: AtomicBool,
}

/// Clients that never send anything twice: only what was acknowledged is owed.
fn clients(address: SocketAddr, seen: &Arc<Seen>) -> Vec<JoinHandle<()>> {
    let client = |client: u64| {
        let seen = seen.clone();
        std::thread::spawn(move || {
            let mut next = client * 1_000_000_000 + 1;
            while !seen.stop.load(Relaxed) {
                let numbers = next..next + POINTS_A_REQUEST;
                next = numbers.end;
                let (status, retry_after) = post(address, &body(numbers.clone()));
                *seen.statuses.lock().unwrap().entry(status).or_default() += 1;
                if status == 204 {
                    seen.acknowledged.lock().unwrap().extend(numbers);
                    seen.count.fetch_add(POINTS_A_REQUEST, Relaxed);
                    continue;
                }
                if status == 503 && !retry_after {
                    seen.refused_without_retry_after.fetch_add(1, Relaxed);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        })
    };
    (0..CLIENTS).map(client).collect()
}

/// Waits until so many more points are acknowledged.
async fn flows(seen: &Seen, more: u64) {
    let from = seen.count.load(Relaxed);
    wait_for("acknowledged points", || async {
        (seen.count.load(Relaxed) >= from + more).then_some(())
    })
    .await;
}

/// Every point that was acknowledged is in the journal. Gives what there was.
async fn all_are_journalled(config: &JournalConfig, seen: &Seen) -> String {
    let owed: HashSet<u64> = seen.acknowledged.lock().unwrap().iter().copied().collect();
    let mut missing = owed.clone();
    let (mut looked_at, mut points) = (0, 0_u64);
    read_until(reader(config).reader, true, |all| {
        for (_, delivery) in &all[looked_at..] {
            let record = delivery.content.as_ref().expect("a record");
            for line in std::str::from_utf8(&record.body).unwrap().lines() {
                let number = line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
                points += 1;
                missing.remove(&number);
            }
        }
        looked_at = all.len();
        missing.is_empty()
    })
    .await;
    let statuses = seen.statuses.lock().unwrap();
    assert_eq!(seen.refused_without_retry_after.load(Relaxed), 0);
    format!("acknowledged {}, read {points}, answers {statuses:?}", owed.len())
}

fn signal(broker: &Broker, signal: &str) {
    let pid = broker.pid().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

fn points() -> u64 {
    let given = std::env::var("TIDEGATE_FAULT_POINTS").ok();
    given.map_or(POINTS, |points| points.parse().expect("a number of points"))
}

/// Without luck: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_journalled_whatever_fails() {
    let mut brokers = Broker::cluster(3).await;
    let directory = tempfile::tempdir().unwrap();
    let addresses = brokers.iter().map(Broker::address).collect::<Vec<_>>().join(",");
    let mut gateway = Gateway::start(directory.path(), &addresses, "faults", 3, "");
    let config = JournalConfig::Kafka(KafkaConfig {
        topic: "faults".to_owned(),
        create_topic: Some(CreateTopic { partitions: 6, replication_factor: 3 }),
        logs_topic: None,
        traces_topic: None,
        ..KafkaConfig::new(addresses)
    });
    let seen = Arc::new(Seen::default());
    let clients = clients(gateway.address, &seen);
    flows(&seen, POINTS_A_REQUEST).await;
    let (target, mut dice, mut round) = (points(), Dice(7), 0);
    let mut faults = BTreeMap::<&str, u32>::new();
    while seen.count.load(Relaxed) < target || round < 5 {
        // Every kind once, then at random.
        let kind = if round < 5 { round } else { dice.roll(5) };
        round += 1;
        let victim = dice.roll(3);
        let name = match kind {
            0 => {
                gateway.replace();
                "gateway killed"
            }
            1 => {
                brokers[victim].kill();
                flows(&seen, target / 50).await;
                brokers[victim].restart().await;
                "a broker of three killed"
            }
            2 => {
                signal(&brokers[victim], "-STOP");
                flows(&seen, POINTS_A_REQUEST).await;
                signal(&brokers[victim], "-CONT");
                "a broker of three frozen"
            }
            3 => {
                brokers.iter_mut().for_each(Broker::kill);
                refused(&seen).await;
                for broker in &mut brokers {
                    broker.begin();
                }
                "all brokers killed"
            }
            _ => {
                brokers.iter().for_each(|broker| signal(broker, "-STOP"));
                refused(&seen).await;
                gateway.replace();
                brokers.iter().for_each(|broker| signal(broker, "-CONT"));
                "all brokers frozen, gateway killed"
            }
        };
        *faults.entry(name).or_default() += 1;
        flows(&seen, target / 20).await;
    }
    seen.stop.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let told = all_are_journalled(&config, &seen).await;
    println!("faults {faults:?}, {told}");
}

/// Waits until some more requests were refused.
async fn refused(seen: &Seen) {
    let refusals = || seen.statuses.lock().unwrap().get(&503).copied().unwrap_or(0);
    let from = refusals();
    wait_for("refusals", || async { (refusals() >= from + 2 * CLIENTS).then_some(()) }).await;
}

/// One broker that refuses to write, then may again; auto-creation of topics is on.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_revoked_refuses_and_comes_back() {
    let (broker, client_port) = Broker::start_with_rights().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("password"), "secret").unwrap();
    let login = "sasl: {mechanism: SCRAM-SHA-256, username: gateway, password_file: password}, ";
    let address = format!("127.0.0.1:{client_port}");
    let gateway = Gateway::start(directory.path(), &address, "rights", 1, login);
    let seen = Arc::new(Seen::default());
    let clients = clients(gateway.address, &seen);
    flows(&seen, 500).await;
    let rule = ["--deny-principal", "User:gateway", "--operation", "Write", "--topic", "rights"];
    broker.tool("org.apache.kafka.tools.AclCommand", &[&["--add"][..], &rule[..]].concat());
    refused(&seen).await;
    broker.tool(
        "org.apache.kafka.tools.AclCommand",
        &[&["--remove", "--force"][..], &rule[..]].concat(),
    );
    flows(&seen, 500).await;
    seen.stop.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let config = KafkaConfig {
        topic: "rights".to_owned(),
        logs_topic: None,
        traces_topic: None,
        ..KafkaConfig::new(broker.address())
    };
    println!("{}", all_are_journalled(&JournalConfig::Kafka(config), &seen).await);
}

/// What a client waits for while Kafka is away, and how soon the gateway knows; printed.
#[tokio::test(flavor = "multi_thread")]
async fn who_writes_while_kafka_is_away_is_told_so() {
    let mut broker = Broker::start().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path(), &broker.address(), "away", 1, "");
    let (address, mut number) = (gateway.address, 1);
    let mut write = || {
        number += 1;
        let began = Instant::now();
        let answer = post(address, &body(number..number + 1));
        (answer, began.elapsed())
    };
    for how in ["killed", "frozen"] {
        wait_for("a write", || std::future::ready((write().0.0 == 204).then_some(()))).await;
        match how {
            "killed" => broker.kill(),
            _ => signal(&broker, "-STOP"),
        }
        let gone = Instant::now();
        let (first, waited) = write();
        assert_eq!(first, (503, true), "{how}");
        let known = gone.elapsed();
        let mut waits: Vec<Duration> = Vec::new();
        for _ in 0..200 {
            let (answer, waited) = write();
            assert_eq!(answer, (503, true), "{how}");
            waits.push(waited);
        }
        waits.sort();
        println!(
            "Kafka {how}: first answer after {waited:?} ({known:?} after it was gone), then p50 {:?}, \
             p99 {:?}, longest {:?}",
            waits[100], waits[197], waits[199]
        );
        match how {
            "killed" => broker.restart().await,
            _ => signal(&broker, "-CONT"),
        }
    }
    wait_for("a write", || std::future::ready((write().0.0 == 204).then_some(()))).await;
}

/// A broker that freezes while nobody writes: the gateway finds out by itself, and the first to
/// write is refused without waiting for the broker. How long that takes is printed.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_to_write_to_a_frozen_broker_does_not_wait_for_it() {
    let broker = Broker::start().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path(), &broker.address(), "frozen", 1, "");
    let write = || post(gateway.address, "m,k=1 v=1i 1\n");
    wait_for("a write", || std::future::ready((write().0 == 204).then_some(()))).await;
    let takes = async |open: u8| {
        let line = format!("ingest_journal_open{{signal=\"metrics\"}} {open}\n");
        wait_for(&line, || async {
            get(gateway.admin, "/metrics").await.contains(&line).then_some(())
        })
        .await;
    };
    takes(1).await;
    signal(&broker, "-STOP");
    let frozen = Instant::now();
    takes(0).await;
    let (known, began) = (frozen.elapsed(), Instant::now());
    assert_eq!(write(), (503, true));
    println!("frozen: known after {known:?}, the first to write waited {:?}", began.elapsed());
    signal(&broker, "-CONT");
    let thawed = Instant::now();
    takes(1).await;
    println!("taken again after {:?}", thawed.elapsed());
    wait_for("a write", || std::future::ready((write().0 == 204).then_some(()))).await;
}
