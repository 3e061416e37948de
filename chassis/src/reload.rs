//! Following files that change while the process runs.
//!
//! Files are polled, not watched by inotify: one mechanism covers an edit in place, a rename over
//! the file, the `..data` link swap of a Kubernetes ConfigMap, deletion and re-creation, on every
//! file system. A change is handed on once the files have been still for one period, so that a
//! file half written is not read.
//!
//! ```text
//! poll   │ a │ a │ b │ c │ c │ c │        fingerprints of all files
//! hand on│ a │   │   │   │ c │   │        c was still for one period
//! ```
//!
//! A file that is there and cannot be read, as when file descriptors have run out, is read again in each
//! period: it may be readable by then, and no fingerprint says so.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

/// How often files are looked at. A change is in force within three periods.
pub const PERIOD: Duration = Duration::from_millis(250);

/// Which files are followed.
#[derive(Clone, Debug)]
pub enum Source {
    /// One file, whether it exists or not.
    File(PathBuf),
    /// Several files that belong together, whether they exist or not.
    Files(Vec<PathBuf>),
    /// One file, or all regular files of a directory whose names do not begin with a dot: whichever
    /// stands there at the moment.
    FileOrDirectory(PathBuf),
    /// All regular files of a directory (links are followed), not of its sub-directories.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whether names that begin with a dot are left out.
        ignore_dotfiles: bool,
    },
}

/// The contents of the followed files at one moment; a file that cannot be read is its error.
pub type Snapshot = BTreeMap<PathBuf, Result<Vec<u8>, String>>;

type Fingerprint = BTreeMap<PathBuf, (u64, u64, u64, i64, i64, i64, i64)>;

/// In the fingerprint of a file that is not there.
const ABSENT: (u64, u64, u64, i64, i64, i64, i64) = (0, 0, 0, 0, 0, 0, 0);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::FileOrDirectory(path) | Self::Directory { path, .. } => {
                path.display().fmt(f)
            }
            Self::Files(paths) => f.debug_list().entries(paths).finish(),
        }
    }
}

impl Source {
    /// Reads all files now.
    pub fn read(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for path in self.paths() {
            let contents = std::fs::read(&path).map_err(|error| format!("cannot be read: {error}"));
            snapshot.insert(path, contents);
        }
        snapshot
    }

    /// The files there are at the moment; a file that was named is there even if it cannot be read.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Source::FileOrDirectory(path) if path.is_dir() => directory_files(path, true),
            Source::File(path) | Source::FileOrDirectory(path) => vec![path.clone()],
            Source::Files(paths) => paths.clone(),
            Source::Directory { path, ignore_dotfiles } => directory_files(path, *ignore_dotfiles),
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        let of = |path: &Path| {
            std::fs::metadata(path).map_or(ABSENT, |m| {
                let (mtime, ctime) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
                (m.dev(), m.ino(), m.len(), mtime.0, mtime.1, ctime.0, ctime.1)
            })
        };
        self.paths().into_iter().map(|path| (path.clone(), of(&path))).collect()
    }
}

fn directory_files(directory: &Path, ignore_dotfiles: bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let dot =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !(dot && ignore_dotfiles) && path.is_file()
        })
        .collect();
    paths.sort();
    paths
}

/// Calls `apply` with the state of the files now, and then with every new one, and waits for it
/// each time. Never ends.
pub async fn follow<F: Future<Output = ()>>(
    source: Source,
    period: Duration,
    apply: impl FnMut(Snapshot) -> F,
) {
    follow_by(Source::read, source, period, apply).await;
}

/// The same, with its way to read.
async fn follow_by<F: Future<Output = ()>>(
    read: fn(&Source) -> Snapshot,
    source: Source,
    period: Duration,
    mut apply: impl FnMut(Snapshot) -> F,
) {
    let mut watch = Watch::new(source.clone());
    let snapshot = read(&source);
    watch.was_read(&snapshot);
    let mut contents = hash(&snapshot);
    apply(snapshot).await;
    loop {
        tokio::time::sleep(period).await;
        if watch.has_changed() {
            let (snapshot, hash) = read_aside(read, &source).await;
            watch.was_read(&snapshot);
            if hash != contents {
                contents = hash;
                apply(snapshot).await;
            }
        }
    }
}

