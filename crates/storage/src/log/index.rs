//! The directory of a complete segment, read from its file piece by piece: the runs stay in memory,
//! entries are read when they are asked for.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;

use super::directory::{ENTRY_BYTES, Entry, INDEX_HEADER_BYTES, MAGIC, RUN_BYTES};
use super::frame::{u32_at, u64_at};
use super::segment::{FORMAT, SegmentHeader};
use crate::disk::DiskFile;

const END_BYTES: usize = 16;

/// The head of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexHeader {
    runs_crc: u32,
    /// Past the segment's last frame with records or proof.
    pub(super) end: u64,
    /// Arrival of the segment's latest record; zero if it has none.
    pub(super) last_ms: u64,
    runs: usize,
    entries: usize,
    ends: usize,
    ends_crc: u32,
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
            runs_crc: u32_at(bytes, 12),
            end: u64_at(bytes, 40),
            last_ms: u64_at(bytes, 48),
            runs: u32_at(bytes, 56) as usize,
            entries: u32_at(bytes, 60) as usize,
            ends: u32_at(bytes, 64) as usize,
            ends_crc: u32_at(bytes, 68),
        })
    }

    fn entries_start(&self) -> usize {
        INDEX_HEADER_BYTES + self.runs * RUN_BYTES
    }

    fn ends_start(&self) -> usize {
        self.entries_start() + self.entries * ENTRY_BYTES
    }
}

/// Entries of one shard that stand together.
#[derive(Clone, Copy)]
struct Run {
    shard: u64,
    end: RecordIndex,
    first: usize,
    count: usize,
    crc: u32,
    bytes: u32,
}

/// What there is of a shard at some place, as far as it is known without a look at its entries.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Where in the index's file its entries are, and their length.
    pub(super) at: u64,
    pub(super) len: u64,
    /// How many frames, and their bytes.
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

/// The directory of a segment that is complete.
///
/// What reads the file fails with [`io::ErrorKind::InvalidData`] where that is not as written. The
/// caller's duty: always the file that the directory was read from.
#[derive(Debug)]
pub(super) struct Index {
    header: IndexHeader,
    runs: Vec<u8>,
    ends: OnceLock<Vec<u8>>,
}

impl Index {
    /// Reads the head and the runs of what [`super::directory::Directory::encode`] made.
    pub(super) fn read(file: &dyn DiskFile, segment: &SegmentHeader) -> io::Result<Self> {
        let head = read(file, 0, INDEX_HEADER_BYTES)?;
        let header = IndexHeader::decode(&head, segment).ok_or(io::ErrorKind::InvalidData)?;
        let expected = header.ends_start() + header.ends * END_BYTES;
        if file.size()? != expected as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let runs = read(file, INDEX_HEADER_BYTES, header.runs * RUN_BYTES)?;
        let index = Self { header, runs: checked(runs, header.runs_crc)?, ends: OnceLock::new() };
        // Whoever reads a run trusts its bounds.
        let fits = |n| {
            let run: Run = index.run(n);
            run.count > 0 && run.first + run.count <= header.entries
        };
        if !(0..header.runs).all(fits) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(index)
    }

    /// Past the segment's last frame.
    pub(super) fn data_end(&self) -> u64 {
        self.header.end
    }

    /// No record of the segment arrived later than this.
    pub(super) fn last_ms(&self) -> u64 {
        self.header.last_ms
    }

    /// Bytes in memory, once all of it that stays there was asked for.
    pub(super) fn bytes(&self) -> usize {
        self.runs.len() + self.header.ends * END_BYTES
    }

    /// What [`Index::find`] would read; `None` if it would find nothing.
    pub(super) fn place(&self, shard: ShardUid, from: RecordIndex) -> Option<Place> {
        let run = self.run_at(shard, from)?;
        let at = self.header.entries_start() + run.first * ENTRY_BYTES;
        let len = (run.count * ENTRY_BYTES) as u64;
        Some(Place { at: at as u64, len, frames: run.count, bytes: run.bytes as usize })
    }

