//! Keeps every current-state table at the last cut of its source.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::capture::{Cut, Lsn, PgColumn, SourceReport, TableState};
use hydrant_core::control::{ControlError, Write};
use hydrant_core::notify::Doorbell;
use hydrant_core::sequence::RecordIndex;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bucket::Failed;
use super::columns::{self, Altered};
use super::fold::Fold;
use super::reading::{Read, expired, read_on};
use super::schema::{Schema, anew};
use super::step::{Place, merge};
use super::{Errored, Folded, Follow, Followed, State, StateOptions, work_key};
use crate::catalog::{Held, ObjectName, Table, object_key};
use crate::engine::Engine;
use crate::error::{SqlResult, control, internal};
use crate::table::{Head, head_key};

/// Least time between two commits of a table.
const COMMIT_GAP: Duration = Duration::from_millis(500);
/// How long after an error that passes it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often a table looks at its source although nothing was told.
const LOOK_AFTER: Duration = Duration::from_secs(10);
/// How long a place in the stream, past records of other tables, is only in memory.
const PLACE_LIFE: Duration = Duration::from_secs(10);
/// Tables that read and merge at the same time: each may hold what it has folded.
const MERGES_MAX: usize = 2;

/// What the engine has for its current-state tables.
pub(crate) struct Following {
    pub(crate) follow: Option<Follow>,
    options: StateOptions,
    /// Rung when there is a new table.
    pub(crate) bell: Doorbell,
    /// How tables are doing, by uid.
    progress: Mutex<HashMap<String, Progress>>,
    permits: Semaphore,
}

/// What is not stored about a table: it is known again after the next look.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// How far the table is like its source.
    resume: Lsn,
    /// Why it does not go on, if it does not.
    note: String,
    /// Since when there is something that it does not have.
    behind_since: Option<Timestamp>,
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

#[derive(Debug, PartialEq, Eq)]
enum Passed {
    /// There was nothing to do.
    Idle,
    /// Something was committed.
    Moved,
    /// The table was dropped.
    Gone,
}

/// A place that was reached without a change of the table, and is not stored yet.
struct Ahead {
    version: u64,
    at: Folded,
    since: Instant,
}

struct Follower {
    engine: Arc<Engine>,
    name: ObjectName,
    uid: String,
    ahead: Option<Ahead>,
}

/// A table and its source, as they were found.
struct Found {
    table: Held<Table>,
    followed: Followed,
    report: SourceReport,
    cut: Cut,
    /// Whether the table's own snapshot is in the cut.
    is_whole: bool,
    head: Head,
    head_version: u64,
    state: State,
    work: Option<(Folded, u64)>,
}

/// How far the rows were brought.
struct Step {
    at: Folded,
    reached: bool,
}

impl Follower {
    fn new(engine: Arc<Engine>, name: ObjectName, uid: String) -> Self {
        Self { engine, name, uid, ahead: None }
    }

