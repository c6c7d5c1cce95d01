//! The port to the log: many shards, each an ordered run of records.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::record::{Frame, RecordBatch};
use crate::sequence::{IndexRange, RecordIndex};

/// A shard as the log knows it. Given out once by
/// [`StreamCatalog::allocate_shards`](crate::catalog::StreamCatalog::allocate_shards), never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardUid(pub u64);

/// Why a key of the records cannot be used. The text says what to do about it, and never holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no such key, or no master key to reach it with.
    #[error("{0}")]
    NotFound(String),
    /// An operator disabled it.
    #[error("{0}")]
    Disabled(String),
    /// It is in another state in which it can be used for nothing.
    #[error("{0}")]
    InvalidState(String),
    /// The master key at hand is not the one the data key was wrapped under.
    #[error("{0}")]
    Denied(String),
}

/// What an append or a read could not do, named by what the caller must do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// There is no such shard: it was never created, or it was dropped. Do not retry.
    #[error("no such shard in the log")]
    NotFound,
    /// The shard was sealed: write to its children. Do not retry.
    #[error("the shard is sealed")]
    Sealed,
    /// The batch can never be taken: it is empty or larger than a frame may be. Do not retry.
    #[error("the batch cannot be taken: {0}")]
    Invalid(&'static str),
    /// No room on the disk. Retry later; reads still work.
    #[error("the disk is full")]
    Full,
    /// The engine cannot answer now. Whether an append took effect is unknown. Retry.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// Bytes on the disk are not what was written. An operator has to look; do not retry.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
    /// The records are encrypted, and their key cannot be used. Retry once an operator has seen to it.
    #[error("the key of the records cannot be used: {0}")]
    Key(#[from] KeyError),
}

/// Proof that a sync of the bytes in question has completed.
///
/// Only an engine may make one, right behind the sync; `cargo xtask tidy` refuses the name
/// `Synced` anywhere else.
#[derive(Debug)]
pub struct Synced(());

impl Synced {
    /// The caller's duty: the sync has returned success.
    pub fn by_completed_sync() -> Self {
        Self(())
    }
}

/// Something that survives a power cut.
///
/// Acknowledging a write takes one of these, so code that acknowledges too early does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// Wraps what the sync has made durable.
    pub fn new(value: T, _proof: &Synced) -> Self {
        Self(value)
    }

    /// What is durable.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What is durable, by value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Bounds of one read. A page holds at least one record if there is one, however large.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Most records.
    pub records_max: usize,
    /// Most bytes of keys and data; the record that crosses it is left for the next page.
    pub bytes_max: usize,
}

/// The ends of a shard, as readers may see it: durable records only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// No record below this is readable: trimmed, or past the retention. Never above `end`, so a
    /// reader that starts here meets every later record.
    pub horizon: RecordIndex,
    /// Every durable record is below this; every later one will be at it or above.
    pub end: RecordIndex,
    /// Whether the shard takes no more records, so that `end` is its last word.
    pub sealed: bool,
}

/// What one read found.
#[derive(Clone, Debug)]
pub struct ReadPage {
    /// Records in order. Frames are never empty.
    pub frames: Vec<Frame>,
    /// Where to read on. Above the last record returned. If there is none, where the read began, or
    /// above, where records are missing: at the end of the shard if nothing is left below it.
    pub next: RecordIndex,
    /// The shard's ends at the time of the read.
    pub tail: Tail,
}

impl ReadPage {
    /// How many records.
    pub fn len(&self) -> usize {
        self.frames.iter().map(Frame::len).sum()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// A durable, ordered, many-shard log.
///
/// Guarantees, for every implementation (`hydrant_testkit::log_conformance` checks them):
/// - **Durable**: what `append` acknowledges survives a crash; readers never see a record that a
///   crash could take back.
/// - **Order**: indices within a shard grow in the order in which appends were acknowledged to
///   callers that waited for each other, and never repeat, whatever the clock does.
/// - **Isolation**: shards share nothing that a caller can see. An idle shard costs no task, timer,
///   descriptor or memory.
#[async_trait]
pub trait LogEngine: Send + Sync + 'static {
    /// Makes an empty shard whose records are kept for `retention`. Doing it twice is no error and
    /// changes nothing. Durable on return.
    async fn create(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError>;

    /// Appends the batch, all or none, with consecutive indices. Resolves only once durable.
    ///
    /// A batch that asks to be encrypted is [`LogError::Invalid`] to an engine that does not encrypt.
    /// On [`LogError::Unavailable`], or if the future is dropped, the batch may still be appended.
    async fn append(
        &self,
        shard: ShardUid,
        batch: RecordBatch,
    ) -> Result<Durable<IndexRange>, LogError>;

    /// Has what is read first at `from` or above fetched, where it is kept elsewhere. The caller's duty:
    /// hold nothing meanwhile that others wait for, as it may take long. It may be gone again by the
    /// time it is read; then [`LogEngine::read`] fetches it. Fails as that does.
    async fn fetch(&self, _shard: ShardUid, _from: RecordIndex) -> Result<(), LogError> {
        Ok(())
    }

    /// Reads records with an index of `from` or above, oldest first. Starts at the horizon if `from`
    /// is below it. Never waits for records: at the end of the shard the page is empty.
    async fn read(
        &self,
        shard: ShardUid,
        from: RecordIndex,
        limit: ReadLimit,
    ) -> Result<ReadPage, LogError>;

    /// Waits until a record at `past` or above is durable, or the shard is sealed. The caller's duty:
    /// bound the wait; dropping the future ends it.
    async fn wait(&self, shard: ShardUid, past: RecordIndex) -> Result<Tail, LogError>;

    /// A place to read from for the records that arrived at or after `time`: each of them is at it or
    /// above, every other one below.
    async fn locate(&self, shard: ShardUid, time: Timestamp) -> Result<RecordIndex, LogError>;

    /// The shard's ends.
    async fn tail(&self, shard: ShardUid) -> Result<Tail, LogError>;

    /// Takes no more records: appends that have not resolved either are below the returned end or
    /// fail with [`LogError::Sealed`]. Durable on return; sealing twice returns the same.
    async fn seal(&self, shard: ShardUid) -> Result<Tail, LogError>;

    /// Hides the records below `before` for good, as far as there are any: a later record is never
    /// hidden. Never comes undone; a lower `before` than an earlier one does nothing. Durable on
    /// return.
    async fn trim(&self, shard: ShardUid, before: RecordIndex) -> Result<(), LogError>;

    /// Changes how long records are kept, at once and both ways: records that a longer retention
    /// covers are readable again if their bytes are still there. Durable on return.
    async fn set_retention(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError>;

    /// Forgets the shard. Reads and waits under way end with [`LogError::NotFound`]. Doing it twice
    /// is no error. Durable on return.
    async fn drop_shard(&self, shard: ShardUid) -> Result<(), LogError>;
}
