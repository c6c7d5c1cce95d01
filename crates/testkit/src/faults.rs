//! Ports that fail when they are told to.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::Timestamp;
use hydrant_core::control::{ControlError, ControlStore, Entry, Write};
use hydrant_core::log::{Durable, LogEngine, LogError, ReadLimit, ReadPage, ShardUid, Tail};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::{IndexRange, RecordIndex};
use parking_lot::Mutex;

/// A control store that answers [`ControlError::Unavailable`] to commits when told to, either
/// without having written anything or, the nastier case, after having written all of it.
pub struct FaultyControl {
    inner: Arc<dyn ControlStore>,
    lose_commits: AtomicU32,
    lose_answers: AtomicU32,
}

impl FaultyControl {
    /// Passes everything on to `inner` until told otherwise.
    pub fn new(inner: Arc<dyn ControlStore>) -> Self {
        Self { inner, lose_commits: AtomicU32::new(0), lose_answers: AtomicU32::new(0) }
    }

    /// The next `count` commits fail and write nothing.
    pub fn lose_commits(&self, count: u32) {
        self.lose_commits.store(count, Ordering::SeqCst);
    }

    /// The next `count` commits are written but answered with a failure.
    pub fn lose_answers(&self, count: u32) {
        self.lose_answers.store(count, Ordering::SeqCst);
    }
}

fn take(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

#[async_trait]
impl ControlStore for FaultyControl {
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError> {
        self.inner.get(key).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<u64, ControlError> {
        if take(&self.lose_commits) {
            return Err(ControlError::Unavailable("a fault, nothing written".to_owned()));
        }
        let done = self.inner.commit(writes).await;
        if take(&self.lose_answers) {
            return Err(ControlError::Unavailable("a fault, all written".to_owned()));
        }
        done
    }
}

/// An append under way.
pub type Appending =
    Pin<Box<dyn Future<Output = Result<Durable<IndexRange>, LogError>> + Send + 'static>>;

type Append = dyn Fn(Arc<dyn LogEngine>, ShardUid, RecordBatch) -> Appending + Send + Sync;

/// A log that counts its reads and appends as it is told to; everything else it passes on.
pub struct FaultyLog {
    inner: Arc<dyn LogEngine>,
    reads: AtomicUsize,
    unfetched: Mutex<HashSet<ShardUid>>,
    append: Box<Append>,
}

impl FaultyLog {
    /// Passes everything on to `inner`.
    pub fn new(inner: Arc<dyn LogEngine>) -> Self {
        Self::appending(inner, |inner, shard, batch| {
            Box::pin(async move { inner.append(shard, batch).await })
        })
    }

    /// What `append` does with the log below it, the shard and the batch is what becomes of an append.
    pub fn appending(
        inner: Arc<dyn LogEngine>,
        append: impl Fn(Arc<dyn LogEngine>, ShardUid, RecordBatch) -> Appending + Send + Sync + 'static,
    ) -> Self {
        let (reads, unfetched) = (AtomicUsize::new(0), Mutex::default());
        Self { inner, reads, unfetched, append: Box::new(append) }
    }

    /// From now on, fetches of the shard do not end.
    pub fn hold_fetches(&self, shard: ShardUid) {
        self.unfetched.lock().insert(shard);
    }

    /// Reads so far.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl LogEngine for FaultyLog {
    async fn create(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError> {
        self.inner.create(shard, retention).await
    }

    async fn append(
        &self,
        shard: ShardUid,
        batch: RecordBatch,
    ) -> Result<Durable<IndexRange>, LogError> {
        (self.append)(Arc::clone(&self.inner), shard, batch).await
    }

    async fn fetch(&self, shard: ShardUid, from: RecordIndex) -> Result<(), LogError> {
        if self.unfetched.lock().contains(&shard) {
            std::future::pending::<()>().await;
        }
        self.inner.fetch(shard, from).await
    }

    async fn read(
        &self,
        shard: ShardUid,
        from: RecordIndex,
        limit: ReadLimit,
    ) -> Result<ReadPage, LogError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.read(shard, from, limit).await
    }

    async fn wait(&self, shard: ShardUid, past: RecordIndex) -> Result<Tail, LogError> {
        self.inner.wait(shard, past).await
    }

    async fn locate(&self, shard: ShardUid, time: Timestamp) -> Result<RecordIndex, LogError> {
        self.inner.locate(shard, time).await
    }

    async fn tail(&self, shard: ShardUid) -> Result<Tail, LogError> {
        self.inner.tail(shard).await
    }

    async fn seal(&self, shard: ShardUid) -> Result<Tail, LogError> {
        self.inner.seal(shard).await
    }

    async fn trim(&self, shard: ShardUid, before: RecordIndex) -> Result<(), LogError> {
        self.inner.trim(shard, before).await
    }

    async fn set_retention(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError> {
        self.inner.set_retention(shard, retention).await
    }

    async fn drop_shard(&self, shard: ShardUid) -> Result<(), LogError> {
        self.inner.drop_shard(shard).await
    }
}
