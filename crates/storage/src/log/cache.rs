//! The tail cache: the latest frames of all shards, one ring bounded by bytes.

use std::collections::{HashMap, VecDeque};

use hydrant_core::log::ShardUid;
use hydrant_core::record::Frame;
use hydrant_core::sequence::RecordIndex;

/// What a frame costs beside its records: its offsets, its place in the ring and in its shard.
const FRAME_OVERHEAD_BYTES: usize = 160;

/// Of each shard in it, the cache holds the latest frames without a gap.
#[derive(Default)]
pub(super) struct Cache {
    bytes_max: usize,
    bytes: usize,
    ring: VecDeque<(ShardUid, usize)>,
    shards: HashMap<ShardUid, VecDeque<Frame>>,
}

impl Cache {
    /// An empty cache of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Adds a shard's next frame, whose body has `body_bytes`. The caller's duty: no frame of the
    /// shard is left out.
    pub(super) fn push(&mut self, shard: ShardUid, frame: Frame, body_bytes: usize) {
        let bytes = body_bytes + FRAME_OVERHEAD_BYTES;
        self.bytes += bytes;
        self.ring.push_back((shard, bytes));
        self.shards.entry(shard).or_default().push_back(frame);
        while self.bytes > self.bytes_max
            && let Some((shard, bytes)) = self.ring.pop_front()
        {
            self.bytes -= bytes;
            if let Some(frames) = self.shards.get_mut(&shard) {
                frames.pop_front();
                if frames.is_empty() {
                    self.shards.remove(&shard);
                }
            }
        }
    }

    /// Hands the shard's frames with records at `from` or above to `take`, until it has enough.
    /// Returns false, having handed out nothing, if some of them may be on the disk only.
    pub(super) fn read(
        &self,
        shard: ShardUid,
        from: RecordIndex,
        mut take: impl FnMut(&Frame) -> bool,
    ) -> bool {
        let Some(frames) = self.shards.get(&shard) else { return false };
        if frames.front().is_none_or(|f| f.first() > from) {
            return false;
        }
        let start = frames.partition_point(|f| f.end() <= from);
        let _ = frames.range(start..).find(|frame| !take(frame));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hydrant_core::Timestamp;
    use hydrant_core::record::RecordBatch;

    fn frame(first: u64) -> Frame {
        let mut batch = RecordBatch::new();
        batch.push(b"k", b"v");
        let (offsets, records) = batch.into_parts();
        Frame::new(RecordIndex(first), Timestamp::ZERO, offsets, records).unwrap()
    }

    #[test]
    fn holds_the_latest_frames_of_each_shard() {
        let mut cache = Cache::new(5 * (10 + FRAME_OVERHEAD_BYTES));
        for n in 0..20 {
            cache.push(ShardUid(n % 2), frame(n), 10);
        }
        let read = |shard, from| {
            let mut found = Vec::new();
            let hit = cache.read(ShardUid(shard), RecordIndex(from), |f| {
                found.push(f.first().0);
                true
            });
            hit.then_some(found)
        };
        assert_eq!(read(1, 15), Some(vec![15, 17, 19]));
        assert_eq!(read(0, 16), Some(vec![16, 18]));
        assert_eq!(read(0, 14), None, "evicted");
        assert_eq!(read(0, 15), None, "14 may have ended above 15 for all the cache knows");
        assert_eq!(read(0, 40), Some(vec![]));
        assert_eq!(read(7, 0), None);
        assert_eq!(cache.bytes, cache.bytes_max);
    }
}
