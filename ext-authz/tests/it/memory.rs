//! What is in the memory of a running service: no key after its request, and no more for requests
//! that are too large.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;

use prost::Message;
use proto::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tokio::io::AsyncBufReadExt;
use tonic::transport::Channel;

use crate::cli::{Started, started};
use crate::rig::{Files, Outcome, bearer, connect, get, keys_yaml, request, wait_for};

const PAGE_BYTES: usize = 64 << 10;
/// Most of the memory that an allocator has reserved was never written to.
static BLANK: [u8; 2 * PAGE_BYTES] = [0; 2 * PAGE_BYTES];

/// The program itself, which ends with its value.
struct Program {
    child: tokio::process::Child,
    client: AuthorizationClient<Channel>,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    async fn start(files: &Files) -> Self {
        let Started { child, mut log, grpc, admin, .. } = started(files).await;
        // What it logs from now on is of no use here, and must not fill the pipe.
        tokio::spawn(async move {
            let mut line = String::new();
            while log.read_line(&mut line).await.is_ok_and(|bytes| bytes > 0) {
                line.clear();
            }
        });
        wait_for("ready", async || get(admin, "/readyz").await.0 == 200).await;
        Self { child, client: connect(grpc).await, grpc, admin }
    }

    fn id(&self) -> u32 {
        self.child.id().expect("running")
    }

    async fn check(
        &mut self,
        request: proto::pb::envoy::service::auth::v3::CheckRequest,
    ) -> Outcome {
        Outcome::of(self.client.check(request).await.expect("answered").into_inner())
    }

    /// Where in its memory a text stands, by the kind of memory.
    fn places_of(&self, text: &[u8]) -> Vec<String> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.id())).expect("maps");
        let memory = File::open(format!("/proc/{}/mem", self.id())).expect("of a child of ours");
        let mut places = Vec::new();
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (range, _) = line.split_once(' ').expect("a range");
            let (start, end) = range.split_once('-').expect("a range");
            let number = |text| u64::from_str_radix(text, 16).expect("a number");
            let mut at = number(start);
            let mut page = vec![0; PAGE_BYTES + text.len()];
            while at < number(end) {
                // A page and what may begin in it. Some cannot be read, as what is the kernel's.
                let Ok(read) = memory.read_at(&mut page, at) else { break };
                let is_blank = page[..read] == BLANK[..read];
                if !is_blank && page[..read].windows(text.len()).any(|window| window == text) {
                    places.push(format!("{at:x} of {line}"));
                }
                at += PAGE_BYTES as u64;
            }
        }
        places
    }

    /// The most that was ever resident, KiB.
    fn resident_most(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_leaves_the_memory_of_the_process_with_its_request() {
    let files = Files::new();
    let (key, record) = files.issue("acme");
    let (other, other_record) = files.issue("umbrella");
    files.write_keys(&keys_yaml(&[&record, &other_record]));
    let mut program = Program::start(&files).await;
    // A text that is there for sure is found.
    assert!(!program.places_of(b"umbrella").is_empty());
    for _ in 0..20 {
        assert_eq!(program.check(bearer(&key)).await.tenant(), Some("acme"));
        let query = format!("/api/v1/series?api_key={key}");
        let by_query = request(&query, &[], &[("profile", "datadog")]);
        assert_eq!(program.check(by_query).await.tenant(), Some("acme"));
    }
    // The buffers of the connection are written over by what comes next.
    for _ in 0..200 {
        assert_eq!(program.check(bearer(&other)).await.tenant(), Some("umbrella"));
    }
    let secret = &key.as_bytes()[22..];
    let places = program.places_of(secret);
    assert!(places.is_empty(), "{} places: {places:#?}", places.len());
    assert_eq!(get(program.admin, "/readyz").await.0, 200, "it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_large_take_no_memory() {
    let files = Files::new();
    files.write_keys(&keys_yaml(&[]));
    let mut program = Program::start(&files).await;
    program.check(bearer("x")).await;
    let before = program.resident_most();
    let large = request("/", &[("x-fill", &"f".repeat(10 << 20)), ("x-api-key", "k")], &[]);
    assert!(large.encoded_len() > 10 << 20);
    for _ in 0..20 {
        let refused = connect(program.grpc).await.check(large.clone()).await;
        assert_eq!(refused.expect_err("too large").code(), tonic::Code::OutOfRange);
        let long = "k".repeat(60_000);
        assert_eq!(program.check(bearer(&long)).await.reason(), Some("oversize"));
    }
    let grown = program.resident_most() - before;
    assert!(grown < 10 << 10, "{grown} KiB for twenty requests of 10 MiB each");
}
