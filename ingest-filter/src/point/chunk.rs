//! Cuts the points of one request into chunks: one tenant, one virtual shard, a bounded size.
//!
//! A series always goes to the same shard, and the chunks of a shard keep the order in which the
//! points came, so the last write of a point is the last in the journal too.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::encode::drop_repeated_fields;
use super::{KnownLine, Point, Shapes, TAGS_MAX, TAGS_STORED_MAX, encode};
use crate::fault::Fault;
use crate::record::SHARDS;
use crate::types::{Checked, Pin, TypesOf};

/// The first allocation of a chunk; most requests put a few lines into each shard.
const CHUNK_BYTES_MIN: usize = 1024;

/// Canonical line protocol of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The virtual shard of every series in the chunk.
    pub shard: u32,
    /// How many points the body holds.
    pub points: u32,
    /// The lines.
    pub body: Bytes,
}

/// Collects the points of one request.
pub struct Chunker {
    /// How many tags the client may send.
    tags_max: usize,
    admitted_at_ns: i64,
    chunk_bytes_max: usize,
    open: Vec<Open>,
    sealed: Vec<Chunk>,
    scratch: Vec<u8>,
    allocated: usize,
    points: u64,
    types: Option<TypesOf>,
    shapes: Shapes,
    stamped: bool,
}

#[derive(Default)]
struct Open {
    body: Vec<u8>,
    points: u32,
}

impl Chunker {
    /// Points without a timestamp get `admitted_at_ns`, and `tags_added` tags where they are
    /// stored. No chunk is larger than `chunk_bytes_max`.
    pub fn new(tags_added: usize, admitted_at_ns: i64, chunk_bytes_max: usize) -> Self {
        let tags_max = TAGS_MAX.min(TAGS_STORED_MAX - tags_added);
        let open = (0..SHARDS).map(|_| Open::default()).collect();
        let (sealed, scratch) = (Vec::new(), Vec::new());
        let (allocated, points, types) = (0, 0, None);
        Self {
            tags_max,
            admitted_at_ns,
            chunk_bytes_max,
            open,
            sealed,
            scratch,
            allocated,
            points,
            types,
            shapes: Shapes::new(chunk_bytes_max),
            stamped: false,
        }
    }

    /// Points get the types that their fields have already.
    pub fn typed(self, types: TypesOf) -> Self {
        Self { types: Some(types), ..self }
    }

    /// Adds a point.
    ///
    /// # Errors
    /// When the point may not be stored; the chunks are as before.
    pub fn push(&mut self, point: &mut Point<'_>) -> Result<(), Fault> {
        self.push_if(point, |_, _| Ok(()))
    }

    /// Adds a point if `admit` lets it pass, which is asked last and sees the hash of its series.
    ///
    /// # Errors
    /// As [`Chunker::push`], and with what `admit` says.
    pub fn push_if(
        &mut self,
        point: &mut Point<'_>,
        admit: impl FnMut(&Point<'_>, u64) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if point.tags.len() > self.tags_max {
            return Err(Fault::TagsTooMany);
        }
        let hash = self.encode(point, admit)?;
        self.stamped |= point.timestamp_ns.is_none();
        let scratch = std::mem::take(&mut self.scratch);
        self.open(hash, scratch.len()).extend_from_slice(&scratch);
        self.scratch = scratch;
        Ok(())
    }

    /// Adds a point that was read from a line, and learns what lines like it look like.
    ///
    /// # Errors
    /// As [`Chunker::push`].
    pub fn push_line(&mut self, point: &mut Point<'_>) -> Result<(), Fault> {
        self.push(point)?;
        self.learn(point);
        Ok(())
    }

    /// Learns what lines look like that differ in their values alone from one that was read into
    /// this point, which was added as it is.
    pub fn learn(&mut self, point: &Point<'_>) {
        self.shapes.learn(point);
    }

    /// Every line is written with these tags beside its own.
    pub fn add_tags(&mut self, tags: &[(String, String)]) {
        self.shapes.add_tags(tags);
    }

    /// Adds a line of one of the [`Chunker::shapes`].
    pub fn push_known(&mut self, line: &KnownLine<'_>) {
        self.push_known_of(line, xxh3_64(line.series));
    }

