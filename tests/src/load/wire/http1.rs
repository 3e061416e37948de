//! A client of HTTP/1.1 for load: one request at a time on a connection that stays open. The head
//! of a request is written once; of an answer the status and the length are read.

use super::{Answer, Connection, Fault, Verdict};

/// The largest head of an answer, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// One HTTP/1.1 connection that posts to one path.
pub struct Http1 {
    head: String,
    tag: Option<u32>,
    input: Vec<u8>,
    /// Bytes of the answer's body that are still to come, once its head was read.
    body: Option<(u16, usize)>,
}

impl Http1 {
    /// A connection that will post to `path` with `headers`, each `name: value`.
    pub fn new(authority: &str, path: &str, headers: &[String]) -> Self {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: {authority}\r\n");
        for header in headers {
            head += header;
            head += "\r\n";
        }
        Self { head, tag: None, input: Vec::new(), body: None }
    }
}

impl Connection for Http1 {
    fn greet(&mut self, _: &mut Vec<u8>) {}

    fn can_send(&self, _: &[u8]) -> bool {
        self.tag.is_none()
    }

    fn send(&mut self, tag: u32, message: &[u8], out: &mut Vec<u8>) {
        out.extend(self.head.as_bytes());
        out.extend(format!("content-length: {}\r\n\r\n", message.len()).as_bytes());
        out.extend(message);
        self.tag = Some(tag);
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        _: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Fault> {
        self.input.extend(bytes);
        if self.body.is_none() {
            let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else {
                return if self.input.len() > HEAD_BYTES_MAX {
                    Err(Fault::Protocol("an endless head"))
                } else {
                    Ok(())
                };
            };
            self.body = Some(head(&self.input[..end])?);
            self.input.drain(..end + 4);
        }
        let Some((status, length)) = self.body else { return Ok(()) };
        if self.input.len() < length {
            return Ok(());
        }
        if self.input.len() > length {
            return Err(Fault::Protocol("more than the answer"));
        }
        self.input.clear();
        self.body = None;
        let tag = self.tag.take().ok_or(Fault::Protocol("an answer without a request"))?;
        let verdict = match status {
            200..=299 => Ok(Verdict::Admitted),
            401 | 429 => Ok(Verdict::Refused),
            status => Err(Fault::Status(status)),
        };
        answers.push(Answer { tag, verdict });
        Ok(())
    }
}

/// The status and the length of the body.
fn head(head: &[u8]) -> Result<(u16, usize), Fault> {
    const BAD: Fault = Fault::Protocol("a head that is no HTTP/1.1");
    let text = std::str::from_utf8(head).map_err(|_| BAD)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or(BAD)?;
    let status = status.get(..3).and_then(|status| status.parse().ok()).ok_or(BAD)?;
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().map_err(|_| BAD)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Fault::Protocol("an answer in chunks"));
        }
    }
    match (status, length) {
        (204 | 304, _) => Ok((status, 0)),
        (_, Some(length)) => Ok((status, length)),
        (_, None) => Err(Fault::Protocol("an answer without a length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_come_in_pieces() {
        let table = [
            ("HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n", Ok(Verdict::Admitted)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(Verdict::Admitted)),
            ("HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n", Ok(Verdict::Refused)),
            ("HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\nbad", Err(Fault::Status(503))),
        ];
        for (text, expected) in table {
            for cut in 1..text.len() {
                let mut connection = Http1::new("a", "/w", &["x-y: z".to_owned()]);
                let (mut out, mut answers) = (Vec::new(), Vec::new());
                connection.send(7, b"m f=1", &mut out);
                assert!(out.ends_with(b"x-y: z\r\ncontent-length: 5\r\n\r\nm f=1"));
                assert!(!connection.can_send(b""));
                let (a, b) = text.as_bytes().split_at(cut);
                connection.receive(a, &mut out, &mut answers).unwrap();
                connection.receive(b, &mut out, &mut answers).unwrap();
                assert_eq!(answers, [Answer { tag: 7, verdict: expected.clone() }]);
                assert!(connection.can_send(b""));
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_a_fault() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 204 OK\r\n\r\nmore",
        ] {
            let mut connection = Http1::new("a", "/w", &[]);
            connection.send(0, b"", &mut Vec::new());
            let fault = connection.receive(text.as_bytes(), &mut Vec::new(), &mut Vec::new());
            assert!(fault.is_err(), "{text}");
        }
    }
}
