//! A simulation is held to the truth: a service is recorded under load, and the same quotas must give the
//! same answers to the recording; other quotas must give what a service with those answered.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ratelimit_svc::clock::wall;
use serde_json::Value as Json;

use crate::support::{RedisServer, Service, descriptor, request, wait_for};

/// Every algorithm, a limit that classes share, and requests that meet two rules.
const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: tenant, value: second, rate_limit: {unit: second, requests_per_unit: 90}}
  - {key: tenant, value: shared, rate_limit: {unit: second, requests_per_unit: 120}}
  - {key: tenant, value: sliding, rate_limit: {window: 2s, requests_per_unit: 150, algorithm: sliding_window}}
  - {key: tenant, value: bucket, rate_limit: {unit: second, requests_per_unit: 80, algorithm: token_bucket, burst: 100}}
  - {key: tenant, rate_limit: {unit: hour, requests_per_unit: 300}}
  - {key: path, rate_limit: {unit: hour, requests_per_unit: 500}}
";

/// Requests of one client.
const REQUESTS: u32 = 600;
/// How many of them in a second.
const RATE: u32 = 150;

/// A tenant and its class, one client each.
type Client = (&'static str, Option<&'static str>);

const CLIENTS: [Client; 6] = [
    ("second", None),
    ("shared", Some("system-node-critical")),
    ("shared", Some("background")),
    ("sliding", None),
    ("bucket", None),
    ("plain", None),
];

/// What a client asks each time.
fn message((tenant, class): Client) -> RateLimitRequest {
    let class = class.map(|class| ("priority", class));
    let entries: Vec<_> = [("tenant", tenant)].into_iter().chain(class).collect();
    let mut message = request("edge", &[&entries]);
    if tenant == "plain" {
        message.descriptors.push(descriptor(&[("path", "/write")]));
    }
    message
}

/// Whether a request is refused.
async fn is_refused(service: &Service, client: Client) -> bool {
    let answer = service.ask(message(client)).await.expect("answered");
    answer.overall_code() == Code::OverLimit
}

/// The time of a service that is recorded, microseconds since the epoch: it goes on from one request to the
/// next and not between them, so that a busy machine sends nothing late. It starts with an hour.
static TIME: AtomicU64 = AtomicU64::new(500_000 * 3_600_000_000);

fn time() -> Duration {
    Duration::from_micros(TIME.load(Ordering::Relaxed))
}

/// How many clients asked, each as often, of a service with these quotas that is recorded into `dir`, and
/// how often they were refused. `pause` passes before each time that all of them ask, one after the other.
async fn load(
    quotas: &str,
    dir: &Path,
    wall_clock: fn() -> Duration,
    pause: impl Fn(),
) -> (u64, u64) {
    let set = [("RECORD_DIR", dir.display().to_string())];
    let service = Service::start_at(&[("a.yaml", quotas)], &set, wall_clock).await;
    let mut refused = 0;
    for _ in 0..REQUESTS {
        for client in CLIENTS {
            refused += u64::from(is_refused(&service, client).await);
        }
        pause();
    }
    service.stop().await;
    (u64::from(REQUESTS) * CLIENTS.len() as u64, refused)
}

/// How often one client is refused that asks services in turn, so often a second at most.
async fn client(services: &[Service], client: Client, requests: u32) -> u64 {
    let (began, mut refused) = (Instant::now(), 0);
    for asked in 0..requests {
        let service = &services[asked as usize % services.len()];
        refused += u64::from(is_refused(service, client).await);
        let due = began + Duration::from_secs(1) / RATE * (asked + 1);
        tokio::time::sleep_until(due.into()).await;
    }
    refused
}

/// How often all of them are refused.
async fn refusals(services: &[Service], requests: u32) -> u64 {
    let all = CLIENTS.iter().map(|one| client(services, *one, requests));
    futures_util::future::join_all(all).await.into_iter().sum()
}

fn simulate(dir: &Path, quotas: &str, more: &[&str]) -> (Option<i32>, Json) {
    let file = dir.join("new.yaml");
    std::fs::write(&file, quotas).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_ratelimit-svc"))
        .args(["simulate", "--format", "json", "--quotas"])
        .arg(&file)
        .arg("--traffic")
        .arg(dir.join("traffic"))
        .args(more)
        .env_clear()
        .output()
        .expect("runs");
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_quotas_give_the_same_answers() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tick = || _ = TIME.fetch_add(1_000_000 / u64::from(RATE), Ordering::Relaxed);
    let (asked, refused) = load(QUOTAS, &dir.path().join("traffic"), time, tick).await;
    let (code, report) = simulate(dir.path(), QUOTAS, &["--fail-if", "not_simulated > 0"]);
    assert_eq!(code, Some(0), "{report}");
    let total = |name: &str| report["total"][name].as_u64().expect("a number");
    assert_eq!((total("requests"), total("old_refused")), (asked, refused), "{report}");
    let off = total("new_refused").abs_diff(refused);
    assert!(refused > asked / 10, "{report}");
    assert!(off * 1000 <= asked, "{off} of {asked}: {report:#}");
}

