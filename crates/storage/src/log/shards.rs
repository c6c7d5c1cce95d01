//! What the log remembers of each shard: a row in the control store, `log/shard/UID`, read when
//! somebody first asks for the shard.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::control::{ControlError, Write};
use hydrant_core::log::{LogError, ShardUid, Tail};
use hydrant_core::sequence::RecordIndex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Log;
use super::shared::{Shard, Shared};

/// What the keys of the rows start with.
pub const PREFIX: &str = "log/shard/";
/// Locks that the shards share, so that changes of one row are made one after the other.
const STRIPES: usize = 64;

/// The row of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// How long records are kept, in milliseconds.
    pub(super) retention_ms: u64,
    /// Records below this are hidden for good.
    pub(super) trimmed: RecordIndex,
    /// Where the shard ended, once it takes no more records.
    pub(super) sealed_end: Option<RecordIndex>,
}

impl Shard {
    fn adopt(&mut self, row: &Row) {
        self.retention = Duration::from_millis(row.retention_ms);
        self.trimmed = row.trimmed;
        if let Some(end) = row.sealed_end {
            (self.end, self.sealing, self.sealed) = (end, true, true);
            self.wake();
        }
    }
}

/// The locks.
pub(super) struct Stripes([tokio::sync::Mutex<()>; STRIPES]);

impl Default for Stripes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Stripes {
    async fn lock(&self, shard: ShardUid) -> tokio::sync::MutexGuard<'_, ()> {
        self.0[(shard.0 % STRIPES as u64) as usize].lock().await
    }
}

fn key_of(shard: ShardUid) -> String {
    format!("{PREFIX}{}", shard.0)
}

/// The shard whose row has this key.
pub(super) fn uid_of(key: &str) -> Option<ShardUid> {
    key.strip_prefix(PREFIX)?.parse().ok().map(ShardUid)
}

/// Whole milliseconds of a retention.
pub(super) fn millis(retention: Duration) -> u64 {
    u64::try_from(retention.as_millis()).unwrap_or(u64::MAX)
}

/// The log's word for what the control store could not do.
pub(super) fn control_error(error: ControlError) -> LogError {
    match error {
        ControlError::Full => LogError::Full,
        ControlError::Corrupt(what) => LogError::Corrupt(what),
        // A row of a shard is changed under its lock, so a conflict has another writer behind it.
        other => LogError::Unavailable(other.to_string()),
    }
}

impl Log {
    /// Makes sure that the shard's state is in memory.
    pub(super) async fn touch(&self, shard: ShardUid) -> Result<(), LogError> {
        if self.shared.shards.lock().contains_key(&shard) {
            return Ok(());
        }
        let _changes = self.stripes.lock(shard).await;
        if self.shared.shards.lock().contains_key(&shard) {
            return Ok(());
        }
        let (_, row) = self.row(shard).await?.ok_or(LogError::NotFound)?;
        // Nothing is appended to a shard that is not in memory, so its end stands still.
        let end = match row.sealed_end {
            Some(end) => end,
            None => self.blocking(move |shared| shared.end_of(shard)).await?,
        };
        let mut state = Shard {
            retention: Duration::ZERO,
            trimmed: RecordIndex::MIN,
            end,
            sealing: false,
            sealed: false,
            waiters: None,
        };
        state.adopt(&row);
        self.shared.shards.lock().insert(shard, state);
        Ok(())
    }

    async fn row(&self, shard: ShardUid) -> Result<Option<(u64, Row)>, LogError> {
        let key = key_of(shard);
        let entry = self.control.get(&key).await.map_err(control_error)?;
        let row = |e: hydrant_core::control::Entry| Ok((e.version, e.json(&key)?));
        entry.map(row).transpose().map_err(control_error)
    }

    /// Inserts the row of a shard, unless it is there.
    pub(super) async fn insert_row(
        &self,
        shard: ShardUid,
        retention: Duration,
    ) -> Result<(), LogError> {
        let _changes = self.stripes.lock(shard).await;
        if self.row(shard).await?.is_some() {
            return Ok(());
        }
        let row =
            Row { retention_ms: millis(retention), trimmed: RecordIndex::MIN, sealed_end: None };
        let inserted = self.control.commit(vec![Write::insert(key_of(shard), &row)]).await;
        inserted.map(|_| ()).map_err(control_error)
    }

    /// Changes the row of a shard, then what is in memory.
    pub(super) async fn change_row(
        &self,
        shard: ShardUid,
        change: impl FnOnce(&mut Row),
    ) -> Result<(), LogError> {
        let _changes = self.stripes.lock(shard).await;
        let (version, row) = self.row(shard).await?.ok_or(LogError::NotFound)?;
        let mut changed = row.clone();
        change(&mut changed);
        if changed != row {
            let write = Write::update(key_of(shard), version, &changed);
            self.control.commit(vec![write]).await.map_err(control_error)?;
        }
        if let Some(state) = self.shared.shards.lock().get_mut(&shard) {
            state.adopt(&changed);
        }
        Ok(())
    }

    /// Deletes the row of a shard, and ends every wait for it.
    pub(super) async fn delete_row(&self, shard: ShardUid) -> Result<(), LogError> {
        let _changes = self.stripes.lock(shard).await;
        if let Some((version, _)) = self.row(shard).await? {
            let write = Write::delete(key_of(shard), version);
            self.control.commit(vec![write]).await.map_err(control_error)?;
        }
        let dropped = self.shared.shards.lock().remove(&shard);
        if let Some(mut dropped) = dropped {
            dropped.wake();
        }
        Ok(())
    }

    /// Waits until the shard reaches above `past`, or is sealed or dropped.
    pub(super) async fn wait_past(
        &self,
        shard: ShardUid,
        past: RecordIndex,
    ) -> Result<Tail, LogError> {
        loop {
            self.touch(shard).await?;
            let (_waiting, woken) = {
                let now = self.shared.clock.now();
                let mut shards = self.shared.shards.lock();
                let state = shards.get_mut(&shard).ok_or(LogError::NotFound)?;
                let tail = state.tail(now);
                if tail.end > past || tail.sealed {
                    return Ok(tail);
                }
                let waiters = state.waiters.get_or_insert_default().clone();
                // Made under the lock, so that no wake-up comes between the look and the wait.
                let woken = waiters.clone().notified_owned();
                (Waiting { shared: self.shared.clone(), shard, waiters }, woken)
            };
            woken.await;
        }
    }
}

/// One that waits; the last one to go takes the list with it.
struct Waiting {
    shared: Arc<Shared>,
    shard: ShardUid,
    waiters: Arc<Notify>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut shards = self.shared.shards.lock();
        if let Some(state) = shards.get_mut(&self.shard)
            && state.waiters.as_ref().is_some_and(|w| Arc::ptr_eq(w, &self.waiters))
            && Arc::strong_count(&self.waiters) <= 2
        {
            state.waiters = None;
        }
    }
}
