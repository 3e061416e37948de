//! One broker of three freezes, then another is killed: what needs it is refused without waiting, what
//! does not goes on all the time, and where there are copies all goes on once others lead.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::kafka_broker::Broker;
use crate::kafka_partitions::{PARTITIONS, Stream};
use crate::support::{DEADLINE, wait_for};

/// Who leads each partition, by what these brokers say; `None` unless all brokers have their part.
fn leaders(brokers: &[Broker], topic: &str, copies: usize) -> Option<BTreeMap<u32, i32>> {
    let addresses: Vec<String> = brokers.iter().map(Broker::address).collect();
    let client: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", addresses.join(",")).create().unwrap();
    let metadata = client.client().fetch_metadata(Some(topic), DEADLINE).ok()?;
    let partitions = metadata.topics().first()?.partitions();
    let all: BTreeMap<u32, i32> =
        partitions.iter().map(|one| (one.id() as u32, one.leader())).collect();
    let in_sync = partitions.iter().all(|one| one.isr().len() == copies);
    let distinct: BTreeSet<&i32> = all.values().collect();
    (in_sync && all.len() == PARTITIONS as usize && distinct.len() == brokers.len()).then_some(all)
}

fn signal(broker: &Broker, signal: &str) {
    let pid = broker.pid().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

/// Writes to these partitions until told to stop; gives how many were taken and what was refused.
fn writing(
    stream: &Arc<Stream>,
    partitions: Vec<u32>,
    stop: &CancellationToken,
) -> JoinSet<(u64, Vec<String>)> {
    let mut tasks = JoinSet::new();
    for number in partitions {
        let (stream, stop) = (stream.clone(), stop.clone());
        tasks.spawn(async move {
            let (mut taken, mut refused) = (0, Vec::new());
            while !stop.is_cancelled() {
                match stream.write(number).await {
                    Ok(()) => taken += 1,
                    Err(reason) => refused.push(reason),
                }
            }
            (taken, refused)
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broker_of_three_costs_only_what_needs_it() {
    let mut brokers = Broker::cluster(3).await;
    let single = Arc::new(Stream::open(&brokers, "single", 1));
    let copied = Stream::open(&brokers, "copied", 3);
    for number in 0..PARTITIONS {
        single.is_taken(number).await;
        copied.is_taken(number).await;
    }
    let of = |name: &'static str, copies| {
        let brokers = &brokers;
        wait_for("leaders", move || async move { leaders(brokers, name, copies) })
    };
    let (of_single, of_copied) = (of("single", 1).await, of("copied", 3).await);

    for how in ["frozen", "killed"] {
        // The controller moves too when it is the one; nothing here depends on it.
        let victim = if how == "frozen" { of_copied[&0] } else { of_copied[&0] % 3 + 1 };
        let broker = victim as usize - 1;
        let needs = |number: &u32| of_single[number] == victim;
        let (hit, spared): (Vec<u32>, Vec<u32>) = (0..PARTITIONS).partition(needs);
        let stop = CancellationToken::new();
        let going_on = writing(&single, spared.clone(), &stop);
        match how {
            "frozen" => signal(&brokers[broker], "-STOP"),
            _ => brokers[broker].kill(),
        }
        let gone = Instant::now();
        // Nobody writes to what has copies: its gateway finds out by itself.
        if how == "frozen" {
            copied.shows("open", 0).await;
            let refusing = copied.journal.refusing().await.to_string();
            assert!(refusing.contains("is silent"), "{refusing}");
            println!("frozen: known to who did not write after {:?}", gone.elapsed());
        }
        single.is_refused(hit[0], &format!("of partition {} ", hit[0])).await;
        println!("{how}: known to who wrote after {:?}", gone.elapsed());
        single.shows("refused_partitions", hit.len() as i64).await;
        // Others are taken.
        single.shows("open", 1).await;
        for number in &spared {
            single.is_taken(*number).await;
        }
        // While it is away, by those that lead now.
        for number in 0..PARTITIONS {
            copied.is_taken(number).await;
        }
        println!("{how}: all is taken where there are copies after {:?}", gone.elapsed());
        // Without copies nobody can lead.
        single.is_refused(hit[0], "has no leader").await;
        assert!(single.readiness.is_ready(), "{:?}", single.readiness.blockers());
        stop.cancel();
        for (taken, refused) in going_on.join_all().await {
            // A machine that is busy may hold any broker up for a while.
            let victims = format!("broker {victim} ");
            let wrong = ["no broker", "no leader", "may lose", &victims];
            let because = |reason: &String| wrong.iter().any(|part| reason.contains(part));
            assert!(taken > 0 && !refused.iter().any(because), "{how}: {taken}, {refused:?}");
        }
        match how {
            "frozen" => signal(&brokers[broker], "-CONT"),
            _ => brokers[broker].restart().await,
        }
        for number in 0..PARTITIONS {
            single.is_taken(number).await;
        }
        single.shows("refused_partitions", 0).await;
    }
    single.all_are_stored().await;
    copied.all_are_stored().await;
}
