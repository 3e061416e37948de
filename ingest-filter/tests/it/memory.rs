//! The memory of a gateway under bombs: the process itself, as the kernel accounts it.

use std::io::{Read, Write};
use std::net::TcpStream;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::process::{config, gateway};

/// What requests may hold in this test.
const BUDGET_MIB: u64 = 256;
const DECODED_BYTES_MAX: usize = 32 << 20;
const CONNECTIONS: usize = 64;

/// A request whose body becomes as large as it may, out of a few kilobytes.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let blanks = vec![b' '; DECODED_BYTES_MAX];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&blanks).unwrap();
    zlib.write_all(&blanks).unwrap();
    let zstd = zstd::bulk::compress(&blanks, 3).unwrap();
    let snappy = snap::raw::Encoder::new().compress_vec(&blanks).unwrap();
    let head = |path: &str, headers: &str, body: Vec<u8>| {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\
             content-length: {length}\r\nx-tidegate-tenant: "
        );
        (head, body)
    };
    let remote = "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n";
    [
        ("gzip", head("/write", "content-encoding: gzip\r\n", gzip.finish().unwrap())),
        ("deflate", head("/write", "content-encoding: deflate\r\n", zlib.finish().unwrap())),
        ("zstd", head("/write", "content-encoding: zstd\r\n", zstd)),
        ("snappy", head("/api/v1/write", remote, snappy)),
    ]
    .into_iter()
    .flat_map(|(name, (head, body))| {
        // Many tenants, so that no share of one is what bounds them.
        (0..CONNECTIONS).map(move |tenant| {
            let head = format!("{head}t{tenant}\r\n\r\n");
            (name, [head.as_bytes(), &body].concat())
        })
    })
    .collect()
}

fn send(address: &str, request: &[u8]) -> String {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address).expect("listening");
    // An early answer may cut off what is still being sent.
    let _ = stream.write_all(request);
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// The most that the process ever had in memory, bytes.
fn peak(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// What the kernel says of the memory of a process, bytes.
fn memory(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(what)).expect("a size");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

#[test]
fn bombs_in_every_encoding_stay_within_the_budget_and_a_tenth() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "log_level: error,ingest_filter=info\n\
         journal: {{disk: {{directory: '{}/j'}}}}\n\
         gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0', ratio_max: 10000, \
         memory_bytes_max: {BUDGET_MIB}MiB, decoded_bytes_max: {}MiB}}\n",
        directory.path().display(),
        DECODED_BYTES_MAX >> 20
    );
    let (running, address) = gateway(&config(directory.path(), &text));
    let quiet = peak(running.pid());
    for (name, requests) in bombs().chunk_by(|a, b| a.0 == b.0).map(|same| (same[0].0, same)) {
        let mut statuses = std::collections::BTreeMap::<String, u32>::new();
        for _ in 0..2 {
            std::thread::scope(|scope| {
                let sent: Vec<_> = requests
                    .iter()
                    .map(|(_, request)| scope.spawn(|| send(&address, request)))
                    .collect();
                for sent in sent {
                    *statuses.entry(sent.join().expect("no panic")).or_default() += 1;
                }
            });
        }
        println!("{name}: {statuses:?}, peak {} MiB", peak(running.pid()) >> 20);
        // Blanks are no lines and no messages; whoever found no memory was told so.
        let known = ["204", "400", "413", "503"];
        assert!(statuses.keys().all(|status| known.contains(&&**status)), "{statuses:?}");
    }
    let (peak, budget) = (peak(running.pid()), BUDGET_MIB << 20);
    println!("quiet {} MiB, peak {} MiB, {BUDGET_MIB} for requests", quiet >> 20, peak >> 20);
    let most = quiet + budget + budget / 10;
    assert!(peak <= most, "{} MiB of {}", peak >> 20, most >> 20);
    assert!(peak > quiet + budget / 4, "the bombs were let in: {} MiB", peak >> 20);
}

/// One request on a connection that stays open.
fn keep_open(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("listening");
    let request = "POST /write HTTP/1.1\r\nhost: a\r\nx-tidegate-tenant: acme\r\n\
                   content-length: 9\r\n\r\nm f=1i 1\n";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 204 "), "{}", String::from_utf8_lossy(&answer));
    stream
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An HTTP/2 connection with so many requests whose bodies do not come.
fn waiting_streams(address: &str, count: u32) -> TcpStream {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const PING: u8 = 6;
    let mut connection = TcpStream::connect(address).expect("listening");
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    // POST, http, :path /write, and the tenant, each as it is, in no table.
    let mut head = vec![0x83, 0x86, 0x04, 6];
    head.extend(b"/write\x00\x11x-tidegate-tenant\x04acme");
    for number in 0..count {
        sent.extend(frame(HEADERS, 4, 1 + 2 * number, &head));
    }
    sent.extend(frame(PING, 0, 0, b"all sent"));
    connection.write_all(&sent).expect("sent");
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        connection.read_exact(&mut payload).expect("its payload");
        if (head[3], head[4]) == (PING, 1) && payload == b"all sent" {
            return connection;
        }
    }
}

#[test]
fn what_an_idle_connection_and_a_waiting_stream_cost() {
    const CONNECTIONS: u32 = 200;
    const STREAMS: u32 = 200;
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "log_level: error,ingest_filter=info\n\
         journal: {{disk: {{directory: '{}/j'}}}}\n\
         gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}}\n",
        directory.path().display(),
    );
    let (running, address) = gateway(&config(directory.path(), &text));
    let warm: Vec<_> = (0..20).map(|_| keep_open(&address)).collect();
    let before = memory(running.pid(), "VmRSS:");
    let idle: Vec<_> = (0..CONNECTIONS).map(|_| keep_open(&address)).collect();
    let with_idle = memory(running.pid(), "VmRSS:");
    let waiting = waiting_streams(&address, STREAMS);
    let with_streams = memory(running.pid(), "VmRSS:");
    let connection = with_idle.saturating_sub(before) / u64::from(CONNECTIONS);
    let stream = with_streams.saturating_sub(with_idle) / u64::from(STREAMS);
    println!("an idle connection {connection} B, a waiting stream {stream} B");
    // What a request is counted with covers both.
    assert!(connection < 64 << 10 && stream < 64 << 10, "{connection} {stream}");
    drop((warm, idle, waiting));
}
