//! What the log's threads and its callers share.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hydrant_core::log::{LogError, ShardUid, Tail};
use hydrant_core::sequence::RecordIndex;
use hydrant_core::{Clock, Random, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::LogOptions;
use super::archived::Archived;
use super::cache::Cache;
use super::directory::{Directory, Entry};
use super::frame::Stamp;
use super::index::Index;
use super::recovery::Recovered;
use super::segment::{Scan, SegmentHeader};
use super::spare::first_spare_no;
use crate::dir::DataDir;
use crate::disk::{DiskFile, LogDir};
use crate::error::Fatal;
use crate::planted::{Bug, planted};

/// Most bytes of segment directories kept in memory.
const INDEXES_BYTES_MAX: usize = 64 << 20;

/// A segment in use: the one being written or a complete one.
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) stamp: Stamp,
    /// Arrival of its latest record; the writer moves it on.
    pub(super) last_ms: AtomicU64,
    pub(super) frames: RwLock<Frames>,
    /// A shard that kept the segment from being freed, and where it ends: asked first next time.
    pub(super) pinned: Mutex<Option<(ShardUid, RecordIndex)>>,
    /// Whether its frames were found to stand together well enough.
    pub(super) is_gathered: AtomicBool,
    /// Whether its file is in the archive only, and a mark stands for it.
    pub(super) is_archived: AtomicBool,
}

/// Where the directory of a segment is.
#[derive(Clone)]
pub(super) enum Frames {
    /// In memory: the segment is being written, or its file is still to be.
    Memory {
        /// The directory.
        directory: Arc<RwLock<Directory>>,
        /// Where the segment ends, once nothing is added any more.
        complete: Option<u64>,
    },
    /// In the segment's index file.
    File,
}

impl Segment {
    /// A segment whose directory is in its index file.
    pub(super) fn complete(header: SegmentHeader, last_ms: u64) -> Self {
        Self::new(header, last_ms, Frames::File)
    }

    /// A complete segment whose index is still to be written.
    pub(super) fn unindexed(header: SegmentHeader, last_ms: u64, scan: Scan) -> Self {
        let directory = Arc::new(RwLock::new(scan.directory));
        Self::new(header, last_ms, Frames::Memory { directory, complete: Some(scan.end) })
    }

    /// A segment that will be written.
    pub(super) fn empty(header: SegmentHeader) -> Self {
        let last_ms = header.floor_ms;
        Self::new(header, last_ms, Frames::Memory { directory: Arc::default(), complete: None })
    }

    fn new(header: SegmentHeader, last_ms: u64, frames: Frames) -> Self {
        Self {
            stamp: header.stamp(),
            header,
            last_ms: AtomicU64::new(last_ms),
            frames: RwLock::new(frames),
            pinned: Mutex::new(None),
            is_gathered: AtomicBool::new(false),
            is_archived: AtomicBool::new(false),
        }
    }

    /// Its file's name.
    pub(super) fn name(&self) -> String {
        self.header.name()
    }

    /// Whether its index is in place.
    pub(super) fn is_indexed(&self) -> bool {
        matches!(*self.frames.read(), Frames::File)
    }

    /// Whether its file has to be fetched to be read.
    pub(super) fn is_archived(&self) -> bool {
        self.is_archived.load(Ordering::Acquire)
    }

    /// Whether it is still being written.
    pub(super) fn is_active(&self) -> bool {
        matches!(*self.frames.read(), Frames::Memory { complete: None, .. })
    }

    /// Whether a record at `from` or above may be in it.
    pub(super) fn reaches(&self, from: RecordIndex) -> bool {
        self.last_ms.load(Ordering::Acquire) >= from.time().as_millis() || self.is_active()
    }
}

/// A shard that somebody touched since the start.
pub(super) struct Shard {
    pub(super) retention: Duration,
    pub(super) trimmed: RecordIndex,
    pub(super) end: RecordIndex,
    /// The writer takes no more records; the row that makes it durable may still be to come.
    pub(super) sealing: bool,
    pub(super) sealed: bool,
    /// There while somebody waits.
    pub(super) waiters: Option<Arc<Notify>>,
}

impl Shard {
    /// The ends, as readers may see them.
    pub(super) fn tail(&self, now: Timestamp) -> Tail {
        let expired = RecordIndex::at(now.minus(self.retention));
        let horizon = self.trimmed.max(expired).min(self.end);
        Tail { horizon, end: self.end, sealed: self.sealed }
    }

