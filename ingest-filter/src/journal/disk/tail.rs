//! Walking along the segments behind their writer: the next frame, or why there is none yet.
//! Blocking; runs on the reader's thread.
//!
//! ```text
//! segment │ frame │ frame │ damage │ frame │ torn ┊     ┊ next segment │ frame …
//! cursor  └──────►└──────►└───────────────►└──────►└──────────────────►└──────►
//! ```
//!
//! A frame that is not whole may simply not be written yet. It counts as damage only once that
//! is ruled out: a later segment exists, or a sound frame stands behind it in the same one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::journal::disk::frame::{self, HEADER_BYTES, Header, MAGIC};
use crate::journal::disk::segments;
use crate::journal::metrics::JournalMetrics;
use crate::journal::{Malformed, ReadError};
use crate::record::Record;

/// For this long an unfinished frame is taken for one that is being written.
const SETTLE: Duration = Duration::from_secs(1);
/// How much is searched at a time.
const SEARCH_BYTES: usize = 1 << 20;

/// A place in the journal.
pub(super) struct Tail {
    directory: PathBuf,
    /// Everything below was handed out or stepped over.
    cursor: u64,
    open: Option<Open>,
    unfinished_since: Option<Instant>,
    metrics: JournalMetrics,
}

struct Open {
    base: u64,
    file: File,
    path: PathBuf,
}

/// What one step found.
pub(super) enum Step {
    /// A record, or intact bytes that are none.
    Frame { content: Result<Record, Malformed>, bytes: u64 },
    /// The cursor moved over damage or into the next segment.
    Moved,
    /// Nothing to read yet.
    Idle,
}

enum Found {
    Frame { payload: Bytes, bytes: u64 },
    End,
    Unfinished,
    Damaged,
}

impl Tail {
    pub fn new(directory: PathBuf, cursor: u64, metrics: JournalMetrics) -> Self {
        Self { directory, cursor, open: None, unfinished_since: None, metrics }
    }

    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    pub fn step(&mut self, now: Instant) -> Result<Step, ReadError> {
        if self.open.is_none() && !self.open_at_cursor()? {
            return Ok(Step::Idle);
        }
        let mut found = self.look(self.cursor)?;
        if let Found::Frame { payload, bytes } = found {
            return Ok(self.take(payload, bytes));
        }
        let next = self.next_base()?;
        if next.is_some() {
            // Only now is this segment sure to be closed, and what it holds final.
            found = self.look(self.cursor)?;
        }
        match (found, next) {
            (Found::Frame { payload, bytes }, _) => Ok(self.take(payload, bytes)),
            (Found::End, Some(next)) => {
                self.move_to(next);
                Ok(Step::Moved)
            }
            (Found::End, None) => {
                self.unfinished_since = None;
                Ok(Step::Idle)
            }
            (Found::Unfinished | Found::Damaged, Some(next)) => {
                let target = self.search()?;
                self.skip(target, next);
                Ok(Step::Moved)
            }
            (Found::Unfinished | Found::Damaged, None) => self.wait_or_skip(now),
        }
    }

    fn take(&mut self, payload: Bytes, bytes: u64) -> Step {
        self.cursor += bytes;
        self.unfinished_since = None;
        Step::Frame { content: frame::decode(payload), bytes }
    }

    /// In the newest segment: damage is skipped only when a sound frame follows it.
    fn wait_or_skip(&mut self, now: Instant) -> Result<Step, ReadError> {
        let since = *self.unfinished_since.get_or_insert(now);
        if now.saturating_duration_since(since) < SETTLE {
            return Ok(Step::Idle);
        }
        self.unfinished_since = Some(now);
        match self.search()? {
            Some(sound) => {
                self.skip(Some(sound), sound);
                Ok(Step::Moved)
            }
            None => Ok(Step::Idle),
        }
    }

