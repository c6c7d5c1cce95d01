//! The intent: a batch, written down before it is delivered.
//!
//! It holds ranges, not records. Whatever happens afterwards, the batch that is built from it is
//! the same one with the same id, so the destination sees a repetition and not a second batch.

use hydrant_core::clock::Timestamp;
use hydrant_core::control::{ControlError, ControlStore, Entry, Write, scan_all};
use hydrant_core::destination::DestinationSettings;
use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::buffer::{Cut, Range};
use crate::stream::DeliveryStream;

/// A batch that is to be delivered. A delivery stream has at most one at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// The delivery stream's version when the batch was cut, and the settings of that version: a
    /// repetition goes to the same object although the delivery stream was changed in between.
    pub(crate) version: u64,
    pub(crate) settings: DestinationSettings,
    pub(crate) first_arrival: Timestamp,
    pub(crate) memory_bytes: u64,
    pub(crate) ranges: Vec<Range>,
}

impl Intent {
    pub(crate) fn new(stream: &DeliveryStream, cut: Cut) -> Self {
        Self {
            version: stream.version,
            settings: stream.destination.settings.clone(),
            first_arrival: cut.first_arrival,
            memory_bytes: cut.memory_bytes,
            ranges: cut.ranges,
        }
    }

    /// The batch's id: the first half of SHA-256 over the delivery stream and the ranges.
    pub(crate) fn batch_id(&self, stream: &DeliveryStream) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(stream.arn().to_string());
        hash.update([0]);
        hash.update(stream.uid.0.to_be_bytes());
        for Range { shard, from, to, .. } in &self.ranges {
            for number in [shard.0, from.0, to.0] {
                hash.update(number.to_be_bytes());
            }
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        id
    }
}

/// How far a shard is delivered: every record below `next` is at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) next: RecordIndex,
}

/// The row of the intent.
pub(crate) fn intent_key(uid: ShardUid) -> String {
    format!("delivery/intents/{:020}", uid.0)
}

/// Where the checkpoints of a delivery stream are.
pub(crate) fn checkpoints_prefix(uid: ShardUid) -> String {
    format!("delivery/checkpoints/{:020}/", uid.0)
}

/// The row of a shard's checkpoint.
pub(crate) fn checkpoint_key(uid: ShardUid, shard: ShardUid) -> String {
    format!("{}{:020}", checkpoints_prefix(uid), shard.0)
}

/// The shard a checkpoint row is of.
pub(crate) fn shard_of_key(key: &str) -> Option<ShardUid> {
    key.rsplit('/').next()?.parse().ok().map(ShardUid)
}

/// Deletes the intent and every checkpoint of a delivery stream. Doing it twice is no error.
pub(crate) async fn forget(store: &dyn ControlStore, uid: ShardUid) -> Result<(), ControlError> {
    let key = intent_key(uid);
    if let Some(Entry { version, .. }) = store.get(&key).await? {
        store.commit(vec![Write::delete(key, version)]).await?;
    }
    let rows = scan_all(store, &checkpoints_prefix(uid)).await?;
    for some in rows.chunks(hydrant_core::limits::COMMIT_WRITES_MAX) {
        let deletes = some.iter().map(|(key, row)| Write::delete(key.clone(), row.version));
        store.commit(deletes.collect()).await?;
    }
    Ok(())
}
