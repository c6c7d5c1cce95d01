//! The log's files as they are, for whoever looks at them: nothing is changed, and a server that runs
//! on them is not disturbed.
//!
//! What a server does meanwhile is not taken for damage: a frame that is being written is looked at
//! again, and a file that has become another segment by then is passed over.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;
use parking_lot::Mutex;

use super::archived::mark_name;
use super::directory::{Entry, INDEX_HEADER_BYTES};
use super::frame::{HEADER_BYTES, Header, Stamp, u32_at};
use super::index::{Index, IndexHeader};
use super::recovery::Listed;
use super::segment::{BadHeader, DATA_START, FORMAT, Scanner, SegmentHeader};
use crate::disk::{DiskFile, LogDir, ReadOnlyDisk};
use crate::error::OpenError;

/// What is read at a time where a disk does not give back all that was asked for.
const BLOCK_BYTES: u64 = 4 << 10;
/// Where an index file keeps its segment's salt.
const SALT: std::ops::Range<usize> = 24..40;

/// The log of a data directory, to be looked at.
pub struct LogFiles {
    pub(super) dir: LogDir,
}

/// The file of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    pub(super) listed: Listed,
    /// No later segment has been begun.
    pub(super) newest: bool,
    /// Only a mark of it is there.
    pub(super) archived: bool,
}

impl FoundSegment {
    /// The segment's number.
    pub fn number(&self) -> u64 {
        self.listed.no
    }

    /// The first of the segments that it stands for, if it is a cold one: see the log's design.
    pub fn stands_for(&self) -> Option<u64> {
        self.listed.first
    }

    /// Whether it is in the archive only, so that nothing of its records can be seen here.
    pub fn is_archived(&self) -> bool {
        self.archived
    }

    /// The name of what is there of it in `log/`.
    fn there(&self) -> String {
        match self.archived {
            true => mark_name(&self.listed.name()),
            false => self.listed.name(),
        }
    }

    /// The file, from the data directory on.
    pub fn file(&self) -> String {
        shown(&self.listed.name())
    }
}

/// What is in the directory.
pub(super) struct Listing {
    /// In the order in which they were written.
    pub(super) segments: Vec<FoundSegment>,
    /// Segments of which only the index is there.
    pub(super) missing: Vec<Listed>,
}

/// The index of a segment, as it was found.
pub(super) enum FoundIndex {
    Absent,
    Whole(WholeIndex),
    /// From this byte on it is not as written, or it is not this segment's.
    Damaged(u64),
}

impl FoundIndex {
    pub(super) fn whole(&self) -> Option<&WholeIndex> {
        match self {
            Self::Whole(index) => Some(index),
            Self::Absent | Self::Damaged(_) => None,
        }
    }
}

/// All of an index, every checksum of it verified.
#[derive(Debug)]
pub(super) struct WholeIndex {
    /// Past the segment's last frame.
    pub(super) data_end: u64,
    /// No record of the segment arrived later than this.
    pub(super) last_ms: u64,
    /// Every frame of the segment, by shard and then by index.
    pub(super) entries: Vec<(ShardUid, Entry)>,
    /// Where every shard ended when the segment was complete, in it or in an earlier one.
    pub(super) ends: BTreeMap<u64, u64>,
}

impl WholeIndex {
    /// Reads the file of a segment's index.
    pub(super) fn read(file: &dyn DiskFile, of: &SegmentHeader) -> io::Result<Self> {
        let index = Index::read(file, of)?;
        let (entries, ends) = (index.entries(file)?, index.ends(file)?);
        Ok(Self { data_end: index.data_end(), last_ms: index.last_ms(), entries, ends })
    }

    /// The shard's first frame with records at `from` or above.
    pub(super) fn find(&self, shard: ShardUid, from: RecordIndex) -> Option<Entry> {
        let before = |(of, entry): &(ShardUid, Entry)| (*of, entry.end()) <= (shard, from);
        let (of, entry) = self.entries.get(self.entries.partition_point(before))?;
        (*of == shard).then_some(*entry)
    }
}

/// A segment that is looked at.
pub(super) struct Opened {
    pub(super) segment: FoundSegment,
    pub(super) file: Legible,
    head: Vec<u8>,
    /// Its header, or what is wrong with it.
    pub(super) header: Result<SegmentHeader, &'static str>,
    /// What its frames are read with; none if nothing tells any more.
    pub(super) stamp: Option<Stamp>,
    pub(super) index: FoundIndex,
}

/// The name of a file of the log, from the data directory on.
pub(super) fn shown(name: &str) -> String {
    format!("log/{name}")
}

