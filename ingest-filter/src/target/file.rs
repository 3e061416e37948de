//! A file of line protocol: the target of local runs and of people who load it elsewhere.
//!
//! Each write begins with two comments that say which database its lines belong to, as the
//! `influx -import` of InfluxDB 1.x reads them:
//!
//! ```text
//! # DML
//! # CONTEXT-DATABASE: demo__demo
//! weather,city=Oslo temperature=4.5 1795272171270032140
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::destination::Destination;
use crate::journal::Boxed;
use crate::target::answer::Answer;
use crate::target::{Database, Target};

/// Appends to one file.
pub struct FileTarget {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// One write at a time.
    turn: Mutex<()>,
}

impl FileTarget {
    /// A target that is the file at this path, created when missing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let target = Self { inner: Arc::new(Inner { path, turn: Mutex::new(()) }) };
        target.inner.append(b"")?;
        Ok(target)
    }
}

impl Target for FileTarget {
    fn write<'a>(
        &'a self,
        to: &'a Destination,
        body: Bytes,
        _: Option<&'a str>,
    ) -> Boxed<'a, Answer> {
        let inner = self.inner.clone();
        let mut lines = format!("# DML\n# CONTEXT-DATABASE: {}\n", to.name).into_bytes();
        lines.extend_from_slice(&body);
        Box::pin(async move {
            let append = tokio::task::spawn_blocking(move || inner.append(&lines)).await;
            match append.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => Answer::Written,
                // A full or broken disk says nothing about the points.
                Err(error) => Answer::Unreachable(error.to_string()),
            }
        })
    }

    fn ping(&self) -> Boxed<'_, bool> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let append = tokio::task::spawn_blocking(move || inner.append(b"")).await;
            matches!(append, Ok(Ok(())))
        })
    }

    fn databases(&self) -> Boxed<'_, Result<Vec<Database>, String>> {
        let message =
            "a file has no databases: take the lines behind '# CONTEXT-DATABASE' out of it";
        Box::pin(std::future::ready(Err(message.to_owned())))
    }

    fn delete<'a>(&'a self, _: &'a Database) -> Boxed<'a, Result<(), String>> {
        Box::pin(std::future::ready(Err("a file has no databases".to_owned())))
    }

    fn create<'a>(&'a self, _: &'a Destination) -> Boxed<'a, bool> {
        Box::pin(std::future::ready(true))
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

    fn to(name: &str) -> Destination {
        Destination { name: name.to_owned(), tags: String::new() }
    }

    #[tokio::test]
    async fn points_are_appended_and_a_file_that_is_gone_is_made_anew() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("points.lp");
        let target = FileTarget::open(path.clone()).expect("opened");
        let write = async |name: &str, body: &'static str| {
            target.write(&to(name), Bytes::from_static(body.as_bytes()), None).await
        };
        assert!(target.ping().await);
        assert_eq!(write("x", "a\n").await, Answer::Written);
        assert_eq!(write("y", "b\n").await, Answer::Written);
        assert_eq!(
            std::fs::read_to_string(&path).expect("read"),
            "# DML\n# CONTEXT-DATABASE: x\na\n# DML\n# CONTEXT-DATABASE: y\nb\n"
        );
        std::fs::remove_file(&path).expect("moved away");
        assert_eq!(write("y", "c\n").await, Answer::Written);
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "# DML\n# CONTEXT-DATABASE: y\nc\n");
        drop(directory);
        let answer = write("y", "d\n").await;
        assert!(matches!(answer, Answer::Unreachable(_)), "{answer:?}");
        assert!(!target.ping().await);
    }
}
