//! From a record to its shard.

use hydrant_core::catalog::{Held, Shard};
use hydrant_core::hash::HashKey;

/// The open shards of a stream by their lowest hash key.
pub(crate) struct Routes<'a> {
    held: &'a Held,
}

impl<'a> Routes<'a> {
    /// Of the stream as it is now.
    pub(crate) fn of(held: &'a Held) -> Self {
        Self { held }
    }

    /// How many open shards.
    pub(crate) fn len(&self) -> usize {
        self.held.open_shards()
    }

    /// The shard that takes the `turn`-th of the records that are spread evenly, and its place among
    /// the open ones. `None` only if the stream has no open shard.
    pub(crate) fn in_turn(&self, turn: u64) -> Option<(usize, &'a Shard)> {
        let place = turn.checked_rem(self.len() as u64)? as usize;
        Some((place, self.held.open_shard(place)?))
    }

    /// The shard that takes the records with this hash key, and its place among the open ones. `None`
    /// only if the stream has no open shard.
    pub(crate) fn by_hash(&self, key: HashKey) -> Option<(usize, &'a Shard)> {
        let place = self.held.route(key)?;
        Some((place, self.held.open_shard(place)?))
    }

    /// The shard that takes a record, and its place among the open ones. `None` only if the stream
    /// has no open shard.
    pub(crate) fn shard(
        &self,
        partition_key: &str,
        explicit: Option<HashKey>,
    ) -> Option<(usize, &'a Shard)> {
        match self.len() {
            // The only shard takes every key: no need to hash one.
            1 => self.in_turn(0),
            _ => self.by_hash(explicit.unwrap_or_else(|| HashKey::of(partition_key.as_bytes()))),
        }
    }
}