    /// Up to `max` of the shard's frames with records at `from` or above: at least one if there is
    /// one, but fewer than there are even below `max`.
    pub(super) fn find(
        &self,
        file: &dyn DiskFile,
        shard: ShardUid,
        from: RecordIndex,
        max: usize,
    ) -> io::Result<Vec<Entry>> {
        let Some(run) = self.run_at(shard, from) else { return Ok(Vec::new()) };
        let entries = self.entries_of(file, run)?;
        let start = entries.partition_point(|e| e.end() <= from);
        Ok(entries[start..].iter().take(max).copied().collect())
    }

    /// Every frame of the segment, by shard and then by index.
    pub(super) fn entries(&self, file: &dyn DiskFile) -> io::Result<Vec<(ShardUid, Entry)>> {
        let rows = read(file, self.header.entries_start(), self.header.entries * ENTRY_BYTES)?;
        let mut entries = Vec::with_capacity(self.header.entries);
        for run in (0..self.header.runs).map(|n| self.run(n)) {
            let rows = &rows[run.first * ENTRY_BYTES..(run.first + run.count) * ENTRY_BYTES];
            if crc32c::crc32c(rows) != run.crc {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let rows = rows.chunks_exact(ENTRY_BYTES);
            entries.extend(rows.map(|row| (ShardUid(run.shard), Entry::decode(row))));
        }
        Ok(entries)
    }

    /// The shards with records in the segment, and where each ended in it; a shard with many frames
    /// more than once, its end last.
    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardUid, RecordIndex)> {
        (0..self.header.runs).map(|n| self.run(n)).map(|run| (ShardUid(run.shard), run.end))
    }

    /// Where the shard ended when the segment was complete, in this segment or an earlier one.
    pub(super) fn end_of(
        &self,
        file: impl FnOnce() -> io::Result<std::sync::Arc<dyn DiskFile>>,
        shard: ShardUid,
    ) -> io::Result<Option<RecordIndex>> {
        let rows = match self.ends.get() {
            Some(rows) => rows,
            None => {
                let rows = self.read_ends(&*file()?)?;
                self.ends.get_or_init(|| rows)
            }
        };
        let row = |n: usize| &rows[n * END_BYTES..];
        let place = partition_point(self.header.ends, |n| u64_at(row(n), 0) < shard.0);
        let found = place < self.header.ends && u64_at(row(place), 0) == shard.0;
        Ok(found.then(|| RecordIndex(u64_at(row(place), 8))))
    }

    /// Where every shard ended when the segment was complete.
    pub(super) fn ends(&self, file: &dyn DiskFile) -> io::Result<BTreeMap<u64, u64>> {
        let rows = self.read_ends(file)?;
        Ok(rows.chunks_exact(END_BYTES).map(|row| (u64_at(row, 0), u64_at(row, 8))).collect())
    }

    fn read_ends(&self, file: &dyn DiskFile) -> io::Result<Vec<u8>> {
        let rows = read(file, self.header.ends_start(), self.header.ends * END_BYTES)?;
        checked(rows, self.header.ends_crc)
    }

    /// The run with the shard's first record at `from` or above.
    fn run_at(&self, shard: ShardUid, from: RecordIndex) -> Option<Run> {
        let place = partition_point(self.header.runs, |n| {
            let run = self.run(n);
            (run.shard, run.end) <= (shard.0, from)
        });
        (place < self.header.runs).then(|| self.run(place)).filter(|run| run.shard == shard.0)
    }

    fn run(&self, n: usize) -> Run {
        let row = &self.runs[n * RUN_BYTES..];
        Run {
            shard: u64_at(row, 0),
            end: RecordIndex(u64_at(row, 8)),
            first: u32_at(row, 16) as usize,
            count: u32_at(row, 20) as usize,
            crc: u32_at(row, 24),
            bytes: u32_at(row, 28),
        }
    }

