//! What a connection of the generator speaks, as state machines over bytes: no sockets here.

pub mod grpc;
pub mod hpack;
pub mod http1;
pub mod http2;
mod verdict;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was let through, or stored.
    Admitted,
    /// It was answered in full, and refused.
    Refused,
}

/// How a server's answers are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// `RateLimitResponse`: `overall_code` OK or OVER_LIMIT.
    RateLimit,
    /// `CheckResponse`: `status.code` 0, or the code of a refusal.
    Check,
    /// HTTP: 2xx, or a refusal, 401 or 429.
    Http,
}

/// Why a connection cannot go on, or a request was answered with an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The server broke the protocol, or used a part of it that a server need not use with us.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// An HTTP status that is no verdict.
    #[error("HTTP status {0}")]
    Status(u16),
    /// A gRPC status other than 0.
    #[error("gRPC status {0}")]
    Grpc(u32),
    /// The answer's message is none of the kind expected.
    #[error("an answer that is no {0}")]
    Message(&'static str),
    /// The server reset a stream, with an HTTP/2 error code.
    #[error("the stream was reset with error code {0}")]
    Reset(u32),
    /// The server says goodbye, with an HTTP/2 error code.
    #[error("the server closes the connection (GOAWAY {0})")]
    GoAway(u32),
}

/// The answer to the request that went out under `tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The tag given to `send`.
    pub tag: u32,
    /// What the answer says.
    pub verdict: Result<Verdict, Fault>,
}

/// One client connection.
pub trait Connection {
    /// Bytes to send before anything else.
    fn greet(&mut self, out: &mut Vec<u8>);
    /// Whether a request can go out now.
    fn can_send(&self, message: &[u8]) -> bool;
    /// Sends a request; only after `can_send` said yes.
    fn send(&mut self, tag: u32, message: &[u8], out: &mut Vec<u8>);
    /// Takes bytes from the server; answers that are complete go to `answers`.
    ///
    /// # Errors
    /// When the connection cannot go on.
    fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Fault>;
}
