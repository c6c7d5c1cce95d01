//! What the log does behind its writer's back: spare files, index files, freeing what has expired.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::log::{LogError, ShardUid};
use hydrant_core::sequence::RecordIndex;
use tokio::sync::oneshot;

use super::shared::{Frames, Segment, Shared, write_file};
use super::spare::{prewrite_spare, spare_name};
use super::{archived, merge};
use crate::disk::is_full;
use crate::planted::{Bug, planted};

/// Most files kept for segments to come.
const SPARES_MAX: usize = 2;

/// What the row of a shard says about its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) retention: Duration,
    pub(super) trimmed: RecordIndex,
}

impl Kept {
    /// Whether somebody may still read a run of records that ends there.
    pub(super) fn reaches(&self, end: RecordIndex, now: Timestamp) -> bool {
        end > self.trimmed.max(RecordIndex::at(now.minus(self.retention)))
    }
}

/// Something to do, off the writer's thread.
pub(super) enum Task {
    /// A segment is complete: write its index.
    Index,
    /// The segment being written is half full: have the next file ready.
    Spare,
    /// Free those of these segments that hold nothing any more; answers with how many.
    Reclaim {
        /// Complete segments. Collected before the rows were read, so that each shard in them had
        /// its row by then.
        segments: Vec<Arc<Segment>>,
        /// The rows of all shards; one that is missing was dropped.
        kept: HashMap<ShardUid, Kept>,
        /// Where the answer goes.
        reply: oneshot::Sender<usize>,
    },
    /// Let go of the file of a segment that the archive has; answers with whether it went.
    Evict {
        /// The segment.
        segment: Arc<Segment>,
        /// What it is fetched with.
        receipt: Vec<u8>,
        /// Where the answer goes.
        reply: oneshot::Sender<bool>,
    },
}

/// The writer's end of the upkeep's queue.
pub(super) struct Upkeep {
    tasks: Sender<Task>,
    spare_asked: Cell<bool>,
}

impl Upkeep {
    /// A handle that queues to `tasks`.
    pub(super) fn new(tasks: Sender<Task>) -> Self {
        Self { tasks, spare_asked: Cell::new(false) }
    }

    /// Tells how far the segment is written.
    pub(super) fn written(&self, at: u64, capacity: u64) {
        if at > capacity / 2 && !self.spare_asked.replace(true) {
            let _ = self.tasks.send(Task::Spare);
        }
    }

    /// Tells that a segment is complete.
    pub(super) fn rolled(&self) {
        self.spare_asked.set(false);
        let _ = self.tasks.send(Task::Index);
    }
}

/// The upkeep's thread: works until every handle is gone.
pub(super) fn run(shared: &Shared, tasks: &Receiver<Task>) {
    while let Ok(task) = tasks.recv() {
        work(shared, task);
    }
}

/// Does one task, unless the log has failed.
pub(super) fn work(shared: &Shared, task: Task) {
    if shared.check().is_err() {
        return;
    }
    match task {
        Task::Index => write_indexes(shared),
        Task::Spare => {
            if let Err(error) = prewrite_spare(shared) {
                tracing::warn!(%error, "no file ready for the log's next segment");
            }
        }
        Task::Reclaim { segments, kept, reply } => {
            write_indexes(shared);
            let freed = reclaim(shared, &segments, &kept).unwrap_or_else(|error| {
                tracing::warn!(%error, "freeing segments of the log");
                0
            });
            let merged = merge::merge(shared, &segments, &kept).unwrap_or_else(|error| {
                tracing::warn!(%error, "merging segments of the log");
                0
            });
            let gathered = merge::gather(shared, &segments, &kept).unwrap_or_else(|error| {
                tracing::warn!(%error, "putting together what is scattered in the log");
                0
            });
            let _ = reply.send(freed + merged + gathered);
        }
        Task::Evict { segment, receipt, reply } => {
            match archived::evict(shared, &segment, &receipt) {
                Ok(evicted) => _ = reply.send(evicted),
                // What the names on the disk are is unknown, as with any write that failed.
                Err(e) => shared.fail(&format!("letting go of {}: {e}", segment.name())),
            }
        }
    }
}