    /// Wakes whoever waits.
    pub(super) fn wake(&mut self) {
        if let Some(waiters) = self.waiters.take() {
            waiters.notify_waiters();
        }
    }
}

/// Directories of complete segments, the latest used ones.
#[derive(Default)]
struct Indexes {
    by_segment: HashMap<(u64, Option<u64>), (Arc<Index>, u64)>,
    bytes: usize,
    uses: u64,
}

/// What the log's threads and its callers share. No lock is held over a call to the disk, and none
/// is taken while another is held but a segment's directory, below its `frames`.
pub(super) struct Shared {
    pub(super) options: LogOptions,
    pub(super) dir: LogDir,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fatal: Fatal,
    /// In the order they were written; the last one is being written.
    pub(super) segments: RwLock<Vec<Arc<Segment>>>,
    pub(super) shards: Mutex<HashMap<ShardUid, Shard>>,
    pub(super) cache: Mutex<Cache>,
    /// Names of files ready to become segments.
    pub(super) spares: Mutex<Vec<String>>,
    /// Number of the next spare that is made.
    pub(super) spares_made: AtomicU64,
    /// A write or sync failed: what is on the disk is unknown, so nothing is acknowledged any more.
    pub(super) failed: AtomicBool,
    /// Keeps other processes out of a real directory for as long as a thread of the log lives.
    _lock: Option<DataDir>,
    indexes: Mutex<Indexes>,
    /// For the salts of cold segments.
    pub(super) random: Random,
    /// Which of the complete segments is looked at next, to be merged.
    pub(super) merge_from: AtomicUsize,
    /// What is read of archived segments.
    pub(super) archived: Archived,
}

impl Shared {
    /// The state of a log that was just recovered.
    pub(super) fn new(
        options: LogOptions,
        lock: Option<DataDir>,
        dir: LogDir,
        clock: Arc<dyn Clock>,
        fatal: Fatal,
        random: Random,
        found: Recovered,
    ) -> Self {
        let cache = Mutex::new(Cache::new(options.cache_bytes));
        Self {
            options,
            dir,
            clock,
            fatal,
            segments: RwLock::new(found.segments),
            shards: Mutex::default(),
            cache,
            spares_made: AtomicU64::new(first_spare_no(&found.spares)),
            spares: Mutex::new(found.spares),
            failed: AtomicBool::new(false),
            _lock: lock,
            indexes: Mutex::default(),
            random,
            merge_from: AtomicUsize::new(0),
            archived: Archived::default(),
        }
    }

    /// Stops acknowledging for good, and calls the hook that ends the process.
    pub(super) fn fail(&self, reason: &str) {
        self.failed.store(true, Ordering::SeqCst);
        (self.fatal)(reason);
    }

