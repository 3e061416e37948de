//! Every fault of Redis against every class: what is answered while it lasts, and that afterwards
//! all is as it was. Two replicas behind a proxy that fails on command, a real Redis behind it.
//!
//! The outcomes are written as the table in REFERENCE.md and compared with it. With
//! `OUTAGE_MATRIX=write` the table there is replaced.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use proto::pb::google::protobuf::value::Kind;

use crate::redis_parts::free_port;
use crate::support::proxy::{Fault, Proxy};
use crate::support::{RedisServer, Service, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 8}
  - key: load
    rate_limit: {unit: year, requests_per_unit: 1000000, mode: exact}
";
const LIMIT: usize = 8;
const REPLICAS: usize = 2;
/// What each replica is asked of each class in the outage.
const ASKED: usize = 6;

const CLASSES: [&str; 4] = ["system-node-critical", "platform-core", "ingest", "background"];

/// A fault, how it is made and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Killed,
    RestartedEmpty,
    Stopped,
    OutOfMemory,
    NoAuth,
    Failover,
    /// What the proxy does.
    Way(&'static str, Fault),
}

/// All of them. Real servers make those without a proxy's fault.
const ROWS: [Row; 21] = [
    Row::Killed,
    Row::RestartedEmpty,
    Row::Stopped,
    Row::OutOfMemory,
    Row::NoAuth,
    Row::Failover,
    Row::Way("connection refused", Fault::Refuse),
    Row::Way("black hole", Fault::BlackHole),
    Row::Way("50 ms slow", Fault::Delay(Duration::from_millis(50))),
    Row::Way("replies lost", Fault::LoseReplies),
    Row::Way("replies cut off", Fault::CutMidReply),
    Row::Way("connections reset", Fault::Reset),
    Row::Way("LOADING", Fault::Error("LOADING Redis is loading the dataset in memory")),
    Row::Way(
        "READONLY",
        Fault::WriteError("READONLY You can't write against a read only replica."),
    ),
    Row::Way("CLUSTERDOWN", Fault::Error("CLUSTERDOWN The cluster is down")),
    Row::Way("MOVED storm", Fault::Error("MOVED 3999 127.0.0.1:1")),
    Row::Way("MASTERDOWN", Fault::Error("MASTERDOWN Link with MASTER is down")),
    Row::Way("BUSY", Fault::Error("BUSY Redis is busy running a script.")),
    Row::Way("TRYAGAIN", Fault::Error("TRYAGAIN Multiple keys request during rehashing of slot")),
    Row::Way("EXECABORT", Fault::Error("EXECABORT Transaction discarded because of errors.")),
    Row::Way("NOPERM", Fault::WriteError("NOPERM this user has no permissions to run this")),
];

impl Row {
    fn name(self) -> &'static str {
        match self {
            Row::Killed => "killed, restarted with its data",
            Row::RestartedEmpty => "killed, restarted empty",
            Row::Stopped => "stopped (SIGSTOP)",
            Row::OutOfMemory => "out of memory (`maxmemory`)",
            Row::NoAuth => "password changed (NOAUTH)",
            Row::Failover => "demoted, another promoted (READONLY)",
            Row::Way(name, _) => name,
        }
    }

    /// Nothing but time tells of some faults; for the others no slow machine may look like one.
    fn budget(self) -> &'static str {
        match self {
            Row::Stopped => "40ms",
            Row::Way(_, Fault::BlackHole | Fault::Delay(_) | Fault::LoseReplies) => "40ms",
            _ => "1s",
        }
    }

    fn keeps_data(self) -> bool {
        self != Row::RestartedEmpty
    }
}

/// The machine was too slow for what the row needs: it is tried again.
#[derive(Debug)]
struct Disturbed;

/// How often a row is tried again.
const TRIES: usize = 20;

/// What a row came to.
struct Outcome {
    /// Admitted of what was asked during the outage, by class.
    admitted: [usize; 4],
    recovery: Duration,
    connections: usize,
    peak_before: usize,
    peak_after: usize,
}

struct Stage {
    row: Row,
    server: RedisServer,
    /// Of a failover.
    other: Option<RedisServer>,
    proxy: Proxy,
    replicas: [Service; REPLICAS],
}

