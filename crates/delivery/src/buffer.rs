//! The buffer of a delivery stream: decides what goes into a batch, and when.
//!
//! Pure, and it holds no record: only which ranges of which shards it has seen, and how much that
//! is. One buffer stands over all shards of a delivery stream, so that a batch, and with it an
//! object, is as large as the hints say however many shards there are.

use std::collections::HashMap;

use hydrant_core::clock::Timestamp;
use hydrant_core::log::ShardUid;
use hydrant_core::record::Frame;
use hydrant_core::sequence::RecordIndex;
use serde::{Deserialize, Serialize};

use crate::stream::Hints;

/// What a record costs in memory beside its bytes: its place in the frame, and its head.
const RECORD_OVERHEAD_BYTES: u64 = 11;
/// A batch is also cut when its frames take this much memory, keys and heads included: a flood of
/// records with hardly any data would otherwise take many times the hint.
pub(crate) const BATCH_MEMORY_BYTES_MAX: u64 = 192 << 20;
/// Most shards in one batch: their checkpoints move in one commit.
const BATCH_SHARDS_MAX: usize = 5_000;

/// Records of one shard: those with an index in `from..to`, of which there are `records`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) shard: ShardUid,
    pub(crate) from: RecordIndex,
    pub(crate) to: RecordIndex,
    pub(crate) records: u64,
}

/// What was in the buffer when it was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// In the order in which the shards came, so a child is behind its parents.
    pub(crate) ranges: Vec<Range>,
    pub(crate) first_arrival: Timestamp,
    /// Bytes of data.
    pub(crate) data_bytes: u64,
    /// Bytes the frames take in memory, keys and heads included.
    pub(crate) memory_bytes: u64,
}

/// Ranges of records that wait to become a batch.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    ranges: Vec<Range>,
    place: HashMap<ShardUid, usize>,
    first_arrival: Option<Timestamp>,
    /// What the interval is counted from: the arrival of the oldest record, or the earliest moment
    /// that the clock has shown since, if it was set back behind that.
    waits_since: Option<Timestamp>,
    data_bytes: u64,
    memory_bytes: u64,
}

impl Buffer {
    /// Takes the frame's records up to the one that fills the buffer, and returns how many it took.
    /// So a batch has at most `SizeInMBs` and one record.
    pub(crate) fn add(&mut self, shard: ShardUid, frame: &Frame, hints: Hints) -> usize {
        let mut taken = 0;
        for record in frame.records() {
            if self.is_full(hints) {
                break;
            }
            self.data_bytes += record.data.len() as u64;
            self.memory_bytes += record.size_bytes() as u64 + RECORD_OVERHEAD_BYTES;
            taken += 1;
        }
        if taken > 0 {
            self.extend(shard, &frame.slice(frame.first(), taken));
        }
        taken
    }

    fn extend(&mut self, shard: ShardUid, taken: &Frame) {
        let (to, records) = (taken.end(), taken.len() as u64);
        let place = *self.place.entry(shard).or_insert(self.ranges.len());
        match self.ranges.get_mut(place) {
            Some(range) => {
                range.to = to;
                range.records += records;
            }
            None => self.ranges.push(Range { shard, from: taken.first(), to, records }),
        }
        let arrival = taken.arrival();
        let earlier = |seen: Option<Timestamp>| Some(seen.map_or(arrival, |s| s.min(arrival)));
        self.first_arrival = earlier(self.first_arrival);
        self.waits_since = earlier(self.waits_since);
    }

    /// Whether nothing more goes in.
    pub(crate) fn is_full(&self, hints: Hints) -> bool {
        self.data_bytes >= hints.size_bytes()
            || self.memory_bytes >= BATCH_MEMORY_BYTES_MAX
            || self.ranges.len() >= BATCH_SHARDS_MAX
    }

    /// When the batch is to be cut even if nothing more comes: the interval after the arrival of its
    /// oldest record, and never more than the interval after `now`, wherever the clock stood when it
    /// arrived. `None` while the buffer is empty.
    pub(crate) fn due(&mut self, hints: Hints, now: Timestamp) -> Option<Timestamp> {
        self.waits_since = self.waits_since.map(|since| since.min(now));
        self.waits_since.map(|since| since.plus(hints.interval()))
    }

    /// The batch, if there is one to be cut at `now`; the buffer is empty then.
    pub(crate) fn cut(&mut self, hints: Hints, now: Timestamp) -> Option<Cut> {
        let due = self.due(hints, now)?;
        if !self.is_full(hints) && now < due {
            return None;
        }
        self.cut_now()
    }

    /// The batch of whatever there is, due or not.
    pub(crate) fn cut_now(&mut self) -> Option<Cut> {
        let full = std::mem::take(self);
        Some(Cut {
            ranges: full.ranges,
            first_arrival: full.first_arrival?,
            data_bytes: full.data_bytes,
            memory_bytes: full.memory_bytes,
        })
    }

    /// Bytes of data in the buffer.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }
}

#[cfg(test)]
mod tests;
