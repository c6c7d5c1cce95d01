//! A log compared with the log in memory, over seeded random operations.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::log::{LogEngine, LogError, ReadLimit, ShardUid};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::RecordIndex;
use hydrant_core::{Clock, Random, Timestamp};

use crate::{ManualClock, MemoryLog};

const SHARDS: u64 = 6;

/// Applies `operations` random operations to a log and to [`MemoryLog`], one after the other, and
/// panics, naming the seed, where they answer differently. Every operation may be followed by
/// another call of `open`, which returns the same log opened again, after a clean close or after a
/// crash; what it returned before is dropped by then. The caller's duty: a log that keeps the bytes of expired records, since
/// a longer retention may bring them back.
pub async fn log_model(
    seed: u64,
    operations: usize,
    mut open: impl AsyncFnMut(Arc<ManualClock>) -> Arc<dyn LogEngine>,
) {
    let random = Random::from_seed(seed);
    let below = |n: u64| random.next_u64() % n;
    let clock = Arc::new(ManualClock::default());
    let model = MemoryLog::new(clock.clone());
    let mut log = open(clock.clone()).await;
    let mut marks = vec![RecordIndex::MIN, RecordIndex::MAX];
    for step in 0..operations {
        let shard = ShardUid(1 + below(SHARDS));
        let at = marks[below(marks.len() as u64) as usize];
        let hours = Duration::from_secs(below(50) * 3600);
        let what = below(100);
        let (ours, theirs) = match what {
            0..40 => {
                let (one, other) = twin_batches(&random);
                let ours = log.append(shard, one).await.map(|d| d.into_inner());
                if let Ok(range) = ours {
                    marks.extend([range.first, range.nth(range.count / 2), range.end()]);
                }
                (show(ours), show(model.append(shard, other).await.map(|d| d.into_inner())))
            }
            40..65 => {
                let limit =
                    ReadLimit { records_max: below(12) as usize, bytes_max: below(4_000) as usize };
                (read(&*log, shard, at, limit).await, read(&model, shard, at, limit).await)
            }
            65..72 => (show(log.tail(shard).await), show(model.tail(shard).await)),
            72..80 => {
                (show(log.create(shard, hours).await), show(model.create(shard, hours).await))
            }
            80..84 => (
                show(log.set_retention(shard, hours).await),
                show(model.set_retention(shard, hours).await),
            ),
            84..87 => (show(log.trim(shard, at).await), show(model.trim(shard, at).await)),
            87 => (show(log.seal(shard).await), show(model.seal(shard).await)),
            88..90 => {
                let time = clock.now().minus(hours);
                (show(log.locate(shard, time).await), show(model.locate(shard, time).await))
            }
            90..96 => {
                step_clock(&clock, &random);
                continue;
            }
            _ => {
                drop(log);
                log = open(clock.clone()).await;
                continue;
            }
        };
        assert_eq!(
            ours, theirs,
            "seed {seed}, step {step}, operation {what} on {shard:?} at {at:?}"
        );
    }
    for shard in (1..=SHARDS).map(ShardUid) {
        let all = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
        let ours = read(&*log, shard, RecordIndex::MIN, all).await;
        assert_eq!(
            ours,
            read(&model, shard, RecordIndex::MIN, all).await,
            "seed {seed}, {shard:?}"
        );
    }
}

fn show<T: std::fmt::Debug>(answer: Result<T, LogError>) -> String {
    format!("{answer:?}")
}

fn twin_batches(random: &Random) -> (RecordBatch, RecordBatch) {
    let (mut one, mut other) = (RecordBatch::new(), RecordBatch::new());
    for _ in 0..random.next_u64() % 6 {
        let size = match random.next_u64() % 10 {
            0 => 20_000,
            1..4 => 1_000,
            _ => 40,
        };
        let mut data = vec![0; (random.next_u64() % size) as usize];
        random.fill(&mut data);
        let key = random.next_u64().to_string();
        one.push(key.as_bytes(), &data);
        other.push(key.as_bytes(), &data);
    }
    (one, other)
}

fn step_clock(clock: &ManualClock, random: &Random) {
    let by = Duration::from_millis(random.next_u64() % 3_600_000);
    match random.next_u64() % 10 {
        0 => clock.set(clock.now().minus(by * 10)),
        1 => clock.set(Timestamp::ZERO),
        2 => clock.set(ManualClock::default().now().plus(by)),
        _ => clock.advance(by),
    }
}

/// What a reader sees of a page, whatever the frames it came in.
async fn read(log: &dyn LogEngine, shard: ShardUid, from: RecordIndex, limit: ReadLimit) -> String {
    match log.read(shard, from, limit).await {
        Ok(page) => {
            let records: Vec<_> = page.frames.iter().flat_map(|f| f.records()).collect();
            format!("{records:?} {:?} {:?}", page.next, page.tail)
        }
        Err(e) => e.to_string(),
    }
}
