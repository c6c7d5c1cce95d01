//! The log's one writer: takes everything queued, writes it as one group, syncs once, publishes.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hydrant_core::log::{Durable, LogError, ShardUid, Synced};
use hydrant_core::record::Frame;
use hydrant_core::sequence::{IndexRange, RecordIndex};
use hydrant_core::{Random, Timestamp};

use super::directory::Entry;
use super::frame::{HEADER_BYTES, Header, Kind, frame_bytes};
use super::queue::{Append, Command, Queue, Taken};
use super::segment::{DATA_START, RESERVED_BYTES};
use super::shared::{Frames, Segment, Shared};
use super::spare::{NewSegmentError, new_segment, prepare_spare};
use super::upkeep::Upkeep;
use crate::disk::{Aligned, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, DiskFile, is_full, is_gone};
use crate::planted::{Bug, planted};

/// Most bytes of one group, unless a single frame is larger.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Bytes of zeros written at a time ahead of small groups into a file that was only allocated, and a
/// quarter of which is a small group's most.
const AHEAD_BYTES: u64 = 1 << 20;
/// How long the log is quiet before the last group is covered by the proof that it was synced.
const QUIET_BEFORE_COVER: Duration = Duration::from_secs(1);

/// A frame of the group being written.
struct Numbered {
    append: Append,
    /// Where the shard ended before.
    after: RecordIndex,
    header: Header,
    at: u64,
}

/// Tells the callers of a group where their records are.
fn answer(group: Vec<Numbered>, synced: &Synced) {
    for Numbered { append, header, .. } in group {
        let range = IndexRange { first: header.first, count: header.count };
        let _ = append.reply.send(Ok(Durable::new(range, synced)));
        drop(append.permit);
    }
}

/// The state machine behind the writer's thread. It alone numbers records and writes segments.
pub(super) struct Writer {
    shared: Arc<Shared>,
    upkeep: Upkeep,
    random: Random,
    /// The segment being written. None before the first append, and where the last one was ended
    /// and there was no room for the next.
    open: Option<Open>,
    /// The number of the next segment.
    next: u64,
    /// Bytes a segment may hold.
    capacity: u64,
    /// Where the next group starts; everything of the segment before it is synced.
    at: u64,
    group: u64,
    /// Arrival of the latest record of all: a clock behind it is held here.
    last_ms: u64,
    /// Whether the last group is not covered yet.
    uncovered: bool,
}

/// A segment, and the file it is written to.
struct Open {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    /// Before this byte the file was written at some time, and not just allocated.
    written: u64,
}

impl Writer {
    /// A writer that goes on in a new segment, numbered `next`, made when there is something to
    /// write: a log that is only read takes no room, and a full disk keeps nobody from reading.
    pub(super) fn start(
        shared: Arc<Shared>,
        upkeep: Upkeep,
        random: Random,
        next: u64,
        last_ms: u64,
    ) -> Self {
        Self {
            capacity: shared.options.segment_bytes,
            shared,
            upkeep,
            random,
            open: None,
            next,
            at: DATA_START,
            group: 0,
            last_ms,
            uncovered: false,
        }
    }

    /// Works off the queue until it is closed and empty.
    pub(super) fn run(mut self, queue: &Queue) {
        loop {
            match queue.take(self.uncovered.then_some(QUIET_BEFORE_COVER)) {
                Taken::Commands(commands) => self.work(commands),
                Taken::Quiet => self.cover(),
                Taken::Closed => {
                    self.cover();
                    return;
                }
            }
        }
    }

    /// Does the commands in order: runs of appends as groups, a seal between them.
    pub(super) fn work(&mut self, commands: Vec<Command>) {
        let (mut group, mut bytes) = (Vec::new(), 0);
        for command in commands {
            match command {
                Command::Append(append) => {
                    bytes += append.body_bytes();
                    group.push(append);
                    if bytes >= GROUP_BYTES_MAX {
                        self.commit(std::mem::take(&mut group));
                        bytes = 0;
                    }
                }
                Command::Seal(shard, reply) => {
                    self.commit(std::mem::take(&mut group));
                    bytes = 0;
                    let _ = reply.send(self.seal(shard));
                }
            }
        }
        self.commit(group);
    }

