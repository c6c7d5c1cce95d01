//! What goes into a batch, and when it is cut.

use hydrant_core::record::RecordBatch;
use proptest::prelude::*;

use super::*;

const HINTS: Hints = Hints { size_mbs: 1, interval_seconds: 60 };
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn frame(first: u64, arrival: Timestamp, sizes: &[usize]) -> Frame {
    let mut batch = RecordBatch::new();
    sizes.iter().for_each(|size| batch.push(b"k", &vec![b'x'; *size]));
    let (offsets, body) = batch.into_parts();
    Frame::new(RecordIndex(first), arrival, offsets, body).unwrap()
}

#[test]
fn the_oldest_record_sets_the_time() {
    let mut buffer = Buffer::default();
    assert_eq!(buffer.due(HINTS, START), None);
    assert_eq!(buffer.cut(HINTS, START.plus(HINTS.interval() * 9)), None, "nothing is no batch");
    let later = START.plus(std::time::Duration::from_secs(10));
    buffer.add(ShardUid(1), &frame(5, later, &[1]), HINTS);
    buffer.add(ShardUid(2), &frame(7, START, &[1, 1]), HINTS);
    let due = START.plus(HINTS.interval());
    assert_eq!(buffer.due(HINTS, later), Some(due));
    assert_eq!(buffer.cut(HINTS, Timestamp::from_millis(due.as_millis() - 1)), None);
    let cut = buffer.cut(HINTS, due).unwrap();
    assert_eq!((cut.first_arrival, cut.data_bytes), (START, 3));
    let range = |shard, from, to, records| Range {
        shard: ShardUid(shard),
        from: RecordIndex(from),
        to: RecordIndex(to),
        records,
    };
    assert_eq!(cut.ranges, [range(1, 5, 6, 1), range(2, 7, 9, 2)]);
    assert_eq!(
        (buffer.data_bytes(), buffer.due(HINTS, due)),
        (0, None),
        "the cut empties the buffer"
    );
}

#[test]
fn a_clock_set_back_does_not_hold_records_up() {
    let mut buffer = Buffer::default();
    let ahead = START.plus(std::time::Duration::from_secs(86_400));
    buffer.add(ShardUid(1), &frame(5, ahead, &[1]), HINTS);
    assert_eq!(buffer.cut(HINTS, START), None);
    let cut = buffer.cut(HINTS, START.plus(HINTS.interval())).unwrap();
    assert_eq!(cut.first_arrival, ahead, "the batch is the same one whenever it is cut");
}

#[test]
fn an_interval_of_zero_is_due_at_once() {
    let hints = Hints { interval_seconds: 0, ..HINTS };
    let mut buffer = Buffer::default();
    buffer.add(ShardUid(1), &frame(5, START, &[1]), hints);
    assert!(buffer.cut(hints, START).is_some());
}

#[test]
fn the_record_that_fills_it_is_the_last() {
    let mut buffer = Buffer::default();
    let size = 400 << 10;
    assert_eq!(buffer.add(ShardUid(1), &frame(5, START, &[size; 5]), HINTS), 3);
    assert_eq!(buffer.add(ShardUid(2), &frame(5, START, &[0]), HINTS), 0);
    let cut = buffer.cut(HINTS, START).unwrap();
    assert_eq!(cut.data_bytes, 3 * size as u64);
}

proptest! {
    #[test]
    fn every_record_is_in_one_batch_in_order_and_no_batch_is_too_large(
        frames in prop::collection::vec(
            (0u64..4, prop::collection::vec(prop_oneof![0usize..100, 100_000usize..700_000], 1..6), 0u64..30),
            1..40,
        ),
    ) {
        let mut buffer = Buffer::default();
        let mut next = [RecordIndex(100); 4];
        let mut covered = [RecordIndex::MIN; 4];
        let mut now = START;
        let (mut put, mut cut_records) = (0u64, 0u64);
        let mut check = |cut: &Cut, now: Timestamp| {
            cut_records += cut.ranges.iter().map(|r| r.records).sum::<u64>();
            for range in &cut.ranges {
                let covered = &mut covered[range.shard.0 as usize];
                assert!(range.from >= *covered && range.to > range.from);
                *covered = range.to;
            }
            assert!(cut.data_bytes < (1 << 20) + 700_000, "at most the size and one record");
            assert!(cut.data_bytes >= 1 << 20 || now >= cut.first_arrival.plus(HINTS.interval()));
        };
        for (shard, sizes, pause) in frames {
            now = now.plus(std::time::Duration::from_secs(pause));
            let mut left = frame(next[shard as usize].0, now, &sizes);
            // A gap behind each frame, as time leaves one.
            next[shard as usize] = left.end().plus(1_000);
            put += left.len() as u64;
            while !left.is_empty() {
                let taken = buffer.add(ShardUid(shard), &left, HINTS);
                left = left.slice(left.first().plus(taken as u64), usize::MAX);
                if let Some(cut) = buffer.cut(HINTS, now) {
                    check(&cut, now);
                }
            }
        }
        let end = now.plus(HINTS.interval());
        if let Some(cut) = buffer.cut(HINTS, end) {
            check(&cut, end);
        }
        prop_assert_eq!(put, cut_records);
    }
}
