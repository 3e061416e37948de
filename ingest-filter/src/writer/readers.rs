//! The readers of all streams as one source of lanes.

use futures_util::future::{join_all, select_all};

use crate::journal::{Lane, Opened, ReadError, Reader};
use crate::writer::shared::Source;

/// At least one reader, each with where its dead letters go.
pub(super) struct Readers(Vec<(Box<dyn Reader>, Source)>);

impl Readers {
    pub fn of(streams: Vec<Opened>) -> Self {
        let reader = |Opened { signals, reader, dead_letters }| {
            let source = Source { signals, dead_letters };
            (reader, source)
        };
        Self(streams.into_iter().map(reader).collect())
    }

    /// The next lane of any stream, and which stream that is. Cancel safe, as each reader's is.
    ///
    /// # Errors
    /// When one of them can no longer be read: another process reads all of them as well.
    pub async fn next_lane(&mut self) -> Result<(Box<dyn Lane>, Source), ReadError> {
        let next = self.0.iter_mut().map(|(reader, _)| reader.next_lane());
        let (lane, of, _) = select_all(next).await;
        Ok((lane?, self.0[of].1.clone()))
    }

    /// Closes all of them at once.
    pub async fn close(self) {
        join_all(self.0.into_iter().map(|(reader, _)| reader.close())).await;
    }
}