    fn seal(&mut self, shard: ShardUid) -> Result<RecordIndex, LogError> {
        self.shared.check()?;
        let mut shards = self.shared.shards.lock();
        let shard = shards.get_mut(&shard).ok_or(LogError::NotFound)?;
        shard.sealing = true;
        Ok(shard.end)
    }

    /// Numbers, writes, syncs and answers the appends, in as many groups as segments make of them.
    fn commit(&mut self, appends: Vec<Append>) {
        let mut group: Vec<Numbered> = Vec::new();
        let mut ends = HashMap::new();
        for append in appends {
            let bytes = frame_bytes(append.body_bytes());
            let next = group.last().map_or(self.at, |n| n.at + n.header.frame_bytes());
            let mut at = next;
            if self.open.is_none() || next + bytes + RESERVED_BYTES > self.capacity {
                self.flush(std::mem::take(&mut group));
                ends.clear();
                if let Err(e) = self.roll() {
                    let _ = append.reply.send(Err(e));
                    continue;
                }
                at = self.at;
            }
            match self.number(&append, at, group.is_empty(), &mut ends) {
                Ok((after, header)) => group.push(Numbered { append, after, header, at }),
                Err(e) => {
                    let _ = append.reply.send(Err(e));
                }
            }
        }
        self.flush(group);
    }

    /// Where an append's shard ended before it and the header of its frame, or why it is not written.
    fn number(
        &mut self,
        append: &Append,
        at: u64,
        first_of_group: bool,
        ends: &mut HashMap<ShardUid, RecordIndex>,
    ) -> Result<(RecordIndex, Header), LogError> {
        self.shared.check()?;
        let published = {
            let shards = self.shared.shards.lock();
            let shard = shards.get(&append.shard).ok_or(LogError::NotFound)?;
            if shard.sealing || shard.sealed {
                return Err(LogError::Sealed);
            }
            shard.end
        };
        if first_of_group {
            self.group += 1;
        }
        let end = ends.get(&append.shard).copied().unwrap_or(published);
        let now = self.shared.clock.now().max(Timestamp::from_millis(self.last_ms));
        let end = if planted(Bug::NumberByClock) { RecordIndex::MIN } else { end };
        let first = end.first_for(now, append.count());
        let arrival_ms = first.time().as_millis();
        self.last_ms = arrival_ms;
        ends.insert(append.shard, first.plus(append.count().into()));
        debug_assert!(at >= self.at);
        let header = Header {
            body_crc: append.body_crc,
            body_bytes: append.body_bytes() as u32,
            count: append.count(),
            kind: Kind::Records,
            shard: append.shard,
            first,
            arrival_ms,
            group: self.group,
            durable_upto: self.at,
        };
        Ok((end, header))
    }

    /// Writes and syncs a group, then lets the world see it: first the readers, then the callers.
    fn flush(&mut self, group: Vec<Numbered>) {
        let Some(last) = group.last() else { return };
        let end = last.at + last.header.frame_bytes();
        let synced = match self.write_group(&group) {
            Ok(()) if planted(Bug::AckBeforeSync) => Ok(Synced::by_completed_sync()),
            Ok(()) => {
                if planted(Bug::PublishBeforeSync) {
                    self.publish(&group);
                }
                self.sync()
            }
            Err(e) => Err(e),
        };
        match synced {
            Ok(synced) => {
                self.at = end;
                self.uncovered = true;
                if let Some(open) = &self.open {
                    open.segment.last_ms.store(self.last_ms, Ordering::Release);
                }
                if !planted(Bug::PublishBeforeSync) {
                    self.publish(&group);
                }
                answer(group, &synced);
                if planted(Bug::AckBeforeSync) {
                    let _ = self.sync();
                }
                self.upkeep.written(self.at, self.capacity);
            }
            Err(mut e) => {
                if e == LogError::Full && !planted(Bug::NoCutBack) && !self.cut_back() {
                    let what = "the disk is full, and kept a part of the records".to_owned();
                    e = LogError::Unavailable(what);
                }
                for numbered in group {
                    let _ = numbered.append.reply.send(Err(e.clone()));
                }
            }
        }
    }

