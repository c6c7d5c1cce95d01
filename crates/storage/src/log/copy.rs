//! Copies of the log's directory: what one is made of, read beside the process that writes it, and
//! what makes a log of one again.
//!
//! A complete segment is as it will be for as long as it has its name; the file may get another one
//! and be written anew, under another salt. The segment that is being written is good up to the last
//! frame that verifies. Of what is there, only the last group may be unsynced, and records of that one
//! were not acknowledged: a copy may have them, whole.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use hydrant_core::{Random, Timestamp};

use super::LogOptions;
use super::archived::{mark_name, receipt_of};
use super::directory::INDEX_HEADER_BYTES;
use super::frame::{HEADER_BYTES, Header, Kind};
use super::index::{Index, IndexHeader};
use super::recovery::{self, Listed};
use super::segment::{DATA_START, SegmentHeader, scan_written, segment_name};
use crate::dir::DataDir;
use crate::disk::{DiskFile, LogDir, RealDisk};
use crate::error::OpenError;

/// How often a directory that changes while it is listed is listed anew.
const LISTINGS_MAX: usize = 100;
/// The directory of the log in a data directory.
const DIR: &str = "log";

/// A file of the log that belongs into a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its name in `log/`.
    pub name: String,
    /// Drawn anew each time a file becomes a segment: as long as this is the same under the name,
    /// so are the bytes.
    pub life: String,
    /// How much of it belongs into a copy, in bytes from its start.
    pub bytes: u64,
    /// The name and the size in bytes of its index, if the segment is complete: nothing is added any
    /// more. Else the next copy may find more of it, or, after a crash, less.
    pub index: Option<(String, u64)>,
    /// No record in it, or in those before it, arrived later than this, in ms since 1970.
    pub last_ms: u64,
    /// What it is fetched from the archive with, if it is only there: no file has the name, but its
    /// index is in its place.
    pub receipt: Option<Vec<u8>>,
}

impl SegmentFile {
    /// Whether the file is still what it was when it was listed. Reads its header.
    pub fn is_still_in(&self, data_dir: &Path) -> bool {
        let file = open(&data_dir.join(DIR), &self.name);
        let header = file.and_then(|(file, _)| header_of(&file));
        header.is_ok_and(|header| life_of(&header) == self.life)
    }
}

/// The segments of a data directory, oldest first, whoever writes them. Reads the headers of all, and
/// all of the one that is being written. An error of the kind `InvalidData` says which file is damaged.
pub fn segment_files(data_dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let dir = data_dir.join(DIR);
    let mut before = listed(&dir)?;
    for _ in 0..LISTINGS_MAX {
        let found = before.iter().map(|at| look(&dir, *at)).collect::<io::Result<Vec<_>>>();
        // A listing is not of one moment: some may have been merged into one that it missed.
        let after = listed(&dir)?;
        if after == before {
            return found;
        }
        before = after;
    }
    Err(io::Error::other(format!("{} changes faster than it can be listed", dir.display())))
}

fn listed(dir: &Path) -> io::Result<Vec<Listed>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    Ok(Listed::all(&names.filter_map(Result::transpose).collect::<io::Result<Vec<_>>>()?))
}

