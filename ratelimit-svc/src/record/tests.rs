//! From decisions to files and back, on what goes well and on what does not.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hashed::{HashedKeys, hash};
use super::reader::{Second, Traffic};
use super::segments::{Segments, files};
use super::table::{Refused, Table};
use super::{Recorder, SECONDS_WAITING_MAX, SHARDS};
use crate::decide::decision::Decision;
use crate::decide::plan::plan;
use crate::decide::request::{Descriptor, Request};
use crate::decide::settings::Settings;
use crate::limits::quotas::{Library, Quotas};
use crate::limits::stats::Reason;

const NOW: u64 = 1_800_000_000;
const OVER: Refused<'static> = Refused { rule: "tenant", reason: Reason::OverLimit };

fn request(tenant: &str, hits: u32) -> Request<'_> {
    let descriptor =
        Descriptor { entries: [("tenant", tenant)][..].into(), ..Descriptor::default() };
    Request { domain: "edge", descriptors: vec![descriptor], hits_addend: hits }
}

fn table(second: u64, tenants: &[(&str, u64, u64)]) -> Table {
    let mut table = Table::new(64);
    table.begin(second);
    for &(tenant, requests, refused) in tenants {
        for n in 0..requests {
            table.add(&request(tenant, 2), "ingest", (n < refused).then_some(OVER), n as u16);
        }
    }
    table
}

fn segments(dir: &Path, bytes_max: u64) -> Segments {
    let replica = "r".to_owned();
    Segments::new(dir, bytes_max, replica, HashedKeys::default()).expect("made")
}

fn written(dir: &Path, tables: &[Table]) {
    let mut segments = segments(dir, 1 << 30);
    segments.write(tables).expect("written");
    segments.finish().expect("finished");
}

fn read(dir: &Path) -> (BTreeMap<u64, Second>, Traffic) {
    Traffic::open(&[dir.to_owned()]).expect("recordings").read_all()
}

/// Requests, hits and refusals by second and tenant.
fn summary(all: &BTreeMap<u64, Second>, traffic: &Traffic) -> Vec<(u64, String, u64, u64, u64)> {
    let rows = all.values().flat_map(|second| second.rows.iter().map(move |row| (second.t, row)));
    let tenant = |shape: usize| traffic.shapes[shape].descriptors[0].entries[0].1.clone();
    let mut rows: Vec<_> = rows
        .map(|(t, row)| (t, tenant(row.shape), row.requests, row.hits[0], row.refused()))
        .collect();
    rows.sort();
    rows
}

fn of(
    t: u64,
    tenant: &str,
    requests: u64,
    hits: u64,
    refused: u64,
) -> (u64, String, u64, u64, u64) {
    (t, tenant.to_owned(), requests, hits, refused)
}

#[test]
fn what_was_asked_is_read_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    written(
        dir.path(),
        &[table(NOW, &[("acme", 5, 2), ("bolt", 1, 0)]), table(NOW + 1, &[("acme", 3, 0)])],
    );
    let (all, traffic) = read(dir.path());
    let expected =
        [of(NOW, "acme", 5, 10, 2), of(NOW, "bolt", 1, 2, 0), of(NOW + 1, "acme", 3, 6, 0)];
    assert_eq!(summary(&all, &traffic), expected);
    let acme = &all[&NOW].rows[0];
    assert_eq!(acme.refusals, [("tenant".to_owned(), "over_limit".to_owned(), 2)]);
    assert_eq!((acme.milliseconds, all[&NOW].other), ((0, 4), (0, 0)));
    assert_eq!((traffic.shapes[0].class.as_str(), traffic.problems.count), ("ingest", 0));
}

#[test]
fn recordings_of_replicas_merge() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for replica in ["one", "two"] {
        let to = dir.path().join(replica);
        written(&to, &[table(NOW, &[("acme", 2, 1)]), table(NOW + 700, &[("bolt", 1, 0)])]);
    }
    let paths = ["one", "two"].map(|replica| dir.path().join(replica));
    let (all, traffic) = Traffic::open(&paths).expect("recordings").read_all();
    let rows = summary(&all, &traffic);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), 6);
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), [NOW, NOW + 700]);
    assert_eq!(traffic.shapes.len(), 2, "shapes are one for all files");
}