/// Limits that two replicas lease from one Redis. Both ask for more than is left: where the load ended
/// before all was spent, which of them held the last blocks would be chance.
const LEASED: &str = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 400, mode: lease, reserve: none}}
  - {key: path, rate_limit: {unit: year, requests_per_unit: 300, mode: lease, reserve: none}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_on_redis_are_simulated_as_they_were() {
    let (dir, server) =
        (tempfile::tempdir().expect("temporary directory"), RedisServer::start().await);
    let services = recorded_on(&server, LEASED, dir.path()).await;
    let refused = refusals(&services, REQUESTS).await;
    for service in services {
        service.stop().await;
    }
    let asked = u64::from(REQUESTS) * CLIENTS.len() as u64;
    check(dir.path(), LEASED, &[], (asked, refused));
}

/// Two replicas on one Redis, recorded; both may claim.
async fn recorded_on(server: &RedisServer, quotas: &str, dir: &Path) -> Vec<Service> {
    let mut set = server.environment();
    set.push(("RECORD_DIR", dir.join("traffic").display().to_string()));
    set.push(("LOCAL_SHARE_REPLICAS", "2".to_owned()));
    let mut services = Vec::new();
    for _ in 0..2 {
        let service = Service::start_with(&[("a.yaml", quotas)], &set).await;
        wait_until_well(&service).await;
        services.push(service);
    }
    services
}

/// Waits until Redis is in use, leases claim and nothing is owed.
async fn wait_until_well(service: &Service) {
    wait_for("redis is in use", async || {
        let (_, shown) = service.admin("/config").await;
        let store = serde_json::from_str::<Json>(&shown).expect("JSON")["store"].clone();
        store["in_reach"] == true
            && store["leases"]["holding"] == false
            && store["owed_counters"] == 0
    })
    .await;
}

/// What was recorded of two replicas is what was asked of them, and simulated it is refused the same but
/// for one in a thousand.
fn check(dir: &Path, quotas: &str, more: &[&str], (asked, refused): (u64, u64)) {
    let fleet = [&["--replicas", "2", "--round-trip", "500us"], more].concat();
    let (code, report) = simulate(dir, quotas, &fleet);
    assert_eq!(code, Some(0), "{report}");
    let total = |name: &str| report["total"][name].as_u64().expect("a number");
    assert_eq!((total("requests"), total("old_refused")), (asked, refused), "{report}");
    let off = total("new_refused").abs_diff(refused);
    assert!(refused > asked / 10, "{report}");
    assert!(off * 1000 <= asked, "{off} of {asked}: {report:#}");
}

/// A limit of each way to be counted, each used up by a known number of requests.
const IN_AN_OUTAGE: &str = "
domain: edge
descriptors:
  - {key: tenant, value: second, rate_limit: {unit: year, requests_per_unit: 400, mode: exact, reserve: none}}
  - {key: tenant, value: shared, rate_limit: {unit: year, requests_per_unit: 1000, mode: lease, reserve: none}}
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 400, mode: lease, reserve: none}}
  - {key: path, rate_limit: {unit: year, requests_per_unit: 300, mode: lease, reserve: none}}
";

/// Redis is away in the second of three phases, and keeps its data. Phases begin in seconds of their own,
/// so a recording tells them apart however slow the machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_simulated_as_it_was() {
    const PHASES: [u32; 3] = [200, 250, 250];
    let (dir, server) =
        (tempfile::tempdir().expect("temporary directory"), RedisServer::start().await);
    let services = recorded_on(&server, IN_AN_OUTAGE, dir.path()).await;
    let mut refused = refusals(&services, PHASES[0]).await;
    server.signal("STOP");
    for service in &services {
        wait_for("the outage is known", async || {
            service.metric("ratelimit_breaker_open").await == Some(1.0)
        })
        .await;
    }
    let from = next_second().await;
    refused += refusals(&services, PHASES[1]).await;
    let to = next_second().await;
    server.signal("CONT");
    for service in &services {
        wait_until_well(service).await;
    }
    refused += refusals(&services, PHASES[2]).await;
    for service in services {
        service.stop().await;
    }
    let asked = u64::from(PHASES.iter().sum::<u32>()) * CLIENTS.len() as u64;
    let outage = format!("{from}..{to}");
    check(dir.path(), IN_AN_OUTAGE, &["--outage", &outage], (asked, refused));
}

/// Waits until a second begins; which.
async fn next_second() -> u64 {
    let before = wall().as_secs();
    wait_for("the next second", async || wall().as_secs() > before).await;
    wall().as_secs()
}

/// The sums do not depend on how fast this machine is: what a year allows is used up in any case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prediction_comes_true() {
    const BEFORE: &str = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 1000000, mode: exact}}
";
    let after = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 60, reserve: none}}
  - {key: path, rate_limit: {unit: year, requests_per_unit: 25}}
