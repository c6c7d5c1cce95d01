//! A page is to the byte what a writer makes that knows nothing but its format.

use std::convert::Infallible;

use base64::Engine as _;
use hydrant_core::Timestamp;
use hydrant_core::catalog::Shard;
use hydrant_core::hash::HashRange;
use hydrant_core::log::ShardUid;
use hydrant_core::record::{DECRYPTED, Frame, Record, RecordBatch};
use hydrant_core::sequence::RecordIndex;
use hydrant_wire::cbor::Writer;
use proptest::prelude::*;

use super::page::{Measured, Writing};
use super::*;

const NEXT: (&str, &str) = ("NextShardIterator", "AAAA");

fn plain_json(record: &Record<'_>, shard: &Shard) -> String {
    let number = shard.sequence_number(record.index);
    let ms = record.arrival.as_millis();
    let data = base64::engine::general_purpose::STANDARD.encode(record.data);
    let key = String::from_utf8_lossy(record.partition_key);
    let mut out = format!(
        "{{\"SequenceNumber\":\"{number}\",\"ApproximateArrivalTimestamp\":{}.{:03},\"Data\":\"{data}\"",
        ms / 1_000,
        ms % 1_000
    );
    if !key.is_empty() {
        out += &format!(",\"PartitionKey\":{}", serde_json::to_string(&key).unwrap());
    }
    if record.is_encrypted() {
        out += ",\"EncryptionType\":\"KMS\"";
    }
    out + "}"
}

fn plain_page_json(page: &Page<'_>, frames: &[Frame]) -> Vec<u8> {
    let records = frames.iter().flat_map(Frame::records);
    let records: Vec<String> = records.map(|record| plain_json(&record, page.shard)).collect();
    let (name, next) = NEXT;
    format!(
        "{{\"Records\":[{}],\"MillisBehindLatest\":{},\"{name}\":\"{next}\"}}",
        records.join(","),
        page.behind_ms
    )
    .into_bytes()
}

fn plain_page_cbor(page: &Page<'_>, frames: &[Frame]) -> Vec<u8> {
    let mut out = Writer::with_capacity(0);
    out.map(3).text("Records").list(frames.iter().map(Frame::len).sum());
    for record in frames.iter().flat_map(Frame::records) {
        let key = String::from_utf8_lossy(record.partition_key);
        out.map(3 + usize::from(!key.is_empty()) + usize::from(record.is_encrypted()));
        out.text("SequenceNumber").shown(page.shard.sequence_number(record.index));
        out.text("ApproximateArrivalTimestamp").number(record.arrival.as_millis());
        out.text("Data").blob(record.data);
        if !key.is_empty() {
            out.text("PartitionKey").text(&key);
        }
        if record.is_encrypted() {
            out.text("EncryptionType").text("KMS");
        }
    }
    out.text("MillisBehindLatest").number(page.behind_ms).text(NEXT.0).text(NEXT.1);
    out.into_vec()
}

/// A flag, a key and data.
type Written = (bool, Vec<u8>, Vec<u8>);

fn record() -> impl Strategy<Value = Written> {
    let key = prop_oneof![
        Just(Vec::new()),
        "[ -~]{1,30}".prop_map(String::into_bytes),
        "\\PC{1,256}".prop_map(String::into_bytes),
        "[\u{0}-\u{1f}\"\\\\/\u{7f}]{1,20}".prop_map(String::into_bytes),
        Just("\u{1f600}".repeat(256).into_bytes()),
        // No producer can put it.
        prop::collection::vec(any::<u8>(), 1..20),
    ];
    let small = prop::collection::vec(any::<u8>(), 0..100);
    let data = prop_oneof![3 => small, 1 => prop::collection::vec(any::<u8>(), 0..9_000)];
    (any::<bool>(), key, data)
}

/// An arrival, records, and how many of them at either end were left out.
fn frame() -> impl Strategy<Value = (u64, Vec<Written>, usize, usize)> {
    let arrival = prop_oneof![0..5_000_u64, 1_600_000_000_000..1_900_000_000_000_u64];
    (arrival, prop::collection::vec(record(), 0..8), 0..4_usize, 1..8_usize)
}

fn frames_of(written: Vec<(u64, Vec<Written>, usize, usize)>) -> Vec<Frame> {
    let mut from = RecordIndex::MIN;
    let frames = written.into_iter().map(|(arrival, records, skip, take)| {
        let mut batch = RecordBatch::new();
        for (is_encrypted, key, data) in &records {
            let flags = if *is_encrypted { DECRYPTED } else { 0 };
            let Ok(()) = batch.try_push_with(flags, key, data.len(), |out| {
                out.extend_from_slice(data);
                Ok::<_, Infallible>(())
            });
        }
        let arrival = Timestamp::from_millis(arrival);
        let first = from.first_for(arrival, records.len() as u32);
        from = first.plus(records.len() as u64 + 1);
        let (offsets, body) = batch.into_parts();
        Frame::new(first, arrival, offsets, body).unwrap().slice(first.plus(skip as u64), take)
    });
    frames.filter(|frame| !frame.is_empty()).collect()
}

fn check<W: Writing>(page: &Page<'_>, frames: &[Frame], piece: usize, format: Format, want: &[u8]) {
    let mut room = 0;
    let whole = page.write(frames, format, |bytes| {
        room = bytes;
        Vec::with_capacity(bytes)
    });
    assert_eq!(room, want.len(), "measured");
    assert!(whole.unwrap() == want, "{format:?}, whole");
    let pieces = Measured::<W>::new(page, frames).unwrap().pieces(frames.to_vec(), piece);
    // Some are held for a while, so that their memory cannot be used again.
    let mut held = Vec::new();
    let mut joined = Vec::new();
    for (n, bytes) in pieces.enumerate() {
        assert!(!bytes.is_empty());
        joined.extend_from_slice(&bytes);
        if n % 3 == 0 {
            held.push((joined.len() - bytes.len(), bytes));
        }
    }
    assert!(joined == want, "{format:?}, in pieces of {piece}");
    assert!(held.iter().all(|(at, bytes)| joined[*at..].starts_with(bytes)));
}

proptest! {
    #[test]
    fn a_page_is_to_the_byte_what_a_plain_writer_makes(
        written in prop::collection::vec(frame(), 0..6),
        piece in 1..20_000_usize,
        number in any::<u32>(),
        created in 0..4_000_000_000_000_u64,
        behind_ms in any::<u32>(),
    ) {
        let frames = frames_of(written);
        let shard = Shard {
            id: ShardId(number),
            uid: ShardUid(1),
            range: HashRange::split_evenly(1)[0],
            created: Timestamp::from_millis(created),
            parent: None,
            adjacent_parent: None,
            closed: None,
        };
        let page = Page { shard: &shard, behind_ms: behind_ms.into(), next: Some(NEXT), children: None };
        let (json, cbor) = (plain_page_json(&page, &frames), plain_page_cbor(&page, &frames));
        check::<json::Json>(&page, &frames, piece, Format::Json, &json);
        check::<cbor::Cbor>(&page, &frames, piece, Format::Cbor, &cbor);
    }
}