#[test]
fn what_comes_often_stays_apart_and_the_tail_is_counted() {
    let mut table = Table::new(100);
    table.begin(NOW);
    let mut all = 0;
    for n in 0..20_000_u32 {
        // Every tenth request is of one of five.
        let tenant = if n % 10 == 0 { format!("heavy-{}", n / 10 % 5) } else { format!("t-{n}") };
        table.add(&request(&tenant, 1), "ingest", (n % 2 == 0).then_some(OVER), 0);
        all += 1;
    }
    assert_eq!(table.rows().len(), 100);
    assert_eq!(table.requests(), all);
    let dir = tempfile::tempdir().expect("temporary directory");
    written(dir.path(), &[table]);
    let (seconds, traffic) = read(dir.path());
    let rows = summary(&seconds, &traffic);
    let heavy: Vec<u64> =
        rows.iter().filter(|row| row.1.starts_with("heavy")).map(|row| row.2).collect();
    assert_eq!(heavy, [400; 5]);
    let (requests, refused) = seconds[&NOW].other;
    assert_eq!(rows.iter().map(|row| row.2).sum::<u64>() + requests, all);
    assert_eq!(rows.iter().map(|row| row.4).sum::<u64>() + refused, all / 2);
}

#[test]
fn long_values_take_no_room() {
    let mut table = Table::new(100);
    table.begin(NOW);
    let long = "x".repeat(5000);
    table.add(&request(&long, 1), "ingest", None, 0);
    for n in 0..100 {
        table.add(&request(&format!("{n}-{}", "y".repeat(2000)), 1), "ingest", None, 0);
    }
    // All rows together have room for 256 bytes each.
    assert_eq!(table.rows().len(), 12);
    assert_eq!(table.other.requests, 89);
}

#[test]
fn the_oldest_files_go_first() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut segments = segments(dir.path(), 64 << 10);
    let tenants: Vec<String> = (0..64).map(|n| hash("salt", "n", &n.to_string())).collect();
    let mut most = 0;
    for second in 0..400 {
        let mut table = Table::new(64);
        table.begin(NOW + second * 60);
        for (n, tenant) in tenants.iter().enumerate() {
            let tenant = format!("{tenant}{}", hash("salt", tenant, &second.to_string()));
            table.add(&request(&tenant, n as u32), "ingest", None, 0);
        }
        most = most.max(segments.write(&[table]).expect("written"));
    }
    segments.finish().expect("finished");
    let mut left = files(dir.path()).expect("read");
    left.sort();
    let bytes: u64 = left.iter().map(|path| path.metadata().expect("there").len()).sum();
    assert!(bytes <= (64 << 10) + (64 << 10) / 8 && most <= 64 << 10, "{bytes} {most}");
    let (all, traffic) = read(dir.path());
    assert_eq!(traffic.problems.count, 0);
    assert_eq!(all.keys().last(), Some(&(NOW + 399 * 60)));
    assert!(all.len() < 300 && *all.keys().next().expect("some") > NOW + 100 * 60);
}

#[test]
fn a_recording_that_is_cut_off_is_used_up_to_there() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut segments = segments(dir.path(), 1 << 30);
    for second in 0..10 {
        segments.write(&[table(NOW + second, &[("acme", 2, 0)])]).expect("written");
    }
    // As a crash leaves it: flushed each second and never ended.
    drop(segments);
    let (all, traffic) = read(dir.path());
    assert_eq!((all.len(), traffic.problems.count), (10, 1));
    assert!(traffic.problems.named[0].contains("cut off"), "{:?}", traffic.problems);
    let path = files(dir.path()).expect("read").remove(0);
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..bytes.len() * 3 / 4]).expect("written");
    let (all, traffic) = read(dir.path());
    assert!((3..10).contains(&all.len()), "{}", all.len());
    assert!(traffic.problems.count >= 1);
}

