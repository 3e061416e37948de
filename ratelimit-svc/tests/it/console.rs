//! The console: what its page may load, what its streams say, and how many may watch.

use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use ratelimit_svc::live::watchers::STATES_OWN;

use crate::support::{DEADLINE, RedisServer, Service, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 4}}
";

/// An open stream of states.
struct Stream(Lines<BufReader<TcpStream>>);

impl Stream {
    /// Opens one; the status line and the stream.
    async fn open(service: &Service) -> (String, Self) {
        let mut stream = TcpStream::connect(service.addresses.debug).await.expect("connected");
        let request = b"GET /console/events HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next_line().await.expect("read").expect("a status line");
        (status, Self(lines))
    }

    /// The next state.
    async fn state(&mut self) -> Json {
        let next = async {
            loop {
                let line = self.0.next_line().await.expect("read").expect("it goes on");
                if let Some(data) = line.strip_prefix("data: ") {
                    return serde_json::from_str(data).expect("JSON");
                }
            }
        };
        tokio::time::timeout(DEADLINE, next).await.expect("a state each second")
    }

    /// All lines to the end of the stream.
    async fn rest(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let rest = async {
            // The last chunk has no bytes.
            while let Some(line) = self.0.next_line().await.expect("read") {
                if line == "0" {
                    break;
                }
                lines.push(line);
            }
        };
        tokio::time::timeout(DEADLINE, rest).await.expect("it ends");
        lines
    }

    /// The first state for which this holds.
    async fn until(&mut self, holds: impl Fn(&Json) -> bool) -> Json {
        let found = async {
            loop {
                let state = self.state().await;
                if holds(&state) {
                    return state;
                }
            }
        };
        tokio::time::timeout(DEADLINE, found).await.expect("such a state")
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let mut stream = TcpStream::connect(service.addresses.debug).await.expect("connected");
    let request = b"GET /console HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("received");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let policy = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'";
    assert!(page.contains(policy), "{page}");
    for path in ["/console/console.js", "/console/console.css"] {
        assert!(page.contains(&format!("\"{path}\"")), "{path}");
        let (status, text) = service.admin(path).await;
        assert_eq!(status, 200, "{path}");
        // The name of a vocabulary is no address.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{path}");
        assert!(!text.contains("innerHTML"), "text goes in as text");
    }
    assert!(!page.contains("://"), "{page}");
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy forbids it");
}

#[tokio::test]
async fn a_stream_says_what_is_decided_and_what_a_change_did() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let (status, mut stream) = Stream::open(&service).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    for n in 0..6 {
        let class = if n < 5 { "ingest" } else { "platform-core" };
        service.is_over("edge", &[("tenant", "acme"), ("priority", class)]).await;
    }
    service.is_over("edge", &[("tenant", "bolt")]).await;
    let state = stream.until(|state| state["descriptors"]["count"] == 3).await;
    let class = |name: &str| {
        let all = state["classes"].as_array().expect("classes");
        all.iter().find(|class| class["name"] == name).cloned().expect("known")
    };
    assert_eq!(state["classes"][0]["name"], "system-node-critical", "the ladder, highest first");
    assert_eq!(class("ingest")["refused"]["over_limit"], 1, "{state}");
    assert_eq!(class("platform-core")["refused"]["over_limit"], 1, "{state}");
    assert_eq!(class("background")["outage"], "deny");
    let nearest = &state["descriptors"]["nearest"];
    assert_eq!(nearest[0]["left"], 0, "{nearest}");
    assert_eq!(nearest[0]["limit"], "4 per year");
    assert_eq!((&nearest[0]["reserved"], &nearest[0]["leased"]), (&0.into(), &Json::Null));
    assert_eq!((&nearest[2]["entries"], &nearest[2]["left"]), (&"tenant=bolt".into(), &3.into()));
    assert_eq!(state["store"]["kind"], "memory");

    let lowered = QUOTAS.replace("requests_per_unit: 4", "requests_per_unit: 2");
    service.write_quotas("a.yaml", lowered);
    let state = stream.until(|state| state["changes"][0]["changes"] == 1).await;
    let words = state["changes"][0]["words"][0].as_str().expect("in words");
    assert!(words.starts_with("lowered edge tenant: 4 per year -> 2 per year"), "{words}");
    service.is_over("edge", &[("tenant", "acme")]).await;
    stream.until(|state| state["changes"][0]["refused"] == 1).await;