impl LogFiles {
    /// The log of this data directory. Nothing of it will be changed, whoever uses it.
    ///
    /// # Errors
    /// There is no log, or it cannot be read.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join("log");
        std::fs::read_dir(&path).map_err(|e| OpenError::io("read", &path, e))?;
        Ok(Self { dir: LogDir { disk: Arc::new(ReadOnlyDisk), path } })
    }

    #[cfg(test)]
    pub(super) fn on(disk: Arc<dyn crate::disk::Disk>, path: &Path) -> Self {
        Self { dir: LogDir { disk, path: path.to_owned() } }
    }

    /// The segments, in the order in which they were written, without those that a cold one stands
    /// for.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn segments(&self) -> Result<Vec<FoundSegment>, OpenError> {
        Ok(self.list()?.segments)
    }

    pub(super) fn list(&self) -> Result<Listing, OpenError> {
        let path = &self.dir.path;
        let names = self.dir.disk.list(path).map_err(|e| OpenError::io("list", path, e))?;
        let listed = Listed::all(&names);
        let files: HashSet<_> = names.iter().filter_map(|name| Listed::of(name)).collect();
        let stands = |of: &Listed| !listed.iter().any(|cold| cold.stands_for(*of));
        let mut missing: Vec<_> = names
            .iter()
            .filter_map(|name| Listed::of_index(name))
            .filter(|of| listed.binary_search(of).is_err() && stands(of))
            .collect();
        missing.sort_unstable();
        let newest = listed.last().copied();
        let segments = listed.iter().filter(|of| stands(of)).map(|&listed| FoundSegment {
            listed,
            newest: Some(listed) == newest,
            archived: !files.contains(&listed),
        });
        Ok(Listing { segments: segments.collect(), missing })
    }

    /// Opens a segment, as far as there is still one of that name.
    pub(super) fn look(&self, segment: FoundSegment) -> Result<Option<Opened>, OpenError> {
        let path = self.dir.file(&segment.there());
        let file = match self.dir.disk.open(&path) {
            Ok(file) => Legible { file, failed: Mutex::new(None) },
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(OpenError::io("read", path, e)),
        };
        let head = head_of(&file).map_err(|e| OpenError::io("read", &path, e))?;
        let header = match SegmentHeader::decode(&head) {
            Ok(header) if (header.no, header.stands_for) == segment.key() => Ok(header),
            Ok(_) => Err("the segment is another one than its name says"),
            Err(BadHeader::Damaged) => Err("the segment's header is not as written"),
            Err(BadHeader::Format(found)) => {
                let found = found.to_string();
                return Err(OpenError::UnknownFormat { path, found, known: FORMAT });
            }
        };
        let index = self.index_file(segment.listed)?;
        let salt = index.as_deref().and_then(salt_of);
        let stamp = match &header {
            Ok(header) => Some(header.stamp()),
            Err(_) => {
                let salts = head.get(SALT).and_then(|s| s.try_into().ok()).into_iter().chain(salt);
                find_stamp(&file, segment.listed.no, salts)
                    .map_err(|e| OpenError::io("read", &path, e))?
            }
        };
        let of = match (&header, salt) {
            (Ok(header), _) => Some(header.clone()),
            (Err(_), Some(salt)) => Some(header_of(segment.listed, salt)),
            (Err(_), None) => None,
        };
        let index = match (index, of) {
            (None, _) => FoundIndex::Absent,
            (Some(_), None) => FoundIndex::Damaged(0),
            (Some(file), Some(of)) => self.read_index(&*file, &of)?,
        };
        Ok(Some(Opened { segment, file, head, header, stamp, index }))
    }

    /// Whether the segment is still the one that was opened: it may have been freed since, and its
    /// file been used again.
    pub(super) fn is_there(&self, opened: &Opened) -> bool {
        let path = self.dir.file(&opened.segment.there());
        let now = self.dir.disk.open(&path).and_then(|file| head_of(&*file));
        now.is_ok_and(|head| head == opened.head)
    }

    /// The index of a segment whose file is missing.
    pub(super) fn index_of_missing(&self, listed: Listed) -> Result<FoundIndex, OpenError> {
        let Some(file) = self.index_file(listed)? else { return Ok(FoundIndex::Absent) };
        match salt_of(&*file) {
            Some(salt) => self.read_index(&*file, &header_of(listed, salt)),
            None => Ok(FoundIndex::Damaged(0)),
        }
    }

    /// The file of a segment's index, if there is one.
    fn index_file(&self, listed: Listed) -> Result<Option<Arc<dyn DiskFile>>, OpenError> {
        let name = header_of(listed, [0; 16]).index_name();
        match self.dir.disk.open(&self.dir.file(&name)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(OpenError::io("read", self.dir.file(&name), e)),
        }
    }

    fn read_index(&self, file: &dyn DiskFile, of: &SegmentHeader) -> Result<FoundIndex, OpenError> {
        let mut head = vec![0; INDEX_HEADER_BYTES];
        let failed = |e| OpenError::io("read", self.dir.file(&of.index_name()), e);
        file.read_at(&mut head, 0).map_err(failed)?;
        match WholeIndex::read(file, of) {
            Ok(index) => Ok(FoundIndex::Whole(index)),
            Err(e) if e.kind() != io::ErrorKind::InvalidData => Err(failed(e)),
            Err(_) if IndexHeader::decode(&head, of).is_some() => {
                Ok(FoundIndex::Damaged(INDEX_HEADER_BYTES as u64))
            }
            Err(_) => Ok(FoundIndex::Damaged(0)),
        }
    }
}

