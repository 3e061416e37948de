//! Frames of HTTP/2 as they stand on the wire, for peers that no client library would be.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Running;

pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// A connection to a gateway.
pub struct Peer(TcpStream);

impl Peer {
    /// Connects; `window` is how much of each answer the peer takes before it is asked, bytes.
    pub async fn connect(gateway: &Running, window: u32) -> Self {
        let mut peer = Self(TcpStream::connect(gateway.address).await.expect("open"));
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        peer.send(&[preface, frame(SETTINGS, 0, 0, &settings)].concat()).await;
        peer
    }

    pub async fn send(&mut self, frames: &[u8]) {
        self.0.write_all(frames).await.expect("sent");
    }

    /// The flags of the heads of the next `count` answers.
    pub async fn heads(&mut self, count: usize) -> Vec<u8> {
        let mut flags = Vec::new();
        while flags.len() < count {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.expect("its payload");
            if head[3] == HEADERS {
                flags.push(head[4]);
            }
        }
        flags
    }
}

/// So many streams.
pub fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 1 + 2 * number)
}

/// The head of a write of tenant `acme`.
pub fn write(stream: u32) -> Vec<u8> {
    // POST, http, :path /write, and the tenant, each as it is, in no table.
    let mut head = vec![0x83, 0x86, 0x04, 6];
    head.extend(b"/write\x00\x11x-tidegate-tenant\x04acme");
    frame(HEADERS, END_HEADERS, stream, &head)
}

/// The whole body of a stream.
pub fn body(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
