//! What of a source is in its stream already.
//!
//! After a start the server sends again what follows the stored position. Whatever of it reached the
//! log before the end is found there: within a shard a source's changes stand in order, so the last
//! one of each shard says what to leave out. For a hash key the last one of any shard that has held
//! it counts: a child of a split or merge goes on where its parents ended, for each parent's keys.

use std::collections::BTreeMap;

use hydrant_core::capture::{Cut, Op, Position, SourceRecord, read, read_back};
use hydrant_core::catalog::Stream;
use hydrant_core::hash::{HashKey, HashRange};
use hydrant_core::log::{LogEngine, LogError, ReadLimit, ShardUid};
use hydrant_core::sequence::RecordIndex;

/// One read of a shard.
pub(crate) const PAGE: ReadLimit = ReadLimit { records_max: 4_000, bytes_max: 4 << 20 };

/// What is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    ranges: Vec<(HashRange, Position)>,
    /// The last change of all: whatever is after it is new.
    last: Position,
    /// The first index past the source's records, by shard, also before the cut.
    pub(crate) ends: BTreeMap<ShardUid, RecordIndex>,
    /// Where the next search may begin: how far a shard was read, if nothing was found.
    pub(crate) floors: BTreeMap<ShardUid, RecordIndex>,
}

impl Marks {
    /// Reads every shard of the stream from the cut's mark on.
    pub(crate) async fn find(
        log: &dyn LogEngine,
        stream: &Stream,
        (source, cut): (&str, &Cut),
        floors: &BTreeMap<ShardUid, RecordIndex>,
    ) -> Result<Self, LogError> {
        let mut marks = Self::default();
        for shard in &stream.shards {
            let mark = cut.shards.get(&shard.uid).copied();
            let floor = floors.get(&shard.uid).copied();
            let mut from = mark.max(floor).unwrap_or(RecordIndex::MIN);
            let (start, mut found) = (from, None);
            let mut last = Position::default();
            loop {
                let page = log.read(shard.uid, from, PAGE).await?;
                let records = page
                    .frames
                    .iter()
                    .rev()
                    .flat_map(|frame| (0..frame.len()).rev().map(|n| frame.get(n)));
                let mut of_page = None;
                for record in records {
                    let Some(stamp) = read_back(record.data) else { continue };
                    if stamp.source != source || stamp.epoch != cut.epoch {
                        continue;
                    }
                    of_page.get_or_insert(record.index.next());
                    if is_change(record.data) {
                        last = last.max(stamp.position);
                        break;
                    }
                }
                found = found.max(of_page);
                from = page.next;
                if page.is_empty() || page.next >= page.tail.end {
                    break;
                }
            }
            let clean = if found.is_some() { start } else { from };
            marks.floors.insert(shard.uid, clean);
            if let Some(end) = mark.max(found) {
                marks.ends.insert(shard.uid, end);
            }
            if last > Position::default() {
                marks.ranges.push((shard.range, last));
                marks.last = marks.last.max(last);
            }
        }
        Ok(marks)
    }

    /// Whether a change at this position cannot be there yet, whatever its key.
    pub(crate) fn is_past(&self, position: Position) -> bool {
        position > self.last
    }

    /// The last change of all.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// Whether the change at this position with this hash key is there.
    pub(crate) fn has(&self, key: HashKey, position: Position) -> bool {
        let mut held = self.ranges.iter().filter(|(range, _)| range.contains(key));
        held.any(|(_, last)| position <= *last)
    }

    /// Whether the record at this position, which goes to a whole shard, is there for all its keys.
    pub(crate) fn has_all(&self, range: HashRange, position: Position) -> bool {
        let starts = self.ranges.iter().map(|(held, _)| held.start);
        let behind =
            self.ranges.iter().filter_map(|(held, _)| held.end.0.checked_add(1).map(HashKey));
        let edges = starts.chain(behind).filter(|edge| range.contains(*edge));
        std::iter::once(range.start).chain(edges).all(|key| self.has(key, position))
    }
}

/// Whether a record is a change, whose position says that those before it are there. Rows of a
/// snapshot, and what stands around them, say nothing of changes.
fn is_change(data: &[u8]) -> bool {
    match read(data) {
        Some(SourceRecord::Change(change)) => {
            change.op != Op::Read && change.stamp.position.seq > 0
        }
        Some(SourceRecord::Schema { stamp, .. } | SourceRecord::Other(stamp)) => {
            stamp.position.seq > 0
        }
        Some(SourceRecord::SnapshotBegin(_) | SourceRecord::SnapshotEnd(_)) | None => false,
    }
}
