//! Cuts the points of one request into chunks: one tenant, one virtual shard, a bounded size.
//!
//! A series always goes to the same shard, and the chunks of a shard keep the order in which the
//! points came, so the last write of a point is the last in the journal too.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{Point, TAGS_MAX, TAGS_STORED_MAX, encode};
use crate::fault::Fault;
use crate::record::SHARDS;

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
        let (allocated, points) = (0, 0);
        Self { tags_max, admitted_at_ns, chunk_bytes_max, open, sealed, scratch, allocated, points }
    }

    /// Adds a point.
    ///
    /// # Errors
    /// When the point may not be stored; the chunks are as before.
    pub fn push(&mut self, point: &mut Point<'_>) -> Result<(), Fault> {
        if point.tags.len() > self.tags_max {
            return Err(Fault::TagsTooMany);
        }
        self.scratch.clear();
        let series_len = encode(point, self.admitted_at_ns, &mut self.scratch)?;
        let line_len = self.scratch.len();
        if line_len > self.chunk_bytes_max {
            return Err(Fault::PointTooLarge);
        }
        let shard = (xxh3_64(&self.scratch[..series_len]) % u64::from(SHARDS)) as u32;
        let open = &mut self.open[shard as usize];
        if open.body.len() + line_len > self.chunk_bytes_max {
            self.sealed.push(std::mem::take(open).seal(shard));
        }
        let before = open.body.capacity();
        let wanted = open.body.len() + line_len;
        if wanted > before {
            let capacity = wanted.max(before * 2).max(CHUNK_BYTES_MIN).min(self.chunk_bytes_max);
            open.body.reserve_exact(capacity - open.body.len());
        }
        open.body.extend_from_slice(&self.scratch);
        open.points += 1;
        self.allocated += open.body.capacity() - before;
        self.points += 1;
        Ok(())
    }

    /// How many bytes the chunks hold in memory.
    pub fn allocated(&self) -> usize {
        self.allocated + self.scratch.capacity()
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
