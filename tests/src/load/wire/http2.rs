//! A client of HTTP/2 for unary gRPC, made for load: requests are pre-encoded, the dynamic header
//! table is forbidden, a message is one DATA frame. It keeps the rules of RFC 9113 that a client
//! with small requests meets: flow control both ways, SETTINGS, PING, GOAWAY, resets.
//!
//! What it does not do, it answers with a fault: CONTINUATION, server push, messages above one
//! frame.

use super::{Answer, Connection, Fault, Meaning, Verdict, hpack, verdict};

/// The largest message, bytes: with its prefix of five it must fit the smallest legal frame.
pub const MESSAGE_BYTES_MAX: usize = 16_384 - 5;
/// The largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
const STREAM_ID_MAX: u32 = (1 << 31) - 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

struct Stream {
    id: u32,
    tag: u32,
    status: Option<u16>,
    message: Vec<u8>,
}

/// One HTTP/2 connection that calls one gRPC method.
pub struct Http2 {
    meaning: Meaning,
    headers: Vec<u8>,
    streams: Vec<Stream>,
    spare: Vec<Vec<u8>>,
    next_id: u32,
    /// What the server still takes on this connection, bytes.
    send_window: i64,
    stream_window: i64,
    streams_max: usize,
    /// What came in since the last update of our window.
    received: u32,
    input: Vec<u8>,
}

impl Http2 {
    /// A connection that will call `path`.
    pub fn new(authority: &str, path: &str, meaning: Meaning) -> Self {
        Self {
            meaning,
            headers: hpack::grpc_request(authority, path),
            streams: Vec::new(),
            spare: Vec::new(),
            next_id: 1,
            send_window: 65_535,
            stream_window: 65_535,
            streams_max: usize::MAX,
            received: 0,
            input: Vec::new(),
        }
    }

