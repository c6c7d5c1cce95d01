//! Keeps every current-state table at the last cut of its source.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::capture::{Cut, PgColumn, SourceReport, TableState};
use hydrant_core::sequence::RecordIndex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bucket::Failed;
use super::columns::{self, Altered};
use super::fold::Fold;
use super::following::LOOK_AFTER;
use super::reading::{Read, expired, read_on};
use super::schema::{Schema, anew};
use super::step::{Place, merge};
use super::{Folded, Followed, State, work_key};
use crate::catalog::{Held, ObjectName, Table};
use crate::engine::Engine;
use crate::error::{SqlResult, control, internal};
use crate::table::{Head, head_key};

/// Least time between two commits of a table.
const COMMIT_GAP: Duration = Duration::from_millis(500);
/// How long after an error that passes it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// There was nothing to do.
    Idle,
    /// Something was committed.
    Moved,
    /// The table was dropped.
    Gone,
}

/// A place that was reached without a change of the table, and is not stored yet.
pub(super) struct Ahead {
    pub(super) version: u64,
    pub(super) at: Folded,
    pub(super) since: Instant,
}

pub(super) struct Follower {
    pub(super) engine: Arc<Engine>,
    pub(super) name: ObjectName,
    pub(super) uid: String,
    pub(super) ahead: Option<Ahead>,
}

/// A table and its source, as they were found.
pub(super) struct Found {
    pub(super) table: Held<Table>,
    pub(super) followed: Followed,
    pub(super) report: SourceReport,
    pub(super) cut: Cut,
    /// Whether the table's own snapshot is in the cut.
    pub(super) is_whole: bool,
    pub(super) head: Head,
    pub(super) head_version: u64,
    pub(super) state: State,
    pub(super) work: Option<(Folded, u64)>,
}

/// How far the rows were brought.
pub(super) struct Step {
    pub(super) at: Folded,
    pub(super) reached: bool,
}

