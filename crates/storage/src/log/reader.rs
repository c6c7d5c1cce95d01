//! Reading: a page at a time, from the tail cache or from the segments.

use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::Timestamp;
use hydrant_core::log::{LogError, ReadLimit, ReadPage, ShardUid, Tail};
use hydrant_core::record::Frame;
use hydrant_core::sequence::RecordIndex;

use super::directory::Entry;
use super::frame::{HEADER_BYTES, Header, Kind, Stamp};
use super::shared::{Segment, Shared, unavailable};
use crate::disk::DiskFile;

/// Most bytes read ahead in one piece, unless a single frame is larger.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Fewest bytes worth a read of their own.
const READ_BYTES_MIN: usize = 64 << 10;
/// Bytes of other shards' frames that are read over rather than around.
const GAP_BYTES_MAX: u32 = 16 << 10;
/// Frames looked up at a time.
const ENTRIES_MAX: usize = 1_024;
/// Segments that are looked ahead at, so that the disk has more to do than one thing at a time.
const SEGMENTS_AHEAD: usize = 32;

/// Why a page could not be filled any further.
pub(super) enum Unread {
    /// It is no use to go on.
    Failed(LogError),
    /// The segment is archived, and has to be fetched.
    Archived(Arc<Segment>),
}

impl From<LogError> for Unread {
    fn from(error: LogError) -> Self {
        Self::Failed(error)
    }
}

/// An archived segment that was fetched for a reader, who has it even if it goes again.
pub(super) struct Given {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
}

/// A page being filled, up to its limit.
pub(super) struct Pager {
    page: ReadPage,
    limit: ReadLimit,
    full: bool,
}

impl Pager {
    /// An empty page that starts at `from` or at the horizon.
    pub(super) fn new(from: RecordIndex, limit: ReadLimit, tail: Tail) -> Self {
        let next = from.max(tail.horizon);
        let limit = ReadLimit { records_max: limit.records_max.max(1), ..limit };
        let page = ReadPage { frames: Vec::new(), next, tail };
        Self { page, limit, full: next >= tail.end }
    }

    /// Whether nothing more is wanted.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether it holds nothing yet.
    pub(super) fn is_empty(&self) -> bool {
        self.page.is_empty()
    }

    /// Where the page goes on.
    pub(super) fn next(&self) -> RecordIndex {
        self.page.next
    }

    /// The page.
    pub(super) fn finish(self) -> ReadPage {
        self.page
    }

    /// Bytes to read in one piece.
    fn piece(&self) -> usize {
        self.limit.bytes_max.clamp(READ_BYTES_MIN, READ_AHEAD_BYTES)
    }

    /// Nothing is left below the end: what was there was given up with a damaged segment.
    fn pass(&mut self) {
        if !self.full {
            (self.page.next, self.full) = (self.page.tail.end, true);
        }
    }

    /// Takes what fits of a frame; returns whether more is wanted.
    pub(super) fn take(&mut self, frame: &Frame) -> bool {
        // Durable already, but not yet announced: it is for the next page.
        if frame.first() >= self.page.tail.end {
            self.full = true;
            return false;
        }
        let whole = frame.slice(self.page.next, self.limit.records_max);
        let left = self.limit.bytes_max.checked_sub(whole.size_bytes());
        let part = if left.is_some() { whole } else { self.part_of(&whole) };
        self.limit.bytes_max = left.unwrap_or_default();
        self.full |= left.is_none();
        if !part.is_empty() {
            self.page.next = part.end();
            self.limit.records_max -= part.len();
            self.page.frames.push(part);
        }
        self.full |= self.limit.records_max == 0 || self.page.next >= self.page.tail.end;
        !self.full
    }

    /// The records at the start of a frame that still fit; at least one if the page has none.
    fn part_of(&self, frame: &Frame) -> Frame {
        let mut left = self.limit.bytes_max;
        let fitting = frame.records().take_while(|record| {
            let rest = left.checked_sub(record.size_bytes());
            left = rest.unwrap_or(left);
            rest.is_some()
        });
        let fits = fitting.count().max(usize::from(self.page.is_empty()));
        frame.slice(frame.first(), fits)
    }
}

