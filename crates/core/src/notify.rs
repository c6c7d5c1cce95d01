//! What a bucket leaves for the pipes: a row for each new object, written in the object's own commit.
//!
//! The bucket inserts the row in the commit that makes the object visible and rings the doorbell;
//! whoever runs the pipes turns rows into queue entries and deletes them in one commit. A crash
//! anywhere leaves the row, so no object is missed; the queue is keyed by path, so none is doubled.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::Timestamp;

/// Where the rows are: [`outbox_key`] under this.
pub const OUTBOX_PREFIX: &str = "outbox/object-created/";

/// A new object in one of hydrant's own buckets (AWS: `s3:ObjectCreated:*`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectCreated {
    /// The bucket.
    pub bucket: String,
    /// The key, as the client named it.
    pub key: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// ETag without quotes.
    pub etag: String,
    /// When the object became visible.
    pub created: Timestamp,
}

/// The row of a notification. `sequencer` tells two writes of one key apart and grows over time.
pub fn outbox_key(sequencer: u64) -> String {
    format!("{OUTBOX_PREFIX}{sequencer:020}")
}

/// Tells one reader that there may be something new. Rings are not counted and may be missed across
/// a restart: the reader looks at its rows when it starts, and after every ring.
#[derive(Clone, Debug, Default)]
pub struct Doorbell(Arc<Notify>);

impl Doorbell {
    /// A silent bell.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the reader, now or at its next wait.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits for the next ring.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}
