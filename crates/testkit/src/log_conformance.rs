//! Every promise of [`LogEngine`], checked.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::encryption::DataKeyId;
use hydrant_core::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use hydrant_core::log::{LogEngine, LogError, ReadLimit, ReadPage, ShardUid};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::{IndexRange, RecordIndex};
use hydrant_core::{Clock, Timestamp};

use crate::{ManualClock, soon};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ALL: ReadLimit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
const A: ShardUid = ShardUid(1);
const B: ShardUid = ShardUid(2);

type Engine = Arc<dyn LogEngine>;

/// Runs an implementation of the log port through every promise of its documentation; panics at the
/// first one broken. `make` opens an empty log that reads the time from the clock it is given; it is
/// called once a check. The caller's duty: a multi-threaded or an unpaused runtime.
pub async fn log_conformance(make: impl AsyncFn(Arc<ManualClock>) -> Engine) {
    let fresh = async || {
        let clock = Arc::new(ManualClock::default());
        let log = make(clock.clone()).await;
        log.create(A, DAY).await.unwrap();
        (log, clock)
    };
    let (log, _) = fresh().await;
    reads_back_what_was_appended(&*log).await;
    let (log, _) = fresh().await;
    unknown_shards_are_not_found(&*log).await;
    let (log, _) = fresh().await;
    creating_twice_changes_nothing(&*log).await;
    let (log, _) = fresh().await;
    refuses_batches_that_never_fit(&*log).await;
    let (log, _) = fresh().await;
    reads_within_the_limit(&*log).await;
    let (log, clock) = fresh().await;
    numbers_never_repeat(&*log, &clock).await;
    let (log, clock) = fresh().await;
    finds_a_time(&*log, &clock).await;
    let (log, _) = fresh().await;
    a_wait_ends(log).await;
    let (log, clock) = fresh().await;
    a_seal_is_the_last_word(log, &clock).await;
    let (log, _) = fresh().await;
    a_trim_never_comes_undone(&*log).await;
    let (log, clock) = fresh().await;
    retention_changes_at_once(&*log, &clock).await;
    let (log, _) = fresh().await;
    a_dropped_shard_is_gone(log).await;
    let (log, _) = fresh().await;
    shards_are_isolated(log).await;
    let (log, _) = fresh().await;
    concurrent_appends_are_whole(log).await;
}

/// A batch of records with these data blobs; the key of each is its place.
fn batch(data: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for (n, data) in data.iter().enumerate() {
        batch.push(n.to_string().as_bytes(), data.as_bytes());
    }
    batch
}

async fn put(log: &dyn LogEngine, shard: ShardUid, data: &[&str]) -> IndexRange {
    log.append(shard, batch(data)).await.unwrap().into_inner()
}

fn data_of(page: &ReadPage) -> Vec<String> {
    let records = page.frames.iter().flat_map(|f| f.records());
    records.map(|r| String::from_utf8(r.data.to_vec()).unwrap()).collect()
}

async fn data(log: &dyn LogEngine, shard: ShardUid) -> Vec<String> {
    data_of(&log.read(shard, RecordIndex::MIN, ALL).await.unwrap())
}

