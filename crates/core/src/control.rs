//! The port to the control store: a small, durable, versioned map.
//!
//! Everything that must survive and is not a record or a file is a row here. Keys are paths
//! (`streams/000000000000/us-east-1/tweets`), values are JSON that an operator can read. Typed
//! catalogs stand above it, so a new operation never touches an engine.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::SCAN_ROWS_MAX;

/// What the store could not do, named by what the caller must do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A row was not at the version the write named. Nothing was written. Read again, decide again.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// The first row that was not as expected.
        key: String,
    },
    /// A key, value or commit is larger than [`crate::limits`] allows. Do not retry.
    #[error("too large: {0}")]
    TooLarge(String),
    /// No room on the disk. Nothing was written. Retry later.
    #[error("the disk is full")]
    Full,
    /// The store cannot answer now. Whether a commit took effect is unknown. Read, then retry.
    #[error("the control store is unavailable: {0}")]
    Unavailable(String),
    /// A row is not what was written. An operator has to look; do not retry.
    #[error("the control store is damaged: {0}")]
    Corrupt(String),
}

/// A row's value, and the version a write has to name to replace it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Grows with every commit to the store; no two commits share one.
    pub version: u64,
    /// The value, JSON.
    pub value: Arc<str>,
}

impl Entry {
    /// The value as a `T`. `key` goes into the error of a row that does not parse.
    pub fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T, ControlError> {
        serde_json::from_str(&self.value).map_err(|e| ControlError::Corrupt(format!("{key}: {e}")))
    }
}

/// The state a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is no such row.
    Absent,
    /// The row is at this version.
    Version(u64),
}

/// One change of a commit: put the value, or delete the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The row.
    pub key: String,
    /// What the writer saw.
    pub expected: Expected,
    /// The new value, or `None` to delete the row.
    pub value: Option<String>,
}

impl Write {
    /// Inserts a row that must not exist yet.
    pub fn insert<T: Serialize>(key: impl Into<String>, value: &T) -> Self {
        Self { key: key.into(), expected: Expected::Absent, value: Some(to_json(value)) }
    }

    /// Replaces a row that was read at `version`.
    pub fn update<T: Serialize>(key: impl Into<String>, version: u64, value: &T) -> Self {
        Self { key: key.into(), expected: Expected::Version(version), value: Some(to_json(value)) }
    }

    /// Inserts the row if it was read as absent, else replaces what was read.
    pub fn put<T: Serialize>(key: impl Into<String>, seen: Option<&Entry>, value: &T) -> Self {
        let expected = seen.map_or(Expected::Absent, |e| Expected::Version(e.version));
        Self { key: key.into(), expected, value: Some(to_json(value)) }
    }

    /// Deletes a row that was read at `version`.
    pub fn delete(key: impl Into<String>, version: u64) -> Self {
        Self { key: key.into(), expected: Expected::Version(version), value: None }
    }

    /// Writes nothing, but fails the commit unless the row is as expected.
    pub fn is_check(&self) -> bool {
        self.value.is_none() && self.expected == Expected::Absent
    }

    /// Fails the commit if the row exists.
    pub fn check_absent(key: impl Into<String>) -> Self {
        Self { key: key.into(), expected: Expected::Absent, value: None }
    }
}

fn to_json<T: Serialize>(value: &T) -> String {
    // A row type of ours has string keys and no failing serializer, so this cannot fail; an empty
    // value would be refused as corrupt on reading, never taken for data.
    serde_json::to_string(value).unwrap_or_default()
}

/// A durable, versioned map with atomic commits.
///
/// Guarantees, for every implementation (`hydrant_testkit::control_conformance` checks them):
/// a commit is all or nothing, durable when it returns, and serializable with every other; a read
/// that starts after a commit returned sees it.
#[async_trait]
pub trait ControlStore: Send + Sync + 'static {
    /// The row, or `None`.
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError>;

    /// Rows whose key starts with `prefix` and is greater than `after` (by bytes), in key order, at
    /// most `limit` of them and at most [`crate::limits::SCAN_ROWS_MAX`]. One call is a consistent
    /// view; several are not one view together.
    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError>;

    /// Applies every write or none; returns the version the written rows now have. An empty commit
    /// does nothing. Fails with [`ControlError::Conflict`] if any row is not as its write expects.
    /// The caller's duty: one write a key.
    async fn commit(&self, writes: Vec<Write>) -> Result<u64, ControlError>;
}

/// Every row under `prefix`, all of them in memory. The caller's duty: a prefix of bounded size.
pub async fn scan_all(
    store: &dyn ControlStore,
    prefix: &str,
) -> Result<Vec<(String, Entry)>, ControlError> {
    let mut rows = Vec::new();
    scan_each(store, prefix, |key, entry| {
        rows.push((key, entry));
        Ok(())
    })
    .await?;
    Ok(rows)
}

/// Shows every row under `prefix` to `see`, in key order, page by page: never more than a page of
/// [`crate::limits::SCAN_ROWS_MAX`] is in memory, and the next one, which is read meanwhile. Ends with the
/// first error.
pub async fn scan_each(
    store: &dyn ControlStore,
    prefix: &str,
    mut see: impl FnMut(String, Entry) -> Result<(), ControlError> + Send,
) -> Result<(), ControlError> {
    let mut page = store.scan(prefix, None, SCAN_ROWS_MAX).await?;
    while let Some((last, _)) = page.last() {
        let after = last.clone();
        let next = store.scan(prefix, Some(&after), SCAN_ROWS_MAX);
        let seen = async { page.into_iter().try_for_each(|(key, entry)| see(key, entry)) };
        // In this order, so that the store is asked before the page is looked at.
        let (next, seen) = tokio::join!(biased; next, seen);
        seen?;
        page = next?;
    }
    Ok(())
}
