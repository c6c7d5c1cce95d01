//! Replies with a place for every record, written into one buffer without an allocation for each, and
//! long ones into one buffer again and again.

mod cbor;
mod json;
mod page;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use hydrant_core::catalog::ShardId;
use hydrant_core::sequence::SequenceNumber;
use hydrant_wire::Format;

use crate::error::Error;

pub(crate) use self::page::Page;

/// What became of one record of `PutRecords`.
pub(crate) enum Entry<'a> {
    /// It is durable; `group` counts the shards from 0, so that what they have in common is written once.
    Put { number: SequenceNumber, shard: ShardId, group: usize },
    /// It was not put: one of the codes that AWS gives to single records, and its text.
    Refused { code: &'a str, text: &'a str },
}

/// The reply to `PutRecords`, in the order of the request; `failed` of the entries are refusals, and
/// the log holds the others encrypted if `encrypted` says so.
pub(crate) fn put_records<'a>(
    format: Format,
    failed: usize,
    entries: impl ExactSizeIterator<Item = Entry<'a>>,
    encrypted: bool,
) -> Result<Bytes, Error> {
    match format {
        Format::Json => json::put_records(failed, entries, encrypted),
        Format::Cbor => Ok(cbor::put_records(failed, entries, encrypted)),
    }
}