async fn reads_back_what_was_appended(log: &dyn LogEngine) {
    let empty = log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    assert!(empty.is_empty() && !empty.tail.sealed, "a new shard is empty and open");
    assert_eq!(empty.next, RecordIndex::MIN, "an empty page leaves the reader where it was");

    let mut first = RecordBatch::new();
    first.push(b"key", b"data");
    first.push(b"", b"");
    first.push("ключ".as_bytes(), &[0, 255, 10]);
    let range = log.append(A, first).await.unwrap().into_inner();
    assert_eq!(range.count, 3, "indices are consecutive");
    let later = put(log, A, &["later"]).await;
    assert!(later.first >= range.end(), "a later append has higher indices");

    let page = log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    assert!(page.frames.iter().all(|f| !f.is_empty()), "frames are never empty");
    let records: Vec<_> = page.frames.iter().flat_map(|f| f.records()).collect();
    let read: Vec<_> = records.iter().map(|r| (r.index, r.partition_key, r.data)).collect();
    let want: Vec<(RecordIndex, &[u8], &[u8])> = vec![
        (range.nth(0), b"key", b"data"),
        (range.nth(1), b"", b""),
        (range.nth(2), "ключ".as_bytes(), &[0, 255, 10]),
        (later.first, b"0", b"later"),
    ];
    assert_eq!(read, want);
    assert!(records.iter().all(|r| r.arrival == r.index.time()), "the index tells the arrival");
    assert_eq!(page.next, later.end(), "the page ends above its last record");
    assert_eq!(page.tail.end, later.end(), "an acknowledged record is below the end");
    let rest = log.read(A, range.nth(2), ALL).await.unwrap();
    assert_eq!(rest.len(), 2, "a read starts inside a batch");
    let beyond = log.read(A, later.end().plus(77), ALL).await.unwrap();
    assert!(beyond.is_empty() && beyond.next == later.end().plus(77));
}

async fn unknown_shards_are_not_found(log: &dyn LogEngine) {
    assert_eq!(log.append(B, batch(&["x"])).await.err(), Some(LogError::NotFound));
    assert_eq!(log.read(B, RecordIndex::MIN, ALL).await.err(), Some(LogError::NotFound));
    assert_eq!(log.wait(B, RecordIndex::MIN).await.err(), Some(LogError::NotFound));
    assert_eq!(log.locate(B, Timestamp::ZERO).await.err(), Some(LogError::NotFound));
    assert_eq!(log.tail(B).await.err(), Some(LogError::NotFound));
    assert_eq!(log.seal(B).await.err(), Some(LogError::NotFound));
    assert_eq!(log.trim(B, RecordIndex::MAX).await.err(), Some(LogError::NotFound));
    assert_eq!(log.set_retention(B, DAY).await.err(), Some(LogError::NotFound));
    assert_eq!(log.drop_shard(B).await, Ok(()), "dropping what is not there is no error");
}

async fn creating_twice_changes_nothing(log: &dyn LogEngine) {
    put(log, A, &["kept"]).await;
    let sealed = log.seal(A).await.unwrap();
    log.create(A, DAY * 2).await.unwrap();
    assert_eq!(log.tail(A).await.unwrap(), sealed);
    assert_eq!(data(log, A).await, ["kept"]);
}

async fn refuses_batches_that_never_fit(log: &dyn LogEngine) {
    let before = log.tail(A).await.unwrap();
    let mut large = RecordBatch::new();
    large.push(b"k", &vec![0; FRAME_BYTES_MAX]);
    let mut many = RecordBatch::new();
    (0..=FRAME_RECORDS_MAX).for_each(|_| many.push(b"", b""));
    for bad in [RecordBatch::new(), large, many] {
        let refused = log.append(A, bad).await;
        assert!(matches!(refused, Err(LogError::Invalid(_))), "{refused:?}");
    }
    let secret = batch(&["secret"]).encrypted_with(Some(DataKeyId(1)));
    assert!(log.append(A, secret).await.is_err(), "plain text instead of what was asked for");
    assert_eq!(log.tail(A).await.unwrap(), before, "a refused batch leaves no trace");
}

