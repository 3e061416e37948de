//! The files of a recording: begun anew every ten minutes, when a clock jumps, or when one is large or
//! names many shapes; the oldest go when all together take more than they may. Each can be read by
//! itself, and one that was cut off up to where it ends.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::record::format::{
    DescriptorLine, FORMAT, HeaderLine, LINE_ROWS_MAX, RowLine, SEGMENT_SECONDS, SecondLine,
    ShapeLine, VERSION,
};
use crate::record::hashed::HashedKeys;
use crate::record::shape::{Shape, decode};
use crate::record::table::{Refusal, Row, Table};

/// How the names of files end.
pub const SUFFIX: &str = ".jsonl.zst";
/// How they begin.
pub const PREFIX: &str = "traffic-";
/// Shapes that one file names; with more another begins.
pub const SHAPES_MAX: usize = 65_536;
/// A file takes at most this part of what all may take.
const PARTS: u64 = 16;
/// Fast, and twice as small as the fastest.
const LEVEL: i32 = 3;

/// Writes seconds to files below a directory.
pub struct Segments {
    dir: PathBuf,
    bytes_max: u64,
    replica: String,
    hashed: HashedKeys,
    open: Option<Segment>,
}

/// One file.
struct Segment {
    to: zstd::Encoder<'static, Counted>,
    started: u64,
    last: u64,
    shapes: HashMap<Box<[u8]>, u32>,
}

impl Segments {
    /// Files below `dir`, which is made if it is not there, of at most `bytes_max` together.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(
        dir: &Path,
        bytes_max: u64,
        replica: String,
        hashed: HashedKeys,
    ) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), bytes_max, replica, hashed, open: None })
    }

    /// Writes seconds, given oldest first, so that they can be read whatever happens next. Returns how
    /// many bytes all files take.
    ///
    /// # Errors
    /// When they cannot be written; the file is given up, and the next second begins another.
    pub fn write(&mut self, tables: &[Table]) -> io::Result<u64> {
        let written = self.try_write(tables);
        if written.is_err() {
            self.open = None;
        }
        written?;
        self.prune()
    }

    fn try_write(&mut self, tables: &[Table]) -> io::Result<()> {
        for table in tables {
            let Some(second) = table.second().filter(|_| table.requests() > 0) else { continue };
            for rows in table.rows().chunks(LINE_ROWS_MAX) {
                self.open_for(second)?;
                let Some(segment) = &mut self.open else { continue };
                let row = |row| segment.row(table, row, &self.hashed);
                let rows = rows.iter().map(row).collect::<io::Result<_>>()?;
                segment.line(&SecondLine { t: second, rows, other: None })?;
            }
            if table.other.requests > 0 {
                self.open_for(second)?;
                let other = Some((table.other.requests, table.other.refused));
                if let Some(segment) = &mut self.open {
                    segment.line(&SecondLine { t: second, rows: vec![], other })?;
                }
            }
        }
        match &mut self.open {
            Some(segment) => segment.to.flush(),
            None => Ok(()),
        }
    }

    /// Makes the open file one that can take this second.
    fn open_for(&mut self, second: u64) -> io::Result<()> {
        let bytes_max = self.bytes_max / PARTS;
        let fits = |segment: &Segment| {
            second >= segment.last
                && second - segment.started < SEGMENT_SECONDS
                && segment.shapes.len() + LINE_ROWS_MAX <= SHAPES_MAX
                && segment.to.get_ref().bytes < bytes_max
        };
        if let Some(segment) = self.open.as_mut().filter(|segment| fits(segment)) {
            segment.last = second;
            return Ok(());
        }
        self.finish()?;
        let file = self.new_file(second)?;
        let to = zstd::Encoder::new(Counted { file, bytes: 0 }, LEVEL)?;
        let mut segment = Segment { to, started: second, last: second, shapes: HashMap::new() };
        let hashed_keys = self.hashed.keys().iter().map(String::as_str).collect();
        segment.line(&HeaderLine {
            format: FORMAT,
            version: VERSION,
            replica: &self.replica,
            started: second,
            hashed_keys,
        })?;
        self.open = Some(segment);
        Ok(())
    }

    /// A file that did not exist before: several may begin in one second.
    fn new_file(&self, second: u64) -> io::Result<File> {
        let mut number = 0;
        loop {
            let name = format!("{PREFIX}{second:012}-{}-{number}{SUFFIX}", self.replica);
            match File::create_new(self.dir.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                opened => return opened,
            }
        }
    }

    /// Ends the open file.
    ///
    /// # Errors
    /// When its end cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some(segment) => segment.to.finish()?.file.sync_all(),
            None => Ok(()),
        }
    }

    /// Removes the oldest files until the others fit, but never the one that is open. Those of replicas
    /// that came before count too. Returns what is left.
    fn prune(&mut self) -> io::Result<u64> {
        let mut files = files(&self.dir)?;
        files.sort();
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
        let mut sizes: Vec<(PathBuf, u64)> =
            files.into_iter().map(|path| (size(&path), path)).map(|(n, path)| (path, n)).collect();
        let mut total: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
        while total > self.bytes_max && sizes.len() > 1 {
            let (oldest, bytes) = sizes.remove(0);
            match fs::remove_file(oldest) {
                // Another replica may have removed it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= bytes,
            }
        }
        Ok(total)
    }
}

/// The files of recordings in a directory.
///
/// # Errors
/// When the directory cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            found.push(path);
        }
    }
    Ok(found)
}

impl Segment {
    fn line(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, line)?;
        self.to.write_all(b"\n")
    }

    /// A row with the number of its shape, which is named first where it is new.
    fn row(&mut self, table: &Table, row: &Row, hashed: &HashedKeys) -> io::Result<RowLine> {
        let bytes = table.shape(row);
        let number = match self.shapes.get(bytes) {
            Some(number) => *number,
            None => {
                let number = self.shapes.len() as u32;
                let shape = decode(bytes).unwrap_or_default();
                self.name(number, shape, hashed)?;
                self.shapes.insert(bytes.into(), number);
                number
            }
        };
        let refusal = |refusal: &Refusal| {
            (refusal.rule.to_string(), refusal.reason.name().to_owned(), refusal.requests)
        };
        let refusals = row.refusals.iter().map(refusal).collect();
        Ok(RowLine(number, row.requests, table.hits(row).to_vec(), row.milliseconds, refusals))
    }

    fn name(&mut self, number: u32, mut shape: Shape, hashed: &HashedKeys) -> io::Result<()> {
        for (key, value) in shape.descriptors.iter_mut().flat_map(|one| &mut one.entries) {
            *value = hashed.written(key, std::mem::take(value));
        }
        let descriptors = shape.descriptors.iter().map(DescriptorLine::from).collect();
        let (domain, class) = (&*shape.domain, &*shape.class);
        self.line(&ShapeLine { shape: number, domain, class, descriptors })
    }
}

/// A file, and how much went into it.
struct Counted {
    file: File,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
