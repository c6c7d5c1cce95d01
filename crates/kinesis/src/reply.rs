//! Replies with a place for every record, written into one buffer without an allocation for each.

mod cbor;
mod json;

use bytes::Bytes;
use hydrant_core::catalog::{Shard, ShardId};
use hydrant_core::record::Frame;
use hydrant_core::sequence::SequenceNumber;
use hydrant_wire::Format;

use crate::error::Error;
use crate::shards::ChildShard;

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

/// Records of one shard, and where they end: a reply to `GetRecords`, or the payload of a
/// `SubscribeToShardEvent`.
pub(crate) struct Page<'a> {
    /// The records, in order.
    pub(crate) frames: &'a [Frame],
    /// Their shard.
    pub(crate) shard: &'a Shard,
    /// `MillisBehindLatest`.
    pub(crate) behind_ms: u64,
    /// The member that says where to go on, and its value, which needs no escapes in JSON.
    pub(crate) next: Option<(&'static str, &'a str)>,
    /// At the end of a closed shard, those that follow it.
    pub(crate) children: Option<Vec<ChildShard>>,
}

impl Page<'_> {
    /// Writes the page. Fails only where a value cannot be written at all.
    pub(crate) fn write(&self, format: Format) -> Result<Bytes, Error> {
        match format {
            Format::Json => json::page(self),
            Format::Cbor => cbor::page(self),
        }
    }

    /// How many members the page has in either format.
    fn members(&self) -> usize {
        2 + usize::from(self.next.is_some()) + usize::from(self.children.is_some())
    }

    fn records(&self) -> impl Iterator<Item = hydrant_core::record::Record<'_>> {
        self.frames.iter().flat_map(Frame::records)
    }
}
