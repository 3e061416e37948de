//! A file of line protocol: the target of local runs and of people who load it elsewhere.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::journal::Boxed;
use crate::writer::sink::Sink;
use crate::writer::work::Answer;

/// Appends to one file.
pub struct FileSink {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// One write at a time.
    turn: Mutex<()>,
}

impl FileSink {
    /// A sink to the file at this path, created when missing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let sink = Self { inner: Arc::new(Inner { path, turn: Mutex::new(()) }) };
        sink.inner.append(b"")?;
        Ok(sink)
    }
}

impl Sink for FileSink {
    fn write<'a>(&'a self, body: Bytes, _: Option<&'a str>) -> Boxed<'a, Answer> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let append = tokio::task::spawn_blocking(move || inner.append(&body)).await;
            match append.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => Answer::Written,
                // A full or broken disk says nothing about the points.
                Err(error) => Answer::Unreachable(error.to_string()),
            }
        })
    }

    fn ping(&self) -> Boxed<'_, bool> {
        Box::pin(async move { self.write(Bytes::new(), None).await == Answer::Written })
    }

    fn create_database(&self) -> Boxed<'_, bool> {
        Box::pin(std::future::ready(false))
    }
}

impl Inner {
    fn append(&self, body: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(body).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a line would spoil the next one; when that fails too there is nothing left.
            let _ = file.set_len(before);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn points_are_appended_and_a_file_that_is_gone_is_made_anew() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("points.lp");
        let sink = FileSink::open(path.clone()).expect("opened");
        assert!(sink.ping().await);
        assert_eq!(sink.write(Bytes::from_static(b"a\n"), None).await, Answer::Written);
        assert_eq!(sink.write(Bytes::from_static(b"b\n"), None).await, Answer::Written);
        assert_eq!(std::fs::read(&path).expect("read"), b"a\nb\n");
        std::fs::remove_file(&path).expect("moved away");
        assert_eq!(sink.write(Bytes::from_static(b"c\n"), None).await, Answer::Written);
        assert_eq!(std::fs::read(&path).expect("read"), b"c\n");
        drop(directory);
        let answer = sink.write(Bytes::from_static(b"d\n"), None).await;
        assert!(matches!(answer, Answer::Unreachable(_)), "{answer:?}");
    }
}
