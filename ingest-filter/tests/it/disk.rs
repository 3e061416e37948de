//! The disk journal: the contract, and what can happen to files.

use std::fs;
use std::path::{Path, PathBuf};

use chassis::readiness::Readiness;
use ingest_filter::journal::config::{DiskConfig, JournalConfig};
use ingest_filter::journal::{AppendError, Journal, open_appender, open_reader};
use prometheus_client::registry::Registry;

use crate::contract;
use crate::support::{append, appender, read_until, reader, record, records, wait_for};

fn in_directory(path: &Path) -> JournalConfig {
    JournalConfig::Disk(DiskConfig { segment_bytes: 64 << 10, ..DiskConfig::new(path) })
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    found.sort();
    found
}

fn numbers(deliveries: &[(i32, ingest_filter::journal::Delivery)]) -> Vec<i64> {
    let admitted = records(deliveries).into_iter().map(|record| record.admitted_at_ns);
    admitted.map(|at| at - 1_700_000_000_000_000_000).collect()
}

#[tokio::test]
async fn keeps_the_contract() {
    let check = || tempfile::tempdir().unwrap();
    let directory = check();
    contract::nothing_is_changed(&in_directory(directory.path())).await;
    let directory = check();
    contract::order_is_kept(&in_directory(directory.path())).await;
    let directory = check();
    contract::confirmed_is_stored(&in_directory(directory.path())).await;
    let directory = check();
    contract::reading_resumes(&in_directory(directory.path())).await;
}

#[tokio::test]
async fn a_directory_has_one_appender_and_one_reader() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_directory(directory.path());
    let journal = appender(&config);
    let registry = &mut Registry::default();
    let error = open_appender(&config, &Readiness::new(), registry).err().unwrap().to_string();
    assert!(error.starts_with("another gateway has the journal directory "), "{error}");
    drop(journal);
    let _journal = appender(&config);
    let _reader = reader(&config);
    let error = open_reader(&config, &Readiness::new(), registry).err().unwrap().to_string();
    assert!(error.starts_with("another writer has the journal directory "), "{error}");
}

/// A process that dies in the middle of a write leaves a torn tail of any length.
#[tokio::test]
async fn a_tail_torn_at_any_byte_costs_only_what_was_not_whole() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_directory(directory.path());
    let journal = appender(&config);
    append(&journal, vec![record("a", 0, 0)]).await;
    let segment = segments(directory.path()).pop().unwrap();
    let one = fs::metadata(&segment).unwrap().len() as usize;
    append(&journal, vec![record("a", 0, 1)]).await;
    drop(journal);
    let whole = fs::read(&segment).unwrap();

    for length in one..=whole.len() {
        let directory = tempfile::tempdir().unwrap();
        let config = in_directory(directory.path());
        let torn = directory.path().join(segment.file_name().unwrap());
        fs::write(&torn, &whole[..length]).unwrap();
        let journal = appender(&config);
        append(&journal, vec![record("a", 0, 2)]).await;
        let expected = if length == whole.len() { vec![0, 1, 2] } else { vec![0, 2] };
        let read = read_until(reader(&config).reader, true, |all| all.len() >= expected.len());
        assert_eq!(numbers(&read.await), expected, "torn at {length}");
    }
}

