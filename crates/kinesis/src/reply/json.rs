//! The replies in JSON.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hydrant_core::catalog::Shard;
use hydrant_core::record::Record;
use serde::Serialize;

use super::{Entry, Page};
use crate::error::Error;

/// Room for the reply to one record that was put.
const ENTRY_ROOM_BYTES: usize = 136;
/// Room for what stands around the data of one record.
const RECORD_ROOM_BYTES: usize = 192;
/// Room for what stands around the records.
const PAGE_ROOM_BYTES: usize = 1_024;

pub(super) fn put_records<'a>(
    failed: usize,
    entries: impl ExactSizeIterator<Item = Entry<'a>>,
    encrypted: bool,
) -> Result<Bytes, Error> {
    let mut out = Vec::with_capacity(64 + entries.len() * ENTRY_ROOM_BYTES);
    let _ = write!(out, "{{\"FailedRecordCount\":{failed},\"Records\":[");
    for (n, entry) in entries.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        match entry {
            Entry::Put { number, shard } => {
                let _ = write!(out, "{{\"SequenceNumber\":\"{number}\",\"ShardId\":\"{shard}\"}}");
            }
            Entry::Refused { code, text } => {
                let _ = write!(out, "{{\"ErrorCode\":\"{code}\",\"ErrorMessage\":");
                put(&mut out, text)?;
                out.push(b'}');
            }
        }
    }
    out.push(b']');
    if encrypted {
        out.extend(b",\"EncryptionType\":\"KMS\"");
    }
    out.push(b'}');
    Ok(out.into())
}

pub(super) fn page(page: &Page<'_>) -> Result<Bytes, Error> {
    let room = page.records().map(|r| r.size_bytes() / 3 * 4 + RECORD_ROOM_BYTES);
    let mut out = Vec::with_capacity(room.sum::<usize>() + PAGE_ROOM_BYTES);
    out.extend(b"{\"Records\":[");
    for (n, record) in page.records().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        put_record(&mut out, &record, page.shard)?;
    }
    let _ = write!(out, "],\"MillisBehindLatest\":{}", page.behind_ms);
    if let Some((name, value)) = page.next {
        let _ = write!(out, ",\"{name}\":\"{value}\"");
    }
    if let Some(children) = &page.children {
        out.extend(b",\"ChildShards\":");
        put(&mut out, children)?;
    }
    out.push(b'}');
    Ok(out.into())
}

fn put_record(out: &mut Vec<u8>, record: &Record<'_>, shard: &Shard) -> Result<(), Error> {
    let number = shard.sequence_number(record.index);
    let ms = record.arrival.as_millis();
    let (s, rest) = (ms / 1_000, ms % 1_000);
    let _ = write!(
        out,
        "{{\"SequenceNumber\":\"{number}\",\"ApproximateArrivalTimestamp\":{s}.{rest:03},\"Data\":\""
    );
    let at = out.len();
    // One more group than whole ones: what is left over takes four characters too.
    out.resize(at + record.data.len() / 3 * 4 + 4, 0);
    let written = STANDARD
        .encode_slice(record.data, &mut out[at..])
        .map_err(|e| Error::Internal(e.to_string()))?;
    out.truncate(at + written);
    out.push(b'"');
    if !record.partition_key.is_empty() {
        out.extend(b",\"PartitionKey\":");
        // The key was text when it was put.
        put(out, &String::from_utf8_lossy(record.partition_key))?;
    }
    if record.is_encrypted() {
        out.extend(b",\"EncryptionType\":\"KMS\"");
    }
    out.push(b'}');
    Ok(())
}

fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    serde_json::to_writer(out, value).map_err(|e| Error::Internal(e.to_string()))
}
