//! The replies in JSON.

use std::borrow::Cow;
use std::io::Write as _;

use base64_simd::STANDARD;
use bytes::Bytes;
use hydrant_core::catalog::Shard;
use hydrant_core::record::Record;
use hydrant_core::sequence::{Decimal, SequenceNumber};
use serde::Serialize;

use super::Entry;
use super::page::{Page, Writing};
use crate::error::Error;

/// Room for the reply to one record that was put.
const ENTRY_ROOM_BYTES: usize = 136;

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

/// Records of a shard.
pub(super) struct Json {
    shard: Shard,
    /// The number that was written last.
    number: Option<Decimal>,
    /// An arrival in milliseconds, and what stands between number and data of the records that arrived
    /// then.
    arrival: (Option<u64>, Vec<u8>),
}

const NUMBER: &[u8] = b"{\"SequenceNumber\":\"";
const KEY: &[u8] = b"\",\"PartitionKey\":";
const ENCRYPTED: &[u8] = b",\"EncryptionType\":\"KMS\"";

impl Json {
    /// What stands between number and data of a record that arrived then.
    fn arrival(&mut self, ms: u64) -> &[u8] {
        let (of, text) = &mut self.arrival;
        if *of != Some(ms) {
            *of = Some(ms);
            text.clear();
            let (s, rest) = (ms / 1_000, ms % 1_000);
            let _ = write!(text, "\",\"ApproximateArrivalTimestamp\":{s}.{rest:03},\"Data\":\"");
        }
        text
    }
}

impl Writing for Json {
    const BETWEEN_BYTES: usize = 1;

    fn of(shard: &Shard) -> Self {
        Self { shard: shard.clone(), number: None, arrival: Default::default() }
    }

    fn start(&self, _: &Page<'_>, _: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"Records\":[");
    }

    fn end(&self, page: &Page<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let _ = write!(out, "],\"MillisBehindLatest\":{}", page.behind_ms);
        if let Some((name, value)) = page.next {
            let _ = write!(out, ",\"{name}\":\"{value}\"");
        }
        if let Some(children) = &page.children {
            out.extend_from_slice(b",\"ChildShards\":");
            put(out, children)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn measure(&mut self, record: &Record<'_>) -> usize {
        let arrival = self.arrival(record.arrival.as_millis()).len();
        let key = match Key::of(record) {
            Key::None => 1,
            Key::Plain(key) => KEY.len() + key.len() + 2,
            Key::Other(key) => {
                let mut counted = Counted(0);
                let _ = serde_json::to_writer(&mut counted, &key);
                KEY.len() + counted.0
            }
        };
        let encrypted = if record.is_encrypted() { ENCRYPTED.len() } else { 0 };
        let data = STANDARD.encoded_length(record.data.len());
        let number = NUMBER.len() + SequenceNumber::DIGITS;
        Self::BETWEEN_BYTES + number + arrival + data + key + encrypted + 1
    }

    fn open(&mut self, record: &Record<'_>, is_first: bool, out: &mut Vec<u8>) {
        if !is_first {
            out.push(b',');
        }
        out.extend_from_slice(NUMBER);
        let number = self.shard.sequence_number(record.index);
        let decimal = self.number.get_or_insert_with(|| Decimal::of(number));
        decimal.move_to(number);
        decimal.write(out);
        out.extend_from_slice(self.arrival(record.arrival.as_millis()));
    }

    fn data(part: &[u8], out: &mut Vec<u8>) {
        STANDARD.encode_append(part, out);
    }

    fn close(record: &Record<'_>, out: &mut Vec<u8>) {
        match Key::of(record) {
            Key::None => out.push(b'"'),
            Key::Plain(key) => {
                out.extend_from_slice(KEY);
                out.push(b'"');
                out.extend_from_slice(key);
                out.push(b'"');
            }
            Key::Other(key) => {
                out.extend_from_slice(KEY);
                // A buffer takes all it is given, and a text can be written.
                let _ = serde_json::to_writer(out.by_ref(), &key);
            }
        }
        if record.is_encrypted() {
            out.extend_from_slice(ENCRYPTED);
        }
        out.push(b'}');
    }
}

/// A partition key.
enum Key<'a> {
    /// The producer gave none.
    None,
    /// It stands in JSON as it is.
    Plain(&'a [u8]),
    /// It does not, or may not.
    Other(Cow<'a, str>),
}

impl<'a> Key<'a> {
    fn of(record: &Record<'a>) -> Self {
        let key = record.partition_key;
        // Every byte is looked at, whatever the others are: many at a time.
        let is_plain =
            |plain, byte: &u8| plain & matches!(byte, b' '..=b'~') & !matches!(byte, b'"' | b'\\');
        match key {
            [] => Self::None,
            key if key.iter().fold(true, is_plain) => Self::Plain(key),
            // It was text when it was put.
            key => Self::Other(String::from_utf8_lossy(key)),
        }
    }
}

/// How much was written.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    serde_json::to_writer(out, value).map_err(|e| Error::Internal(e.to_string()))
}
