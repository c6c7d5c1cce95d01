//! The tap: reads the shards of a delivery stream's source, from their checkpoints on.
//!
//! While a shard has nothing new, all there is of it is one future that waits in the log. A shard
//! of a reshard is read when its parents are read to their end, never before.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hydrant_core::catalog::{
    Held, Shard, ShardId, Stream, StreamCatalog, StreamState, StreamStatus,
};
use hydrant_core::clock::{Clock, Timestamp};
use hydrant_core::log::{LogEngine, LogError, ReadLimit, ShardUid, Tail};
use hydrant_core::sequence::RecordIndex;

use crate::buffer::Buffer;
use crate::stream::{DeliveryStream, Hints, Source};

/// Most records one read asks for.
const READ_RECORDS_MAX: usize = 10_000;
/// Most bytes one read asks for.
const READ_BYTES_MAX: usize = 4 << 20;

type Wait = BoxFuture<'static, (ShardUid, Result<Tail, LogError>)>;

/// Where reading a shard stands.
struct Reading {
    next: RecordIndex,
    /// Nothing below this was there to be read: `next`, or the moment at which the shard was last
    /// found empty.
    clear_to: RecordIndex,
}

impl Reading {
    /// Whether records between here and the horizon may have gone unread.
    fn may_miss(&self, tail: &Tail) -> bool {
        tail.horizon > self.clear_to && tail.end > self.next
    }
}

/// A shard with a checkpoint, or one that starts with its first record.
#[derive(Clone, Debug)]
struct Known {
    id: ShardId,
    uid: ShardUid,
    /// Since when it takes records. (The moment of its creation is later than that of its first
    /// records, by the second that keeps its sequence numbers above its parents'.)
    opened: Timestamp,
    parents: Vec<ShardId>,
}

impl Known {
    fn of(stream: &Stream, shard: &Shard) -> Self {
        let opened = stream.opened(shard).min(shard.created);
        Self { id: shard.id, uid: shard.uid, opened, parents: shard.parents().collect() }
    }
}

/// Reads the shards of one delivery stream.
pub(crate) struct Tap {
    log: Arc<dyn LogEngine>,
    clock: Arc<dyn Clock>,
    stream: Arc<DeliveryStream>,
    /// Where shards were delivered to when the tap was opened.
    checkpoints: HashMap<ShardUid, RecordIndex>,
    reading: BTreeMap<ShardUid, Reading>,
    /// Shards with something to read, or that may have.
    ready: VecDeque<ShardUid>,
    waits: FuturesUnordered<Wait>,
    /// Shards read to their end, for good.
    ended: HashSet<ShardUid>,
    /// Shards whose parents are not read to their end yet.
    later: Vec<Known>,
    /// Every shard seen so far, started or not.
    seen: HashSet<ShardUid>,
}

