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
    shards: HashMap<ShardUid, Held>,
}

/// What is held of a shard: its frames, and where the records start of which none is left out. That is
/// below the first frame where time went by before it, as indexes go by the clock.
struct Held {
    from: RecordIndex,
    frames: VecDeque<Frame>,
}

impl Cache {
    /// An empty cache of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Adds a shard's next frame, whose body has `body_bytes`; the shard ended at `after` before. The
    /// caller's duty: no frame of the shard is left out.
    pub(super) fn push(
        &mut self,
        shard: ShardUid,
        after: RecordIndex,
        frame: Frame,
        body_bytes: usize,
    ) {
        let bytes = body_bytes + FRAME_OVERHEAD_BYTES;
        self.bytes += bytes;
        self.ring.push_back((shard, bytes));
        let held = || Held { from: after, frames: VecDeque::new() };
        self.shards.entry(shard).or_insert_with(held).frames.push_back(frame);
        while self.bytes > self.bytes_max
            && let Some((shard, bytes)) = self.ring.pop_front()
        {
            self.bytes -= bytes;
            if let Some(held) = self.shards.get_mut(&shard) {
                held.from = held.frames.pop_front().map_or(held.from, |frame| frame.end());
                if held.frames.is_empty() {
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
        let Some(Held { frames, .. }) = self.shards.get(&shard).filter(|h| h.from <= from) else {
            return false;
        };
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
            cache.push(ShardUid(n % 2), RecordIndex(n.saturating_sub(1)), frame(n), 10);
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
        assert_eq!(read(0, 15), Some(vec![16, 18]), "14 ended at 15");
        assert_eq!(read(0, 40), Some(vec![]));
        assert_eq!(read(7, 0), None);
        assert_eq!(cache.bytes, cache.bytes_max);
    }

    #[test]
    fn knows_where_a_shard_ended_before_its_first_frame() {
        let mut cache = Cache::new(1 << 10);
        cache.push(ShardUid(1), RecordIndex::MIN, frame(1_000), 10);
        cache.push(ShardUid(2), RecordIndex(500), frame(1_001), 10);
        let read = |shard, from| {
            let mut found = 0;
            cache.read(ShardUid(shard), RecordIndex(from), |_| {
                found += 1;
                true
            }) && found == 1
        };
        assert!(read(1, 0), "a shard that had nothing before is held whole");
        assert!(read(2, 500));
        assert!(!read(2, 499), "there are records on the disk");
    }
}
