//! A shard of a stream, and its number.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::hash::HashRange;
use crate::log::ShardUid;
use crate::sequence::{RecordIndex, SequenceNumber};

/// A shard's number in its stream; shown as `shardId-000000000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u32);

/// The text is not a shard id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a shard id")]
pub struct InvalidShardId;

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

impl std::str::FromStr for ShardId {
    type Err = InvalidShardId;

    /// AWS also takes the number without the zeros, and without the `shardId-`.
    fn from_str(text: &str) -> Result<Self, InvalidShardId> {
        let digits = text.strip_prefix("shardId-").unwrap_or(text);
        if !digits.is_empty() && digits.len() <= 12 && digits.bytes().all(|b| b.is_ascii_digit()) {
            digits.parse().map(Self).map_err(|_| InvalidShardId)
        } else {
            Err(InvalidShardId)
        }
    }
}

/// A shard of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number in the stream.
    pub id: ShardId,
    /// The log's name for it.
    pub uid: ShardUid,
    /// The hash keys it takes.
    pub range: HashRange,
    /// When it was created.
    pub created: Timestamp,
    /// The shard it was split from, or the one that was told to merge.
    pub parent: Option<ShardId>,
    /// The other shard of a merge.
    pub adjacent_parent: Option<ShardId>,
    /// When it was closed, if it is: it takes no more records.
    pub closed: Option<Timestamp>,
}

impl Shard {
    /// Whether it takes records.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// The public number of the record at `index`.
    pub fn sequence_number(&self, index: RecordIndex) -> SequenceNumber {
        SequenceNumber::of(self.id.0, self.created, index)
    }

    /// `StartingSequenceNumber`.
    pub fn starting_sequence_number(&self) -> SequenceNumber {
        SequenceNumber::start_of(self.id.0, self.created)
    }

    /// `EndingSequenceNumber`, once closed.
    pub fn ending_sequence_number(&self) -> Option<SequenceNumber> {
        self.closed.map(|at| SequenceNumber::end_of(self.id.0, self.created, at))
    }
}
