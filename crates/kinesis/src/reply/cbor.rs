//! The replies in CBOR: blobs are bytes, moments are milliseconds.

use bytes::Bytes;
use hydrant_core::catalog::Shard;
use hydrant_core::record::Record;
use hydrant_core::sequence::{Decimal, SequenceNumber};
use hydrant_wire::cbor::Writer;

use super::Entry;
use super::page::{Page, Writing};
use crate::error::Error;

/// Room for the reply to one record that was put.
const ENTRY_ROOM_BYTES: usize = 112;

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

/// Records of a shard.
pub(super) struct Cbor {
    shard: Shard,
    /// The number that was written last.
    number: Option<Decimal>,
}

/// What every record has beside the head, the key and the data: names and number, each with its head.
const RECORD_BYTES: usize = 1 + (15 + 2 + SequenceNumber::DIGITS) + 29 + 5;
/// The name of the key, with its head.
const KEY_BYTES: usize = 13;
/// `EncryptionType` and its value, with their heads.
const ENCRYPTED_BYTES: usize = 15 + 4;

/// Bytes of the head of a number, or of a value of this length.
fn head_bytes(number: u64) -> usize {
    match number {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// Writes behind what is in the buffer.
fn behind(out: &mut Vec<u8>, write: impl FnOnce(&mut Writer)) {
    let mut writer = Writer::behind(std::mem::take(out));
    write(&mut writer);
    *out = writer.into_vec();
}

impl Writing for Cbor {
    const BETWEEN_BYTES: usize = 0;

    fn of(shard: &Shard) -> Self {
        Self { shard: shard.clone(), number: None }
    }

    fn start(&self, page: &Page<'_>, records: usize, out: &mut Vec<u8>) {
        behind(out, |out| {
            out.map(page.members()).text("Records").list(records);
        });
    }

    fn end(&self, page: &Page<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut writer = Writer::behind(std::mem::take(out));
        writer.text("MillisBehindLatest").number(page.behind_ms);
        if let Some((name, value)) = page.next {
            writer.text(name).text(value);
        }
        if let Some(children) = &page.children {
            writer.text("ChildShards").structure(children)?;
        }
        *out = writer.into_vec();
        Ok(())
    }

    fn measure(&mut self, record: &Record<'_>) -> usize {
        let key = match String::from_utf8_lossy(record.partition_key).len() {
            0 => 0,
            bytes => KEY_BYTES + head_bytes(bytes as u64) + bytes,
        };
        let encrypted = if record.is_encrypted() { ENCRYPTED_BYTES } else { 0 };
        let data = head_bytes(record.data.len() as u64) + record.data.len();
        RECORD_BYTES + head_bytes(record.arrival.as_millis()) + data + key + encrypted
    }

    fn open(&mut self, record: &Record<'_>, _: bool, out: &mut Vec<u8>) {
        let has_key = !record.partition_key.is_empty();
        let members = 3 + usize::from(has_key) + usize::from(record.is_encrypted());
        let number = self.shard.sequence_number(record.index);
        let decimal = self.number.get_or_insert_with(|| Decimal::of(number));
        decimal.move_to(number);
        behind(out, |out| {
            out.map(members).text("SequenceNumber").sequence_number(decimal);
            out.text("ApproximateArrivalTimestamp").number(record.arrival.as_millis());
            out.text("Data").blob_head(record.data.len());
        });
    }

    fn data(part: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(part);
    }

    fn close(record: &Record<'_>, out: &mut Vec<u8>) {
        behind(out, |out| {
            if !record.partition_key.is_empty() {
                // The key was text when it was put.
                out.text("PartitionKey").text(&String::from_utf8_lossy(record.partition_key));
            }
            if record.is_encrypted() {
                out.text("EncryptionType").text("KMS");
            }
        });
    }
}