async fn reads_within_the_limit(log: &dyn LogEngine) {
    // Keys are one byte, so these count 5, 5, 101, 2 and 2 bytes.
    let large = "x".repeat(100);
    put(log, A, &["aaaa", "bbbb", &large]).await;
    put(log, A, &["c", "d"]).await;
    for (records_max, bytes_max, want) in [
        (1, usize::MAX, vec![1, 1, 1, 1, 1]),
        (2, usize::MAX, vec![2, 2, 1]),
        (4, usize::MAX, vec![4, 1]),
        (usize::MAX, usize::MAX, vec![5]),
        (usize::MAX, 9, vec![1, 1, 1, 2]),
        (usize::MAX, 10, vec![2, 1, 2]),
        (usize::MAX, 102, vec![2, 1, 2]),
        (usize::MAX, 103, vec![2, 2, 1]),
        (usize::MAX, 105, vec![2, 3]),
        (usize::MAX, 111, vec![3, 2]),
        (usize::MAX, 114, vec![4, 1]),
        (0, 0, vec![1, 1, 1, 1, 1]),
    ] {
        let limit = ReadLimit { records_max, bytes_max };
        let (mut at, mut sizes, mut all) = (RecordIndex::MIN, Vec::new(), Vec::new());
        loop {
            let page = log.read(A, at, limit).await.unwrap();
            if page.is_empty() {
                break;
            }
            sizes.push(page.len());
            all.extend(data_of(&page));
            at = page.next;
        }
        assert_eq!(sizes, want, "at most {records_max} records and {bytes_max} bytes a page");
        assert_eq!(all, ["aaaa", "bbbb", &large, "c", "d"], "pages join without gap or overlap");
    }
}

async fn numbers_never_repeat(log: &dyn LogEngine, clock: &ManualClock) {
    let start = clock.now();
    let mut last = RecordIndex::MIN;
    for (step, moment) in [
        ("the clock stands still", start),
        ("the clock stands still", start),
        ("the clock stepped back", start.minus(DAY * 400)),
        ("the clock is still behind", start.minus(Duration::from_millis(1))),
        ("the clock caught up", start.plus(Duration::from_millis(1))),
        ("the clock stepped back again", Timestamp::ZERO),
    ] {
        clock.set(moment);
        let range = put(log, A, &["x", "y"]).await;
        assert!(range.first >= last, "{step}: indices grow");
        assert!(range.first.time() >= start, "{step}: the arrival does not step back");
        last = range.end();
    }
    assert_eq!(log.tail(A).await.unwrap().end, last);
    clock.set(start);
    let records = log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    assert_eq!(records.len(), 12);
    clock.set(Timestamp::ZERO);
    assert_eq!(log.read(A, RecordIndex::MIN, ALL).await.unwrap().len(), 12);
    // Half a million records a frame: two of them fill a millisecond, the third must find another.
    clock.set(start.plus(DAY));
    log.set_retention(A, DAY * 9).await.unwrap();
    for _ in 0..3 {
        let mut many = RecordBatch::with_capacity(FRAME_RECORDS_MAX / 2, 0);
        (0..FRAME_RECORDS_MAX / 2).for_each(|_| many.push(b"", b""));
        let range = log.append(A, many).await.unwrap().into_inner();
        assert!(range.first >= last && range.first.time() == range.nth(range.count - 1).time());
        last = range.end();
    }
}

async fn finds_a_time(log: &dyn LogEngine, clock: &ManualClock) {
    let start = clock.now();
    let mut puts = Vec::new();
    for ms in [0, 0, 1, 5, 5, 1000] {
        clock.set(start.plus(Duration::from_millis(ms)));
        puts.push((clock.now(), put(log, A, &["x"]).await.first));
    }
    for ms in [0, 1, 2, 5, 6, 999, 1000, 1001, 100_000] {
        let time = start.plus(Duration::from_millis(ms));
        let found = log.locate(A, time).await.unwrap();
        for (arrival, index) in &puts {
            assert_eq!(*arrival >= time, *index >= found, "{arrival} against {time}");
        }
    }
    assert!(log.locate(A, Timestamp::ZERO).await.unwrap() <= puts[0].1);
    let future = log.locate(A, start.plus(DAY)).await.unwrap();
    clock.set(start.plus(DAY));
    assert!(put(log, A, &["y"]).await.first >= future, "a later record is at the place or above");
}

