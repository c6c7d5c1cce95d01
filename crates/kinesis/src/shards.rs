//! Shards as the API shows them.

use hydrant_core::Timestamp;
use hydrant_core::catalog::{InvalidShardId, Shard, ShardId, Stream};
use hydrant_core::names::Scope;
use serde::Serialize;

use crate::error::Error;
use crate::expiry::is_expired;

/// `Shard` of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShardReply {
    shard_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: HashKeyRange,
    sequence_number_range: SequenceNumberRange,
}

/// `HashKeyRange` of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HashKeyRange {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl HashKeyRange {
    fn of(shard: &Shard) -> Self {
        Self {
            starting_hash_key: shard.range.start.to_string(),
            ending_hash_key: shard.range.end.to_string(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRange {
    starting_sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<String>,
}

impl From<&Shard> for ShardReply {
    fn from(shard: &Shard) -> Self {
        Self {
            shard_id: shard.id.to_string(),
            parent_shard_id: shard.parent.map(|id| id.to_string()),
            adjacent_parent_shard_id: shard.adjacent_parent.map(|id| id.to_string()),
            hash_key_range: HashKeyRange::of(shard),
            sequence_number_range: SequenceNumberRange {
                starting_sequence_number: shard.starting_sequence_number().to_string(),
                ending_sequence_number: shard.ending_sequence_number().map(|n| n.to_string()),
            },
        }
    }
}

/// `ChildShard` of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ChildShard {
    shard_id: String,
    parent_shards: Vec<String>,
    hash_key_range: HashKeyRange,
}

/// The shards that follow a closed one.
pub(crate) fn children(stream: &Stream, closed: &Shard) -> Vec<ChildShard> {
    let follows = |s: &&Shard| [s.parent, s.adjacent_parent].contains(&Some(closed.id));
    let children = stream.shards.iter().filter(follows);
    children
        .map(|child| ChildShard {
            shard_id: child.id.to_string(),
            parent_shards: [child.parent, child.adjacent_parent]
                .into_iter()
                .flatten()
                .map(|id| id.to_string())
                .collect(),
            hash_key_range: HashKeyRange::of(child),
        })
        .collect()
}

/// Reads a shard id as AWS does: any word before a hyphen, then the number, which AWS bounds.
pub(crate) fn shard_id(text: &str) -> Result<ShardId, InvalidShardId> {
    let digits = text.split_once('-').map_or(text, |(_, digits)| digits);
    let trimmed = digits.trim_start_matches('0');
    let plain = if trimmed.is_empty() && !digits.is_empty() { "0" } else { trimmed };
    let id: ShardId = plain.parse()?;
    if id.0 > i32::MAX as u32 { Err(InvalidShardId) } else { Ok(id) }
}

/// The shard of a stream by the id a request gives.
pub(crate) fn find<'a>(stream: &'a Stream, text: &str) -> Result<&'a Shard, Error> {
    let id = shard_id(text).map_err(|_| unknown(text, &stream.scope, stream.name.as_str()))?;
    stream.shard(id).ok_or_else(|| missing(stream, id))
}

/// What a request calls a shard is none, or none of the stream.
pub(crate) fn unknown(text: &str, scope: &Scope, stream: &str) -> Error {
    let account = &scope.account;
    Error::ResourceNotFound(format!(
        "Could not find shard {text} in stream {stream} under account {account}."
    ))
}

/// There is no such shard.
pub(crate) fn missing(stream: &Stream, id: ShardId) -> Error {
    let (name, account) = (&stream.name, &stream.scope.account);
    Error::ResourceNotFound(format!(
        "Shard {id} in stream {name} under account {account} does not exist"
    ))
}

/// Which shards `ListShards` shows (AWS: `ShardFilter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// All there are.
    All,
    /// Those with a higher number.
    After(ShardId),
    /// Those that take records.
    AtLatest,
    /// Those that took records at the moment.
    At(Timestamp),
    /// Those that took records at the moment or later.
    From(Timestamp),
}

impl Filter {
    /// Whether the shard of that stream is to be shown. Of the shards that are shown of a moment each
    /// hash key is in one, so that a reader that starts with them misses nothing and doubles nothing:
    /// at the very moment of a reshard those are the children.
    pub(crate) fn shows(self, stream: &Stream, shard: &Shard, now: Timestamp) -> bool {
        let expired = is_expired(stream, shard, now);
        match self {
            Self::All => !expired,
            Self::After(id) => !expired && shard.id > id,
            Self::AtLatest => shard.is_open(),
            Self::At(at) => {
                stream.opened(shard) <= at && shard.closed.is_none_or(|closed| closed > at)
            }
            Self::From(at) => !expired && shard.closed.is_none_or(|closed| closed >= at),
        }
    }
}
