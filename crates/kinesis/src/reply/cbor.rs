//! The replies in CBOR: blobs are bytes, moments are milliseconds.

use bytes::Bytes;
use hydrant_core::catalog::Shard;
use hydrant_core::record::Record;
use hydrant_wire::cbor::Writer;

use super::{Entry, Page};
use crate::error::Error;

/// Room for the reply to one record that was put.
const ENTRY_ROOM_BYTES: usize = 112;
/// Room for what stands around the key and the data of one record.
const RECORD_ROOM_BYTES: usize = 144;
/// Room for what stands around the records.
const PAGE_ROOM_BYTES: usize = 1_024;

pub(super) fn put_records<'a>(
    failed: usize,
    entries: impl ExactSizeIterator<Item = Entry<'a>>,
    encrypted: bool,
) -> Bytes {
    let mut out = Writer::with_capacity(64 + entries.len() * ENTRY_ROOM_BYTES);
    out.map(2 + usize::from(encrypted)).text("FailedRecordCount").number(failed as u64);
    out.text("Records").list(entries.len());
    for entry in entries {
        out.map(2);
        match entry {
            Entry::Put { number, shard, .. } => {
                out.text("SequenceNumber").shown(number).text("ShardId").shown(shard)
            }
            Entry::Refused { code, text } => {
                out.text("ErrorCode").text(code).text("ErrorMessage").text(text)
            }
        };
    }
    if encrypted {
        out.text("EncryptionType").text("KMS");
    }
    out.into_bytes()
}

pub(super) fn page(page: &Page<'_>) -> Result<Bytes, Error> {
    let room: usize = page.records().map(|r| r.size_bytes() + RECORD_ROOM_BYTES).sum();
    let mut out = Writer::with_capacity(room + PAGE_ROOM_BYTES);
    let records = page.frames.iter().map(|frame| frame.len()).sum();
    out.map(page.members()).text("Records").list(records);
    for record in page.records() {
        put_record(&mut out, &record, page.shard);
    }
    out.text("MillisBehindLatest").number(page.behind_ms);
    if let Some((name, value)) = page.next {
        out.text(name).text(value);
    }
    if let Some(children) = &page.children {
        out.text("ChildShards").structure(children)?;
    }
    Ok(out.into_bytes())
}

fn put_record(out: &mut Writer, record: &Record<'_>, shard: &Shard) {
    let has_key = !record.partition_key.is_empty();
    let members = 3 + usize::from(has_key) + usize::from(record.is_encrypted());
    out.map(members).text("SequenceNumber").shown(shard.sequence_number(record.index));
    out.text("ApproximateArrivalTimestamp").number(record.arrival.as_millis());
    out.text("Data").blob(record.data);
    if has_key {
        // The key was text when it was put.
        out.text("PartitionKey").text(&String::from_utf8_lossy(record.partition_key));
    }
    if record.is_encrypted() {
        out.text("EncryptionType").text("KMS");
    }
}
