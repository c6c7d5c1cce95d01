//! The replies in JSON.

use std::io::Write as _;

use base64_simd::STANDARD;
use bytes::Bytes;
use hydrant_core::catalog::Shard;
use hydrant_core::record::{Frame, Record};
use hydrant_core::sequence::Decimal;
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
    // Of each group its latest number, and what stands behind every one of them.
    let mut groups: Vec<Option<(Decimal, String)>> = Vec::new();
    let _ = write!(out, "{{\"FailedRecordCount\":{failed},\"Records\":[");
    for (n, entry) in entries.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        match entry {
            Entry::Put { number, shard, group } => {
                if groups.len() <= group {
                    groups.resize_with(group + 1, || None);
                }
                let (decimal, end) = groups[group].get_or_insert_with(|| {
                    (Decimal::of(number), format!("\",\"ShardId\":\"{shard}\"}}"))
                });
                decimal.move_to(number);
                out.extend_from_slice(b"{\"SequenceNumber\":\"");
                decimal.write(&mut out);
                out.extend_from_slice(end.as_bytes());
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
    for frame in page.frames {
        put_frame(&mut out, frame, page.shard)?;
    }
    // There is one behind every record.
    out.pop_if(|last| *last == b',');
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

/// Writes the records of a frame, with a comma behind each.
fn put_frame(out: &mut Vec<u8>, frame: &Frame, shard: &Shard) -> Result<(), Error> {
    let ms = frame.arrival().as_millis();
    let (s, rest) = (ms / 1_000, ms % 1_000);
    let arrival = format!("\",\"ApproximateArrivalTimestamp\":{s}.{rest:03},\"Data\":\"");
    let mut decimal = Decimal::of(shard.sequence_number(frame.first()));
    for record in frame.records() {
        decimal.move_to(shard.sequence_number(record.index));
        out.extend_from_slice(b"{\"SequenceNumber\":\"");
        decimal.write(out);
        out.extend_from_slice(arrival.as_bytes());
        // There is, unless keys with many escapes took it.
        out.reserve(STANDARD.encoded_length(record.data.len()));
        STANDARD.encode_append(record.data, out);
        put_rest(out, &record)?;
    }
    Ok(())
}

/// Writes what stands behind the data of a record.
fn put_rest(out: &mut Vec<u8>, record: &Record<'_>) -> Result<(), Error> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let key = record.partition_key;
    if key.is_empty() {
        out.push(b'"');
    } else if key.iter().all(is_plain) {
        out.extend_from_slice(b"\",\"PartitionKey\":\"");
        out.extend_from_slice(key);
        out.push(b'"');
    } else {
        out.extend_from_slice(b"\",\"PartitionKey\":");
        // The key was text when it was put.
        put(out, &String::from_utf8_lossy(key))?;
    }
    if record.is_encrypted() {
        out.extend_from_slice(b",\"EncryptionType\":\"KMS\"");
    }
    out.extend_from_slice(b"},");
    Ok(())
}

fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    serde_json::to_writer(out, value).map_err(|e| Error::Internal(e.to_string()))
}