/// Looks whether files have changed, without reading them: for files too large to be read twice.
pub struct Watch {
    source: Source,
    /// As they were when a change was last told.
    told: Fingerprint,
    /// As they were at the last look.
    seen: Fingerprint,
}

impl Watch {
    /// Knows the files as they are now.
    pub fn new(source: Source) -> Self {
        let now = source.fingerprint();
        Self { source, told: now.clone(), seen: now }
    }

    /// Whether they are other files than when this last was true, and the same as at the last look:
    /// a file that is being written is left until it is still. To be asked once a [`PERIOD`].
    pub fn has_changed(&mut self) -> bool {
        let now = self.source.fingerprint();
        let still = now == self.seen;
        self.seen = now;
        let changed = still && self.seen != self.told;
        if changed {
            self.told = self.seen.clone();
        }
        changed
    }

    /// Tells the files as they are once more, when they are still: they could not be read, or used.
    pub fn tell_again(&mut self) {
        self.told.clear();
    }

    /// What was told was read. Where a file that is there could not be, it is told again.
    fn was_read(&mut self, snapshot: &Snapshot) {
        let is_there = |path| self.told.get(path).is_some_and(|of| *of != ABSENT);
        if snapshot.iter().any(|(path, read)| read.is_err() && is_there(path)) {
            self.tell_again();
        }
    }
}

/// Reads where nobody waits: large files take a moment.
async fn read_aside(read: fn(&Source) -> Snapshot, source: &Source) -> (Snapshot, u64) {
    let source = source.clone();
    let read = move || {
        let snapshot = read(&source);
        let hash = hash(&snapshot);
        (snapshot, hash)
    };
    tokio::task::spawn_blocking(read).await.expect("reading files does not panic")
}

/// A short hash of what is in force, for `/config`, metrics and comparing replicas.
pub fn hash(snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    snapshot.hash(&mut hasher);
    hasher.finish()
}

/// What `/config` tells of something reloadable.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReloadStatus {
    /// Counts the versions in force since the start; 0 before the first.
    pub version: u64,
    /// Hash of the files in force, hexadecimal.
    pub hash: String,
    /// When the version came into force, seconds since 1970.
    pub loaded_at_seconds: u64,
    /// What was wrong with the newest files, if they are not in force.
    pub last_error: Option<String>,
    /// When that was found, seconds since 1970.
    pub last_error_at_seconds: Option<u64>,
}

impl ReloadStatus {
    /// The files with this hash are in force from now on.
    pub fn loaded(&mut self, hash: u64) {
        self.version += 1;
        self.hash = format!("{hash:016x}");
        self.loaded_at_seconds = seconds_since_epoch();
        self.last_error = None;
        self.last_error_at_seconds = None;
    }

    /// The newest files were refused.
    pub fn refused(&mut self, error: impl Into<String>) {
        self.last_error = Some(error.into());
        self.last_error_at_seconds = Some(seconds_since_epoch());
    }
}

fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::ready;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    const FAST: Duration = Duration::from_millis(10);

    fn following(source: Source) -> mpsc::UnboundedReceiver<Vec<String>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(follow(source, FAST, move |snapshot| {
            let text = |file: Result<Vec<u8>, String>| match file {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(_) => "<gone>".to_owned(),
            };
            let _ = sender.send(snapshot.into_values().map(text).collect());
            ready(())
        }));
        receiver
    }

    #[tokio::test]
    async fn every_way_of_changing_a_file_is_seen() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("limits.yaml");
        fs::write(&path, "one").expect("written");
        let mut changes = following(Source::File(path.clone()));
        assert_eq!(changes.recv().await, Some(vec!["one".to_owned()]));

        fs::write(&path, "two").expect("edited in place");
        assert_eq!(changes.recv().await, Some(vec!["two".to_owned()]));

        fs::write(dir.path().join("new"), "three").expect("written");
        fs::rename(dir.path().join("new"), &path).expect("renamed over");
        assert_eq!(changes.recv().await, Some(vec!["three".to_owned()]));

        fs::remove_file(&path).expect("deleted");
        assert_eq!(changes.recv().await, Some(vec!["<gone>".to_owned()]));

        fs::write(&path, "four").expect("created again");
        assert_eq!(changes.recv().await, Some(vec!["four".to_owned()]));
    }

    /// As it is while no file descriptor is left.
    fn read_in_vain(source: &Source) -> Snapshot {
        let file = |path| (path, Err("cannot be read: too many open files".to_owned()));
        source.paths().into_iter().map(file).collect()
    }

    #[tokio::test]
    async fn what_cannot_be_read_for_a_while_is_read_later() {
        static TIMES: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys");
        fs::write(&path, "one").expect("written");
        // The first time all is well; then the file changes, and twice it cannot be read.
        let read = |source: &Source| match TIMES.fetch_add(1, Ordering::Relaxed) {
            1 | 2 => read_in_vain(source),
            _ => source.read(),
        };
        let (sender, mut changes) = mpsc::unbounded_channel();
        tokio::spawn(follow_by(read, Source::File(path.clone()), FAST, move |snapshot| {
            let _ = sender.send(snapshot.into_values().next().expect("a file").ok());
            ready(())
        }));
        assert_eq!(changes.recv().await, Some(Some(b"one".to_vec())));
        fs::write(dir.path().join("new"), "two").expect("written");
        fs::rename(dir.path().join("new"), &path).expect("renamed over");
        assert_eq!(changes.recv().await, Some(None), "said once");
        assert_eq!(changes.recv().await, Some(Some(b"two".to_vec())));
    }

    #[test]
    fn a_change_is_told_once_it_is_still() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys");
        let mut watch = Watch::new(Source::FileOrDirectory(path.clone()));
        assert!(!watch.has_changed());
        fs::write(&path, "one").expect("written");
        assert!(!watch.has_changed(), "not still yet");
        fs::write(&path, "one and more").expect("written");
        assert!(!watch.has_changed(), "not still yet");
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
        fs::remove_file(&path).expect("deleted");
        fs::create_dir(&path).expect("created");
        fs::write(path.join("a"), "two").expect("written");
        fs::write(path.join(".hidden"), "no").expect("written");
        assert!(!watch.has_changed() && watch.has_changed());
        assert_eq!(Source::FileOrDirectory(path.clone()).paths(), [path.join("a")]);
        fs::write(path.join("b"), "three").expect("written");
        assert!(!watch.has_changed() && watch.has_changed());
    }

    #[tokio::test]
    async fn a_configmap_swap_is_one_change() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mount = |version: &str, text: &str| {
            let data = dir.path().join(format!("..{version}"));
            fs::create_dir(&data).expect("created");
            fs::write(data.join("a.yaml"), format!("a{text}")).expect("written");
            fs::write(data.join("b.yaml"), format!("b{text}")).expect("written");
            symlink(&data, dir.path().join("..new")).expect("linked");
            fs::rename(dir.path().join("..new"), dir.path().join("..data")).expect("swapped");
        };
        mount("2026_1", "1");
        for name in ["a.yaml", "b.yaml"] {
            symlink(format!("..data/{name}"), dir.path().join(name)).expect("linked");
        }
        let source = Source::Directory { path: dir.path().to_owned(), ignore_dotfiles: true };
        let mut changes = following(source);
        assert_eq!(changes.recv().await, Some(vec!["a1".to_owned(), "b1".to_owned()]));
        mount("2026_2", "2");
        assert_eq!(changes.recv().await, Some(vec!["a2".to_owned(), "b2".to_owned()]));
        assert!(changes.try_recv().is_err());
    }
}
