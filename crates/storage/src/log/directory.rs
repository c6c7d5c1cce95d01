//! Where in a segment each shard's frames are: in memory while the segment is written, in a file of
//! its own (`N.idx`) from then on.
//!
//! The file is derived: it is made again from the segment if it is missing or damaged. It also
//! carries, for every shard seen so far, where the shard ended, so that an idle shard costs nothing
//! to remember.
//!
//! ```text
//! header (96 bytes): magic | format u32 | body crc u32 | segment u64 | salt 16 | end u64 | last ms u64
//!                    | shards u32 | entries u32 | ends u32 | … | crc of the header u32
//! shards × 24: shard u64 | first entry u32 | entries u32 | end u64      sorted by shard
//! entries × 24: first index u64 | byte u32 | bytes u32 | records u32 | zero u32
//! ends × 16: shard u64 | end u64                                        sorted by shard
//! ```

use std::collections::{BTreeMap, HashMap};

use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;

use super::frame::{Header, u32_at, u64_at};
use super::segment::{FORMAT, SegmentHeader};

const MAGIC: &[u8; 8] = b"hydr-idx";
/// Size of an index file's header.
pub(super) const INDEX_HEADER_BYTES: usize = 96;
const SHARD_BYTES: usize = 24;
const ENTRY_BYTES: usize = 24;
const END_BYTES: usize = 16;

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
        let (mut body, mut entries) = (Vec::new(), Vec::new());
        for (shard, frames) in shards.iter() {
            let end = frames.last().map_or(0, |e| e.end().0);
            ends.insert(shard.0, end);
            body.extend_from_slice(&shard.0.to_le_bytes());
            body.extend_from_slice(&((entries.len() / ENTRY_BYTES) as u32).to_le_bytes());
            body.extend_from_slice(&(frames.len() as u32).to_le_bytes());
            body.extend_from_slice(&end.to_le_bytes());
            for frame in frames.iter() {
                entries.extend_from_slice(&frame.first.0.to_le_bytes());
                for number in [frame.at, frame.bytes, frame.count, 0] {
                    entries.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        let counts = [shards.len(), entries.len() / ENTRY_BYTES, ends.len()];
        body.append(&mut entries);
        for (shard, end) in ends {
            body.extend_from_slice(&shard.to_le_bytes());
            body.extend_from_slice(&end.to_le_bytes());
        }
        let mut out = Vec::with_capacity(INDEX_HEADER_BYTES + body.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        out.extend_from_slice(&segment.no.to_le_bytes());
        out.extend_from_slice(&segment.salt);
        out.extend_from_slice(&end.to_le_bytes());
        out.extend_from_slice(&last_ms.to_le_bytes());
        counts.iter().for_each(|n| out.extend_from_slice(&(*n as u32).to_le_bytes()));
        out.resize(INDEX_HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.append(&mut body);
        out
    }
}

/// The head of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexHeader {
    body_crc: u32,
    /// Past the segment's last frame with records or proof.
    pub(super) end: u64,
    /// Arrival of the segment's latest record; zero if it has none.
    pub(super) last_ms: u64,
    shards: usize,
    entries: usize,
    ends: usize,
}

impl IndexHeader {
    /// The header, if these bytes are one, and of this very segment.
    pub(super) fn decode(bytes: &[u8], segment: &SegmentHeader) -> Option<Self> {
        let bytes = bytes.get(..INDEX_HEADER_BYTES)?;
        let crc = u32_at(bytes, INDEX_HEADER_BYTES - 4);
        let is_ours = &bytes[..8] == MAGIC
            && crc32c::crc32c(&bytes[..INDEX_HEADER_BYTES - 4]) == crc
            && u32_at(bytes, 8) == FORMAT
            && u64_at(bytes, 16) == segment.no
            && bytes[24..40] == segment.salt;
        is_ours.then(|| Self {
            body_crc: u32_at(bytes, 12),
            end: u64_at(bytes, 40),
            last_ms: u64_at(bytes, 48),
            shards: u32_at(bytes, 56) as usize,
            entries: u32_at(bytes, 60) as usize,
            ends: u32_at(bytes, 64) as usize,
        })
    }
}

/// The directory of a segment that is complete, as its file has it.
#[derive(Debug)]
pub(super) struct Index {
    header: IndexHeader,
    body: Vec<u8>,
}

impl Index {
    /// Reads what [`Directory::encode`] made, or `None` if a single bit of it is not as written.
    pub(super) fn decode(mut bytes: Vec<u8>, segment: &SegmentHeader) -> Option<Self> {
        let header = IndexHeader::decode(&bytes, segment)?;
        let body = bytes.split_off(INDEX_HEADER_BYTES);
        let expected =
            header.shards * SHARD_BYTES + header.entries * ENTRY_BYTES + header.ends * END_BYTES;
        let whole = body.len() == expected && crc32c::crc32c(&body) == header.body_crc;
        whole.then_some(Self { header, body })
    }

    /// Past the segment's last frame.
    pub(super) fn data_end(&self) -> u64 {
        self.header.end
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Up to `max` of the shard's frames with records at `from` or above.
    pub(super) fn find(&self, shard: ShardUid, from: RecordIndex, max: usize) -> Vec<Entry> {
        let Some(place) = search(self.header.shards, |n| self.shard(n).0.cmp(&shard.0)) else {
            return Vec::new();
        };
        let (_, start, count, _) = self.shard(place);
        let (mut low, mut high) = (start, start + count);
        while low < high {
            let mid = low + (high - low) / 2;
            if self.entry(mid).end() <= from {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        (low..start + count).take(max).map(|n| self.entry(n)).collect()
    }

    /// Every frame of the segment, by shard and then by index.
    pub(super) fn entries(&self) -> impl Iterator<Item = (ShardUid, Entry)> {
        (0..self.header.shards).flat_map(move |n| {
            let (shard, start, count, _) = self.shard(n);
            (start..start + count).map(move |n| (ShardUid(shard), self.entry(n)))
        })
    }

    /// The shards with records in the segment, and where each ended in it.
    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardUid, RecordIndex)> {
        (0..self.header.shards).map(|n| {
            let (shard, _, _, end) = self.shard(n);
            (ShardUid(shard), RecordIndex(end))
        })
    }

    /// Where the shard ended when the segment was complete, in this segment or an earlier one.
    pub(super) fn end_of(&self, shard: ShardUid) -> Option<RecordIndex> {
        let place = search(self.header.ends, |n| self.end(n).0.cmp(&shard.0))?;
        Some(RecordIndex(self.end(place).1))
    }

    /// Where every shard ended when the segment was complete.
    pub(super) fn ends(&self) -> BTreeMap<u64, u64> {
        (0..self.header.ends).map(|n| self.end(n)).collect()
    }

    fn shard(&self, n: usize) -> (u64, usize, usize, u64) {
        let row = &self.body[n * SHARD_BYTES..];
        (u64_at(row, 0), u32_at(row, 8) as usize, u32_at(row, 12) as usize, u64_at(row, 16))
    }

    fn entry(&self, n: usize) -> Entry {
        let row = &self.body[self.header.shards * SHARD_BYTES + n * ENTRY_BYTES..];
        Entry {
            first: RecordIndex(u64_at(row, 0)),
            at: u32_at(row, 8),
            bytes: u32_at(row, 12),
            count: u32_at(row, 16),
        }
    }

    fn end(&self, n: usize) -> (u64, u64) {
        let start = self.header.shards * SHARD_BYTES + self.header.entries * ENTRY_BYTES;
        let row = &self.body[start + n * END_BYTES..];
        (u64_at(row, 0), u64_at(row, 8))
    }
}

fn search(len: usize, compare: impl Fn(usize) -> std::cmp::Ordering) -> Option<usize> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let mid = low + (high - low) / 2;
        match compare(mid) {
            std::cmp::Ordering::Less => low = mid + 1,
            std::cmp::Ordering::Greater => high = mid,
            std::cmp::Ordering::Equal => return Some(mid),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_answers_as_the_directory_did() {
        let segment =
            SegmentHeader { no: 3, salt: [1; 16], created_ms: 0, floor_ms: 0, stands_for: None };
        let mut directory = Directory::default();
        for n in 0..50u32 {
            let entry = Entry { first: RecordIndex(u64::from(n) * 10), at: n, bytes: 64, count: 3 };
            directory.add(ShardUid((n % 7).into()), entry);
        }
        let before = BTreeMap::from([(0, 1), (99, 77)]);
        let bytes = directory.encode(&segment, 4_321, 9, before);
        let index = Index::decode(bytes.clone(), &segment).unwrap();
        assert_eq!((index.header.end, index.header.last_ms), (4_321, 9));
        for shard in (0..9).map(ShardUid) {
            for from in (0..520).map(RecordIndex) {
                assert_eq!(index.find(shard, from, 4), directory.find(shard, from, 4));
            }
            assert_eq!(index.end_of(shard), directory.end_of(shard));
        }
        assert_eq!(index.end_of(ShardUid(99)), Some(RecordIndex(77)), "what was known before");
        assert_eq!(index.shards().count(), 7);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Index::decode(bad, &segment).is_none(), "byte {at}");
        }
        assert!(Index::decode(bytes[..bytes.len() - 1].to_vec(), &segment).is_none());
    }
}