    async fn run(mut self, shutdown: CancellationToken) {
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
                _ = changes.changed(), if is_idle => {}
                () = tokio::time::sleep(LOOK_AFTER), if is_idle => {}
            }
        }
        self.engine.following.progress.lock().remove(&self.uid);
    }

    fn note(&self, note: String) {
        self.engine.following.progress.lock().entry(self.uid.clone()).or_default().note = note;
    }

    /// Brings the table to the source's cut. An error passes.
    async fn pass(&mut self) -> SqlResult<Passed> {
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
        let mut at = self.begin(&found, &now);
        let (mut rewrite, is_fresh) = (false, at.shards.is_empty());
        let altered = match is_fresh {
            true => Altered::Not,
            false => match columns::compare(&at.columns, &now) {
                Ok(altered) => altered,
                Err(why) => return self.fail(found, anew(why)).await,
            },
        };
        if is_fresh || altered != Altered::Not {
            at.columns = now;
            rewrite = altered == Altered::Dropped;
        }
        self.behind(&found, &at);
        let follow = self.engine.following.follow.clone().ok_or_else(|| internal("no sources"))?;
        let fold_bytes = self.engine.following.options.fold_bytes;
        let mut moved = false;
        loop {
            let schema = Arc::new(Schema::new(&at.columns, &found.followed));
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
            let published = found.state.published.as_ref().is_some_and(|p| p.epoch == at.epoch);
            if reached
                && whole
                && same
                && altered == Altered::Not
                && published
                && found.work.is_none()
            {
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

    fn place(&self) -> Place {
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

    /// The table is like its source at `resume`.
    fn at_cut(&self, resume: Lsn, rows: u64) {
        let mut all = self.engine.following.progress.lock();
        let progress = all.entry(self.uid.clone()).or_default();
        (progress.resume, progress.behind_since) = (resume, None);
        drop(all);
        let name = self.name.to_string();
        metrics::gauge!("hydrant_state_lag_seconds", "table" => name.clone()).set(0.0);
        metrics::gauge!("hydrant_state_rows", "table" => name).set(rows as f64);
    }

    /// Nothing of the table changed: where to read on need not be stored at once.
    async fn keep_place(&mut self, mut found: Found, at: Folded, moved: bool) -> SqlResult<Passed> {
        self.at_cut(found.cut.resume, found.head.rows);
        let since = match &self.ahead {
            Some(ahead) if ahead.version == found.head_version => ahead.since,
            _ => Instant::now(),
        };
        let stored = found.state.published.as_ref().is_some_and(|p| p.shards == at.shards);
        if !stored && since.elapsed() >= PLACE_LIFE {
            self.ahead = None;
            let step = Step { at, reached: true };
            self.commit(&mut found, step).await?;
            return Ok(Passed::Moved);
        }
        self.ahead = (!stored).then_some(Ahead { version: found.head_version, at, since });
        Ok(if moved { Passed::Moved } else { Passed::Idle })
    }

    /// Commits a step: as work, or as what queries read. False if somebody was faster; then all is
    /// found anew.
    async fn commit(&mut self, found: &mut Found, step: Step) -> SqlResult<bool> {
        let Step { mut at, reached } = step;
        let new: BTreeSet<String> = at.files().map(|f| f.name.clone()).collect();
        let old = |at: Option<&Folded>| -> BTreeSet<String> {
            at.map(|a| a.files().map(|f| f.name.clone()).collect()).unwrap_or_default()
        };
        let published = old(found.state.published.as_ref());
        let worked = old(found.work.as_ref().map(|(at, _)| at));
        at.resume = found.cut.resume;
        let writes = if reached { self.publish(found, &at) } else { self.put_work(found, &at) };
        let version = match self.engine.catalog.control.commit(writes).await {
            Ok(version) => version,
            Err(ControlError::Conflict { .. }) => {
                let orphans =
                    new.iter().filter(|f| !published.contains(*f) && !worked.contains(*f));
                self.remove(orphans).await;
                return Ok(false);
            }
            Err(e) => return Err(control(e)),
        };
        metrics::counter!("hydrant_state_merges_total", "table" => self.name.to_string())
            .increment(1);
        // No query reads what was only work.
        self.remove(worked.iter().filter(|f| !published.contains(*f) && !new.contains(*f))).await;
        if reached {
            self.ahead = None;
            self.at_cut(at.resume, at.rows());
            let dir = self.place().dir;
            let gone: Vec<_> =
                published.iter().filter(|f| !new.contains(*f)).map(|f| dir.join(f)).collect();
            if !gone.is_empty() {
                self.engine.tables.remove_later(gone);
            }
        } else {
            found.work = Some((at, version));
        }
        Ok(true)
    }

    fn put_work(&self, found: &Found, at: &Folded) -> Vec<Write> {
        let key = work_key(&self.uid);
        let write = match &found.work {
            Some((_, version)) => Write::update(key, *version, at),
            None => Write::insert(key, at),
        };
        vec![write]
    }

    fn publish(&self, found: &Found, at: &Folded) -> Vec<Write> {
        let (files, bytes) = at.files().fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.bytes));
        let state = State { published: Some(at.clone()), errored: None };
        let next = Head {
            files,
            bytes,
            rows: at.rows(),
            state: Some(Box::new(state)),
            ..found.head.clone()
        };
        let mut writes = vec![Write::update(head_key(&self.uid), found.head_version, &next)];
        if let Some((_, version)) = &found.work {
            writes.push(Write::delete(work_key(&self.uid), *version));
        }
        let columns = columns::define(&at.columns, &found.followed);
        if columns != found.table.row.columns {
            let row = Table { columns, ..found.table.row.clone() };
            writes.push(Write::update(object_key("table", &self.name), found.table.version, &row));
        }
        writes
    }

    /// Removes files that nothing names.
    async fn remove(&self, names: impl Iterator<Item = &String>) {
        let dir = self.place().dir;
        for name in names {
            // The sweeper gets it if this does not.
            let _ = tokio::fs::remove_file(dir.join(name)).await;
        }
    }

    /// Stands still until the source begins a new epoch. What queries read stays.
    async fn fail(&mut self, found: Found, reason: String) -> SqlResult<Passed> {
        let Found { head, head_version, state, cut, .. } = found;
        self.stop(head, head_version, state, cut.epoch, reason).await
    }

    async fn stop(
        &mut self,
        head: Head,
        version: u64,
        state: State,
        epoch: u64,
        reason: String,
    ) -> SqlResult<Passed> {
        if state.errored.as_ref().is_some_and(|e| e.epoch == epoch) {
            return Ok(Passed::Idle);
        }
        tracing::error!(table = %self.name, reason, "a current-state table stands still");
        let errored = Some(Errored { reason, epoch, at: self.engine.clock.now() });
        let state = Some(Box::new(State { errored, ..state }));
        let next = Head { state, ..head };
        let write = Write::update(head_key(&self.uid), version, &next);
        match self.engine.catalog.control.commit(vec![write]).await {
            Ok(_) | Err(ControlError::Conflict { .. }) => Ok(Passed::Moved),
            Err(e) => Err(control(e)),
        }
    }
}

/// Whether everything since the epoch's begin was in the stream when it was read.
fn has_begin(found: &Found, at: &Folded) -> bool {
    let created = RecordIndex::at(found.report.created);
    at.horizon <= created || at.begin.is_some_and(|begin| at.horizon <= begin)
}
