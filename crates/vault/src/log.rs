//! A log engine whose records are encrypted in the engine below it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::Timestamp;
use hydrant_core::log::{Durable, LogEngine, LogError, ReadLimit, ReadPage, ShardUid, Tail};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::{IndexRange, RecordIndex};

use crate::vault::Vault;

/// A [`LogEngine`] on another one: encrypts batches that ask for it, and shows readers plain data.
///
/// - A batch with a data key is encrypted before the engine below sees it, or refused with
///   [`LogError::Key`]. Any other goes through as it is.
/// - A page stops before the first record whose key cannot be used; if that is the first of all, the
///   read is [`LogError::Key`]. A record that is not as it was encrypted is [`LogError::Corrupt`].
/// - [`ReadLimit::bytes_max`] counts what the log holds: 36 bytes more for an encrypted record.
/// - Frames without encrypted records go through without a copy.
pub struct EncryptedLog {
    below: Arc<dyn LogEngine>,
    vault: Arc<Vault>,
}

impl EncryptedLog {
    /// On `below`, with the keys of `vault`. The caller's duty: nobody else reads from `below`, and the
    /// data keys are loaded before anybody reads from this.
    pub fn new(below: Arc<dyn LogEngine>, vault: Arc<Vault>) -> Self {
        Self { below, vault }
    }
}

#[async_trait]
impl LogEngine for EncryptedLog {
    async fn create(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError> {
        self.below.create(shard, retention).await
    }

    async fn append(
        &self,
        shard: ShardUid,
        batch: RecordBatch,
    ) -> Result<Durable<IndexRange>, LogError> {
        let batch = match batch.data_key() {
            Some(id) => self.vault.encrypt(shard, &batch, id)?,
            None => batch,
        };
        self.below.append(shard, batch).await
    }

    async fn fetch(&self, shard: ShardUid, from: RecordIndex) -> Result<(), LogError> {
        self.below.fetch(shard, from).await
    }

    async fn read(
        &self,
        shard: ShardUid,
        from: RecordIndex,
        limit: ReadLimit,
    ) -> Result<ReadPage, LogError> {
        let mut page = self.below.read(shard, from, limit).await?;
        for n in 0..page.frames.len() {
            match self.vault.decrypt(shard, &page.frames[n]) {
                Ok(None) => {}
                Ok(Some(plain)) => page.frames[n] = plain,
                // Said when the reader gets there; what is in front of it is good.
                Err(LogError::Key(_) | LogError::Corrupt(_)) if n > 0 => {
                    page.next = page.frames[n].first();
                    page.frames.truncate(n);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(page)
    }

    async fn wait(&self, shard: ShardUid, past: RecordIndex) -> Result<Tail, LogError> {
        self.below.wait(shard, past).await
    }

    async fn locate(&self, shard: ShardUid, time: Timestamp) -> Result<RecordIndex, LogError> {
        self.below.locate(shard, time).await
    }

    async fn tail(&self, shard: ShardUid) -> Result<Tail, LogError> {
        self.below.tail(shard).await
    }

    async fn seal(&self, shard: ShardUid) -> Result<Tail, LogError> {
        self.below.seal(shard).await
    }

    async fn trim(&self, shard: ShardUid, before: RecordIndex) -> Result<(), LogError> {
        self.below.trim(shard, before).await
    }

    async fn set_retention(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError> {
        self.below.set_retention(shard, retention).await
    }

    async fn drop_shard(&self, shard: ShardUid) -> Result<(), LogError> {
        self.below.drop_shard(shard).await
    }
}