    fn skip(&mut self, sound: Option<u64>, next_segment: u64) {
        let end = self.open.as_ref().and_then(|open| Some(open.base + length(&open.file).ok()?));
        let until = sound.unwrap_or(end.unwrap_or(next_segment).min(next_segment));
        let bytes = until.saturating_sub(self.cursor);
        self.metrics.corrupt_regions.inc();
        self.metrics.corrupt_bytes.inc_by(bytes);
        let (position, torn_tail) = (self.cursor, sound.is_none());
        tracing::error!(
            position,
            bytes,
            torn_tail,
            "skipped bytes of the journal that are no frame"
        );
        match sound {
            Some(sound) => self.cursor = sound,
            None => self.move_to(next_segment),
        }
        self.unfinished_since = None;
    }

    fn move_to(&mut self, base: u64) {
        self.cursor = base;
        self.open = None;
        self.unfinished_since = None;
    }

    /// Opens the segment that holds the cursor, or the first one behind it.
    fn open_at_cursor(&mut self) -> Result<bool, ReadError> {
        let found = self.list()?;
        let holding = found.iter().rfind(|segment| segment.base <= self.cursor);
        let Some(segment) = holding.or(found.first()) else { return Ok(false) };
        let file = match File::open(&segment.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(failed(&segment.path, "opened", source)),
        };
        if self.cursor < segment.base {
            self.missing(segment.base);
        }
        self.open = Some(Open { base: segment.base, file, path: segment.path.clone() });
        Ok(true)
    }

    /// Segments that were not read are gone: somebody deleted them.
    fn missing(&mut self, until: u64) {
        let (position, bytes) = (self.cursor, until - self.cursor);
        self.metrics.corrupt_regions.inc();
        self.metrics.corrupt_bytes.inc_by(bytes);
        tracing::error!(position, bytes, "segments of the journal are gone before they were read");
        self.cursor = until;
    }

    fn next_base(&self) -> Result<Option<u64>, ReadError> {
        let Some(open) = &self.open else { return Ok(None) };
        Ok(self.list()?.into_iter().map(|segment| segment.base).find(|base| *base > open.base))
    }

    fn list(&self) -> Result<Vec<crate::journal::disk::Segment>, ReadError> {
        segments(&self.directory).map_err(|source| failed(&self.directory, "listed", source))
    }

    /// What stands at `position` of the open segment.
    fn look(&self, position: u64) -> Result<Found, ReadError> {
        let Some(open) = &self.open else { return Ok(Found::End) };
        look(&open.file, position - open.base).map_err(|source| failed(&open.path, "read", source))
    }

    /// The next sound frame behind the cursor in the open segment.
    fn search(&self) -> Result<Option<u64>, ReadError> {
        let Some(open) = &self.open else { return Ok(None) };
        search(&open.file, self.cursor - open.base + 1)
            .map(|offset| offset.map(|offset| open.base + offset))
            .map_err(|source| failed(&open.path, "read", source))
    }
}

fn failed(path: &std::path::Path, action: &'static str, source: io::Error) -> ReadError {
    ReadError::File { path: path.display().to_string(), action, source }
}