async fn a_wait_ends(log: Engine) {
    let first = put(&*log, A, &["x"]).await;
    let tail = soon("a wait for what is there", log.wait(A, first.first)).await.unwrap();
    assert_eq!(tail.end, first.end());
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let (log, past) = (log.clone(), first.end());
            tokio::spawn(async move { log.wait(A, past).await })
        })
        .collect();
    // One that gives up must not take the others' wake-up with it.
    let gone = tokio::time::timeout(Duration::from_millis(5), log.wait(A, first.end())).await;
    assert!(gone.is_err(), "nothing to see yet");
    assert!(waiters.iter().all(|w| !w.is_finished()), "nothing to see yet");
    log.create(B, DAY).await.unwrap();
    put(&*log, B, &["elsewhere"]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(waiters.iter().all(|w| !w.is_finished()), "another shard's record wakes nobody");
    let second = put(&*log, A, &["y"]).await;
    for waiter in waiters {
        let tail = soon("a wait for an append", waiter).await.unwrap().unwrap();
        assert_eq!(tail.end, second.end());
    }
    let waiter = tokio::spawn({
        let log = log.clone();
        async move { log.wait(A, RecordIndex::MAX).await }
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    let sealed = log.seal(A).await.unwrap();
    let tail = soon("a wait for a seal", waiter).await.unwrap().unwrap();
    assert_eq!(tail, sealed, "a seal ends every wait");
    assert_eq!(soon("a wait once sealed", log.wait(A, RecordIndex::MAX)).await, Ok(sealed));
}

async fn a_seal_is_the_last_word(log: Engine, clock: &ManualClock) {
    put(&*log, A, &["x"]).await;
    let racing: Vec<_> = (0..20)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { log.append(A, batch(&["raced"])).await })
        })
        .collect();
    let sealed = log.seal(A).await.unwrap();
    assert!(sealed.sealed);
    let mut taken = 1;
    for append in racing {
        match append.await.unwrap() {
            Ok(range) => {
                taken += 1;
                assert!(range.get().end() <= sealed.end, "below the end");
            }
            Err(e) => assert_eq!(e, LogError::Sealed),
        }
    }
    assert_eq!(log.read(A, RecordIndex::MIN, ALL).await.unwrap().len(), taken);
    assert_eq!(log.append(A, batch(&["late"])).await.err(), Some(LogError::Sealed));
    assert_eq!(log.seal(A).await.unwrap(), sealed, "sealing twice returns the same");
    clock.advance(DAY * 2);
    let expired = log.tail(A).await.unwrap();
    assert!(expired.sealed && expired.end == sealed.end);
    assert!(log.read(A, RecordIndex::MIN, ALL).await.unwrap().is_empty(), "retention goes on");
    log.create(B, DAY).await.unwrap();
    let empty = log.seal(B).await.unwrap();
    assert!(empty.sealed, "an empty shard can be sealed");
}

async fn a_trim_never_comes_undone(log: &dyn LogEngine) {
    let range = put(log, A, &["a", "b", "c"]).await;
    log.trim(A, range.nth(1)).await.unwrap();
    assert_eq!(data(log, A).await, ["b", "c"], "a trim cuts inside a batch");
    assert_eq!(log.tail(A).await.unwrap().horizon, range.nth(1));
    log.trim(A, RecordIndex::MIN).await.unwrap();
    assert_eq!(data(log, A).await, ["b", "c"], "a lower trim does nothing");
    log.set_retention(A, DAY * 300).await.unwrap();
    assert_eq!(data(log, A).await, ["b", "c"], "a longer retention brings nothing back");
    log.trim(A, RecordIndex::MAX).await.unwrap();
    assert_eq!(data(log, A).await.len(), 0);
    let page = log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    let later = put(log, A, &["d"]).await;
    assert!(page.next <= later.first, "a reader at the horizon misses nothing");
    assert_eq!(data(log, A).await, ["d"], "a trim hides what there is, never what comes later");
}

