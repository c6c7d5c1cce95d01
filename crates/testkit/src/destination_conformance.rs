//! The promise of [`Destination`]: one batch id, delivered however often, is there once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hydrant_core::clock::Timestamp;
use hydrant_core::destination::{Batch, Destination};
use hydrant_core::names::DeliveryStreamName;
use hydrant_core::record::{Frame, RecordBatch};
use hydrant_core::sequence::RecordIndex;

use crate::soon;

type Contents = Pin<Box<dyn Future<Output = BTreeMap<String, Vec<u8>>> + Send>>;

/// A destination, and a look at what is at its target: names and decoded (not compressed) bytes.
pub struct Target {
    /// What is tested.
    pub destination: Arc<dyn Destination>,
    /// Everything there is at the target now.
    pub contents: Box<dyn Fn() -> Contents + Send + Sync>,
}

/// How often a delivery is polled before it is dropped.
const POLLS_MAX: usize = 12;

/// Runs the suite. `make` gives a destination over an empty target of its own each time.
pub async fn destination_conformance(make: impl AsyncFn() -> Target) {
    every_record_is_there_once(&make).await;
    a_repetition_changes_nothing(&make).await;
    a_delivery_cut_off_anywhere_can_be_repeated(&make).await;
    batches_do_not_touch_each_other(&make).await;
}

async fn every_record_is_there_once(make: &impl AsyncFn() -> Target) {
    let target = make().await;
    let done = soon("deliver", target.destination.deliver(&batch(1, &[3, 1, 4]))).await.unwrap();
    assert!(!done.written.is_empty(), "a delivery says where the batch is now");
    assert!(done.rejected.is_empty(), "no record of this batch is worth refusing");
    let there = (target.contents)().await;
    assert_records(&there, 1, 8);
}

async fn a_repetition_changes_nothing(make: &impl AsyncFn() -> Target) {
    let target = make().await;
    let first = soon("deliver", target.destination.deliver(&batch(1, &[8]))).await.unwrap();
    let before = (target.contents)().await;
    // After a crash the log may give the same records in other frames.
    let again = soon("deliver again", target.destination.deliver(&batch(1, &[2, 5, 1]))).await;
    assert_eq!(again.unwrap(), first, "a repetition reports what the first delivery did");
    assert_eq!((target.contents)().await, before, "a repetition leaves the target as it was");
    let (a, b) = (batch(1, &[4, 4]), batch(1, &[8]));
    let both =
        async { tokio::join!(target.destination.deliver(&a), target.destination.deliver(&b)) };
    let (a, b) = soon("deliver twice at once", both).await;
    assert!(a.is_ok() && b.is_ok(), "two repetitions at once both succeed");
    assert_eq!((target.contents)().await, before, "nor do two at once change it");
}

async fn a_delivery_cut_off_anywhere_can_be_repeated(make: &impl AsyncFn() -> Target) {
    for polls in 0..POLLS_MAX {
        let target = make().await;
        let it = batch(1, &[5, 3]);
        {
            let mut cut_off = target.destination.deliver(&it);
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if let Poll::Ready(done) = cut_off.as_mut().poll(&mut context) {
                    done.unwrap();
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        soon("deliver after a cut", target.destination.deliver(&it)).await.unwrap();
        let there = (target.contents)().await;
        assert_records(&there, 1, 8);
    }
}

async fn batches_do_not_touch_each_other(make: &impl AsyncFn() -> Target) {
    let target = make().await;
    soon("deliver", target.destination.deliver(&batch(1, &[2]))).await.unwrap();
    soon("deliver", target.destination.deliver(&batch(2, &[2]))).await.unwrap();
    let there = (target.contents)().await;
    assert_records(&there, 1, 2);
    assert_records(&there, 2, 2);
}

/// A batch with this number whose records are in frames of these lengths.
fn batch(number: u8, lengths: &[usize]) -> Batch {
    let arrival = Timestamp::from_millis(1_725_451_200_000);
    let mut index = RecordIndex::at(arrival);
    let mut nth = 0;
    let mut frames = Vec::new();
    for &length in lengths {
        let mut records = RecordBatch::new();
        for _ in 0..length {
            records.push(b"key", record(number, nth).as_bytes());
            nth += 1;
        }
        let (offsets, body) = records.into_parts();
        let frame = Frame::new(index, arrival, offsets, body).unwrap();
        index = frame.end();
        frames.push(frame);
    }
    let delivery_stream: DeliveryStreamName = "conformance".parse().unwrap();
    Batch { id: [number; 16], delivery_stream, version: 1, first_arrival: arrival, frames }
}

fn record(batch: u8, nth: usize) -> String {
    format!("{{\"batch\":{batch},\"record\":{nth}}}\n")
}

fn assert_records(there: &BTreeMap<String, Vec<u8>>, batch: u8, count: usize) {
    let all: Vec<String> =
        there.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    let mut last = None;
    for nth in 0..count {
        let text = record(batch, nth);
        let text = text.trim_end();
        let found: Vec<(usize, usize)> = all
            .iter()
            .enumerate()
            .flat_map(|(object, bytes)| bytes.match_indices(text).map(move |(at, _)| (object, at)))
            .collect();
        assert_eq!(found.len(), 1, "{text} must be at the target exactly once");
        assert!(last < Some(found[0]), "{text} must stand behind the record before it");
        last = Some(found[0]);
    }
}
