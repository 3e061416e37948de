//! Recordings read back: any number of files, of one replica or of several, as one run of seconds in
//! order. What can be used is used; what cannot is counted and named.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::record::format::{FORMAT, LINE_BYTES_MAX, Line, RowLine, SEGMENT_SECONDS, VERSION};
use crate::record::segments;
use crate::record::shape::Shape;

/// The most shapes that all files together may name.
pub const SHAPES_MAX: usize = 4 << 20;
/// Problems that are named one by one; more are counted.
pub const PROBLEMS_MAX: usize = 20;

/// What a stream begins with that zstd compressed.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// One row of one second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficRow {
    /// Where in [`Traffic::shapes`].
    pub shape: usize,
    /// How many requests.
    pub requests: u64,
    /// Hits by descriptor, of all requests together.
    pub hits: Vec<u64>,
    /// Milliseconds within the second of the first request and of the last.
    pub milliseconds: (u16, u16),
    /// Rule, reason and number of what was refused.
    pub refusals: Vec<(String, String, u64)>,
}

impl TrafficRow {
    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.refusals.iter().map(|(_, _, requests)| requests).sum()
    }
}

/// What was asked in one second, of all files that have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Seconds since the epoch.
    pub t: u64,
    /// What was asked.
    pub rows: Vec<TrafficRow>,
    /// Requests whose shape was not kept, and how many of them were refused.
    pub other: (u64, u64),
}

/// What could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// The first few, each with its file.
    pub named: Vec<String>,
    /// All.
    pub count: u64,
}

impl Problems {
    fn add(&mut self, path: &Path, line: u64, problem: impl std::fmt::Display) {
        self.count += 1;
        if self.named.len() < PROBLEMS_MAX {
            self.named.push(format!("{}:{line}: {problem}", path.display()));
        }
    }
}

/// Recordings as one run of seconds.
pub struct Traffic {
    /// Files by the second they begin with, the last first.
    closed: Vec<(u64, PathBuf)>,
    open: Vec<Option<Segment>>,
    next: BinaryHeap<Reverse<(u64, usize)>>,
    /// All shapes so far.
    pub shapes: Vec<Shape>,
    numbers: HashMap<Shape, usize>,
    /// What could not be used so far.
    pub problems: Problems,
    /// Keys whose values are hashes.
    pub hashed_keys: BTreeSet<String>,
    /// Who recorded.
    pub replicas: BTreeSet<String>,
    /// Bytes of all files, and of those that are read.
    pub bytes: (u64, u64),
}

/// A file that is read.
struct Segment {
    path: PathBuf,
    lines: Lines,
    started: u64,
    last: u64,
    shapes: Vec<Option<usize>>,
    ahead: Option<Line>,
    bytes: u64,
}

impl Traffic {
    /// Finds the recordings among files and directories.
    ///
    /// # Errors
    /// When one of the paths cannot be read, or there is no recording.
    pub fn open(paths: &[PathBuf]) -> Result<Self, String> {
        let mut traffic = Self {
            closed: Vec::new(),
            open: Vec::new(),
            next: BinaryHeap::new(),
            shapes: Vec::new(),
            numbers: HashMap::new(),
            problems: Problems::default(),
            hashed_keys: BTreeSet::new(),
            replicas: BTreeSet::new(),
            bytes: (0, 0),
        };
        for path in paths {
            let cannot = |error: io::Error| format!("{}: cannot be read: {error}", path.display());
            let files = match std::fs::metadata(path).map_err(cannot)?.is_dir() {
                true => segments::files(path).map_err(cannot)?,
                false => vec![path.clone()],
            };
            if files.is_empty() {
                return Err(format!("{}: holds no recordings", path.display()));
            }
            for file in files {
                traffic.find(file);
            }
        }
        traffic.closed.sort_by(|a, b| b.cmp(a));
        if traffic.closed.is_empty() {
            let named = traffic.problems.named.first().cloned().unwrap_or_default();
            return Err(format!("no recording can be used; {named}"));
        }
        Ok(traffic)
    }