    /// Adds a line of one of the [`Chunker::shapes`], whose series has this hash.
    pub fn push_known_of(&mut self, line: &KnownLine<'_>, hash: u64) {
        if let Some(whole) = line.whole {
            let body = self.open(hash, whole.len() + 1);
            body.extend_from_slice(whole);
            body.push(b'\n');
            return;
        }
        let mut timestamp = itoa::Buffer::new();
        let admitted = match line.timestamp {
            [] => {
                self.stamped = true;
                timestamp.format(self.admitted_at_ns)
            }
            _ => "",
        };
        let blank = &b" "[..usize::from(!admitted.is_empty())];
        let parts = [line.series, line.fields, line.timestamp, blank, admitted.as_bytes(), b"\n"];
        let body = self.open(hash, parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| body.extend_from_slice(part));
    }

    /// The shapes of the lines so far.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The body for a line whose series has this hash, with room for it.
    fn open(&mut self, hash: u64, line_len: usize) -> &mut Vec<u8> {
        let shard = (hash % u64::from(SHARDS)) as u32;
        let open = &mut self.open[shard as usize];
        if open.body.len() + line_len > self.chunk_bytes_max {
            self.sealed.push(std::mem::take(open).seal(shard));
        }
        let before = open.body.capacity();
        let wanted = open.body.len() + line_len;
        if wanted > before {
            let capacity = wanted.max(before * 2).max(CHUNK_BYTES_MIN).min(self.chunk_bytes_max);
            open.body.reserve_exact(capacity - open.body.len());
            self.allocated += open.body.capacity() - before;
        }
        open.points += 1;
        self.points += 1;
        &mut open.body
    }

    /// Writes a point to `scratch` and gives the hash of its series.
    fn encode(
        &mut self,
        point: &mut Point<'_>,
        mut admit: impl FnMut(&Point<'_>, u64) -> Result<(), Fault>,
    ) -> Result<u64, Fault> {
        drop_repeated_fields(&mut point.fields);
        loop {
            let marked = self.types.as_mut().map(|types| types.mark_tags(point));
            let marked = marked.unwrap_or_default();
            let encoded = self.encode_once(point, &mut admit, marked.has_new());
            marked.undo(point);
            if let Some(hash) = encoded? {
                return Ok(hash);
            }
        }
    }

    /// None when somebody else pinned something of the point meanwhile, and it must be looked at
    /// again.
    fn encode_once(
        &mut self,
        point: &mut Point<'_>,
        admit: &mut impl FnMut(&Point<'_>, u64) -> Result<(), Fault>,
        has_new_kinds: bool,
    ) -> Result<Option<u64>, Fault> {
        let checked = self.types.as_mut().map_or(Checked::Known, |types| types.check(point));
        if checked == Checked::Conflict {
            return Err(Fault::TypeConflict);
        }
        self.scratch.clear();
        let series_len = encode(point, self.admitted_at_ns, &mut self.scratch)?;
        if self.scratch.len() > self.chunk_bytes_max {
            return Err(Fault::PointTooLarge);
        }
        let hash = xxh3_64(&self.scratch[..series_len]);
        admit(point, hash)?;
        let Some(types) = &mut self.types else { return Ok(Some(hash)) };
        let is_pinned = (checked != Checked::New || types.pin(point))
            && (!has_new_kinds || types.pin_tags(point));
        Ok(is_pinned.then_some(hash))
    }

    /// What a point that was just refused conflicts with; empty for every other fault.
    pub fn detail(&self, fault: Fault) -> String {
        let types = self.types.as_ref().filter(|_| fault == Fault::TypeConflict);
        types.and_then(TypesOf::conflict).map_or_else(String::new, ToString::to_string)
    }

    /// The types of fields that nobody has pinned yet: to be pinned before the chunks are stored.
    pub fn take_pins(&mut self) -> Vec<Pin> {
        self.types.take().map_or_else(Vec::new, TypesOf::into_pins)
    }

    /// How many bytes the chunks hold in memory.
    pub fn allocated(&self) -> usize {
        let types = self.types.as_ref().map_or(0, TypesOf::allocated);
        self.allocated + self.scratch.capacity() + self.shapes.allocated() + types
    }

    /// Whether a point got the time of admission.
    pub fn stamped(&self) -> bool {
        self.stamped
    }

    /// How many points were added.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// The chunks; those of one shard in order.
    pub fn finish(self) -> Vec<Chunk> {
        let mut chunks = self.sealed;
        let rest = self.open.into_iter().zip(0..).filter(|(open, _)| open.points > 0);
        chunks.extend(rest.map(|(open, shard)| open.seal(shard)));
        chunks
    }
}

impl Open {
    fn seal(self, shard: u32) -> Chunk {
        Chunk { shard, points: self.points, body: Bytes::from(self.body) }
    }
}