    let (_, history) = service.admin("/console/history").await;
    let history: Json = serde_json::from_str(&history).expect("JSON");
    assert_eq!(history["point_seconds"], 10);
    assert!(history["classes"].as_array().is_some_and(|classes| classes.len() >= 2), "{history}");
    let (status, page) = service.admin("/console/descriptors?page=1").await;
    let page: Json = serde_json::from_str(&page).expect("JSON");
    assert_eq!((status, &page["count"]), (200, &4.into()));
    assert_eq!(service.admin("/console/descriptors?page=x").await.0, 400);
    let (_, page) = service.admin("/console/descriptors?page=99999999999").await;
    let page: Json = serde_json::from_str(&page).expect("JSON");
    assert_eq!(page["nearest"], Json::Array(vec![]));
}

#[tokio::test]
async fn an_outage_of_redis_is_shown() {
    let mut redis = RedisServer::start().await;
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &redis.environment()).await;
    let (_, mut stream) = Stream::open(&service).await;
    let state = stream.until(|state| state["store"]["in_reach"] == true).await;
    assert_eq!(state["store"]["kind"], "redis");
    let server = |lost: Json| {
        let at = redis.socket().display().to_string();
        serde_json::json!([{"at": at, "part": null, "slots": null, "lost_seconds": lost}])
    };
    assert_eq!(state["store"]["servers"], server(Json::Null));
    let lost = server(0.into());
    redis.kill();
    service.is_over("edge", &[("tenant", "acme"), ("priority", "ingest")]).await;
    let state = stream.until(|state| state["store"]["in_reach"] == false).await;
    let mut shown = state["store"]["servers"].clone();
    assert!(shown[0]["lost_seconds"].take().is_u64(), "{state}");
    shown[0]["lost_seconds"] = 0.into();
    assert_eq!(shown, lost);
    assert_eq!(state["classes"][2]["admitted"]["degraded"], 1, "{state}");
}

#[tokio::test]
async fn what_is_leased_and_what_is_reserved_is_shown_apart() {
    const SHARED: &str = "
domain: edge
descriptors:
  - {key: leased, rate_limit: {unit: year, requests_per_unit: 4000, mode: lease}}
  - {key: pool, rate_limit: {unit: year, requests_per_unit: 10, admit_up_to: {background: 0.4}}}
";
    let redis = RedisServer::start().await;
    let service = Service::start_with(&[("a.yaml", SHARED)], &redis.environment()).await;
    let (_, mut stream) = Stream::open(&service).await;
    wait_for("leases to claim", async || {
        service.is_over("edge", &[("leased", "a")]).await;
        service.is_over("edge", &[("pool", "a"), ("priority", "background")]).await;
        let state = stream.state().await;
        let rows = state["descriptors"]["nearest"].as_array().expect("rows");
        let of = |key: &str| {
            rows.iter().find(|row| row["entries"].as_str().is_some_and(|at| at.starts_with(key)))
        };
        of("leased").is_some_and(|row| row["leased"].as_u64() > Some(0))
            && of("pool").is_some_and(|row| row["reserved"] == 6 && row["leased"].is_null())
    })
    .await;
}

#[tokio::test]
async fn a_hundred_watch_and_whoever_comes_just_then_is_told_to_come_back() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let mut streams = Vec::new();
    // However slow the machine is: at some time a hundred came within the same states.
    wait_for("there to be no room", async || {
        let (status, stream) = Stream::open(&service).await;
        streams.push(stream);
        status.starts_with("HTTP/1.1 503")
    })
    .await;
    assert!(streams.len() > 100, "{}", streams.len());
    drop(streams);
    wait_for("places to be free again", async || {
        Stream::open(&service).await.0.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn one_of_a_hundred_gives_way_to_the_next() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let (status, stream) = Stream::open(&service).await;
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        streams.push(stream);
    }
    for _ in 0..STATES_OWN {
        streams[99].state().await;
    }
    let (status, mut next) = Stream::open(&service).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    next.state().await;
    // Which one it is depends on who took the newest state first. It is told to come back later, and its
    // stream ends; all others go on.
    let mut watching = JoinSet::new();
    for stream in streams {
        watching.spawn(stream.rest());
    }
    let gone = watching.join_next().await.expect("one of a hundred").expect("no panic");
    assert!(gone.contains(&"retry: 5000".to_owned()), "{gone:?}");
    next.state().await;
    assert!(watching.try_join_next().is_none());
}
