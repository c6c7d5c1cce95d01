//! The embedded log on a disk in memory.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::Random;
use hydrant_core::log::{LogEngine, ReadLimit, ShardUid};
use hydrant_core::record::RecordBatch;
use hydrant_storage::{DataDir, Log, LogOptions, abort};
use hydrant_testkit::{ManualClock, MemoryControl};
use tokio::runtime::Runtime;

use crate::disk::MemoryDisk;
use crate::{Outcome, Work};

/// Small enough that to make one is not what is counted.
const SEGMENT_BYTES: u64 = 8 << 20;
const SHARD: ShardUid = ShardUid(1);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Appends of one run: all the runs together fill less than half a segment, so that no other is
/// prepared beside them.
const APPENDS: usize = 10;
/// Appends in the segment that is scanned: less than half of it, so that no other is prepared.
const SCANNED: usize = 50;

struct Place {
    runtime: Runtime,
    /// For its lock alone.
    folder: tempfile::TempDir,
    control: Arc<MemoryControl>,
}

impl Place {
    fn new() -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, folder: tempfile::tempdir()?, control: Arc::default() })
    }

    fn open(&self, disk: Arc<MemoryDisk>) -> Outcome<Arc<Log>> {
        let _inside = self.runtime.enter();
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: 1 << 20,
            free_bytes_min: 0,
            ..LogOptions::default()
        };
        let dir = DataDir::open(self.folder.path())?;
        let (control, clock) = (self.control.clone(), Arc::new(ManualClock::default()));
        Ok(Log::open_on(disk, &dir, options, control, clock, &Random::from_seed(1), abort())?)
    }

    /// Appends batches of 500 records of 100 bytes, each once the one before is durable.
    fn append(&self, log: &Log, times: usize) -> Outcome<()> {
        self.runtime.block_on(async {
            for _ in 0..times {
                let mut batch = RecordBatch::with_capacity(500, 500 * 120);
                (0..500).for_each(|_| batch.push(b"01234567890123456789", &[7; 100]));
                log.append(SHARD, batch).await?;
            }
            Ok(())
        })
    }
}

/// From an append until a reader at the tail has it.
pub(crate) fn appends() -> Outcome<Work> {
    let place = Place::new()?;
    let log = place.open(Arc::default())?;
    place.runtime.block_on(log.create(SHARD, DAY))?;
    Ok(Box::new(move || {
        let from = place.runtime.block_on(log.tail(SHARD))?.end;
        place.append(&log, APPENDS)?;
        let limit = ReadLimit { records_max: 10_000, bytes_max: 10 << 20 };
        let page = place.runtime.block_on(log.read(SHARD, from, limit))?;
        if page.is_empty() { Err("nothing to read".into()) } else { Ok(()) }
    }))
}

/// The start on a segment that was not ended.
pub(crate) fn recoveries() -> Outcome<Work> {
    let place = Place::new()?;
    let left = Arc::new(MemoryDisk::default());
    let log = place.open(left.clone())?;
    place.runtime.block_on(log.create(SHARD, DAY))?;
    place.append(&log, SCANNED)?;
    place.runtime.block_on(log.close());
    drop(log);
    Ok(Box::new(move || {
        let log = place.open(Arc::new(left.copy()))?;
        let tail = place.runtime.block_on(log.tail(SHARD))?;
        place.runtime.block_on(log.close());
        if tail.end > tail.horizon { Ok(()) } else { Err("nothing was found".into()) }
    }))
}
