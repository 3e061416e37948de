//! How long a connection may live.
//!
//! ```text
//! accepted        max (±10 %)           grace
//! ───┴──── serving ────┴─ GOAWAY, streams ─┴─ cut
//! ```

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// How long connections live; by default without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionAge {
    /// From accepting a connection to its GOAWAY; the process adds or takes up to 10 %, so that
    /// the callers of several replicas do not come back all at once.
    pub max: Option<Duration>,
    /// From GOAWAY to the cutting of what is still open.
    pub grace: Option<Duration>,
}

impl ConnectionAge {
    /// The age moved by up to 10 % either way, evenly over `random`.
    pub(super) fn jittered(self, random: u64) -> Self {
        let factor = 0.9 + 0.2 * (random as f64 / u64::MAX as f64);
        Self { max: self.max.map(|max| max.mul_f64(factor)), ..self }
    }
}

/// A number that differs between processes; not for secrets.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A connection that ends by itself when its age and grace are over.
pub(super) struct Aged<IO> {
    io: IO,
    end: Option<Pin<Box<Sleep>>>,
}

impl<IO> Aged<IO> {
    /// The connection accepted now.
    pub(super) fn accept(accepted: io::Result<IO>, age: ConnectionAge) -> io::Result<Self> {
        let end = age.max.zip(age.grace).map(|(max, grace)| max.saturating_add(grace));
        let end = end.map(|after| Box::pin(tokio::time::sleep(after)));
        Ok(Self { io: accepted?, end })
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Aged<IO> {
    // The transport always waits for something to read, so this is where the end is noticed.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Aged<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO: Connected> Connected for Aged<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_at_most_a_tenth() {
        let age = ConnectionAge { max: Some(Duration::from_secs(100)), grace: None };
        let seconds = |random| age.jittered(random).max.map(|max| max.as_secs_f64().round());
        assert_eq!(seconds(0), Some(90.0));
        assert_eq!(seconds(u64::MAX / 2), Some(100.0));
        assert_eq!(seconds(u64::MAX), Some(110.0));
        assert_eq!(ConnectionAge::default().jittered(7), ConnectionAge::default());
    }
}
