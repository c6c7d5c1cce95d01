//! Ports that fail when they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use hydrant_core::control::{ControlError, ControlStore, Entry, Write};

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