";
    let dir = tempfile::tempdir().expect("temporary directory");
    let (asked, refused) = load(BEFORE, &dir.path().join("traffic"), wall, || ()).await;
    assert_eq!(refused, 0);
    let (code, report) = simulate(dir.path(), after, &["--fail-if", "newly_refused > 1 %"]);
    assert_eq!(code, Some(1), "{report}");
    let predicted = asked - report["total"]["new_refused"].as_u64().expect("a number");
    let (asked, refused) = load(after, &dir.path().join("truth"), wall, || ()).await;
    assert_eq!(asked - refused, predicted, "{report:#}");
    // Four tenants of one rule, and one whose path allows less.
    assert_eq!(predicted, 4 * 60 + 25);
}

const BAD: &str = "domain: edge\ndescriptor: []\n";

#[test]
fn bad_arguments_are_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (file, empty) = (dir.path().join("a.yaml"), dir.path().join("empty"));
    std::fs::create_dir(&empty).expect("created");
    let check = |quotas: &str, more: &[&str], expected: &str| {
        std::fs::write(&file, quotas).expect("written");
        let mut program = Command::new(env!("CARGO_BIN_EXE_ratelimit-svc"));
        program.args(["simulate", "--quotas"]).arg(&file).arg("--traffic").arg(&empty).args(more);
        let output = program.env_clear().output().expect("runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{error}");
        assert!(error.contains(expected), "{error}");
    };
    check(BAD, &[], "a.yaml:2:1");
    check(QUOTAS, &[], "holds no recordings");
    check(QUOTAS, &["--fail-if", "many > 3"], "'many' is none of");
    check(QUOTAS, &["--replicas", "2", "--outage", "9..3"], "ends before it begins");
    check(QUOTAS, &["--salt-file", "/nonexistent"], "cannot be read");
    // A gate that could never close.
    let gate = ["--fail-if", "refused[backgroud] > 0"];
    check(QUOTAS, &gate, "no class 'backgroud'; did you mean 'background'?");
}

#[test]
fn an_access_log_is_enough() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (log, traffic, quotas) =
        (dir.path().join("access.log"), dir.path().join("traffic"), dir.path().join("a.yaml"));
    let line = |n: u32| format!("2027-01-15T08:00:{:02}.000Z tenant-{} 200\n", n % 60, n % 3);
    let lines: String = (0..600).map(line).chain(["no line\n".to_owned()]).collect();
    std::fs::write(&log, lines).expect("written");
    std::fs::write(&quotas, QUOTAS.replace("requests_per_unit: 300", "requests_per_unit: 50"))
        .expect("written");
    let run = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ratelimit-svc"));
        program.args(arguments).current_dir(dir.path()).env_clear().output().expect("runs")
    };
    let format = "%START_TIME% %REQ(X-TENANT)% %RESPONSE_CODE%";
    let import = ["record", "import", "access.log", "--to", "traffic", "--domain", "edge"];
    let rules = ["--format", format, "--descriptor", "tenant=%REQ(X-TENANT)%"];
    let output = run(&[&import[..], &rules[..]].concat());
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        out.starts_with("requests recorded: 600, of them refused: 0; lines that ask nothing: 0"),
        "{out}{err}"
    );
    assert!(err.contains("line 601 at column"), "{err}");
    assert!(traffic.is_dir());
    let output = run(&["simulate", "--quotas", "a.yaml", "--traffic", "traffic"]);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("note: no request meets edge.path, "), "{report}");
    // Three tenants of 200 requests each.
    assert!(report.contains("over_limit 450"), "{report}");
    let suggest = ["suggest", "--quotas", "a.yaml", "--traffic", "traffic", "--rule"];
    let output = run(&[&suggest[..], &["tenant", "--refuse-max", "0"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    // All within one minute of one hour, each tenant ten times in each of its seconds.
    for expected in [
        "rule tenant: 3 counters in 60 busy seconds; each refused at most 0 % of its hits\n",
        "  10 per second, for tenant=",
        "  200 per minute, for tenant=",
        "the peak was 200, and half need no more than 200\n",
        "  4 per second as a token_bucket with burst ",
        "in force: 50 per hour, headroom over the peak -300 %\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let output = run(&[&suggest[..], &["edge.tenant"]].concat());
    assert_eq!(output.status.code(), Some(0), "as the report of a simulation names it");
    for (rule, expected) in [
        ("tenat", "the quotas have no rule 'tenat'; did you mean 'tenant'?"),
        ("edge.tenat", "did you mean 'edge.tenant'?"),
        ("edge.path", "no recorded request meets rule edge.path"),
    ] {
        let output = run(&[&suggest[..], &[rule]].concat());
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && err.contains(expected), "{err}");
    }
    let output = run(&[&import[..], &["--format", "json", "--descriptor", "a=%B%"]].concat());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64));
    assert!(err.contains("the log has no %B%, so no [a]"), "{err}");
}