async fn retention_changes_at_once(log: &dyn LogEngine, clock: &ManualClock) {
    put(log, A, &["old"]).await;
    clock.advance(DAY / 2);
    put(log, A, &["young"]).await;
    clock.advance(DAY / 2);
    assert_eq!(data(log, A).await, ["old", "young"], "kept for exactly the retention");
    clock.advance(Duration::from_millis(1));
    let young = log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    assert_eq!(data_of(&young), ["young"]);
    assert!(young.tail.horizon <= young.frames[0].first());
    log.set_retention(A, DAY * 2).await.unwrap();
    assert_eq!(data(log, A).await, ["old", "young"], "a longer retention acts at once");
    log.set_retention(A, DAY / 4).await.unwrap();
    assert_eq!(data(log, A).await.len(), 0, "a shorter retention acts at once");
    let empty = log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    assert_eq!(empty.tail.end, young.tail.end, "the end stays where it was");
    // The clock steps back over more than the retention: a reader that waited at the horizon must
    // still meet the next record.
    clock.advance(DAY * 40);
    let waiting = log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    clock.set(Timestamp::ZERO);
    put(log, A, &["after the step"]).await;
    let found = log.read(A, waiting.next, ALL).await.unwrap();
    assert_eq!(data_of(&found), ["after the step"]);
}

async fn a_dropped_shard_is_gone(log: Engine) {
    put(&*log, A, &["x"]).await;
    let waiter = tokio::spawn({
        let log = log.clone();
        async move { log.wait(A, RecordIndex::MAX).await }
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    log.drop_shard(A).await.unwrap();
    let waited = soon("a wait for a dropped shard", waiter).await.unwrap();
    assert_eq!(waited.err(), Some(LogError::NotFound), "dropping ends the waits");
    assert_eq!(log.read(A, RecordIndex::MIN, ALL).await.err(), Some(LogError::NotFound));
    assert_eq!(log.append(A, batch(&["y"])).await.err(), Some(LogError::NotFound));
    assert_eq!(log.seal(A).await.err(), Some(LogError::NotFound));
    assert_eq!(log.drop_shard(A).await, Ok(()), "dropping twice is no error");
}

async fn shards_are_isolated(log: Engine) {
    let shards: Vec<_> = (100..400).map(ShardUid).collect();
    for &shard in &shards {
        log.create(shard, DAY).await.unwrap();
    }
    for round in 0..3 {
        let appends: Vec<_> = shards
            .iter()
            .map(|&shard| {
                let log = log.clone();
                let data = format!("{}-{round}", shard.0);
                tokio::spawn(async move { put(&*log, shard, &[&data]).await })
            })
            .collect();
        for append in appends {
            append.await.unwrap();
        }
    }
    log.seal(shards[0]).await.unwrap();
    log.trim(shards[1], RecordIndex::MAX).await.unwrap();
    log.drop_shard(shards[2]).await.unwrap();
    log.set_retention(shards[3], Duration::ZERO).await.unwrap();
    for &shard in &shards[4..] {
        let want: Vec<_> = (0..3).map(|round| format!("{}-{round}", shard.0)).collect();
        assert_eq!(data(&*log, shard).await, want);
    }
    assert_eq!(data(&*log, shards[0]).await.len(), 3);
    assert_eq!(data(&*log, shards[1]).await.len(), 0);
}

async fn concurrent_appends_are_whole(log: Engine) {
    let producers: Vec<_> = (0..8)
        .map(|producer| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut last = RecordIndex::MIN;
                for n in 0..20 {
                    let texts: Vec<_> =
                        (0..5).map(|part| format!("{producer}/{n}/{part}")).collect();
                    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
                    let range = put(&*log, A, &texts).await;
                    assert!(range.first >= last, "one producer's appends are in order");
                    last = range.end();
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    let all = data(&*log, A).await;
    assert_eq!(all.len(), 8 * 20 * 5);
    for batch in all.chunks(5) {
        let prefix = batch[0].strip_suffix("/0").expect("a batch starts with its first record");
        let whole: Vec<_> = (0..5).map(|part| format!("{prefix}/{part}")).collect();
        assert_eq!(batch, whole, "a batch is in one piece");
    }
    let mut once = all.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), all.len(), "every record once");
}