#[test]
fn what_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        let mut file = std::fs::File::create(&path).expect("created");
        file.write_all(text.as_bytes()).expect("written");
        path
    };
    let head = r#"{"format":"tidegate-traffic","version":1,"replica":"r","started":100}"#;
    let shape = r#"{"shape":0,"domain":"d","class":"c","descriptors":[{"entries":[["k","v"]]}]}"#;
    let other = file("other", r#"{"format":"tidegate-traffic","version":2,"started":100}"#);
    let foreign = file("foreign", "hello\n");
    let text = [
        head,
        shape,
        r#"{"t":100,"rows":[[0,3,[3],[0,9],[]],[7,1,[1],[0,0],[]],[0,1,[1,1],[0,0],[]]]}"#,
        "{",
        r#"{"t":99,"rows":[[0,1,[1],[0,0],[]]]}"#,
        r#"{"t":5000,"rows":[[0,1,[1],[0,0],[]]]}"#,
        r#"{"t":101,"rows":[[0,4,[4],[0,9],[]]],"other":[5,1]}"#,
    ];
    let good = file("good", &text.join("\n"));
    let (all, traffic) = Traffic::open(&[other, foreign, good]).expect("one is good").read_all();
    assert_eq!(
        all.values().flat_map(|second| &second.rows).map(|row| row.requests).sum::<u64>(),
        7
    );
    assert_eq!(all[&101].other, (5, 1));
    let named = traffic.problems.named.join("\n");
    for expected in [
        "other:1: has version 2, and only 1 is known",
        "foreign:1: a line that does not read",
        "good:3: a row of shape 7 that does not fit",
        "good:3: a row of shape 0 that does not fit",
        "good:4: a line that does not read",
        "good:5: a second out of order",
        "good:6: a second out of order",
    ] {
        assert!(named.contains(expected), "{expected}\n{named}");
    }
    assert_eq!(traffic.problems.count, 7);
    assert!(Traffic::open(&[PathBuf::from("/nonexistent")]).is_err());
}

#[test]
fn a_clock_that_jumps_begins_another_file() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let seconds = [NOW, NOW + 1, NOW - 3600, NOW - 3599, NOW + 90_000];
    let tables: Vec<Table> = seconds.map(|second| table(second, &[("acme", 1, 0)])).into();
    written(dir.path(), &tables);
    let (all, traffic) = read(dir.path());
    assert_eq!((files(dir.path()).expect("read").len(), traffic.problems.count), (3, 0));
    let mut sorted = seconds;
    sorted.sort_unstable();
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), sorted);
}

#[test]
fn hashed_values_are_nowhere_in_the_file() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let salt = "0123456789abcdef";
    let hashed = HashedKeys::try_new(["tenant".to_owned()], salt.to_owned()).expect("a salt");
    let mut segments = Segments::new(dir.path(), 1 << 30, "r".to_owned(), hashed).expect("made");
    segments.write(&[table(NOW, &[("acme", 1, 0)])]).expect("written");
    segments.finish().expect("finished");
    let path = files(dir.path()).expect("read").remove(0);
    let text = zstd::decode_all(&std::fs::read(path).expect("read")[..]).expect("zstd");
    let text = String::from_utf8(text).expect("text");
    assert!(!text.contains("acme"), "{text}");
    let (_, traffic) = read(dir.path());
    let value = &traffic.shapes[0].descriptors[0].entries[0].1;
    assert_eq!(*value, hash(salt, "tenant", "acme"));
    assert!(traffic.hashed_keys.contains("tenant"));
}

fn quotas() -> Quotas {
    let text = "domain: edge\ndescriptors: [{key: tenant, rate_limit: {unit: minute, requests_per_unit: 5}}]";
    let contents = BTreeMap::from([(PathBuf::from("a.yaml"), Ok(text.as_bytes().to_vec()))]);
    Library::new(false).update(&contents).quotas
}

fn decision() -> Decision {
    Decision {
        trials: vec![],
        over_limit: false,
        statuses: vec![],
        headers: vec![],
        metadata: None,
        degraded: None,
        outcomes: vec![],
        shadowed: false,
        retry_seconds: None,
    }
}

#[test]
fn a_writer_that_falls_behind_loses_whole_seconds_and_says_so() {
    let (recorder, quotas, request) = (Recorder::new(SHARDS * 4), quotas(), request("acme", 1));
    let plan = plan(&request, &quotas, &Settings::default(), NOW).expect("planned");
    let seconds = SECONDS_WAITING_MAX as u64 + 3;
    for second in 0..seconds {
        for _ in 0..3 {
            let now = Duration::from_secs(NOW + second);
            recorder.record(&request, &plan, &decision(), now);
        }
    }
    // The last one is not over.
    let (tables, dropped) = recorder.take(Duration::from_secs(NOW + seconds - 1));
    assert_eq!((tables.len(), dropped.seconds, dropped.requests), (SECONDS_WAITING_MAX, 2, 6));
    assert_eq!(tables[0].second(), Some(NOW + 2));
    recorder.give_back(tables);
    let (tables, dropped) = recorder.take(Duration::MAX);
    assert_eq!((tables.len(), dropped.requests, tables[0].requests()), (1, 0, 3));
}
