//! What every journal promises, as one suite. Each implementation runs all of it on a fresh
//! journal per check.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ingest_filter::journal::config::JournalConfig;
use ingest_filter::record::Record;
use tokio::task::JoinSet;

use crate::support::{append, appender, read_until, reader, record, records};

/// Records come back as they went in.
pub async fn nothing_is_changed(config: &JournalConfig) {
    let journal = appender(config);
    let sent = vec![
        Record {
            tenant: "acme é \"x\"".to_owned(),
            database: "app".to_owned(),
            shard: 63,
            points: 7,
            admitted_at_ns: -1,
            request_id: Some("r".to_owned()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            body: Bytes::from_static(b"m v=1 1\n"),
        },
        Record { request_id: None, ..record("acme", 0, 1) },
        Record { body: Bytes::from(vec![b'x'; 512 << 10]), ..record("big", 5, 2) },
        Record { body: Bytes::new(), ..record("empty", 5, 3) },
    ];
    append(&journal, Vec::new()).await;
    append(&journal, sent.clone()).await;
    let read = read_until(reader(config).reader, true, |all| all.len() >= sent.len()).await;
    let mut read = records(&read);
    read.sort_by_key(|record| record.tenant.clone());
    let mut expected = sent;
    expected.sort_by_key(|record| record.tenant.clone());
    assert_eq!(read, expected);
}

/// Records of one tenant and shard keep their order.
pub async fn order_is_kept(config: &JournalConfig) {
    let journal = appender(config);
    let tenants = ["a", "b", "c"];
    for number in 0..200 {
        let records = tenants
            .iter()
            .flat_map(|tenant| (0..2).map(move |shard| record(tenant, shard, number)));
        append(&journal, records.collect()).await;
    }
    let read = read_until(reader(config).reader, true, |all| all.len() >= 1200).await;
    let mut last: BTreeMap<(String, u32), i64> = BTreeMap::new();
    for record in records(&read) {
        let before = last.insert((record.tenant, record.shard), record.admitted_at_ns);
        assert!(before.is_none_or(|before| before < record.admitted_at_ns));
    }
    assert_eq!(last.len(), 6);
}

/// Whatever concurrent appends were confirmed is there.
pub async fn confirmed_is_stored(config: &JournalConfig) {
    let journal = appender(config);
    let mut tasks = JoinSet::new();
    for task in 0..20_u64 {
        let journal = journal.clone();
        tasks.spawn(async move {
            for number in 0..25 {
                let number = task * 1000 + number;
                append(&journal, vec![record(&format!("t{task}"), 0, number)]).await;
            }
        });
    }
    tasks.join_all().await;
    let read = read_until(reader(config).reader, true, |all| {
        all.iter()
            .map(|(_, d)| d.content.as_ref().unwrap().body.clone())
            .collect::<BTreeSet<_>>()
            .len()
            >= 500
    });
    assert!(read.await.len() >= 500);
}

/// A reader that comes back begins behind what was acknowledged, and loses nothing.
pub async fn reading_resumes(config: &JournalConfig) {
    let journal = appender(config);
    let bodies = |range: std::ops::Range<u64>| -> BTreeSet<Bytes> {
        range.map(|number| record("a", 0, number).body).collect()
    };
    for number in 0..30 {
        append(&journal, vec![record("a", 0, number)]).await;
    }
    let seen = read_until(reader(config).reader, true, |all| all.len() >= 10).await;
    let acknowledged = seen.len() as u64;
    for number in 30..40 {
        append(&journal, vec![record("a", 0, number)]).await;
    }
    // What is not acknowledged comes again, to this reader and to the next.
    for _ in 0..2 {
        let unacknowledged = read_until(reader(config).reader, false, |all| all.len() >= 5).await;
        assert_eq!(records(&unacknowledged)[0], record("a", 0, acknowledged));
    }
    let wanted = bodies(acknowledged..40);
    let rest = read_until(reader(config).reader, true, |all| all.len() >= wanted.len()).await;
    let got: BTreeSet<_> = records(&rest).into_iter().map(|record| record.body).collect();
    assert_eq!(got, wanted);
}