fn header_of(file: &File) -> io::Result<SegmentHeader> {
    let mut bytes = vec![0; DATA_START as usize];
    let got = DiskFile::read_at(file, &mut bytes, 0)?;
    SegmentHeader::decode(&bytes[..got]).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Opens a segment, or the mark that stands for it: says which.
fn open(dir: &Path, name: &str) -> io::Result<(File, bool)> {
    match File::open(dir.join(name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Ok((File::open(dir.join(mark_name(name)))?, true))
        }
        opened => Ok((opened?, false)),
    }
}

/// See [`SegmentFile::life`].
pub(super) fn life_of(header: &SegmentHeader) -> String {
    header.salt.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn look(dir: &Path, at: Listed) -> io::Result<SegmentFile> {
    let name = at.name();
    let damaged = || {
        let what = format!("{} is not as written: hydrant log verify", dir.join(&name).display());
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    let (file, is_archived) = open(dir, &name)?;
    let header = header_of(&file).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => damaged(),
        _ => e,
    })?;
    let life = life_of(&header);
    let receipt = match is_archived {
        true => Some(receipt_of(&file)?.ok_or_else(damaged)?),
        false => None,
    };
    if let Some((index, bytes)) = index_of(dir, &header)? {
        let last_ms = index.last_ms.max(header.floor_ms);
        let end = index.end + HEADER_BYTES as u64;
        let index = Some((header.index_name(), bytes));
        return Ok(SegmentFile { name, life, bytes: end, index, last_ms, receipt });
    }
    if is_archived {
        return Err(damaged());
    }
    let scan = scan_written(&file, header.stamp())?;
    let bytes = if scan.ended { scan.end + HEADER_BYTES as u64 } else { scan.end };
    let last_ms = scan.last_ms.max(header.floor_ms);
    Ok(SegmentFile { name, life, bytes, index: None, last_ms, receipt })
}

/// The head and the size of a segment's index. One that is not as written is made anew by whoever
/// needs it.
fn index_of(dir: &Path, segment: &SegmentHeader) -> io::Result<Option<(IndexHeader, u64)>> {
    let file = match File::open(dir.join(segment.index_name())) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = vec![0; INDEX_HEADER_BYTES];
    let got = DiskFile::read_at(&file, &mut bytes, 0)?;
    let size = file.metadata()?.len();
    Ok(IndexHeader::decode(&bytes[..got], segment).map(|header| (header, size)))
}

/// A log made from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyLog {
    /// The segments it has.
    pub segments: usize,
    /// No shard with a higher number than this was ever written to.
    pub highest_shard: u64,
}

/// Makes a log of the files of a copy: what stands open is ended, and no record to come arrives before
/// `floor`, so that none gets the sequence number of one that came after the copy. Durable on return;
/// may be repeated. Fails like the start of a log.
pub fn ready_restored(
    dir: &DataDir,
    floor: Timestamp,
    random: &Random,
) -> Result<ReadyLog, OpenError> {
    crate::dir::make_dir(&dir.path().join(DIR))?;
    let log_dir = LogDir { disk: Arc::new(RealDisk), path: dir.path().join(DIR) };
    let options = LogOptions::default();
    let found = recovery::recover(&log_dir, &options)?;
    if found.last_ms < floor.as_millis() {
        write_floor(&log_dir, found.next, floor, random)
            .map_err(|e| OpenError::io("write", log_dir.file(&segment_name(found.next)), e))?;
    }
    let found = recovery::recover(&log_dir, &options)?;
    let mut highest_shard = 0;
    if let Some(newest) = found.segments.last() {
        let name = newest.header.index_name();
        let path = log_dir.file(&name);
        let failed = |e| OpenError::io("read", &path, e);
        let file = log_dir.disk.open(&path).map_err(failed)?;
        let ends = Index::read(&*file, &newest.header).and_then(|index| index.ends(&*file));
        highest_shard = ends.map_err(failed)?.last_key_value().map_or(0, |(shard, _)| *shard);
    }
    Ok(ReadyLog { segments: found.segments.len(), highest_shard })
}

/// A segment of nothing but its header and its end. It stays until a later one is complete, which
/// carries the floor on.
fn write_floor(dir: &LogDir, no: u64, floor: Timestamp, random: &Random) -> io::Result<()> {
    let floor_ms = floor.as_millis();
    let salt = random.bytes();
    let header = SegmentHeader { no, salt, created_ms: floor_ms, floor_ms, stands_for: None };
    let end = Header::mark(Kind::End, 1, DATA_START).encode(header.stamp());
    let temporary = format!("{}.tmp", segment_name(no));
    let file = dir.disk.create(&dir.file(&temporary))?;
    file.write_at(&[IoSlice::new(&header.encode()), IoSlice::new(&end)], 0)?;
    file.sync()?;
    dir.rename(&temporary, &segment_name(no))?;
    dir.sync()
}
