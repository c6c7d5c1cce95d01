//! The frames of a subscription, in the format of the call that began it.

use bytes::Bytes;
use hydrant_core::catalog::{Shard, Stream};
use hydrant_core::record::Frame;
use hydrant_core::sequence::RecordIndex;
use hydrant_wire::{ApiError, Format, event_stream};

use crate::error::Error;
use crate::reply::Page;
use crate::shards;

/// The first frame.
pub(super) fn first(format: Format) -> Bytes {
    event_stream::initial_response(format.media_type())
}

/// Records of a shard, or none, and where they end.
pub(super) struct Records<'a> {
    /// The shard they are of.
    pub(super) shard: &'a Shard,
    /// They themselves.
    pub(super) frames: &'a [Frame],
    /// Where the next ones begin.
    pub(super) next: RecordIndex,
    /// How far behind the newest record of the shard they are.
    pub(super) behind_ms: u64,
}

impl Records<'_> {
    /// The number to go on behind, whether a record has it or not: a new subscription at it or after
    /// it misses nothing.
    fn continuation(&self) -> String {
        let number = match self.next.0.checked_sub(1) {
            Some(last) => self.shard.sequence_number(RecordIndex(last)),
            None => self.shard.starting_sequence_number(),
        };
        number.to_string()
    }

    /// The event with them.
    pub(super) fn frame(&self, format: Format) -> Result<Bytes, Error> {
        let Self { shard, frames, behind_ms, .. } = *self;
        let continuation = self.continuation();
        let next = Some(("ContinuationSequenceNumber", continuation.as_str()));
        frame(&Page { shard, behind_ms, next, children: None }, frames, format)
    }
}

/// The last event of a shard: no number to go on behind, but the shards that follow.
pub(super) fn end(stream: &Stream, shard: &Shard, format: Format) -> Result<Bytes, Error> {
    let children = Some(shards::children(stream, shard));
    frame(&Page { shard, behind_ms: 0, next: None, children }, &[], format)
}

fn frame(page: &Page<'_>, frames: &[Frame], format: Format) -> Result<Bytes, Error> {
    let begin = |bytes| event_stream::begin("SubscribeToShardEvent", format.media_type(), bytes);
    Ok(event_stream::end(page.write(frames, format, begin)?))
}

/// An exception: the last frame of a subscription that does not end by itself.
pub(super) fn exception(error: Error, format: Format) -> Bytes {
    let error = ApiError::from(error);
    let name = match error.code {
        "InternalFailure" => {
            tracing::error!(%error, "a subscription failed");
            "InternalFailureException"
        }
        code => code,
    };
    event_stream::exception(name, format.media_type(), &error.body(format))
}