    fn entries_of(&self, file: &dyn DiskFile, run: Run) -> io::Result<Vec<Entry>> {
        let start = self.header.entries_start() + run.first * ENTRY_BYTES;
        let rows = checked(read(file, start, run.count * ENTRY_BYTES)?, run.crc)?;
        Ok(rows.chunks_exact(ENTRY_BYTES).map(Entry::decode).collect())
    }
}

fn read(file: &dyn DiskFile, at: usize, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let got = file.read_at(&mut bytes, at as u64)?;
    if got == len { Ok(bytes) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn checked(bytes: Vec<u8>, crc: u32) -> io::Result<Vec<u8>> {
    if crc32c::crc32c(&bytes) == crc { Ok(bytes) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The first of `len` numbers for which `before` does not hold.
fn partition_point(len: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let mid = low + (high - low) / 2;
        if before(mid) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::directory::Directory;

    const SEGMENT: SegmentHeader =
        SegmentHeader { no: 3, salt: [1; 16], created_ms: 0, floor_ms: 0, stands_for: None };

    fn file(bytes: &[u8]) -> std::fs::File {
        let file = tempfile::tempfile().unwrap();
        DiskFile::write_at(&file, &[io::IoSlice::new(bytes)], 0).unwrap();
        file
    }

    fn directory(entries: u32, shards: u32) -> Directory {
        let mut directory = Directory::default();
        for n in 0..entries {
            let entry = Entry { first: RecordIndex(u64::from(n) * 10), at: n, bytes: 64, count: 3 };
            directory.add(ShardUid((n % shards).into()), entry);
        }
        directory
    }

    #[test]
    fn an_index_answers_as_the_directory_did() {
        let directory = directory(50, 7);
        let before = BTreeMap::from([(0, 1), (99, 77)]);
        let bytes = directory.encode(&SEGMENT, 4_321, 9, before);
        let whole = file(&bytes);
        let index = Index::read(&whole, &SEGMENT).unwrap();
        assert_eq!((index.data_end(), index.header.last_ms), (4_321, 9));
        let handle: std::sync::Arc<dyn DiskFile> = std::sync::Arc::new(whole);
        let end_of = |shard| index.end_of(|| Ok(handle.clone()), shard).unwrap();
        for shard in (0..9).map(ShardUid) {
            for from in (0..520).map(RecordIndex) {
                let found = index.find(&*handle, shard, from, 4).unwrap();
                assert_eq!(found, directory.find(shard, from, 4));
            }
            assert_eq!(end_of(shard), directory.end_of(shard));
        }
        assert_eq!(end_of(ShardUid(99)), Some(RecordIndex(77)), "what was known before");
        assert_eq!(index.shards().count(), 7);
        assert_eq!(index.entries(&*handle).unwrap().len(), 50);
        let all = |file: &dyn DiskFile| -> io::Result<()> {
            let index = Index::read(file, &SEGMENT)?;
            index.entries(file)?;
            index.ends(file).map(drop)
        };
        all(&*handle).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(all(&file(&bad)).is_err(), "byte {at}");
        }
        assert!(all(&file(&bytes[..bytes.len() - 1])).is_err());
    }

    #[test]
    fn many_frames_of_a_shard_are_found_run_by_run() {
        let directory = directory(5_000, 2);
        let file = file(&directory.encode(&SEGMENT, 4_321, 9, BTreeMap::new()));
        let index = Index::read(&file, &SEGMENT).unwrap();
        assert_eq!(index.shards().count(), 6);
        for shard in [0, 1].map(ShardUid) {
            let (mut from, mut found) = (RecordIndex(7_000), Vec::new());
            loop {
                let more = index.find(&file, shard, from, 1_000).unwrap();
                let Some(last) = more.last() else { break };
                from = last.end();
                found.extend(more);
            }
            assert_eq!(found, directory.find(shard, RecordIndex(7_000), usize::MAX));
        }
    }
}