/// Writes the index of every complete segment that has none, oldest first: each carries on the ends
/// that the one before it knows.
fn write_indexes(shared: &Shared) {
    let segments = shared.segments.read().clone();
    for segment in segments {
        match write_index(shared, &segment) {
            Ok(()) => {}
            Err(WriteIndexError::Disk(e)) if !is_full(&e) => {
                shared.fail(&format!("writing {}: {e}", segment.header.index_name()));
                return;
            }
            Err(error) => {
                // The directory stays in memory and serves from there.
                tracing::warn!(%error, "an index of the log is written later");
                return;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteIndexError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Before(#[from] LogError),
}

fn write_index(shared: &Shared, segment: &Segment) -> Result<(), WriteIndexError> {
    let frames = segment.frames.read().clone();
    let Frames::Memory { directory, complete: Some(end) } = frames else { return Ok(()) };
    let ends = shared.ends_before(segment.header.no)?;
    let last_ms = segment.last_ms.load(Ordering::Acquire);
    let bytes = directory.read().encode(&segment.header, end, last_ms, ends);
    write_file(&shared.dir, &segment.header.index_name(), &bytes)?;
    *segment.frames.write() = Frames::File;
    Ok(())
}

/// Frees the segments in which every shard is past its retention, trimmed, or dropped.
fn reclaim(
    shared: &Shared,
    segments: &[Arc<Segment>],
    kept: &HashMap<ShardUid, Kept>,
) -> Result<usize, LogError> {
    let now = shared.clock.now();
    let is_kept = |(shard, end): (ShardUid, RecordIndex)| {
        kept.get(&shard).is_some_and(|kept| kept.reaches(end, now))
    };
    // The first segment without an index needs the one before it, which knows where the shards that
    // are idle end.
    let all = shared.segments.read().clone();
    let carries = all.windows(2).find(|pair| !pair[1].is_indexed()).map(|pair| &pair[0]);
    let mut freed = 0;
    for segment in segments {
        if carries.is_some_and(|carries| Arc::ptr_eq(carries, segment)) {
            continue;
        }
        if segment.pinned.lock().is_some_and(is_kept) {
            continue;
        }
        // Its index is still to be written.
        if !segment.is_indexed() {
            continue;
        }
        let index = shared.index(segment)?;
        let looked_at = if planted(Bug::FreeEarly) { 1 } else { usize::MAX };
        let pin = index.shards().take(looked_at).find(|&at| is_kept(at));
        *segment.pinned.lock() = pin;
        if pin.is_none() {
            free(shared, segment).map_err(|e| {
                // What the names on the disk are is unknown, as with any write that failed.
                shared.fail(&format!("freeing {}: {e}", segment.name()));
                super::shared::unavailable(&segment.name(), &e)
            })?;
            freed += 1;
        }
    }
    metrics::gauge!("hydrant_log_segments").set(shared.segments.read().len() as f64);
    if let Ok(free) = shared.dir.free_bytes() {
        metrics::gauge!("hydrant_log_free_bytes").set(free as f64);
    }
    Ok(freed)
}

pub(super) fn free(shared: &Shared, segment: &Arc<Segment>) -> io::Result<()> {
    shared.segments.write().retain(|s| !Arc::ptr_eq(s, segment));
    shared.forget_index(segment);
    if segment.is_archived() {
        return archived::free(shared, segment);
    }
    let (disk, name) = (&shared.dir.disk, segment.name());
    let len = disk.open(&shared.dir.file(&name))?.size()?;
    let wanted = shared.spares.lock().len() < SPARES_MAX;
    let recycle = wanted && len == shared.options.segment_bytes;
    let spare = recycle.then(|| spare_name(shared));
    match &spare {
        Some(spare) => shared.dir.rename(&name, spare)?,
        None => disk.remove(&shared.dir.file(&name))?,
    }
    disk.remove(&shared.dir.file(&segment.header.index_name()))?;
    shared.dir.sync()?;
    shared.spares.lock().extend(spare);
    Ok(())
}
