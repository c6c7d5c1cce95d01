//! The tasks of all current-state tables, and how each is doing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::capture::Lsn;
use hydrant_core::notify::Doorbell;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::worker::{Follower, Passed};
use super::{Follow, Followed, State, StateOptions};
use crate::catalog::ObjectName;
use crate::engine::Engine;
use crate::error::SqlResult;

/// How often a table looks at its source although nothing was told.
pub(super) const LOOK_AFTER: Duration = Duration::from_secs(10);
/// Tables that read and merge at the same time: each may hold what it has folded.
const MERGES_MAX: usize = 2;

/// What the engine has for its current-state tables.
pub(crate) struct Following {
    pub(crate) follow: Option<Follow>,
    pub(super) options: StateOptions,
    /// Rung when there is a new table.
    pub(crate) bell: Doorbell,
    /// How tables are doing, by uid.
    pub(super) progress: Mutex<HashMap<String, Progress>>,
    pub(super) permits: Semaphore,
}

/// What is not stored about a table: it is known again after the next look.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// How far the table is like its source.
    pub(super) resume: Lsn,
    /// Why it does not go on, if it does not.
    pub(super) note: String,
    /// Since when there is something that it does not have.
    pub(super) behind_since: Option<Timestamp>,
}

impl Following {
    pub(crate) fn new(follow: Option<Follow>, options: StateOptions) -> Self {
        Self {
            follow,
            options,
            bell: Doorbell::new(),
            progress: Mutex::default(),
            permits: Semaphore::new(MERGES_MAX),
        }
    }

    /// What a SHOW says of a table.
    pub(crate) fn describe(&self, uid: &str, followed: &Followed, state: &State) -> String {
        let progress = self.progress.lock().get(uid).cloned().unwrap_or_default();
        let published = state.published.as_ref();
        let resume = progress.resume.max(published.map_or(Lsn(0), |p| p.resume));
        let what = match (&state.errored, published) {
            (Some(errored), _) => format!("errored: {}", errored.reason),
            (None, None) if progress.note.is_empty() => "snapshotting".to_owned(),
            (None, _) if !progress.note.is_empty() => format!("waiting: {}", progress.note),
            (None, _) => "live".to_owned(),
        };
        format!(
            "current state of {} from source {} at {resume}; {what}",
            followed.table, followed.source
        )
    }
}

/// Follows until `shutdown`. What is not committed by then is read again after the next start.
pub(crate) async fn run(engine: Arc<Engine>, shutdown: CancellationToken) {
    if engine.following.follow.is_none() {
        return;
    }
    let mut tasks: HashMap<String, JoinHandle<()>> = HashMap::new();
    loop {
        match state_tables(&engine).await {
            Ok(tables) => {
                tasks.retain(|_, task| !task.is_finished());
                for (uid, name) in tables {
                    tasks.entry(uid.clone()).or_insert_with(|| {
                        let table = Follower::new(Arc::clone(&engine), name, uid);
                        tokio::spawn(table.run(shutdown.clone()))
                    });
                }
            }
            Err(e) => tracing::warn!(error = %e, "cannot list the current-state tables"),
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = engine.following.bell.wait() => {}
            () = tokio::time::sleep(LOOK_AFTER) => {}
        }
    }
    for (_, task) in tasks {
        let _ = task.await;
    }
}

/// Brings every table as far as it can be brought now. True if one went on.
pub(crate) async fn run_once(engine: &Arc<Engine>) -> SqlResult<bool> {
    let mut moved = false;
    for (uid, name) in state_tables(engine).await? {
        let mut table = Follower::new(Arc::clone(engine), name, uid);
        moved |= table.pass().await? == Passed::Moved;
    }
    Ok(moved)
}

async fn state_tables(engine: &Engine) -> SqlResult<Vec<(String, ObjectName)>> {
    let tables = engine.catalog.all_tables().await?;
    Ok(tables
        .into_iter()
        .filter(|(_, table)| table.follows.is_some())
        .map(|(name, table)| (table.uid, name))
        .collect())
}