impl Tap {
    /// A tap on nothing yet: call [`Tap::refresh`].
    pub(crate) fn new(
        log: Arc<dyn LogEngine>,
        clock: Arc<dyn Clock>,
        stream: Arc<DeliveryStream>,
        checkpoints: HashMap<ShardUid, RecordIndex>,
    ) -> Self {
        Self {
            log,
            clock,
            stream,
            checkpoints,
            reading: BTreeMap::new(),
            ready: VecDeque::new(),
            waits: FuturesUnordered::new(),
            ended: HashSet::new(),
            later: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// Looks for new shards of the source, and returns all it has.
    pub(crate) async fn refresh(
        &mut self,
        streams: &StreamCatalog,
    ) -> Result<HashSet<ShardUid>, LogError> {
        let shards: Vec<Known> = match self.stream.source.stream() {
            None => vec![Known {
                id: ShardId(0),
                uid: self.stream.uid,
                opened: self.stream.created,
                parents: Vec::new(),
            }],
            Some(stream) => {
                // Shards that are not in the log yet would pass for shards that are gone.
                let made = |held: &Held| {
                    !matches!(held.stream.state, StreamState::Creating(Timestamp::MAX))
                };
                let held = streams.get(&self.stream.scope, stream).filter(made);
                let known = |stream: &Stream| {
                    stream.shards.iter().map(|shard| Known::of(stream, shard)).collect()
                };
                held.map(|held| known(&held.stream)).unwrap_or_default()
            }
        };
        let there: HashSet<ShardUid> = shards.iter().map(|s| s.uid).collect();
        let by_id: HashMap<ShardId, ShardUid> = shards.iter().map(|s| (s.id, s.uid)).collect();
        let known = |parent: &ShardId| by_id.contains_key(parent);
        for mut shard in shards {
            if self.seen.insert(shard.uid) {
                // A parent the catalog no longer has has expired, and holds nobody up.
                shard.parents.retain(known);
                self.later.push(shard);
            }
        }
        self.start_children(&by_id).await?;
        // What has expired does not come back.
        self.seen.retain(|uid| there.contains(uid));
        self.ended.retain(|uid| there.contains(uid));
        Ok(there)
    }

    /// Starts the shards whose parents are done.
    async fn start_children(&mut self, by_id: &HashMap<ShardId, ShardUid>) -> Result<(), LogError> {
        let (start, later) = std::mem::take(&mut self.later).into_iter().partition(|shard| {
            shard.parents.iter().all(|p| by_id.get(p).is_none_or(|uid| self.ended.contains(uid)))
        });
        self.later = later;
        let start: Vec<Known> = start;
        for shard in start {
            let checkpoint = self.checkpoints.get(&shard.uid).copied();
            let (log, source) = (self.log.as_ref(), &self.stream.source);
            match first_index(log, source, &shard, checkpoint).await {
                Ok(next) => {
                    // No record is older than the shard.
                    let clear_to = next.max(RecordIndex::at(shard.opened));
                    self.reading.insert(shard.uid, Reading { next, clear_to });
                    self.ready.push_back(shard.uid);
                }
                Err(LogError::NotFound) => drop(self.ended.insert(shard.uid)),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads into the buffer until it is full or there is nothing more to read now. True if a shard
    /// ended, so that its children are to be looked for.
    pub(crate) async fn fill(
        &mut self,
        buffer: &mut Buffer,
        hints: Hints,
    ) -> Result<bool, LogError> {
        let mut ended = false;
        while !buffer.is_full(hints) {
            let Some(shard) = self.ready.pop_front() else { break };
            // Back to the front on an early return: a shard that is not waited for must be ready.
            self.ready.push_front(shard);
            let more = self.read(shard, buffer, hints).await?;
            self.ready.pop_front();
            match more {
                More::Now => {
                    self.ready.push_back(shard);
                    // A log that answers from memory never waits, and others want to run too.
                    tokio::task::yield_now().await;
                }
                More::Later => self.wait_for(shard),
                More::Never => {
                    self.reading.remove(&shard);
                    self.ended.insert(shard);
                    ended = true;
                }
            }
        }
        Ok(ended)
    }

    async fn read(
        &mut self,
        shard: ShardUid,
        buffer: &mut Buffer,
        hints: Hints,
    ) -> Result<More, LogError> {
        let Some(reading) = self.reading.get_mut(&shard) else { return Ok(More::Never) };
        let limit = ReadLimit { records_max: READ_RECORDS_MAX, bytes_max: READ_BYTES_MAX };
        let now = self.clock.now();
        let page = match self.log.read(shard, reading.next, limit).await {
            Ok(page) => page,
            Err(LogError::NotFound) => {
                tracing::warn!(delivery_stream = %self.stream.name, shard = shard.0,
                    "the shard is gone from the log; records of it that were not delivered are lost");
                return Ok(More::Never);
            }
            Err(e) => return Err(e),
        };
        if reading.may_miss(&page.tail) {
            crate::meter::gap(&self.stream);
            tracing::error!(delivery_stream = %self.stream.name, shard = shard.0,
                "records may have expired or been trimmed before they were delivered");
        }
        if page.is_empty() {
            // Whatever is below the end cannot be read any more, so the wait is for what is above it.
            reading.next = reading.next.max(page.next).max(page.tail.end);
            reading.clear_to = reading.next.max(RecordIndex::at(now));
            return Ok(if page.tail.sealed { More::Never } else { More::Later });
        }
        for frame in &page.frames {
            let taken = buffer.add(shard, frame, hints);
            reading.next = frame.slice(frame.first(), taken).end();
            if taken < frame.len() {
                break;
            }
        }
        reading.clear_to = reading.clear_to.max(reading.next);
        Ok(More::Now)
    }

    fn wait_for(&mut self, shard: ShardUid) {
        let Some(reading) = self.reading.get(&shard) else { return };
        let (log, past) = (Arc::clone(&self.log), reading.next);
        self.waits.push(Box::pin(async move { (shard, log.wait(shard, past).await) }));
    }

    /// Whether the source is a stream that is being deleted, or is gone.
    pub(crate) fn source_goes(&self, streams: &StreamCatalog, now: Timestamp) -> bool {
        let Some(stream) = self.stream.source.stream() else { return false };
        let status = streams.get(&self.stream.scope, stream).and_then(|h| h.stream.status(now));
        matches!(status, None | Some(StreamStatus::Deleting))
    }

    /// Whether a read may find something.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Waits until a read may find something; for ever if there is no shard to wait for. Nothing is
    /// lost when the future is dropped.
    pub(crate) async fn wait(&mut self) -> Result<(), LogError> {
        if self.is_ready() {
            return Ok(());
        }
        let (next, at_once) = match self.waits.next().now_or_never() {
            Some(next) => (next, true),
            None => (self.waits.next().await, false),
        };
        let Some((shard, woken)) = next else { return std::future::pending().await };
        self.ready.push_back(shard);
        // Nobody did anything else meanwhile, so what woke us has only just arrived.
        if !at_once && let Some(reading) = self.reading.get_mut(&shard) {
            reading.clear_to = reading.clear_to.max(RecordIndex::at(self.clock.now()));
        }
        match woken {
            // The read finds out that the shard is gone.
            Ok(_) | Err(LogError::NotFound) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Where a shard is read from: its checkpoint, else the start of the source, else its first record.
async fn first_index(
    log: &dyn LogEngine,
    source: &Source,
    shard: &Known,
    checkpoint: Option<RecordIndex>,
) -> Result<RecordIndex, LogError> {
    match (checkpoint, source) {
        (Some(next), _) => Ok(next),
        (None, Source::Kinesis { start, .. }) if shard.opened < *start => {
            log.locate(shard.uid, *start).await
        }
        (None, _) => Ok(RecordIndex::MIN),
    }
}

/// When there is more to read of a shard.
enum More {
    Now,
    Later,
    Never,
}

#[cfg(test)]
mod tests;