impl Follower {
    pub(super) fn new(engine: Arc<Engine>, name: ObjectName, uid: String) -> Self {
        Self { engine, name, uid, ahead: None }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let Some(follow) = self.engine.following.follow.clone() else { return };
        let mut changes = follow.capture.changes();
        loop {
            changes.mark_unchanged();
            let began = Instant::now();
            let passed = tokio::select! {
                () = shutdown.cancelled() => return,
                passed = self.pass() => passed,
            };
            let rest = match passed {
                Ok(Passed::Gone) => break,
                Ok(Passed::Moved) => COMMIT_GAP.max(began.elapsed()),
                Ok(Passed::Idle) => Duration::ZERO,
                Err(e) => {
                    tracing::warn!(table = %self.name, error = %e, "a current-state table waits");
                    self.note(e.message.clone());
                    RETRY_AFTER
                }
            };
            let is_idle = rest.is_zero();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(rest), if !is_idle => {}
                () = told(&mut changes), if is_idle => {}
                () = tokio::time::sleep(LOOK_AFTER), if is_idle => {}
            }
        }
        self.engine.following.progress.lock().remove(&self.uid);
    }

    pub(super) fn note(&self, note: String) {
        self.engine.following.progress.lock().entry(self.uid.clone()).or_default().note = note;
    }

    /// Brings the table to the source's cut. An error passes.
    pub(super) async fn pass(&mut self) -> SqlResult<Passed> {
        let Some(found) = self.find().await? else { return Ok(Passed::Gone) };
        let found = match found {
            Ok(found) => found,
            Err(passed) => return Ok(passed),
        };
        let engine = Arc::clone(&self.engine);
        let _permit = engine.following.permits.acquire().await.map_err(internal)?;
        self.advance(found).await
    }

    /// The table and its source; `None` if the table is gone, and what came of it if there is nothing
    /// to read.
    async fn find(&mut self) -> SqlResult<Option<Result<Found, Passed>>> {
        let (engine, Some(follow)) = (&self.engine, &self.engine.following.follow) else {
            return Ok(None);
        };
        let table = engine.catalog.get::<Table>(&self.name).await?;
        let Some(table) = table.filter(|t| t.row.uid == self.uid) else { return Ok(None) };
        let Some(followed) = table.row.follows.clone() else { return Ok(None) };
        let key = head_key(&self.uid);
        let Some(entry) = engine.catalog.control.get(&key).await.map_err(control)? else {
            return Ok(None);
        };
        let (mut head, head_version): (Head, u64) =
            (entry.json(&key).map_err(control)?, entry.version);
        let state = head.state.take().map(|s| *s).unwrap_or_default();
        let report = |reports: Vec<SourceReport>| {
            reports.into_iter().find(|r| {
                r.settings.name == followed.source && r.created == followed.source_created
            })
        };
        let Some(first) = report(follow.capture.sources().await.map_err(internal)?) else {
            let reason = format!(
                "source {} was dropped or replaced; the table stays as it was. Create it again to \
                 follow another source",
                followed.source
            );
            let passed = self.stop(head, head_version, state, u64::MAX, reason).await?;
            return Ok(Some(Err(passed)));
        };
        let Some(captured) = first.tables.iter().find(|t| t.table == followed.table) else {
            self.note(format!("{} is not among the source's tables", followed.table));
            return Ok(Some(Err(Passed::Idle)));
        };
        let is_whole = matches!(captured.state, TableState::Live | TableState::Errored);
        self.note(match captured.state {
            TableState::Errored => captured.reason.clone().unwrap_or_else(|| "errored".to_owned()),
            _ => String::new(),
        });
        let cut = follow.capture.cut(&followed.source).await.map_err(internal)?;
        // After the cut, so that the columns are not older than its records.
        let Some(report) = report(follow.capture.sources().await.map_err(internal)?) else {
            return Ok(Some(Err(Passed::Idle)));
        };
        if state.errored.as_ref().is_some_and(|e| e.epoch >= cut.epoch) {
            return Ok(Some(Err(Passed::Idle)));
        }
        let key = work_key(&self.uid);
        let work = match engine.catalog.control.get(&key).await.map_err(control)? {
            Some(entry) => Some((entry.json(&key).map_err(control)?, entry.version)),
            None => None,
        };
        Ok(Some(Ok(Found {
            table,
            followed,
            report,
            cut,
            is_whole,
            head,
            head_version,
            state,
            work,
        })))
    }

    /// Reads, merges and commits until the cut is reached.
    async fn advance(&mut self, mut found: Found) -> SqlResult<Passed> {
        let captured = found.report.tables.iter().find(|t| t.table == found.followed.table);
        let Some(captured) = captured else { return Ok(Passed::Idle) };
        let now = columns::taken(captured, &found.followed);
        let mut dropped = captured.dropped.clone();
        let mut at = self.begin(&found, &now);
        let now = columns::next(&at, &now, captured.seen);
        // Without rows there is nothing that could be unlike PostgreSQL's.
        let altered = match at.rows() {
            0 => Altered::Not,
            _ => match columns::compare(&at.columns, &now) {
                Ok(altered) => altered,
                Err(why) => return self.fail(found, anew(why)).await,
            },
        };
        columns::change(&mut at, now);
        dropped.extend(at.gone.values().cloned());
        let mut rewrite = altered == Altered::Rewritten;
        self.behind(&found, &at);
        let follow = self.engine.following.follow.clone().ok_or_else(|| internal("no sources"))?;
        let fold_bytes = self.engine.following.options.fold_bytes;
        let mut moved = false;
        loop {
            let schema = match Schema::new(&at.columns, &found.followed, &dropped) {
                Ok(schema) => Arc::new(schema),
                Err(fault) => return self.fail(found, fault).await,
            };
            let mut fold = Fold::new(&schema, at.truncated_at);
            let log = follow.log.as_ref();
            let followed = &found.followed;
            let read = read_on(log, followed, &found.cut, &mut at, &mut fold, fold_bytes).await?;
            let reached = match read {
                Read::Reached => true,
                Read::Full => false,
                Read::Fault(fault) => return self.fail(found, fault).await,
            };
            let whole = found.cut.complete && found.is_whole;
            if reached && !whole && fold.bytes < fold_bytes / 2 {
                // It is read again when there is more.
                return Ok(if moved { Passed::Moved } else { Passed::Idle });
            }
            let same = fold.changes.is_empty() && fold.truncated_at == at.truncated_at;
            let of_epoch = found.state.published.as_ref().filter(|p| p.epoch == at.epoch);
            let published = of_epoch.is_some();
            let same_columns = of_epoch.is_some_and(|p| p.columns == at.columns);
            if reached && whole && same && same_columns && found.work.is_none() {
                return self.keep_place(found, at, moved).await;
            }
            match merge(&mut at, &schema, fold, rewrite, &self.place()).await {
                Ok(()) => {}
                Err(Failed::Fault(fault)) => return self.fail(found, fault).await,
                Err(Failed::Error(e)) => return Err(e),
            }
            rewrite = false;
            let step = Step { at, reached: reached && whole };
            let reached_now = step.reached;
            if reached_now && !published && !has_begin(&found, &step.at) {
                return self.fail(found, expired()).await;
            }
            at = step.at.clone();
            if !self.commit(&mut found, step).await? {
                return Ok(Passed::Moved);
            }
            moved = true;
            if reached {
                return Ok(Passed::Moved);
            }
        }
    }

    /// What to go on from: the work under way, what queries read, or nothing.
    fn begin(&self, found: &Found, now: &[PgColumn]) -> Folded {
        let epoch = found.cut.epoch;
        let of_now = |at: &&Folded| at.epoch == epoch;
        let stored = found.work.as_ref().map(|(at, _)| at).filter(of_now);
        let stored = stored.or(found.state.published.as_ref().filter(of_now));
        let ahead = self.ahead.as_ref().filter(|a| {
            a.version == found.head_version && a.at.epoch == epoch && found.work.is_none()
        });
        match (ahead, stored) {
            (Some(ahead), _) => ahead.at.clone(),
            (None, Some(stored)) => stored.clone(),
            (None, None) => Folded::fresh(epoch, now.to_vec()),
        }
    }

    pub(super) fn place(&self) -> Place {
        let engine = &self.engine;
        let dir = engine.tables.dir.join(&self.uid);
        let bucket_rows = engine.following.options.bucket_rows;
        Place { dir, random: Arc::clone(&engine.catalog.random), bucket_rows }
    }

    /// Notes since when the table is behind, for the metric.
    fn behind(&self, found: &Found, at: &Folded) {
        let behind = found.cut.shards.iter().any(|(uid, mark)| at.shards.get(uid) < Some(mark));
        let now = self.engine.clock.now();
        let mut all = self.engine.following.progress.lock();
        let progress = all.entry(self.uid.clone()).or_default();
        progress.behind_since = behind.then(|| progress.behind_since.unwrap_or(now));
        let lag =
            progress.behind_since.map_or(0, |t| now.as_millis().saturating_sub(t.as_millis()));
        drop(all);
        metrics::gauge!("hydrant_state_lag_seconds", "table" => self.name.to_string())
            .set(lag as f64 / 1_000.0);
    }
}

/// Waits until the sources tell something; once they are gone, for good.
async fn told(changes: &mut tokio::sync::watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether everything since the epoch's begin was in the stream when it was read.
fn has_begin(found: &Found, at: &Folded) -> bool {
    let created = RecordIndex::at(found.report.created);
    at.horizon <= created || at.begin.is_some_and(|begin| at.horizon <= begin)
}