fn length(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

fn look(file: &File, offset: u64) -> io::Result<Found> {
    let left = length(file)?.saturating_sub(offset);
    if left == 0 {
        return Ok(Found::End);
    }
    if left < HEADER_BYTES as u64 {
        return Ok(Found::Unfinished);
    }
    let mut head = [0; HEADER_BYTES];
    file.read_exact_at(&mut head, offset)?;
    let Header::Frame { payload_bytes, crc } = frame::header(&head) else {
        return Ok(Found::Damaged);
    };
    let bytes = (HEADER_BYTES + payload_bytes) as u64;
    if left < bytes {
        return Ok(Found::Unfinished);
    }
    let mut payload = vec![0; payload_bytes];
    file.read_exact_at(&mut payload, offset + HEADER_BYTES as u64)?;
    match frame::crc(payload_bytes, &payload) == crc {
        true => Ok(Found::Frame { payload: Bytes::from(payload), bytes }),
        false => Ok(Found::Damaged),
    }
}

fn search(file: &File, mut offset: u64) -> io::Result<Option<u64>> {
    let end = length(file)?;
    let mut chunk = vec![0; SEARCH_BYTES];
    while offset + (HEADER_BYTES as u64) <= end {
        let wanted = (end - offset).min(SEARCH_BYTES as u64) as usize;
        file.read_exact_at(&mut chunk[..wanted], offset)?;
        let candidates = chunk[..wanted].windows(MAGIC.len()).enumerate();
        for (at, _) in candidates.filter(|(_, window)| *window == MAGIC) {
            if let Found::Frame { .. } = look(file, offset + at as u64)? {
                return Ok(Some(offset + at as u64));
            }
        }
        // A magic may lie across the border of two chunks.
        offset += (wanted - (MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use proptest::prelude::*;

    use super::*;
    use crate::journal::disk::segment_path;

    #[derive(Clone, Debug)]
    enum Piece {
        Record(u32),
        Garbage(Vec<u8>),
        /// A header that promises more than there is.
        Promise(u32),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        prop_oneof![
            4 => any::<u32>().prop_map(Piece::Record),
            1 => proptest::collection::vec(any::<u8>(), 1..60).prop_map(Piece::Garbage),
            1 => any::<u32>().prop_map(Piece::Promise),
        ]
    }

    fn sound(points: u32) -> Record {
        Record {
            tenant: "a".to_owned(),
            database: String::new(),
            shard: 0,
            points,
            admitted_at_ns: 0,
            request_id: None,
            traceparent: None,
            body: Bytes::from_static(b"m v=1 1\n"),
        }
    }

    fn write(directory: &std::path::Path, pieces: &[Piece]) {
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Record(points) => assert!(frame::encode(&sound(*points), &mut bytes)),
                Piece::Garbage(garbage) => bytes.extend_from_slice(garbage),
                Piece::Promise(length) => {
                    bytes.extend_from_slice(&MAGIC);
                    bytes.extend_from_slice(&length.to_le_bytes());
                    bytes.extend_from_slice(&[0; 4]);
                }
            }
        }
        std::fs::write(segment_path(directory, 0), &bytes).expect("written");
        std::fs::write(segment_path(directory, bytes.len() as u64), b"").expect("written");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever lies between the frames, each frame is found once, in order, and the walk
        /// ends.
        #[test]
        fn every_frame_is_found(pieces in proptest::collection::vec(piece(), 0..20)) {
            let directory = tempfile::tempdir().expect("temporary directory");
            write(directory.path(), &pieces);
            let metrics = JournalMetrics::register(&mut Registry::default());
            let mut tail = Tail::new(directory.path().to_owned(), 0, metrics);
            let mut found = Vec::new();
            let mut steps = 0;
            loop {
                steps += 1;
                prop_assert!(steps <= 2 * pieces.len() + 2, "the walk does not end");
                match tail.step(Instant::now()).expect("readable") {
                    Step::Frame { content, .. } => found.push(content.expect("a record").points),
                    Step::Moved => {}
                    Step::Idle => break,
                }
            }
            let expected: Vec<u32> = pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Record(points) => Some(*points),
                    Piece::Garbage(_) | Piece::Promise(_) => None,
                })
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn segments_that_are_gone_are_counted() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut bytes = Vec::new();
        assert!(frame::encode(&sound(1), &mut bytes));
        std::fs::write(segment_path(directory.path(), 5000), &bytes).expect("written");
        let metrics = JournalMetrics::register(&mut Registry::default());
        let mut tail = Tail::new(directory.path().to_owned(), 200, metrics.clone());
        assert!(matches!(tail.step(Instant::now()), Ok(Step::Frame { .. })));
        assert_eq!((metrics.corrupt_regions.get(), metrics.corrupt_bytes.get()), (1, 4800));
    }

    #[test]
    fn a_frame_that_is_still_being_written_is_waited_for() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut bytes = Vec::new();
        assert!(frame::encode(&sound(1), &mut bytes));
        let path = segment_path(directory.path(), 0);
        let metrics = JournalMetrics::register(&mut Registry::default());
        let mut tail = Tail::new(directory.path().to_owned(), 0, metrics.clone());
        let mut now = Instant::now();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("written");
            now += SETTLE * 2;
            assert!(matches!(tail.step(now), Ok(Step::Idle)), "{length}");
        }
        std::fs::write(&path, &bytes).expect("written");
        assert!(matches!(tail.step(now), Ok(Step::Frame { .. })));
        assert_eq!(metrics.corrupt_regions.get(), 0);
    }
}
