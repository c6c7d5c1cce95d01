//! Reads the source's records of one table, from where the table stands up to a cut.

use hydrant_core::capture::{Cut, SourceRecord, read};
use hydrant_core::log::{LogEngine, LogError, ReadLimit, ReadPage, ShardUid};
use hydrant_core::record::Record;
use hydrant_core::sequence::RecordIndex;

use super::fold::Fold;
use super::schema::{Fault, anew};
use super::{Folded, Followed};
use crate::error::internal;
use crate::session::SqlError;

/// Bounds of one read of a shard.
const PAGE: ReadLimit = ReadLimit { records_max: 10_000, bytes_max: 1 << 20 };

/// How far reading came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// All of the cut.
    Reached,
    /// As much as memory may hold.
    Full,
    /// The records cannot be followed.
    Fault(Fault),
}

/// Folds the records between `at` and the cut, and moves `at` on. An error passes: the log did not
/// answer.
pub(super) async fn read_on(
    log: &dyn LogEngine,
    followed: &Followed,
    cut: &Cut,
    at: &mut Folded,
    fold: &mut Fold<'_>,
    fold_bytes: usize,
) -> Result<Read, SqlError> {
    // Parents have lower numbers than their children, so that the records of a row come in order.
    for (shard, mark) in &cut.shards {
        let mut reader = Reader { followed, cut, fold, fold_bytes, shard: *shard, mark: *mark };
        match reader.shard(log, at).await? {
            Read::Reached => {}
            other => return Ok(other),
        }
    }
    Ok(Read::Reached)
}

struct Reader<'a, 'f> {
    followed: &'a Followed,
    cut: &'a Cut,
    fold: &'a mut Fold<'f>,
    fold_bytes: usize,
    shard: ShardUid,
    mark: RecordIndex,
}

impl Reader<'_, '_> {
    async fn shard(&mut self, log: &dyn LogEngine, at: &mut Folded) -> Result<Read, SqlError> {
        loop {
            let known = at.shards.get(&self.shard).copied();
            let from = known.unwrap_or(RecordIndex::MIN);
            if from >= self.mark {
                return Ok(Read::Reached);
            }
            let page = match log.read(self.shard, from, PAGE).await {
                Ok(page) => page,
                Err(LogError::NotFound) => {
                    return Ok(Read::Fault(anew("a shard of the source's stream is gone")));
                }
                Err(e) => return Err(internal(e)),
            };
            if known.is_some_and(|from| page.tail.horizon > from) {
                return Ok(Read::Fault(expired()));
            }
            at.horizon =
                at.horizon.max(if known.is_none() { page.tail.horizon } else { RecordIndex::MIN });
            match self.page(&page, at) {
                Ok(next) => {
                    at.shards.insert(self.shard, next);
                }
                Err(fault) => return Ok(Read::Fault(fault)),
            }
            if self.fold.bytes >= self.fold_bytes {
                return Ok(Read::Full);
            }
        }
    }

    /// Folds a page; where to read on.
    fn page(&mut self, page: &ReadPage, at: &mut Folded) -> Result<RecordIndex, Fault> {
        for frame in &page.frames {
            for record in frame.records() {
                if record.index >= self.mark {
                    return Ok(self.mark);
                }
                self.record(&record, at)?;
            }
        }
        // The last record of the cut is below the mark: a page without any means that it expired.
        Ok(if page.is_empty() { self.mark } else { page.next.min(self.mark) })
    }

    fn record(&mut self, record: &Record<'_>, at: &mut Folded) -> Result<(), Fault> {
        let Some(read) = read(record.data) else { return Ok(()) };
        let stamp = read.stamp();
        if stamp.source != self.followed.source || stamp.epoch != self.cut.epoch {
            return Ok(());
        }
        match read {
            SourceRecord::SnapshotBegin(_) => {
                at.begin = Some(at.begin.map_or(record.index, |first| first.min(record.index)));
                Ok(())
            }
            SourceRecord::Change(change)
                if change.table == self.followed.table.table
                    && change.schema == self.followed.table.schema =>
            {
                self.fold.take(&change, record.data.len())
            }
            _ => Ok(()),
        }
    }
}

/// Records that were needed are past the stream's retention.
pub(super) fn expired() -> Fault {
    anew("records that the table needs are past the stream's retention")
}
