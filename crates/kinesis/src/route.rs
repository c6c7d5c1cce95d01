//! From a record to its shard.

use hydrant_core::catalog::{Shard, Stream};
use hydrant_core::hash::HashKey;

/// The open shards of a stream by their lowest hash key.
pub(crate) struct Routes<'a> {
    shards: Vec<&'a Shard>,
}

impl<'a> Routes<'a> {
    /// Of the stream as it is now.
    pub(crate) fn of(stream: &'a Stream) -> Self {
        let mut shards: Vec<_> = stream.shards.iter().filter(|s| s.is_open()).collect();
        // They are in order until the first reshard, so this costs a look at each.
        shards.sort_by_key(|s| s.range.start);
        Self { shards }
    }

    /// How many open shards.
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// The shard at a place that [`Routes::place`] told.
    pub(crate) fn shard(&self, place: usize) -> &'a Shard {
        self.shards[place]
    }

    /// The place of the shard that takes a record. `None` only if the stream has no open shard.
    pub(crate) fn place(&self, partition_key: &str, explicit: Option<HashKey>) -> Option<usize> {
        if self.shards.len() <= 1 {
            // The only shard takes every key: no need to hash one.
            return self.shards.len().checked_sub(1);
        }
        let key = explicit.unwrap_or_else(|| HashKey::of(partition_key.as_bytes()));
        self.shards.partition_point(|s| s.range.start <= key).checked_sub(1)
    }
}