    /// Reads the head of a file.
    fn find(&mut self, path: PathBuf) {
        match head(&path) {
            Ok((header, _)) => {
                self.hashed_keys.extend(header.hashed_keys);
                self.replicas.extend(header.replica);
                self.bytes.0 += std::fs::metadata(&path).map_or(0, |data| data.len());
                self.closed.push((header.started.unwrap_or(0), path));
            }
            Err(problem) => self.problems.add(&path, 1, problem),
        }
    }

    /// The next second, or none at the end.
    pub fn next_second(&mut self) -> Option<Second> {
        let mut second: Option<Second> = None;
        loop {
            let next = self.next.peek().map(|Reverse((t, _))| *t);
            let begins = self.closed.last().map(|(started, _)| *started);
            if let Some(started) = begins
                && next.is_none_or(|next| started <= next)
                && second.as_ref().is_none_or(|second| started <= second.t)
            {
                self.open_next();
                continue;
            }
            let Some(Reverse((t, at))) = self.next.peek().copied() else { break };
            if second.as_ref().is_some_and(|second| second.t != t) {
                break;
            }
            self.next.pop();
            let second = second.get_or_insert_with(|| Second { t, ..Second::default() });
            self.take_line(at, second);
        }
        second
    }

    fn open_next(&mut self) {
        let Some((started, path)) = self.closed.pop() else { return };
        let bytes = std::fs::metadata(&path).map_or(0, |data| data.len());
        let Ok((_, lines)) = head(&path) else { return };
        let segment =
            Segment { path, lines, started, last: started, shapes: vec![], ahead: None, bytes };
        // The place of a file that ended is free.
        let at = match self.open.iter().position(Option::is_none) {
            Some(at) => {
                self.open[at] = Some(segment);
                at
            }
            None => {
                self.open.push(Some(segment));
                self.open.len() - 1
            }
        };
        self.read_ahead(at);
    }

    /// Takes the line that was read ahead into `second`, and reads the next.
    fn take_line(&mut self, at: usize, second: &mut Second) {
        if let Some(segment) = self.open[at].as_mut()
            && let Some(line) = segment.ahead.take()
        {
            let (requests, refused) = line.other.unwrap_or_default();
            second.other.0 += requests;
            second.other.1 += refused;
            for RowLine(number, requests, hits, milliseconds, refusals) in line.rows {
                let shape = segment.shapes.get(number as usize).copied().flatten();
                let fits = |shape: &usize| self.shapes[*shape].descriptors.len() == hits.len();
                match shape.filter(fits) {
                    Some(shape) if milliseconds.0 <= milliseconds.1 && milliseconds.1 < 1000 => {
                        let row = TrafficRow { shape, requests, hits, milliseconds, refusals };
                        second.rows.push(row);
                    }
                    _ => {
                        let problem = format!("a row of shape {number} that does not fit");
                        self.problems.add(&segment.path, segment.lines.number, problem);
                    }
                }
            }
        }
        self.read_ahead(at);
    }