impl Shared {
    /// Fills the page from the tail cache, if all it wants is there.
    pub(super) fn read_cached(&self, shard: ShardUid, pager: &mut Pager) -> bool {
        let hit = self.cache.lock().read(shard, pager.next(), |frame| pager.take(frame));
        let counter = if hit { "hydrant_log_cache_hits" } else { "hydrant_log_cache_misses" };
        metrics::counter!(counter).increment(1);
        hit
    }

    /// Fills the page from the segments, up to one that has to be fetched. Reads the disk.
    pub(super) fn read_segments(
        &self,
        shard: ShardUid,
        pager: &mut Pager,
        given: Option<Given>,
    ) -> Result<(), Unread> {
        'list: loop {
            let segments = self.segments.read().clone();
            let start = segments.partition_point(|s| !s.reaches(pager.next()));
            let mut rest = &segments[start..];
            while !rest.is_empty() && !pager.is_full() {
                let (now, later) = rest.split_at(self.look_ahead(rest, shard, pager));
                self.read_ahead(now, shard, pager);
                let read = |segment| self.read_segment(segment, shard, pager, given.as_ref());
                match now.iter().try_for_each(read) {
                    Ok(()) => rest = later,
                    // Freed under our feet, or merged: what is kept of it is in another one.
                    Err(_) if rest.iter().any(|segment| !self.has(segment)) => continue 'list,
                    Err(error) => return Err(error),
                }
            }
            pager.pass();
            return Ok(());
        }
    }

    /// How many of the segments it takes to fill the page, one at least, as far as their directories
    /// in memory can tell; the entries of the shard in them are on their way. What cannot be read
    /// shows when it is wanted.
    fn look_ahead(&self, segments: &[Arc<Segment>], shard: ShardUid, pager: &Pager) -> usize {
        let (mut frames, mut bytes, mut ahead) = (0, 0, 0);
        let limit = pager.limit;
        for segment in segments.iter().take(SEGMENTS_AHEAD) {
            if ahead > 0 && (frames >= limit.records_max || bytes >= limit.bytes_max) {
                break;
            }
            ahead += 1;
            if !segment.is_indexed() {
                continue;
            }
            let Ok(index) = self.index(segment) else { break };
            if let Some(place) = index.place(shard, pager.next()) {
                frames += place.frames;
                bytes += place.bytes;
                if let Ok(file) = self.open_index(&segment.header) {
                    file.will_need(place.at, place.len);
                }
            }
        }
        ahead
    }

    /// Has the disk fetch what the page will be filled with, all of it at once.
    fn read_ahead(&self, segments: &[Arc<Segment>], shard: ShardUid, pager: &Pager) {
        let mut left = pager.limit.bytes_max;
        for segment in segments {
            let entries = self.find(segment, shard, pager.next(), ENTRIES_MAX);
            let Ok(entries) = entries else { return };
            let mut rest = &entries[..];
            if rest.is_empty() || (segments.len() == 1 && run_of(rest, pager.piece()) == rest.len())
            {
                continue;
            }
            let Ok(file) = self.open_segment(segment, None) else { continue };
            while !rest.is_empty() && left > 0 {
                let (run, later) = rest.split_at(run_of(rest, pager.piece()));
                let bytes = span(run);
                file.will_need(run[0].at.into(), bytes as u64);
                left = left.saturating_sub(bytes);
                rest = later;
            }
        }
    }

    fn read_segment(
        &self,
        segment: &Arc<Segment>,
        shard: ShardUid,
        pager: &mut Pager,
        given: Option<&Given>,
    ) -> Result<(), Unread> {
        let mut file: Option<Arc<dyn DiskFile>> = None;
        while !pager.is_full() {
            let entries = self.find(segment, shard, pager.next(), ENTRIES_MAX)?;
            if entries.is_empty() {
                break;
            }
            let mut rest = &entries[..];
            while !rest.is_empty() {
                let file = match &mut file {
                    Some(file) => file,
                    none => none.insert(self.open_segment(segment, given)?),
                };
                let (run, later) = rest.split_at(run_of(rest, pager.piece()));
                rest = later;
                let frames = self.read_run(&**file, segment, shard, run);
                if frames.is_err() && segment.is_archived() {
                    // The archive may have it as it was written.
                    self.forget_fetched(segment);
                }
                for frame in frames? {
                    if !pager.take(&frame) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The file of a complete segment or the one that is written.
    fn open_segment(
        &self,
        segment: &Arc<Segment>,
        given: Option<&Given>,
    ) -> Result<Arc<dyn DiskFile>, Unread> {
        if !segment.is_archived() {
            let name = segment.name();
            match self.dir.disk.open(&self.dir.file(&name)) {
                Ok(file) => return Ok(file),
                // It went while we looked.
                Err(_) if segment.is_archived() => {}
                Err(e) => return Err(unavailable(&name, &e).into()),
            }
        }
        let given = given.filter(|given| Arc::ptr_eq(&given.segment, segment));
        let file = given.map(|given| given.file.clone()).or_else(|| self.open_fetched(segment));
        file.ok_or_else(|| Unread::Archived(segment.clone()))
    }

    /// Reads frames that lie close together in one piece, and verifies each.
    fn read_run(
        &self,
        file: &dyn DiskFile,
        segment: &Segment,
        shard: ShardUid,
        run: &[Entry],
    ) -> Result<Vec<Frame>, LogError> {
        let Some(first) = run.first() else { return Ok(Vec::new()) };
        let mut bytes = vec![0; span(run)];
        let got = file.read_at(&mut bytes, first.at.into());
        bytes.truncate(got.map_err(|e| unavailable(&segment.name(), &e))?);
        let bytes = Bytes::from(bytes);
        let wanted: usize = run.iter().map(|entry| entry.bytes as usize).sum();
        // What was read over does not stay in memory with what was not.
        let part = |start: usize, end: usize| match wanted * 2 < bytes.len() {
            true => Bytes::copy_from_slice(&bytes[start..end]),
            false => bytes.slice(start..end),
        };
        let frames = run.iter().map(|entry| {
            let start = (entry.at - first.at) as usize;
            let end = start + entry.bytes as usize;
            (bytes.len() >= end)
                .then(|| verify(part(start, end), segment.stamp, shard, entry))
                .flatten()
                .ok_or_else(|| {
                    metrics::counter!("hydrant_log_damaged_frames").increment(1);
                    LogError::Corrupt(format!(
                        "{}, byte {}: the frame is not as written",
                        self.dir.file(&segment.name()).display(),
                        entry.at
                    ))
                })
        });
        frames.collect()
    }
}

/// Bytes from the first of these frames to the end of the last.
fn span(run: &[Entry]) -> usize {
    match run {
        [] => 0,
        [first, ..] => {
            let last = run[run.len() - 1];
            (last.at + last.bytes - first.at) as usize
        }
    }
}

/// How many of the entries to read in one piece.
fn run_of(entries: &[Entry], bytes_max: usize) -> usize {
    let start = entries[0].at;
    let mut end = start + entries[0].bytes;
    let joined = entries[1..].iter().take_while(|e| {
        let near = e.at - end <= GAP_BYTES_MAX;
        end = e.at + e.bytes;
        near && (end - start) as usize <= bytes_max
    });
    1 + joined.count()
}

/// The frame, if every bit of it is what was written there for this shard.
pub(super) fn verify(bytes: Bytes, stamp: Stamp, shard: ShardUid, entry: &Entry) -> Option<Frame> {
    let header = Header::decode(&bytes, stamp)?;
    let body = bytes.get(HEADER_BYTES..HEADER_BYTES + header.body_bytes as usize)?;
    let expected = header.kind == Kind::Records
        && header.shard == shard
        && header.first == entry.first
        && header.count == entry.count
        && crc32c::crc32c(body) == header.body_crc;
    let records = HEADER_BYTES + header.count as usize * 4;
    if !expected || records > HEADER_BYTES + body.len() {
        return None;
    }
    let (first, arrival) = (header.first, Timestamp::from_millis(header.arrival_ms));
    let end = HEADER_BYTES + body.len();
    Frame::new(first, arrival, bytes.slice(HEADER_BYTES..records), bytes.slice(records..end)).ok()
}