/// Damage anywhere costs the frame it is in and no other, also in the newest segment.
#[tokio::test]
async fn damage_in_the_middle_is_skipped() {
    for newest in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let config = in_directory(directory.path());
        let journal = appender(&config);
        for number in 0..10 {
            append(&journal, vec![record("a", 0, number)]).await;
        }
        let segment = segments(directory.path()).pop().unwrap();
        let mut bytes = fs::read(&segment).unwrap();
        let frame = bytes.len() / 10;
        // Of record 2 the length, of record 5 the body, of record 7 the magic.
        bytes[2 * frame + 5] ^= 0x10;
        bytes[6 * frame - 3] ^= 0x10;
        bytes[7 * frame] = 0;
        fs::write(&segment, bytes).unwrap();
        if !newest {
            drop(journal);
            append(&appender(&config), vec![record("a", 0, 10)]).await;
        }
        let mut registry = Registry::default();
        let opened = open_reader(&config, &Readiness::new(), &mut registry).unwrap();
        let mut expected = vec![0, 1, 3, 4, 6, 8, 9];
        expected.extend((!newest).then_some(10));
        let read = read_until(opened.reader, true, |all| all.len() >= expected.len()).await;
        assert_eq!(numbers(&read), expected, "newest: {newest}");
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
        assert!(
            metrics.contains("ingest_journal_corrupt_regions_total{signal=\"all\"} 3"),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn segments_roll_and_are_deleted_once_written() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_directory(directory.path());
    let journal = appender(&config);
    let large = |number| {
        let mut record = record("a", 0, number);
        record.body = vec![b'x'; 30 << 10].into();
        record
    };
    for number in 0..20 {
        append(&journal, vec![large(number)]).await;
    }
    assert!(segments(directory.path()).len() >= 6);
    read_until(reader(&config).reader, true, |all| all.len() >= 20).await;
    let left = segments(directory.path());
    assert!(left.len() <= 2, "{left:?}");
    // The position outlives the segments it passed.
    append(&journal, vec![large(20)]).await;
    let read = read_until(reader(&config).reader, true, |all| !all.is_empty()).await;
    assert!(numbers(&read).ends_with(&[20]));
}

#[tokio::test]
async fn a_full_directory_refuses_until_the_writer_made_room() {
    let directory = tempfile::tempdir().unwrap();
    let config = JournalConfig::Disk(DiskConfig {
        segment_bytes: 64 << 10,
        bytes_max: 256 << 10,
        ..DiskConfig::new(directory.path())
    });
    let journal = appender(&config);
    let mut stored = 0;
    let refused = loop {
        let mut record = record("a", 0, stored);
        record.body = vec![b'x'; 20 << 10].into();
        match journal.append(vec![record]).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the bound is not kept");
    };
    let AppendError::Unavailable { reason, retry_after } = refused else {
        panic!("an append that may be tried again");
    };
    assert!(reason.contains("full"), "{reason}");
    assert!(retry_after.as_secs_f64() >= 1.0);
    let held: u64 =
        segments(directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(held <= 256 << 10);
    let read = read_until(reader(&config).reader, true, |all| all.len() as u64 >= stored).await;
    assert_eq!(read.len() as u64, stored, "nothing was dropped");
    append(&journal, vec![record("a", 0, stored)]).await;
}

/// The machine may lose bytes that the writer had already seen; positions are not used again.
#[tokio::test]
async fn a_segment_that_lost_its_end_hides_nothing_new() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_directory(directory.path());
    let journal = appender(&config);
    for number in 0..10 {
        append(&journal, vec![record("a", 0, number)]).await;
    }
    read_until(reader(&config).reader, true, |all| all.len() >= 10).await;
    drop(journal);
    let segment = segments(directory.path()).pop().unwrap();
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(100).unwrap();
    let journal = appender(&config);
    append(&journal, vec![record("a", 0, 10)]).await;
    let read = read_until(reader(&config).reader, true, |all| numbers(all).contains(&10)).await;
    assert!(numbers(&read).len() <= 2, "{:?}", numbers(&read));
}

#[tokio::test]
async fn a_reader_follows_a_live_appender() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_directory(directory.path());
    let opened = reader(&config);
    let reading = tokio::spawn(read_until(opened.reader, true, |all| all.len() >= 300));
    let journal = appender(&config);
    for number in 0..300 {
        let mut record = record("a", 0, number);
        record.body = vec![b'x'; 1000].into();
        append(&journal, vec![record]).await;
    }
    assert_eq!(numbers(&reading.await.unwrap()), (0..300).collect::<Vec<_>>());
}

/// Appends beyond the queue's bytes are refused at once; nothing waits in memory for a slow disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let config = JournalConfig::Disk(DiskConfig {
        queue_bytes_max: 64 << 10,
        ..DiskConfig::new(directory.path())
    });
    let journal = appender(&config);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let journal: std::sync::Arc<dyn Journal> = journal.clone();
        tasks.spawn(async move {
            let mut record = record("a", 0, number);
            record.body = vec![b'x'; 60 << 10].into();
            journal.append(vec![record]).await.is_ok()
        });
    }
    let answers = tasks.join_all().await;
    let confirmed = answers.iter().filter(|confirmed| **confirmed).count();
    assert!((1..200).contains(&confirmed), "{confirmed}");
    let read = read_until(reader(&config).reader, true, |all| all.len() >= confirmed).await;
    assert_eq!(read.len(), confirmed);
    // It recovers by itself.
    wait_for("room", || async { journal.append(vec![record("a", 0, 1)]).await.ok() }).await;
}