    /// Reads up to the next line of a second; where there is none, the file is done.
    fn read_ahead(&mut self, at: usize) {
        while let Some(segment) = self.open[at].as_mut() {
            let line = match segment.lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => {
                    self.bytes.1 += segment.bytes;
                    self.open[at] = None;
                    return;
                }
                Err(problem) => {
                    self.problems.add(&segment.path, segment.lines.number, &problem);
                    if problem.is_end() {
                        self.bytes.1 += segment.bytes;
                        self.open[at] = None;
                        return;
                    }
                    continue;
                }
            };
            let number = segment.lines.number;
            if let Some(t) = line.t {
                if t < segment.last || t - segment.started >= SEGMENT_SECONDS {
                    self.problems.add(&segment.path, number, "a second out of order");
                    continue;
                }
                segment.last = t;
                segment.ahead = Some(line);
                self.next.push(Reverse((t, at)));
                return;
            }
            let Some(shape) = line.shape else {
                self.problems.add(&segment.path, number, "neither a shape nor a second");
                continue;
            };
            match line.to_shape() {
                Ok(value) => match number_of(&mut self.numbers, &mut self.shapes, value) {
                    Some(known) => segment.name(shape, known),
                    None => self.problems.add(&segment.path, number, "too many shapes"),
                },
                Err(problem) => self.problems.add(&segment.path, number, problem),
            }
        }
    }

    /// Reads everything at once, by second; for tests and small recordings.
    pub fn read_all(mut self) -> (BTreeMap<u64, Second>, Self) {
        let mut all = BTreeMap::new();
        while let Some(second) = self.next_second() {
            all.insert(second.t, second);
        }
        (all, self)
    }
}

impl Segment {
    fn name(&mut self, number: u32, shape: usize) {
        let number = number as usize;
        if number < segments::SHAPES_MAX {
            self.shapes.resize(self.shapes.len().max(number + 1), None);
            self.shapes[number] = Some(shape);
        }
    }
}

fn number_of(
    numbers: &mut HashMap<Shape, usize>,
    shapes: &mut Vec<Shape>,
    shape: Shape,
) -> Option<usize> {
    if let Some(known) = numbers.get(&shape) {
        return Some(*known);
    }
    if shapes.len() >= SHAPES_MAX {
        return None;
    }
    shapes.push(shape.clone());
    numbers.insert(shape, shapes.len() - 1);
    Some(shapes.len() - 1)
}

/// The first line of a file, and the rest.
fn head(path: &Path) -> Result<(Line, Lines), String> {
    let mut file = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
    let is_zstd = file.fill_buf().map_err(|error| error.to_string())?.starts_with(&ZSTD_MAGIC);
    let from: Box<dyn Read + Send> = match is_zstd {
        true => Box::new(zstd::Decoder::with_buffer(file).map_err(|error| error.to_string())?),
        false => Box::new(file),
    };
    let mut lines =
        Lines { from: BufReader::with_capacity(1 << 16, from), buffer: vec![], number: 0 };
    let first = lines.next_line().map_err(|problem| problem.to_string())?;
    let first = first.filter(|first| first.format.as_deref() == Some(FORMAT));
    let Some(first) = first else { return Err("is no recording of traffic".to_owned()) };
    match first.version {
        Some(VERSION) if first.started.is_some() => Ok((first, lines)),
        Some(version) => Err(format!("has version {version}, and only {VERSION} is known")),
        None => Err("has no version".to_owned()),
    }
}

/// Lines of JSON, each bounded.
struct Lines {
    from: BufReader<Box<dyn Read + Send>>,
    buffer: Vec<u8>,
    number: u64,
}

/// Why a line cannot be used.
#[derive(Debug, thiserror::Error)]
enum LineProblem {
    #[error("the file ends here: it is still written, was cut off, or is damaged")]
    CutOff(#[source] io::Error),
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("a line that does not read: {0}")]
    Malformed(#[source] serde_json::Error),
}

impl LineProblem {
    /// Whether nothing can follow.
    fn is_end(&self) -> bool {
        !matches!(self, Self::Malformed(_))
    }
}

impl Lines {
    fn next_line(&mut self) -> Result<Option<Line>, LineProblem> {
        self.buffer.clear();
        self.number += 1;
        let mut bounded = (&mut self.from).take(LINE_BYTES_MAX as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.buffer).map_err(LineProblem::CutOff)?;
        if read == 0 {
            return Ok(None);
        }
        if read > LINE_BYTES_MAX {
            return Err(LineProblem::TooLong);
        }
        serde_json::from_slice(&self.buffer).map(Some).map_err(LineProblem::Malformed)
    }
}
