//! A gateway or brokers whose disk is full: what they cannot store is refused, nothing is acknowledged
//! that is not there, what is on other disks goes on, and all is taken again once there is room.
//!
//! That a file may not grow stands for a disk without room: both fail the broker's write, and a
//! broker gives up the directory then, whatever the reason.

use std::process::Command;

use ingest_filter::journal::config::{DiskConfig, JournalConfig};
use ingest_filter::writer::config::TargetConfig;

use crate::kafka_broker::Broker;
use crate::kafka_partitions::{PARTITIONS, Stream};
use crate::process::{ask, config, post, started_confined};
use crate::support::{read_until, reader, records, wait_for};
use crate::writer_file::{Running, writer_config};

/// More than the indexes, which have their full size from the start.
const FILE_BYTES_MAX: u64 = 16 << 20;
const RECORD_BYTES: usize = 512 << 10;

/// Writes to a partition until it is refused, and gives why.
async fn fill(stream: &Stream, partition: u32) -> String {
    let mut records = 0;
    loop {
        if let Err(reason) = stream.write_long(partition, RECORD_BYTES).await {
            assert!(records >= 20, "after {records}: {reason}");
            return reason;
        }
        records += 1;
        assert!(records < 100, "more than there is room for");
    }
}

/// A gateway's own disk is full amid a record, and for the file that tries whether it takes anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_a_gateway_is_told_and_over_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let text = format!(
        "journal: {{disk: {{directory: '{}'}}}}\n\
         gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}}\n",
        journal.display()
    );
    let path = config(directory.path(), &text);
    let (running, serving) = started_confined(48 << 10, "gateway", &path, "gateway is serving");
    let address = |name: &str| serving[name].as_str().expect("an address").to_owned();
    let (address, admin) = (address("address"), address("admin"));
    let send = |number: u64| {
        let text = "x".repeat(10_000);
        post(&address, &format!("m n={number}i,v=\"{text}\" {}\n", 1_000_000 + number))
    };
    let ready = || ask(&admin, "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let (mut acknowledged, mut number) = (Vec::new(), 0);
    let refused = loop {
        let answer = send(number);
        if !answer.starts_with("HTTP/1.1 204 ") {
            break answer;
        }
        acknowledged.push(number);
        number += 1;
        assert!(number < 100, "more than there is room for");
    };
    assert!(!acknowledged.is_empty());
    for answer in [refused, send(number)] {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: "), "{answer}");
    }
    let answer = ready();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("journal: writ"), "{answer}");
    let pid = running.pid().to_string();
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
    assert!(lifted.expect("prlimit: apt-get install util-linux").success());
    // Nobody sends anything meanwhile.
    wait_for("readiness", || async { ready().starts_with("HTTP/1.1 200 ").then_some(()) }).await;
    for number in 200..210 {
        let answer = send(number);
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        acknowledged.push(number);
    }
    drop(running);
    let journal = JournalConfig::Disk(DiskConfig::new(&journal));
    let read = read_until(reader(&journal).reader, true, |all| {
        records(all).iter().any(|record| record.body.ends_with(b" 1000209\n"))
    })
    .await;
    let bodies: Vec<_> = records(&read).into_iter().map(|record| record.body).collect();
    for number in acknowledged {
        let end = format!(" {}\n", 1_000_000 + number);
        let count = bodies.iter().filter(|body| body.ends_with(end.as_bytes())).count();
        assert_eq!(count, 1, "{number}");
    }
}

/// One broker with two disks: when one is full the partitions on the other go on; when both are, the
/// broker ends itself and Kafka is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_only_broker_refuses_what_would_be_on_it() {
    let disks = "log.dirs={directory}/first,{directory}/second\n\
                 metadata.log.dir={directory}/data\n";
    let mut brokers = Broker::cluster_with(1, disks).await;
    brokers[0].kill();
    brokers[0].file_bytes_max = Some(FILE_BYTES_MAX);
    brokers[0].restart().await;
    let stream = Stream::open(&brokers, "disks", 1);
    for number in 0..PARTITIONS {
        stream.is_taken(number).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("points");
    let target = writer_config(TargetConfig::File(file.clone()));
    let writer = Running::start(&stream.config, target).await;

    println!("the first disk: {}", fill(&stream, 0).await);
    stream.is_refused(0, "partition 0 has no leader").await;
    let held = stream.gauge("refused_partitions");
    assert!(held > 0 && held < i64::from(PARTITIONS), "{held}");
    assert_eq!(stream.gauge("open"), 1);
    let mut spared = None;
    for number in 1..PARTITIONS {
        match stream.write(number).await {
            Ok(()) => spared = Some(number),
            Err(reason) => assert!(reason.contains("has no leader"), "{reason}"),
        }
    }
    println!("the second disk: {}", fill(&stream, spared.expect("another disk")).await);
    brokers[0].ends().await;
    stream.is_refused(0, "no broker answers").await;
    assert!(stream.readiness.is_ready(), "other gateways have no more of Kafka");

    brokers[0].file_bytes_max = None;
    brokers[0].restart().await;
    for number in 0..PARTITIONS {
        stream.is_taken(number).await;
    }
    stream.shows("refused_partitions", 0).await;
    stream.all_are_stored().await;
    // The writer has carried on too, also what came last.
    let last = stream.written().await;
    wait_for("the writer", || async {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        last.iter().all(|line| text.contains(line.as_str())).then_some(())
    })
    .await;
    writer.stop().await;
}

/// Of three brokers one has a full disk: it ends itself, and the others go on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_one_broker_of_three_costs_a_pause() {
    let mut brokers = Broker::cluster(3).await;
    brokers[1].kill();
    brokers[1].file_bytes_max = Some(FILE_BYTES_MAX);
    brokers[1].restart().await;
    let stream = Stream::open(&brokers, "disks", 3);
    for number in 0..PARTITIONS {
        stream.is_taken(number).await;
    }
    println!("its disk: {}", fill(&stream, 0).await);
    brokers[1].ends().await;
    for number in 0..PARTITIONS {
        stream.is_taken(number).await;
    }
    stream.shows("refused_partitions", 0).await;
    brokers[1].file_bytes_max = None;
    brokers[1].restart().await;
    for number in 0..PARTITIONS {
        stream.is_taken(number).await;
    }
    stream.all_are_stored().await;
}