impl Stage {
    async fn start(row: Row) -> Self {
        let port = free_port().to_string();
        let server = match row {
            Row::Killed => {
                let durable = ["--appendonly", "yes", "--appendfsync", "always"];
                RedisServer::start_with(&durable).await
            }
            Row::Failover => {
                RedisServer::start_with(&["--bind", "127.0.0.1", "--port", &port]).await
            }
            _ => RedisServer::start().await,
        };
        let other = match row {
            Row::Failover => {
                let other = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]).await;
                other.command(&["REPLICAOF", "127.0.0.1", &port]).await;
                other.wait_for_info("replication", "master_link_status:up").await;
                Some(other)
            }
            _ => None,
        };
        let proxy = Proxy::start(server.socket());
        let environment = [
            ("BACKEND_TYPE", "redis".to_owned()),
            ("REDIS_SOCKET_TYPE", "tcp".to_owned()),
            ("REDIS_URL", format!("127.0.0.1:{}", proxy.port())),
            ("REDIS_CALL_BUDGET", row.budget().to_owned()),
        ];
        let replicas = [
            Service::start_with(&[("a.yaml", QUOTAS)], &environment).await,
            Service::start_with(&[("a.yaml", QUOTAS)], &environment).await,
        ];
        let stage = Self { row, server, other, proxy, replicas };
        for replica in &stage.replicas {
            wait_for("the replicas know each other", async || {
                replica.metric("ratelimit_share_replicas").await == Some(2.0)
            })
            .await;
        }
        stage
    }

    async fn wait_for_breakers_to_open(&self) {
        for replica in &self.replicas {
            wait_for(&format!("the breaker opens: {}", self.row.name()), async || {
                replica.metric("ratelimit_breaker_open").await == Some(1.0)
            })
            .await;
        }
    }

    async fn wait_for_recovery(&self) {
        for replica in &self.replicas {
            wait_for(&format!("redis is in use again: {}", self.row.name()), async || {
                replica.is_in_reach().await
            })
            .await;
        }
    }

    /// Calls and probes without an answer: each may have been counted or not.
    async fn failed_calls(&self) -> usize {
        let mut sum = 0.0;
        for replica in &self.replicas {
            let (_, text) = replica.admin("/metrics").await;
            let lines =
                text.lines().filter(|line| line.starts_with("ratelimit_store_errors_total"));
            let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            sum += values.sum::<f64>();
        }
        sum as usize
    }

    /// What Redis counted of the load.
    async fn load_counted(&self) -> usize {
        let mut connection = self.primary().connection().await;
        let mut keys = redis::cmd("KEYS");
        let keys = keys.arg("*4:load*|y*").query_async::<Vec<String>>(&mut connection).await;
        let mut sum = 0;
        for key in keys.expect("told") {
            let mut get = redis::cmd("GET");
            sum += get.arg(key).query_async::<usize>(&mut connection).await.expect("a count");
        }
        sum
    }

    async fn fail(&mut self) {
        match self.row {
            Row::Killed | Row::RestartedEmpty => self.server.kill(),
            Row::Stopped => self.server.signal("STOP"),
            Row::OutOfMemory => self.server.command(&["CONFIG", "SET", "maxmemory", "1"]).await,
            Row::NoAuth => {
                let lock = ["CONFIG", "SET", "requirepass", "another"];
                let throw_out = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
                self.server.commands(&[&lock, &throw_out]).await;
            }
            Row::Failover => {
                let other = self.other.as_ref().expect("started");
                // What the old one still acknowledges, the new one would not have.
                self.server.command(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
                wait_for("the replica has all", async || {
                    let (ours, theirs) = (self.server.offset().await, other.offset().await);
                    ours.is_some() && ours == theirs
                })
                .await;
                other.command(&["REPLICAOF", "NO", "ONE"]).await;
                let (demote, go_on) = (["REPLICAOF", "127.0.0.1", "1"], ["CLIENT", "UNPAUSE"]);
                self.server.commands(&[&demote, &go_on]).await;
            }
            Row::Way(_, fault) => self.proxy.set(fault).await,
        }
    }

    async fn mend(&mut self) {
        match self.row {
            Row::Killed | Row::RestartedEmpty => self.server.restart().await,
            Row::Stopped => self.server.signal("CONT"),
            Row::OutOfMemory => self.server.command(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Row::NoAuth => {
                let enter = ["AUTH", "another"];
                let unlock = ["CONFIG", "SET", "requirepass", ""];
                self.server.commands(&[&enter, &unlock]).await;
            }
            Row::Failover => {
                self.proxy.retarget(self.other.as_ref().expect("started").socket());
            }
            Row::Way(..) => self.proxy.set(Fault::Pass).await,
        }
    }

    /// The server that counts.
    fn primary(&self) -> &RedisServer {
        self.other.as_ref().unwrap_or(&self.server)
    }

    async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}

/// Whether a request of this class passes, and whether the answer says that it is degraded.
async fn ask(service: &Service, key: &str, class: &str) -> (bool, bool) {
    let asked = request("edge", &[&[(key, class), ("priority", class)]]);
    let answer = service.ask(asked).await.expect("never an error for a fault of the store");
    let metadata = answer.dynamic_metadata.clone().unwrap_or_default();
    let degraded = metadata.fields.get("degraded").and_then(|value| value.kind.clone());
    (answer.overall_code() == Code::Ok, degraded == Some(Kind::BoolValue(true)))
}

/// Between an answer and the next request to the same replica.
const PAUSE: Duration = Duration::from_millis(5);

/// Requests of all classes without end, so that the fault is noticed and recovery has a load.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
    running: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(replicas: &[Service; REPLICAS]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, passed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut running = tokio::task::JoinSet::new();
        for replica in replicas {
            let (asked, passed) = (asked.clone(), passed.clone());
            let (stop, client) = (stop.clone(), replica.client.clone());
            running.spawn(async move {
                for class in CLASSES.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let wanted = request("edge", &[&[("load", class), ("priority", class)]]);
                    let answer = client.clone().should_rate_limit(wanted).await;
                    let answer = answer.expect("never an error for a fault of the store");
                    let ok = answer.into_inner().overall_code() == Code::Ok;
                    passed.fetch_add(usize::from(ok), Ordering::Relaxed);
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { stop, asked, passed, running }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Ends it; how many requests it was, and how many passed.
    async fn stop(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.expect("no error all along");
        }
        (self.asked(), self.passed.load(Ordering::Relaxed))
    }
}

/// One hit of each class at each replica.
async fn one_hit_each(stage: &Stage) -> Result<(), Disturbed> {
    for class in CLASSES {
        for replica in &stage.replicas {
            if ask(replica, "tenant", class).await != (true, false) {
                return Err(Disturbed);
            }
        }
    }
    Ok(())
}

/// What each class is answered while the fault lasts.
async fn during(stage: &Stage) -> [usize; 4] {
    let mut admitted = [0; 4];
    for (class, admitted) in CLASSES.iter().zip(&mut admitted) {
        for replica in &stage.replicas {
            assert_eq!(replica.admin("/readyz").await.0, 200);
            for _ in 0..ASKED {
                let (passes, degraded) = ask(replica, "tenant", class).await;
                assert!(degraded, "{} {class}: an outage is told", stage.row.name());
                *admitted += usize::from(passes);
            }
        }
    }
    admitted
}

/// What passes of each class afterwards, until its limit is reached.
async fn after(stage: &Stage) -> Result<[usize; 4], Disturbed> {
    let mut admitted = [0; 4];
    for (class, admitted) in CLASSES.iter().zip(&mut admitted) {
        loop {
            match ask(&stage.replicas[*admitted % 2], "tenant", class).await {
                (_, true) => return Err(Disturbed),
                (true, false) => *admitted += 1,
                (false, false) => break,
            }
        }
    }
    Ok(admitted)
}

async fn run(row: Row) -> Result<Outcome, Disturbed> {
    let mut stage = Stage::start(row).await;
    let before = Instant::now();
    let load = Load::start(&stage.replicas);
    one_hit_each(&stage).await?;
    let peak_before = stage.proxy.seen().per_100_ms(before).into_iter().max().unwrap_or(0);

    stage.fail().await;
    stage.wait_for_breakers_to_open().await;
    let admitted = during(&stage).await;

    let mended = Instant::now();
    stage.mend().await;
    let asked = load.asked();
    stage.wait_for_recovery().await;
    let recovery = mended.elapsed();
    let peak_after = stage.proxy.seen().per_100_ms(mended).into_iter().max().unwrap_or(0);
    let later = after(&stage).await?;
    let seen = stage.proxy.seen().since(mended);
    let (all_asked, passed) = load.stop().await;
    let asked = all_asked - asked + later.iter().sum::<usize>() + CLASSES.len();
    let (counted, lost) = (stage.load_counted().await, stage.failed_calls().await);
    let told = format!("{}: {counted} counted, {passed} passed, {lost} lost", row.name());
    assert!(counted <= passed + lost, "twice: {told}");
    assert!(counted + lost >= passed || !row.keeps_data(), "forgotten: {told}");
    stage.stop().await;

    let connections = seen.connections.len();
    assert!(connections <= 2 * (2 + recovery.as_millis() as usize / 50), "{connections}");
    // A request is an INCRBY, and an EXPIRE at most; a probe is a handful.
    let commands = seen.commands.len();
    assert!(commands <= 2 * asked + 8 * connections + 40, "{commands} for {asked} requests");
    // Beside a probe: what a connection begins with, its proof, a sign of life, a script loaded.
    // What the load may ask at its pace always may come, though a busier machine had let less through before.
    let pace = REPLICAS * 100 / PAUSE.as_millis() as usize;
    let most = 2 * peak_before.max(pace) + 16;
    assert!(peak_after <= most, "{peak_after} commands in 100 ms after {peak_before} before");
    for ((class, during), after) in CLASSES.iter().zip(admitted).zip(later) {
        // What was counted before is lost with the data, what passed since is not.
        let counted = if row.keeps_data() { 2 + during } else { during };
        let name = row.name();
        assert_eq!(after, LIMIT.saturating_sub(counted), "{name} {class}: {counted} counted");
    }
    Ok(Outcome { admitted, recovery, connections, peak_before, peak_after })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_has_the_configured_outcome() {
    let mut table = String::from("| Redis | ");
    table += &CLASSES.map(|class| format!("`{class}`")).join(" | ");
    table += " |\n|---|---|---|---|---|\n";
    for row in ROWS {
        let mut tries = 0;
        let outcome = loop {
            match run(row).await {
                Ok(outcome) => break outcome,
                Err(Disturbed) if tries < TRIES => tries += 1,
                Err(Disturbed) => panic!("{}: disturbed {TRIES} times", row.name()),
            }
        };
        let Outcome { admitted, recovery, connections, peak_before, peak_after } = outcome;
        let name = row.name();
        eprintln!(
            "{name}: back after {recovery:?}, {connections} connections, at most {peak_after} \
             commands in 100 ms (before: {peak_before})"
        );
        let cells = admitted.map(|admitted| match admitted {
            0 => "refused".to_owned(),
            all if all == 2 * ASKED => "passes".to_owned(),
            some => format!("{some} of {LIMIT}"),
        });
        writeln!(table, "| {name} | {} |", cells.join(" | ")).expect("written");
    }
    compare(&table, &Golden::MATRIX);
}

/// Where a table is in REFERENCE.md.
pub struct Golden {
    begin: &'static str,
    end: &'static str,
}

impl Golden {
    const MATRIX: Self =
        Self { begin: "<!-- outage matrix -->\n", end: "<!-- end of the outage matrix -->\n" };
    pub const CLUSTER: Self =
        Self { begin: "<!-- cluster matrix -->\n", end: "<!-- end of the cluster matrix -->\n" };
}

/// Holds a table to the one in REFERENCE.md, or replaces that.
pub fn compare(table: &str, Golden { begin, end }: &Golden) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    let text = std::fs::read_to_string(&path).expect("read");
    let (head, rest) = text.split_once(begin).expect("the table's beginning");
    let (golden, tail) = rest.split_once(end).expect("the table's end");
    if std::env::var("OUTAGE_MATRIX").is_ok_and(|value| value == "write") {
        std::fs::write(&path, format!("{head}{begin}{table}{end}{tail}")).expect("written");
        return;
    }
    assert_eq!(table, golden, "OUTAGE_MATRIX=write takes the new outcomes into REFERENCE.md");
}