/// What is longer than the part of the queue that a tenant may hold goes piece by piece.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_queue_holds_is_stored_piece_by_piece() {
    let directory = tempfile::tempdir().unwrap();
    let config = JournalConfig::Disk(DiskConfig {
        queue_bytes_max: 256 << 10,
        ..DiskConfig::new(directory.path())
    });
    let journal = appender(&config);
    let all = (0..40).map(|number| {
        let mut record = record(if number % 7 == 0 { "a" } else { "b" }, 0, number);
        record.body = vec![b'x'; 30 << 10].into();
        record
    });
    journal.append(all.collect()).await.expect("five times the queue");
    let read = read_until(reader(&config).reader, true, |all| all.len() >= 40).await;
    assert_eq!(numbers(&read), (0..40).collect::<Vec<_>>(), "in their order");
}

/// A disk that takes no more files: appends are refused, readiness goes, and comes back by itself
/// although nobody appends any more.
#[tokio::test]
async fn a_broken_disk_takes_readiness_until_it_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_directory(directory.path());
    let readiness = Readiness::new();
    let journal = open_appender(&config, &readiness, &mut Registry::default()).unwrap();
    let mut large = record("a", 0, 0);
    large.body = vec![b'x'; 70 << 10].into();
    append(&journal, vec![large]).await;
    assert!(readiness.is_ready());
    // The segment is full, and in the place of the next one is a directory.
    let end = fs::metadata(&segments(directory.path())[0]).unwrap().len();
    let obstacle = directory.path().join(format!("{end:020}.seg"));
    fs::create_dir(&obstacle).unwrap();
    let error = journal.append(vec![record("a", 0, 1)]).await.expect_err("no segment").to_string();
    assert!(error.contains("creating a segment"), "{error}");
    assert!(!readiness.is_ready());
    fs::remove_dir(&obstacle).unwrap();
    wait_for("readiness", || async { readiness.is_ready().then_some(()) }).await;
    journal.append(vec![record("a", 0, 1)]).await.expect("stored");
}

/// At its cap the directory is listed before each append. Where that fails, the segment is as it was, and
/// readiness comes back by itself all the same.
#[tokio::test]
async fn a_directory_that_cannot_be_listed_takes_readiness_until_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let (path, aside) = (directory.path().join("journal"), directory.path().join("aside"));
    let config = DiskConfig { bytes_max: 100 << 10, ..DiskConfig::new(&path) };
    let readiness = Readiness::new();
    let journal = JournalConfig::Disk(config);
    let journal = open_appender(&journal, &readiness, &mut Registry::default()).unwrap();
    let mut large = record("a", 0, 0);
    large.body = vec![b'x'; 70 << 10].into();
    append(&journal, vec![large.clone()]).await;
    fs::rename(&path, &aside).unwrap();
    let error = journal.append(vec![large.clone()]).await.expect_err("not listed").to_string();
    assert!(error.contains("listing the directory"), "{error}");
    assert!(!readiness.is_ready());
    fs::rename(&aside, &path).unwrap();
    wait_for("readiness", || async { readiness.is_ready().then_some(()) }).await;
    let error = journal.append(vec![large]).await.expect_err("at its cap").to_string();
    assert!(error.contains("is full"), "{error}");
    journal.append(vec![record("a", 0, 1)]).await.expect("stored");
}

/// A disk that is full makes empty files all the same, so it is tried with data; until then no
/// append leaves another torn segment.
#[tokio::test]
async fn a_disk_is_trusted_again_only_after_it_took_data() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_directory(directory.path());
    let readiness = Readiness::new();
    let journal = open_appender(&config, &readiness, &mut Registry::default()).unwrap();
    let mut large = record("a", 0, 0);
    large.body = vec![b'x'; 70 << 10].into();
    append(&journal, vec![large]).await;
    let end = fs::metadata(&segments(directory.path())[0]).unwrap().len();
    let obstacle = directory.path().join(format!("{end:020}.seg"));
    let probe = directory.path().join("probe");
    fs::create_dir(&obstacle).unwrap();
    fs::create_dir(&probe).unwrap();
    journal.append(vec![record("a", 0, 1)]).await.expect_err("no segment");
    fs::remove_dir(&obstacle).unwrap();
    for _ in 0..3 {
        let error = journal.append(vec![record("a", 0, 1)]).await.expect_err("not tried yet");
        assert!(error.to_string().contains("to try the disk"), "{error}");
        assert!(!readiness.is_ready());
    }
    assert_eq!(segments(directory.path()).len(), 1, "no segment was begun");
    fs::remove_dir(&probe).unwrap();
    wait_for("readiness", || async { readiness.is_ready().then_some(()) }).await;
    journal.append(vec![record("a", 0, 1)]).await.expect("stored");
    assert!(!probe.exists(), "the file that tries the disk is gone");
}