    fn frame(
        &mut self,
        (kind, flags, id): (u8, u8, u32),
        payload: &[u8],
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Fault> {
        match kind {
            DATA => {
                self.count_received(payload.len(), out);
                let data = unpadded(flags, payload)?;
                let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else {
                    return Err(Fault::Protocol("data of a stream that is not open"));
                };
                if stream.message.len() + data.len() > ANSWER_BYTES_MAX {
                    return Err(Fault::Protocol("an answer above 1 MiB"));
                }
                stream.message.extend(data);
                if flags & END_STREAM != 0 {
                    return Err(Fault::Protocol("an answer without gRPC trailers"));
                }
            }
            HEADERS => self.headers_frame(flags, id, payload, answers)?,
            RST_STREAM => {
                let fault = Err(Fault::Reset(u32_at(payload, 0)?));
                let stream = self.close(id)?;
                answers.push(Answer { tag: stream.tag, verdict: fault });
                self.recycle(stream.message);
            }
            SETTINGS if flags & ACK == 0 => {
                self.settings(payload)?;
                out.extend(header(0, SETTINGS, ACK, 0));
            }
            PING if flags & ACK == 0 => {
                out.extend(header(payload.len(), PING, ACK, 0));
                out.extend(payload);
            }
            GOAWAY => return Err(Fault::GoAway(u32_at(payload, 4)?)),
            WINDOW_UPDATE if id == 0 => self.send_window += i64::from(u32_at(payload, 0)?),
            CONTINUATION => return Err(Fault::Protocol("headers in several frames")),
            // Acknowledgements, windows of streams that are sent whole, priorities.
            _ => {}
        }
        Ok(())
    }

    fn headers_frame(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        answers: &mut Vec<Answer>,
    ) -> Result<(), Fault> {
        if flags & END_HEADERS == 0 {
            return Err(Fault::Protocol("headers in several frames"));
        }
        let mut block = unpadded(flags, payload)?;
        if flags & PRIORITY != 0 {
            block = block.get(5..).ok_or(Fault::Protocol("a frame that is cut"))?;
        }
        let fields = hpack::fields(block)?;
        if flags & END_STREAM == 0 {
            let stream = self.streams.iter_mut().find(|stream| stream.id == id);
            let stream = stream.ok_or(Fault::Protocol("headers of a stream that is not open"))?;
            stream.status = fields.status;
            return Ok(());
        }
        let stream = self.close(id)?;
        let verdict = match (stream.status.or(fields.status), fields.grpc_status) {
            (Some(200), Some(0)) => verdict(self.meaning, &stream.message),
            (Some(200), Some(code)) => Err(Fault::Grpc(code)),
            (Some(200), None) => Err(Fault::Protocol("an answer without grpc-status")),
            (Some(status), _) => Err(Fault::Status(status)),
            (None, _) => Err(Fault::Protocol("an answer without a status")),
        };
        answers.push(Answer { tag: stream.tag, verdict });
        self.recycle(stream.message);
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Fault> {
        for setting in payload.chunks_exact(6) {
            let value = u32_at(setting, 2)?;
            match setting[1] {
                3 => self.streams_max = value as usize,
                4 => self.stream_window = i64::from(value),
                _ => {}
            }
        }
        Ok(())
    }

    /// Streams mostly end in the order in which they began, so the search is short.
    fn close(&mut self, id: u32) -> Result<Stream, Fault> {
        let at = self.streams.iter().position(|stream| stream.id == id);
        at.map(|at| self.streams.remove(at))
            .ok_or(Fault::Protocol("the end of a stream that is not open"))
    }

    fn recycle(&mut self, mut message: Vec<u8>) {
        message.clear();
        self.spare.push(message);
    }

    fn count_received(&mut self, bytes: usize, out: &mut Vec<u8>) {
        // A frame has at most 2^24 bytes.
        self.received += bytes as u32;
        if self.received >= CONNECTION_WINDOW / 2 {
            out.extend(header(4, WINDOW_UPDATE, 0, 0));
            out.extend(self.received.to_be_bytes());
            self.received = 0;
        }
    }
}

impl Connection for Http2 {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        out.extend(header(18, SETTINGS, 0, 0));
        // No dynamic table, no push, windows that never hold an answer up.
        for (setting, value) in [(1_u16, 0_u32), (2, 0), (4, STREAM_WINDOW)] {
            out.extend(setting.to_be_bytes());
            out.extend(value.to_be_bytes());
        }
        out.extend(header(4, WINDOW_UPDATE, 0, 0));
        out.extend((CONNECTION_WINDOW - 65_535).to_be_bytes());
    }

    fn can_send(&self, message: &[u8]) -> bool {
        let bytes = (message.len() + 5) as i64;
        self.streams.len() < self.streams_max
            && bytes <= self.send_window
            && bytes <= self.stream_window
            && self.next_id <= STREAM_ID_MAX
    }

    fn send(&mut self, tag: u32, message: &[u8], out: &mut Vec<u8>) {
        let id = self.next_id;
        self.next_id += 2;
        out.extend(header(self.headers.len(), HEADERS, END_HEADERS, id));
        out.extend(&self.headers);
        let length = message.len() + 5;
        out.extend(header(length, DATA, END_STREAM, id));
        out.push(0);
        out.extend((message.len() as u32).to_be_bytes());
        out.extend(message);
        self.send_window -= length as i64;
        let message = self.spare.pop().unwrap_or_default();
        self.streams.push(Stream { id, tag, status: None, message });
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Fault> {
        let mut input = std::mem::take(&mut self.input);
        input.extend(bytes);
        let mut rest = input.as_slice();
        while let [a, b, c, kind, flags, id @ ..] = rest {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let Some(payload) = rest.get(9..9 + length) else { break };
            let id = u32_at(id, 0)? & STREAM_ID_MAX;
            self.frame((*kind, *flags, id), payload, out, answers)?;
            rest = &rest[9 + length..];
        }
        let done = input.len() - rest.len();
        input.drain(..done);
        self.input = input;
        Ok(())
    }
}

/// What a whole gRPC message says; its prefix is five bytes.
fn verdict(meaning: Meaning, data: &[u8]) -> Result<Verdict, Fault> {
    let whole = data.len() >= 5 && data[0] == 0 && u32_at(data, 1)? as usize == data.len() - 5;
    if !whole {
        return Err(Fault::Message("single uncompressed message"));
    }
    match meaning {
        Meaning::RateLimit => verdict::rate_limit(&data[5..]),
        Meaning::Check => verdict::check(&data[5..]),
        Meaning::Http => Err(Fault::Message("HTTP answer")),
    }
}

fn header(length: usize, kind: u8, flags: u8, id: u32) -> [u8; 9] {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [w, x, y, z] = id.to_be_bytes();
    [a, b, c, kind, flags, w, x, y, z]
}

fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], Fault> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let (padding, rest) = payload.split_first().ok_or(Fault::Protocol("a frame that is cut"))?;
    let length = rest.len().checked_sub(usize::from(*padding));
    length.map(|length| &rest[..length]).ok_or(Fault::Protocol("more padding than frame"))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    let four = bytes.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok());
    four.map(u32::from_be_bytes).ok_or(Fault::Protocol("a frame that is cut"))
}

#[cfg(test)]
mod tests;
