//! A stream in memory.

use std::sync::Arc;

use super::{Shard, Stream};
use crate::hash::HashKey;

/// A stream as the catalog holds it: the row's content and its version.
#[derive(Clone, Debug)]
pub struct Held {
    /// The stream.
    pub stream: Arc<Stream>,
    /// The version a change must name.
    pub version: u64,
    /// Where its open shards are in `stream.shards`, by their lowest hash key; `None` if all are
    /// open and stand there in that order, as in every stream that was never resharded.
    open: Option<Arc<[u32]>>,
}

impl Held {
    pub(super) fn new(stream: Arc<Stream>, version: u64) -> Self {
        let are_all = stream.shards.iter().all(Shard::is_open)
            && stream.shards.is_sorted_by_key(|shard| shard.range.start);
        let open = (!are_all).then(|| {
            let numbered = (0..).zip(&stream.shards).filter(|(_, shard)| shard.is_open());
            let mut open: Vec<(HashKey, u32)> = numbered.map(|(n, s)| (s.range.start, n)).collect();
            open.sort_unstable();
            open.into_iter().map(|(_, n)| n).collect()
        });
        Self { stream, version, open }
    }

    /// How many open shards there are.
    pub fn open_shards(&self) -> usize {
        self.open.as_ref().map_or(self.stream.shards.len(), |open| open.len())
    }

    /// The `nth` open shard by hash key, from 0; `None` if there are fewer.
    pub fn open_shard(&self, nth: usize) -> Option<&Shard> {
        match &self.open {
            Some(open) => self.stream.shards.get(*open.get(nth)? as usize),
            None => self.stream.shards.get(nth),
        }
    }

    /// Which of the open shards, counted as by [`Self::open_shard`], takes records with this hash
    /// key. Takes time in the logarithm of their number; `None` only if there is no open shard.
    pub fn route(&self, key: HashKey) -> Option<usize> {
        let shards = &self.stream.shards;
        let above = match &self.open {
            Some(open) => open.partition_point(|n| shards[*n as usize].range.start <= key),
            None => shards.partition_point(|shard| shard.range.start <= key),
        };
        above.checked_sub(1)
    }
}
