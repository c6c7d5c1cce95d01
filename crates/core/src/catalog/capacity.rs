//! What a stream can take, and the change of shards under way.

use serde::{Deserialize, Serialize};

use super::{Shard, ShardId};
use crate::clock::Timestamp;
use crate::hash::HashRange;
use crate::log::ShardUid;

/// What is known of a stream's capacity beyond its shards; the default is that of a new stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// The change of shards that was decided on and is not through yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reshard: Option<Reshard>,
    /// Shards that are not the stream's any more and may still be in the log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<ShardUid>,
    /// When `UpdateShardCount` was last accepted, as far back as its limit looks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scalings: Vec<Timestamp>,
    /// When the capacity mode was last switched, as far back as its limit looks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<Timestamp>,
    /// `WarmThroughputMiBps` of an on-demand stream, if it was ever set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_mibps: Option<u32>,
}

/// A change of shards: written before anything is done about it, and with it until it is through, so
/// that whoever finds it goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshard {
    /// When the parents are to be closed; they take records until then.
    pub due: Timestamp,
    /// The shards it adds, in the order of their numbers, each behind its parents. Those that are
    /// themselves parents of another one never take a record.
    pub children: Vec<PlannedShard>,
}

/// A shard that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedShard {
    /// Its number in the stream.
    pub id: ShardId,
    /// The log's name for it.
    pub uid: ShardUid,
    /// The hash keys it takes.
    pub range: HashRange,
    /// The shard it is split from, or the one that was told to merge.
    pub parent: ShardId,
    /// The other shard of a merge.
    pub adjacent_parent: Option<ShardId>,
}

impl PlannedShard {
    /// The shards whose hash keys it takes over.
    pub fn parents(&self) -> impl Iterator<Item = ShardId> {
        [Some(self.parent), self.adjacent_parent].into_iter().flatten()
    }
}

impl Shard {
    /// The shards whose hash keys it took over; none for a shard that its stream was made with.
    pub fn parents(&self) -> impl Iterator<Item = ShardId> {
        [self.parent, self.adjacent_parent].into_iter().flatten()
    }
}
