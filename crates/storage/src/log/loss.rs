//! Damage to the log, and what is lost by it.

use std::collections::BTreeMap;

use hydrant_core::Timestamp;
use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;
use serde::{Deserialize, Serialize};

use super::files::WholeIndex;

/// A place where the log is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file, from the data directory on; the control store's if a shard's last records are
    /// nowhere.
    pub file: String,
    /// Where in it, in bytes from its start.
    pub at: u64,
    /// Where what is as written goes on.
    pub end: u64,
    /// What is wrong there.
    pub what: String,
    /// The acknowledged records that are lost by it; none if it is only what they are found by.
    pub lost: Vec<Loss>,
}

/// Records that are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Whose they were. `None` if nothing tells any more: of any shard.
    pub shard: Option<ShardUid>,
    /// None of them was below this.
    pub first: RecordIndex,
    /// All of them were below this; [`RecordIndex::MAX`] if nothing tells.
    pub end: RecordIndex,
    /// How many, if something tells.
    pub records: Option<u64>,
}

impl Loss {
    /// Records of nobody knows whom, of frames that arrived from `first_ms` to `last_ms`.
    pub(super) fn unknown(first_ms: u64, last_ms: Option<u64>) -> Self {
        let end = last_ms.map(|ms| RecordIndex::at(Timestamp::from_millis(ms.saturating_add(1))));
        Self {
            shard: None,
            first: RecordIndex::at(Timestamp::from_millis(first_ms)),
            end: end.unwrap_or(RecordIndex::MAX),
            records: None,
        }
    }

    /// Whether these may be the records that the shard ended with.
    pub(super) fn explains(&self, shard: ShardUid, end: RecordIndex) -> bool {
        self.shard.is_none_or(|of| of == shard) && self.first < end && end <= self.end
    }
}

/// What an index says was between two bytes of its segment, a row a shard.
pub(super) fn listed_between(index: &WholeIndex, from: u64, to: u64) -> Vec<Loss> {
    let mut lost: BTreeMap<ShardUid, Loss> = BTreeMap::new();
    for (shard, entry) in &index.entries {
        if !(from..to).contains(&u64::from(entry.at)) {
            continue;
        }
        let (first, end) = (entry.first, entry.end());
        let records = u64::from(entry.count);
        let of = Some(*shard);
        let row = lost.entry(*shard).or_insert(Loss { shard: of, first, end, records: Some(0) });
        (row.first, row.end) = (row.first.min(first), row.end.max(end));
        row.records = row.records.map(|n| n + records);
    }
    lost.into_values().collect()
}