    /// The error of a log that has failed.
    pub(super) fn check(&self) -> Result<(), LogError> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(LogError::Unavailable("a write to the disk failed".to_owned()));
        }
        Ok(())
    }

    /// Whether the segment is still part of the log.
    pub(super) fn has(&self, segment: &Arc<Segment>) -> bool {
        self.segments.read().iter().any(|s| Arc::ptr_eq(s, segment))
    }

    /// The directory of a complete segment, read once and kept while it is in use.
    pub(super) fn index(&self, segment: &Segment) -> Result<Arc<Index>, LogError> {
        let key = segment.header.key();
        {
            let mut indexes = self.indexes.lock();
            indexes.uses += 1;
            let uses = indexes.uses;
            if let Some((index, used)) = indexes.by_segment.get_mut(&key) {
                *used = uses;
                return Ok(index.clone());
            }
        }
        let index = Arc::new(self.load_index(&segment.header)?);
        let mut indexes = self.indexes.lock();
        let uses = indexes.uses;
        indexes.bytes += index.bytes();
        if let Some((old, _)) = indexes.by_segment.insert(key, (index.clone(), uses)) {
            indexes.bytes -= old.bytes();
        }
        while indexes.bytes > INDEXES_BYTES_MAX && indexes.by_segment.len() > 1 {
            let oldest = indexes.by_segment.iter().min_by_key(|(_, (_, used))| *used);
            let Some((&oldest, _)) = oldest else { break };
            indexes.forget(oldest);
        }
        Ok(index)
    }

    fn load_index(&self, header: &SegmentHeader) -> Result<Index, LogError> {
        let file = self.open_index(header).map_err(|e| self.index_error(header, &e))?;
        Index::read(&*file, header).map_err(|e| self.index_error(header, &e))
    }

    /// The file of a complete segment's directory.
    pub(super) fn open_index(&self, header: &SegmentHeader) -> io::Result<Arc<dyn DiskFile>> {
        self.dir.disk.open(&self.dir.file(&header.index_name()))
    }

    fn index_error(&self, header: &SegmentHeader, error: &io::Error) -> LogError {
        let name = header.index_name();
        if error.kind() != io::ErrorKind::InvalidData {
            return unavailable(&name, error);
        }
        LogError::Corrupt(format!(
            "{} is not as written; {}",
            self.dir.file(&name).display(),
            match self.dir.disk.open(&self.dir.file(&header.name())) {
                Ok(_) =>
                    "stop hydrant, delete that one file, and start again: it is made anew from its \
                     segment",
                Err(_) => super::recovery::WAY_ON_ARCHIVED,
            }
        ))
    }

    /// Asks the directory of a complete segment for what only its file has.
    pub(super) fn ask_index<T>(
        &self,
        segment: &Segment,
        ask: impl FnOnce(&Index, &dyn DiskFile) -> io::Result<T>,
    ) -> Result<T, LogError> {
        let index = self.index(segment)?;
        let asked = self.open_index(&segment.header).and_then(|file| ask(&index, &*file));
        asked.map_err(|e| self.index_error(&segment.header, &e))
    }

    /// Forgets the directory of a segment that is no more.
    pub(super) fn forget_index(&self, segment: &Segment) {
        self.indexes.lock().forget(segment.header.key());
    }

    /// Up to `max` of the shard's frames in the segment with records at `from` or above, at least one
    /// if there is one.
    pub(super) fn find(
        &self,
        segment: &Segment,
        shard: ShardUid,
        from: RecordIndex,
        max: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let frames = segment.frames.read().clone();
        match frames {
            Frames::Memory { directory, .. } => Ok(directory.read().find(shard, from, max)),
            Frames::File if self.index(segment)?.place(shard, from).is_none() => Ok(Vec::new()),
            Frames::File => {
                self.ask_index(segment, |index, file| index.find(file, shard, from, max))
            }
        }
    }

    /// Where a shard that nobody touched yet ends. Reads the disk.
    pub(super) fn end_of(&self, shard: ShardUid) -> Result<RecordIndex, LogError> {
        let segments = self.segments.read().clone();
        for segment in segments.iter().rev() {
            let frames = segment.frames.read().clone();
            match frames {
                Frames::Memory { directory, .. } => {
                    if let Some(end) = directory.read().end_of(shard) {
                        return Ok(end);
                    }
                }
                // The index of a complete segment knows the ends of all before it, too.
                Frames::File => {
                    let open = || self.open_index(&segment.header);
                    let end = self.index(segment)?.end_of(open, shard);
                    let end = end.map_err(|e| self.index_error(&segment.header, &e))?;
                    return Ok(end.unwrap_or(RecordIndex::MIN));
                }
            }
        }
        Ok(RecordIndex::MIN)
    }

    /// Where every shard ended in the segments before this one.
    pub(super) fn ends_before(&self, no: u64) -> Result<BTreeMap<u64, u64>, LogError> {
        let segments = self.segments.read().clone();
        match segments.iter().rev().find(|s| s.header.no < no) {
            Some(_) if planted(Bug::EndsForgotten) => Ok(BTreeMap::new()),
            Some(before) => self.ask_index(before, |index, file| index.ends(file)),
            None => Ok(BTreeMap::new()),
        }
    }
}

impl Indexes {
    fn forget(&mut self, key: (u64, Option<u64>)) {
        if let Some((index, _)) = self.by_segment.remove(&key) {
            self.bytes -= index.bytes();
        }
    }
}

/// Puts a file in place, whole or not at all, and durable on return.
pub(super) fn write_file(dir: &LogDir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let write = || {
        let file = dir.disk.create(&dir.file(&temporary))?;
        file.write_at(&[io::IoSlice::new(bytes)], 0)?;
        file.sync()
    };
    if let Err(e) = write() {
        // Its room is wanted for other things, if room is what is lacking.
        let _ = dir.disk.remove(&dir.file(&temporary));
        return Err(e);
    }
    dir.rename(&temporary, name)?;
    dir.sync()
}

/// The error of a disk that did not answer a read.
pub(super) fn unavailable(name: &str, error: &io::Error) -> LogError {
    LogError::Unavailable(format!("{name}: {error}"))
}
