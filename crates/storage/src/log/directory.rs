//! Where in a segment each shard's frames are: in memory while the segment is written, in a file of
//! its own (`N.idx`) from then on.
//!
//! The file is derived: it is made again from the segment if it is missing or damaged. It also
//! carries, for every shard seen so far, where the shard ended, so that an idle shard costs nothing
//! to remember. Each part has a checksum of its own, so that a reader of one shard reads little more
//! than that shard's entries.
//!
//! ```text
//! header (96 bytes): magic | format u32 | crc of the runs u32 | segment u64 | salt 16 | end u64
//!                    | last ms u64 | runs u32 | entries u32 | ends u32 | crc of the ends u32 | …
//!                    | crc of the header u32
//! runs × 32: shard u64 | end u64 | first entry u32 | entries u32 | crc of the entries u32
//!            | bytes of the frames u32
//!            up to 1,024 entries of one shard, sorted by shard and end
//! entries × 24: first index u64 | byte u32 | bytes u32 | records u32 | zero u32
//! ends × 16: shard u64 | end u64                                        sorted by shard
//! ```

use std::collections::{BTreeMap, HashMap};

use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;

use super::frame::{Header, u32_at, u64_at};
use super::segment::{FORMAT, SegmentHeader};

/// What an index file starts with.
pub(super) const MAGIC: &[u8; 8] = b"hydr-ix2";
/// Size of an index file's header.
pub(super) const INDEX_HEADER_BYTES: usize = 96;
/// Size of a run's row.
pub(super) const RUN_BYTES: usize = 32;
/// Size of an entry's row.
pub(super) const ENTRY_BYTES: usize = 24;
/// Most entries of a run.
pub(super) const RUN_ENTRIES_MAX: usize = 1_024;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first: RecordIndex,
    /// Byte of the segment where the frame starts.
    pub(super) at: u32,
    /// Bytes of the frame, padding included.
    pub(super) bytes: u32,
    pub(super) count: u32,
}

impl Entry {
    /// The entry of a frame that starts at byte `at`.
    pub(super) fn of(header: &Header, at: u64) -> Self {
        Self {
            first: header.first,
            at: at as u32,
            bytes: header.frame_bytes() as u32,
            count: header.count,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.0.to_le_bytes());
        for number in [self.at, self.bytes, self.count, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Reads what [`Directory::encode`] wrote. The caller's duty: a whole row.
    pub(super) fn decode(row: &[u8]) -> Self {
        Self {
            first: RecordIndex(u64_at(row, 0)),
            at: u32_at(row, 8),
            bytes: u32_at(row, 12),
            count: u32_at(row, 16),
        }
    }

    /// The first index past the frame.
    pub(super) fn end(&self) -> RecordIndex {
        self.first.plus(self.count.into())
    }
}

/// The directory of a segment that is being written.
#[derive(Debug, Default)]
pub(super) struct Directory(HashMap<ShardUid, Vec<Entry>>);

impl Directory {
    /// Adds a frame. The caller's duty: in the order of the shard's indices.
    pub(super) fn add(&mut self, shard: ShardUid, entry: Entry) {
        self.0.entry(shard).or_default().push(entry);
    }

    /// Up to `max` of the shard's frames with records at `from` or above.
    pub(super) fn find(&self, shard: ShardUid, from: RecordIndex, max: usize) -> Vec<Entry> {
        let entries = self.0.get(&shard).map_or(&[][..], Vec::as_slice);
        let start = entries.partition_point(|e| e.end() <= from);
        entries[start..].iter().take(max).copied().collect()
    }

    /// The end of the shard's last frame.
    pub(super) fn end_of(&self, shard: ShardUid) -> Option<RecordIndex> {
        Some(self.0.get(&shard)?.last()?.end())
    }

    /// The file that keeps this directory, and the ends known before it brought up to date.
    pub(super) fn encode(
        &self,
        segment: &SegmentHeader,
        end: u64,
        last_ms: u64,
        mut ends: BTreeMap<u64, u64>,
    ) -> Vec<u8> {
        let mut shards: Vec<_> = self.0.iter().collect();
        shards.sort_by_key(|(shard, _)| **shard);
        let (mut runs, mut entries) = (Vec::new(), Vec::new());
        for (shard, frames) in shards {
            let end = frames.last().map_or(0, |e| e.end().0);
            // Where frames were given up, the shard ended behind what is left of it.
            ends.entry(shard.0).and_modify(|known| *known = end.max(*known)).or_insert(end);
            for frames in frames.chunks(RUN_ENTRIES_MAX) {
                let start = entries.len();
                frames.iter().for_each(|entry| entry.encode(&mut entries));
                runs.extend_from_slice(&shard.0.to_le_bytes());
                runs.extend_from_slice(&frames.last().map_or(0, |e| e.end().0).to_le_bytes());
                let crc = crc32c::crc32c(&entries[start..]);
                let bytes = frames.iter().map(|entry| entry.bytes).sum();
                for number in [(start / ENTRY_BYTES) as u32, frames.len() as u32, crc, bytes] {
                    runs.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        let runs_crc = crc32c::crc32c(&runs);
        let counts = [runs.len() / RUN_BYTES, entries.len() / ENTRY_BYTES, ends.len()];
        let mut body = runs;
        body.append(&mut entries);
        let start = body.len();
        for (shard, end) in ends {
            body.extend_from_slice(&shard.to_le_bytes());
            body.extend_from_slice(&end.to_le_bytes());
        }
        let ends_crc = crc32c::crc32c(&body[start..]);
        let mut out = Vec::with_capacity(INDEX_HEADER_BYTES + body.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&runs_crc.to_le_bytes());
        out.extend_from_slice(&segment.no.to_le_bytes());
        out.extend_from_slice(&segment.salt);
        out.extend_from_slice(&end.to_le_bytes());
        out.extend_from_slice(&last_ms.to_le_bytes());
        counts.iter().for_each(|n| out.extend_from_slice(&(*n as u32).to_le_bytes()));
        out.extend_from_slice(&ends_crc.to_le_bytes());
        out.resize(INDEX_HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.append(&mut body);
        out
    }
}
