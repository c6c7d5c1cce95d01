//! The log in memory: every word of the port, nothing that survives the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use hydrant_core::log::{
    Durable, LogEngine, LogError, ReadLimit, ReadPage, ShardUid, Synced, Tail,
};
use hydrant_core::record::{Frame, RecordBatch};
use hydrant_core::sequence::{IndexRange, RecordIndex};
use hydrant_core::{Clock, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A [`LogEngine`] whose shards are vectors. Keeps every record that was not trimmed, so a longer
/// retention brings all of them back.
///
/// No record of any shard arrives before one that was appended earlier: like the embedded log, it
/// holds a clock that steps back for all shards together.
pub struct MemoryLog {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shards: HashMap<ShardUid, Shard>,
    last_arrival: Timestamp,
}

struct Shard {
    retention: Duration,
    trimmed: RecordIndex,
    end: RecordIndex,
    sealed: bool,
    frames: Vec<Frame>,
    changed: Arc<Notify>,
}

impl Shard {
    fn tail(&self, now: Timestamp) -> Tail {
        let expired = RecordIndex::at(now.minus(self.retention));
        // Never above the end: a reader that goes on from the horizon must not pass a record that a
        // clock set back numbers below it.
        let horizon = self.trimmed.max(expired).min(self.end);
        Tail { horizon, end: self.end, sealed: self.sealed }
    }

    fn append(&mut self, batch: RecordBatch, now: Timestamp) -> Result<IndexRange, LogError> {
        if self.sealed {
            return Err(LogError::Sealed);
        }
        let count = batch.len() as u32;
        let first = self.end.first_for(now, count);
        let (offsets, records) = batch.into_parts();
        let frame = Frame::new(first, first.time(), offsets, records)
            .map_err(|_| LogError::Invalid("not as RecordBatch encodes it"))?;
        self.end = frame.end();
        self.frames.push(frame);
        self.changed.notify_waiters();
        Ok(IndexRange { first, count })
    }

    fn read(&self, from: RecordIndex, limit: ReadLimit, now: Timestamp) -> ReadPage {
        let tail = self.tail(now);
        let mut page = ReadPage { frames: Vec::new(), next: from.max(tail.horizon), tail };
        let (mut records_left, mut bytes_left) = (limit.records_max.max(1), limit.bytes_max);
        let skip = self.frames.partition_point(|f| f.end() <= page.next);
        for frame in &self.frames[skip..] {
            let whole = frame.slice(page.next, records_left);
            let fits = whole
                .records()
                .take_while(|r| {
                    let left = bytes_left.checked_sub(r.size_bytes());
                    bytes_left = left.unwrap_or(bytes_left);
                    left.is_some()
                })
                .count();
            let take = if page.is_empty() { fits.max(1) } else { fits };
            if take > 0 {
                let part = whole.slice(page.next, take);
                page.next = part.end();
                page.frames.push(part);
            }
            records_left -= take;
            if take < whole.len() || fits < take || records_left == 0 {
                break;
            }
        }
        page
    }
}

impl MemoryLog {
    /// A log without shards.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn with<T>(
        &self,
        shard: ShardUid,
        act: impl FnOnce(&mut Shard, Timestamp) -> T,
    ) -> Result<T, LogError> {
        let now = self.clock.now();
        self.state.lock().shards.get_mut(&shard).map(|s| act(s, now)).ok_or(LogError::NotFound)
    }
}

#[async_trait]
impl LogEngine for MemoryLog {
    async fn create(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError> {
        self.state.lock().shards.entry(shard).or_insert_with(|| Shard {
            retention,
            trimmed: RecordIndex::MIN,
            end: RecordIndex::MIN,
            sealed: false,
            frames: Vec::new(),
            changed: Arc::default(),
        });
        Ok(())
    }

    async fn append(
        &self,
        shard: ShardUid,
        batch: RecordBatch,
    ) -> Result<Durable<IndexRange>, LogError> {
        if batch.is_empty() {
            return Err(LogError::Invalid("it holds no record"));
        }
        if batch.encoded_bytes() > FRAME_BYTES_MAX || batch.len() > FRAME_RECORDS_MAX {
            return Err(LogError::Invalid("it is larger than a frame may be"));
        }
        if batch.data_key().is_some() {
            return Err(LogError::Invalid("it has to be encrypted first"));
        }
        let now = self.clock.now();
        let mut state = self.state.lock();
        let held = now.max(state.last_arrival);
        let found = state.shards.get_mut(&shard).ok_or(LogError::NotFound)?;
        let range = found.append(batch, held)?;
        state.last_arrival = range.first.time();
        // As durable as anything gets in memory.
        Ok(Durable::new(range, &Synced::by_completed_sync()))
    }

    async fn read(
        &self,
        shard: ShardUid,
        from: RecordIndex,
        limit: ReadLimit,
    ) -> Result<ReadPage, LogError> {
        self.with(shard, |s, now| s.read(from, limit, now))
    }

    async fn wait(&self, shard: ShardUid, past: RecordIndex) -> Result<Tail, LogError> {
        loop {
            let changed = self.with(shard, |s, _| s.changed.clone())?;
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let tail = self.tail(shard).await?;
            if tail.end > past || tail.sealed {
                return Ok(tail);
            }
            notified.await;
        }
    }

    async fn locate(&self, shard: ShardUid, time: Timestamp) -> Result<RecordIndex, LogError> {
        self.with(shard, |s, now| RecordIndex::at(time).max(s.tail(now).horizon))
    }

    async fn tail(&self, shard: ShardUid) -> Result<Tail, LogError> {
        self.with(shard, |s, now| s.tail(now))
    }

    async fn seal(&self, shard: ShardUid) -> Result<Tail, LogError> {
        self.with(shard, |s, now| {
            s.sealed = true;
            s.changed.notify_waiters();
            s.tail(now)
        })
    }

    async fn trim(&self, shard: ShardUid, before: RecordIndex) -> Result<(), LogError> {
        self.with(shard, |s, _| {
            s.trimmed = s.trimmed.max(before.min(s.end));
            let gone = s.frames.partition_point(|f| f.end() <= s.trimmed);
            s.frames.drain(..gone);
        })
    }

    async fn set_retention(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError> {
        self.with(shard, |s, _| s.retention = retention)
    }

    async fn drop_shard(&self, shard: ShardUid) -> Result<(), LogError> {
        if let Some(dropped) = self.state.lock().shards.remove(&shard) {
            dropped.changed.notify_waiters();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conforms() {
        crate::log_conformance(async |clock| Arc::new(MemoryLog::new(clock)) as _).await;
    }

    #[tokio::test]
    async fn is_its_own_model() {
        for seed in 0..20 {
            let mut log: Option<Arc<MemoryLog>> = None;
            crate::log_model(seed, 200, async |clock| {
                log.get_or_insert_with(|| Arc::new(MemoryLog::new(clock))).clone() as _
            })
            .await;
        }
    }
}
