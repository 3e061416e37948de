//! The promise made to autoscaling: a writer of half a processor and 1 GiB carries 5,000 points a
//! second.
//!
//! The process runs in a control group of just that size where this machine lets us make one, and
//! else free. Either way the promise is held by what the kernel accounts to it: CPU for a point,
//! and the most memory it had.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use ingest_filter::record::Record;

use crate::influxd::Influxd;
use crate::support::{append, appender, wait_for};
use crate::writer_file::get;
use crate::writer_influxdb::journal_in;

const POINTS_PER_SECOND: u64 = 5_000;
const CPU_MILLIS: u64 = 500;
const MEMORY_BYTES: u64 = 1 << 30;
/// Twelve seconds of it.
const POINTS: u64 = 60_000;
const POINTS_OF_RECORD: u64 = 500;

/// A control group of one test; gone when dropped.
struct Confined(Vec<PathBuf>);

impl Confined {
    /// With the bounds of the promise, by version 1 or 2 of control groups; `None` where we may
    /// not.
    fn make() -> Option<Self> {
        Self::make_in(Path::new("/sys/fs/cgroup"))
    }

    /// The same where control groups are mounted here.
    fn make_in(root: &Path) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-test-{}-{number}", std::process::id());
        let version_2 = root.join("cgroup.controllers").exists();
        let (period, memory) = (100_000, MEMORY_BYTES.to_string());
        let quota = period * CPU_MILLIS / 1000;
        let bounds: Vec<(PathBuf, &str, String)> = match version_2 {
            true => vec![
                (root.join(&name), "cpu.max", format!("{quota} {period}")),
                (root.join(&name), "memory.max", memory),
            ],
            false => vec![
                (root.join("cpu").join(&name), "cpu.cfs_period_us", period.to_string()),
                (root.join("cpu").join(&name), "cpu.cfs_quota_us", quota.to_string()),
                (root.join("memory").join(&name), "memory.limit_in_bytes", memory),
            ],
        };
        // What was made so far goes again when the rest cannot be had.
        let mut made = Self(Vec::new());
        for (directory, file, value) in bounds {
            if !made.0.contains(&directory) {
                std::fs::create_dir(&directory).ok()?;
                made.0.push(directory.clone());
            }
            std::fs::write(directory.join(file), value).ok()?;
        }
        Some(made)
    }

    /// A shell that enters the group and then is the program.
    fn command(&self, program: &str) -> Command {
        let enter: String =
            self.0.iter().map(|it| format!("echo $$ >{}/cgroup.procs && ", it.display())).collect();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{enter}exec \"$0\" \"$@\""), program]);
        command
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// This machine has one version of control groups, so that both are tried on a tree of directories.
#[test]
fn a_group_has_the_bounds_of_the_promise_by_both_versions() {
    let check = |mounted: &[&str], files: &[(&str, &str)]| {
        let root = tempfile::tempdir().unwrap();
        for path in mounted {
            match path.strip_suffix('/') {
                Some(directory) => std::fs::create_dir(root.path().join(directory)).unwrap(),
                None => std::fs::write(root.path().join(path), "cpu memory\n").unwrap(),
            }
        }
        let group = Confined::make_in(root.path()).expect("a group");
        let output = group.command("sh").args(["-c", "echo $$"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let pid = String::from_utf8(output.stdout).unwrap();
        for directory in &group.0 {
            let entered = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap();
            assert_eq!(entered, pid, "the program itself is in {}", directory.display());
        }
        let name = group.0[0].file_name().unwrap().to_str().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.replace("NAME", name));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), *text, "{}", path.display());
        }
        group.0.len()
    };
    let version_2 = [("NAME/cpu.max", "50000 100000"), ("NAME/memory.max", "1073741824")];
    assert_eq!(check(&["cgroup.controllers"], &version_2), 1);
    let version_1 = [
        ("cpu/NAME/cpu.cfs_period_us", "100000"),
        ("cpu/NAME/cpu.cfs_quota_us", "50000"),
        ("memory/NAME/memory.limit_in_bytes", "1073741824"),
    ];
    assert_eq!(check(&["cpu/", "memory/"], &version_1), 2);
    let nothing = tempfile::tempdir().unwrap();
    assert!(Confined::make_in(nothing.path()).is_none(), "nothing is mounted");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU of a process so far, in milliseconds, and the most memory it had, in bytes.
fn used(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may hold anything: state is field 3, user and system time 14 and 15,
    // in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<u64>().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
    ((ticks(14) + ticks(15)) * 10, kib << 10)
}

fn records() -> impl Iterator<Item = Record> {
    (0..POINTS / POINTS_OF_RECORD).map(|record| {
        let line = |point: u64| {
            let number = record * POINTS_OF_RECORD + point;
            format!(
                "cpu,host=server-{:04},region=eu-west-1 usage_user=12.5,usage_system=3.25,\
                 usage_idle=84.25,ctx={number}i {}\n",
                number % 1000,
                1_700_000_000_000_000_000_u64 + number
            )
        };
        let body: String = (0..POINTS_OF_RECORD).map(line).collect();
        crate::writer_influxdb::with_body(record, body)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_processor_carries_5000_points_a_second() {
    let server = Influxd::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (journal, dead) = journal_in(directory.path());
    let journal_appender = appender(&journal);
    for record in records() {
        append(&journal_appender, vec![record]).await;
    }
    let path = directory.path().join("i.yaml");
    let text = format!(
        "journal: {{disk: {{directory: '{}'}}}}\n\
         writer: {{admin_listen: '127.0.0.1:0', influxdb_v1: {{url: '{}'}}}}\n",
        dead.parent().unwrap().display(),
        server.url()
    );
    std::fs::write(&path, text).unwrap();
    let confined = Confined::make();
    let program = env!("CARGO_BIN_EXE_ingest-filter");
    let mut command = match &confined {
        Some(group) => group.command(program),
        None => Command::new(program),
    };
    let child = command
        .args(["writer", "--config", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let log = BufReader::new(running.0.stdout.take().unwrap());
    let mut log = log.lines().map(|line| line.unwrap());
    let runs = log.find(|line| line.contains("writer is running")).unwrap();
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    let admin = runs["admin"].as_str().unwrap().parse().unwrap();
    std::thread::spawn(move || log.for_each(drop));

    let written = format!("ingest_writer_points_written_total {POINTS}\n");
    wait_for("all points", || async {
        get(admin, "/metrics").await.contains(&written).then_some(())
    })
    .await;
    let (cpu_ms, memory) = used(running.0.id());
    let allowed_ms = POINTS * CPU_MILLIS / POINTS_PER_SECOND;
    let group = if confined.is_some() { "in" } else { "without" };
    eprintln!(
        "{POINTS} points {group} a control group: {cpu_ms} ms of CPU of {allowed_ms} allowed, {} MiB",
        memory >> 20
    );
    assert!(cpu_ms <= allowed_ms, "{cpu_ms} ms of CPU for {POINTS} points, allowed {allowed_ms}");
    assert!(memory <= MEMORY_BYTES, "{memory} bytes");
    assert!(running.0.try_wait().unwrap().is_none(), "it runs on within its bounds");
    let count = server.rows("select count(ctx) from cpu").await;
    assert_eq!(count[0][1], POINTS);
}