    /// Makes sure that nothing of a refused group is found after a crash. False if it may be: where
    /// writing over bytes takes new room, as on a file system that copies on write.
    fn cut_back(&self) -> bool {
        const NOTHING: [u8; HEADER_BYTES] = [0; HEADER_BYTES];
        self.write(&[IoSlice::new(&NOTHING)], self.at).and_then(|()| self.sync()).is_ok()
    }

    fn write_group(&mut self, group: &[Numbered]) -> Result<(), LogError> {
        const PADDING: [u8; 8] = [0; 8];
        let stamp = self.open()?.segment.stamp;
        let headers: Vec<_> = group.iter().map(|n| n.header.encode(stamp)).collect();
        let mut buffers = Vec::with_capacity(group.len() * 4);
        for (numbered, header) in group.iter().zip(&headers) {
            let written = HEADER_BYTES + numbered.append.body_bytes();
            let padding = numbered.header.frame_bytes() as usize - written;
            let parts: [&[u8]; 4] =
                [header, &numbered.append.offsets, &numbered.append.records, &PADDING[..padding]];
            buffers.extend(parts.iter().filter(|p| !p.is_empty()).map(|p| IoSlice::new(p)));
        }
        self.write_ahead(group.last().map_or(self.at, |n| n.at + n.header.frame_bytes()))?;
        self.write(&buffers, self.at)?;
        metrics::counter!("hydrant_log_appended_records")
            .increment(group.iter().map(|n| u64::from(n.header.count)).sum());
        metrics::counter!("hydrant_log_appended_bytes")
            .increment(group.iter().map(|n| n.append.body_bytes() as u64).sum());
        metrics::histogram!("hydrant_log_group_appends").record(group.len() as f64);
        Ok(())
    }

    /// Writes zeros behind a small group that will end at `end`, so that the syncs of those that follow
    /// have no metadata to write: in a file that was only allocated, each block's first write changes
    /// what the file system knows of it.
    fn write_ahead(&mut self, end: u64) -> Result<(), LogError> {
        let from = end.next_multiple_of(BLOCK_BYTES_MIN as u64);
        let mut upto = (from + AHEAD_BYTES).min(self.capacity);
        let is_small = end - self.at <= AHEAD_BYTES / 4;
        if end <= self.open()?.written || !is_small || from >= upto {
            return Ok(());
        }
        let mut memory = Aligned::default();
        let zeros = memory.room((upto - from) as usize, BLOCK_BYTES_MAX);
        match self.write(&[IoSlice::new(zeros)], from) {
            // The group may fit, and so may those that follow it.
            Err(LogError::Full) => upto = self.capacity,
            done => done?,
        }
        if let Some(open) = &mut self.open {
            open.written = upto;
        }
        Ok(())
    }