impl FoundSegment {
    fn key(&self) -> (u64, Option<u64>) {
        (self.listed.no, self.listed.first)
    }
}

/// The header of a segment of which only the name and the salt are known.
pub(super) fn header_of(listed: Listed, salt: [u8; 16]) -> SegmentHeader {
    let Listed { no, first } = listed;
    SegmentHeader { no, salt, created_ms: 0, floor_ms: 0, stands_for: first }
}

fn head_of(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut head = vec![0; DATA_START as usize];
    let got = file.read_at(&mut head, 0)?;
    head.truncate(got);
    Ok(head)
}

fn salt_of(index: &dyn DiskFile) -> Option<[u8; 16]> {
    let mut salt = [0; SALT.end - SALT.start];
    let got = index.read_at(&mut salt, SALT.start as u64).ok()?;
    (got == salt.len()).then_some(salt)
}

/// What the frames of a segment whose header is gone are read with: a salt that still reads one, or
/// what the checksum of the first frame must have started from.
fn find_stamp(
    file: &dyn DiskFile,
    no: u64,
    salts: impl Iterator<Item = [u8; 16]>,
) -> io::Result<Option<Stamp>> {
    let segment = no as u32;
    for salt in salts {
        let stamp = header_of(Listed { no, first: None }, salt).stamp();
        if Scanner::new(file, stamp)?.has_more()? {
            return Ok(Some(stamp));
        }
    }
    let mut first = [0; HEADER_BYTES];
    if file.read_at(&mut first, DATA_START)? < HEADER_BYTES {
        return Ok(None);
    }
    let stamp = Stamp { seed: seed_of(&first), segment };
    // Any bytes have such a start: what is behind the header has to be right as well.
    let Some(header) = Header::decode(&first, stamp).filter(|h| h.durable_upto == DATA_START)
    else {
        return Ok(None);
    };
    let mut scanner = Scanner::new(file, stamp)?;
    scanner.next()?;
    let is_whole = scanner.end == DATA_START + header.frame_bytes() && header.body_bytes > 0;
    Ok(is_whole.then_some(stamp))
}

/// What the checksum of a frame's header started from, if the header is as written. A change of one
/// bit of the start changes the same bits of the checksum whatever the others are, and no two starts
/// give the same one.
fn seed_of(header: &[u8; HEADER_BYTES]) -> u32 {
    let checksum = |seed| crc32c::crc32c_append(seed, &header[4..]);
    let base = checksum(0);
    // For each bit of the start, what it changes; brought into a form where each row has a highest
    // bit of its own.
    let mut rows: Vec<(u32, u32)> = Vec::with_capacity(32);
    for bit in (0..32).map(|n| 1u32 << n) {
        let row = reduce((checksum(bit) ^ base, bit), &rows);
        rows.push(row);
    }
    reduce((u32_at(header, 0) ^ base, 0), &rows).1
}

fn reduce(row: (u32, u32), rows: &[(u32, u32)]) -> (u32, u32) {
    rows.iter().fold(row, |row, by| match row.0 & (1 << (31 - by.0.leading_zeros().min(31))) {
        0 => row,
        _ => (row.0 ^ by.0, row.1 ^ by.1),
    })
}

/// A file that shows zeros where the disk does not give back what was written, so that what is behind
/// can be read. Never written to.
pub(super) struct Legible {
    file: Arc<dyn DiskFile>,
    failed: Mutex<Option<(u64, String)>>,
}

impl Legible {
    /// The first failure to read since the last question, and where it was.
    pub(super) fn failure(&self) -> Option<(u64, String)> {
        self.failed.lock().take()
    }
}

impl DiskFile for Legible {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        if let Ok(got) = self.file.read_at(into, at) {
            return Ok(got);
        }
        let len = self.file.size()?.saturating_sub(at).min(into.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            let place = at + done as u64;
            let want = (BLOCK_BYTES - place % BLOCK_BYTES).min((len - done) as u64) as usize;
            let block = &mut into[done..done + want];
            if let Err(e) = self.file.read_at(block, place) {
                block.fill(0);
                self.failed.lock().get_or_insert_with(|| (place, e.to_string()));
            }
            done += want;
        }
        Ok(len)
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}