    fn write(&self, buffers: &[IoSlice<'_>], at: u64) -> Result<(), LogError> {
        let open = self.open()?;
        match open.file.write_at(buffers, at) {
            Ok(()) => Ok(()),
            // Nothing of it was acknowledged, and the next group is written over it.
            Err(e) if is_full(&e) => Err(LogError::Full),
            Err(e) => {
                self.shared.fail(&format!("writing {}: {e}", open.segment.name()));
                Err(LogError::Unavailable(format!("writing the log: {e}")))
            }
        }
    }

    fn sync(&self) -> Result<Synced, LogError> {
        let start = tokio::time::Instant::now();
        if planted(Bug::SkipSync) && self.group.is_multiple_of(3) {
            return Ok(Synced::by_completed_sync());
        }
        let open = self.open()?;
        let mut done = open.file.sync();
        if planted(Bug::RetrySync) {
            done = done.or_else(|_| open.file.sync());
        }
        if let Err(e) = done {
            self.shared.fail(&format!("syncing {}: {e}", open.segment.name()));
            return Err(LogError::Unavailable(format!("syncing the log: {e}")));
        }
        metrics::histogram!("hydrant_log_sync_seconds").record(start.elapsed().as_secs_f64());
        Ok(Synced::by_completed_sync())
    }

    /// Lets readers see a group. The caller's duty: it is synced.
    fn publish(&self, group: &[Numbered]) {
        self.add_to_directory(group);
        {
            let mut cache = self.shared.cache.lock();
            for Numbered { append, after, header, .. } in group {
                let arrival = Timestamp::from_millis(header.arrival_ms);
                let (offsets, records) = (append.offsets.clone(), append.records.clone());
                // The batch made these buffers, so they are a frame.
                if let Ok(frame) = Frame::new(header.first, arrival, offsets, records) {
                    cache.push(append.shard, *after, frame, append.body_bytes());
                }
            }
        }
        let mut shards = self.shared.shards.lock();
        for (n, Numbered { append, header, .. }) in group.iter().enumerate() {
            if let Some(shard) = shards.get_mut(&append.shard) {
                shard.end = header.first.plus(header.count.into());
                if n + 1 == group.len() || !planted(Bug::LostWakeUp) {
                    shard.wake();
                }
            }
        }
    }

    fn add_to_directory(&self, group: &[Numbered]) {
        let Some(open) = &self.open else { return };
        if let Frames::Memory { directory, .. } = &*open.segment.frames.read() {
            let mut directory = directory.write();
            for numbered in group {
                directory.add(numbered.append.shard, Entry::of(&numbered.header, numbered.at));
            }
        }
    }

    /// Writes the proof that the last group was synced, so that damage to it can be told from a
    /// write that a crash cut short.
    fn cover(&mut self) {
        let fits = self.at + RESERVED_BYTES <= self.capacity;
        if self.uncovered && self.open.is_some() && fits && self.shared.check().is_ok() {
            self.group += 1;
            let frame = Header::mark(Kind::Cover, self.group, self.at);
            if self.write_mark(&frame).is_ok() {
                self.at += frame.frame_bytes();
            }
        }
        self.uncovered = false;
    }

    /// Covers the last group as after a quiet while, and says whether there was one to cover.
    #[cfg(test)]
    pub(super) fn cover_if_due(&mut self) -> bool {
        let is_due = self.uncovered;
        self.cover();
        is_due
    }

    fn write_mark(&self, frame: &Header) -> Result<Synced, LogError> {
        let frame = frame.encode(self.open()?.segment.stamp);
        self.write(&[IoSlice::new(&frame)], self.at)?;
        self.sync()
    }

    /// Ends the segment and goes on in the next. Whatever fails before the end leaves the segment
    /// as it is, to be tried again with the next append.
    fn roll(&mut self) -> Result<(), LogError> {
        self.shared.check()?;
        // Room first: a segment that is ended and has no successor takes nothing.
        let floor = self.shared.options.free_bytes_min;
        let is_new = prepare_spare(&self.shared, floor).map_err(|e| self.roll_error(&e))?;
        if self.open.is_some() {
            self.group += 1;
            self.write_mark(&Header::mark(Kind::End, self.group, self.at))?;
        }
        if let Some(Open { segment, .. }) = self.open.take() {
            if let Frames::Memory { complete, .. } = &mut *segment.frames.write() {
                *complete = Some(self.at);
            }
            self.upkeep.rolled();
        }
        let (segment, file) = new_segment(&self.shared, &self.random, self.next, self.last_ms)
            .map_err(|e| self.roll_error(&e))?;
        self.shared.segments.write().push(segment.clone());
        self.next += 1;
        let written = if is_new { DATA_START } else { self.capacity };
        self.open = Some(Open { segment, file, written });
        (self.at, self.group, self.uncovered) = (DATA_START, 0, false);
        Ok(())
    }

    /// The segment being written. The caller's duty: there is one, as [`Writer::commit`] sees to.
    fn open(&self) -> Result<&Open, LogError> {
        let none = || LogError::Unavailable("no segment is open".to_owned());
        self.open.as_ref().ok_or_else(none)
    }

    fn roll_error(&self, error: &NewSegmentError) -> LogError {
        tracing::warn!(%error, "no new segment for the log");
        match error {
            NewSegmentError::Io(e) if is_full(e) => return LogError::Full,
            NewSegmentError::Io(e) if !is_gone(e) => {}
            NewSegmentError::Io(_) | NewSegmentError::Sync(_) => {
                self.shared.fail(&error.to_string())
            }
        }
        LogError::Unavailable(format!("a new segment for the log: {error}"))
    }
}
