//! The one task that runs all pipes: notifications into queues, queues into tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::control::{ControlError, Write};
use hydrant_core::notify::{OUTBOX_PREFIX, ObjectCreated};
use hydrant_core::warehouse::{OnError, StagedFile};
use tokio_util::sync::CancellationToken;

use super::{PipeState, Queued, Trouble, queue_prefix, state_key};
use crate::catalog::{Held, Pipe, Reach, Table};
use crate::engine::Engine;
use crate::error::{SqlResult, control};
use crate::history::{LOAD_HISTORY_LIFE, LoadRow, PIPE_HISTORY_LIFE, PipeLoad};
use crate::load::{COMMIT_FILES, Failed, Load, batch_len, plan_copy};
use crate::session::SqlError;
use crate::sql::ast::{Copy, Kind};
use crate::sql::scan::Prepared;
use crate::stage::{self, Listed, Place};
use crate::table::commit::PipeRows;

/// How long the worker waits for the doorbell before it looks by itself.
const POLL: Duration = Duration::from_secs(1);
/// How often what is too old is forgotten.
const EXPIRE_EVERY: Duration = Duration::from_secs(3_600);
/// Notifications turned into queue entries in one commit.
const OUTBOX_ROWS: usize = 500;

/// Runs pipes until told to stop.
pub(crate) struct Worker {
    engine: Arc<Engine>,
}

/// A pipe with all that its statement names.
struct Ready {
    pipe: Pipe,
    copy: Copy,
    prepared: Prepared,
    place: Place,
}

/// A pipe that takes new objects, whether it can load them now or not.
struct Taker {
    pipe: Pipe,
    reach: Reach,
    pattern: Option<regex::Regex>,
}

impl Taker {
    fn new(pipe: &Pipe, reach: Option<Reach>) -> SqlResult<Option<Self>> {
        let Some(reach) = reach.filter(|_| pipe.auto_ingest) else { return Ok(None) };
        let pattern = reach.pattern.as_deref().map(stage::pattern).transpose()?;
        Ok(Some(Self { pipe: pipe.clone(), reach, pattern }))
    }

    /// Whether the pipe takes an object. A stage's path is a plain prefix; a pattern sees what
    /// follows it.
    fn takes(&self, object: &ObjectCreated) -> bool {
        let rest = object.key.strip_prefix(&self.reach.stage_prefix);
        self.reach.bucket == object.bucket
            && object.key.starts_with(&self.reach.prefix)
            && object.size_bytes > 0
            && self.pattern.as_ref().is_none_or(|p| p.is_match(rest.unwrap_or(&object.key)))
    }
}

impl Worker {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Runs until `shutdown`; a load in progress is finished, or given up before its commit.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut expired = tokio::time::Instant::now();
        loop {
            let pass = self.pass();
            let busy = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                busy = pass => busy,
            };
            if tokio::time::Instant::now() >= expired {
                expired = tokio::time::Instant::now() + EXPIRE_EVERY;
                if let Err(e) = self.expire().await {
                    tracing::warn!(error = %e, "cannot forget old loads");
                }
            }
            if busy {
                continue;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.engine.doorbell.wait() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// One look at everything; true if there may be more to do at once.
    pub(crate) async fn pass(&self) -> bool {
        match self.look().await {
            Ok(busy) => busy,
            Err(e) => {
                tracing::error!(error = %e, "the pipes cannot run; trying again");
                false
            }
        }
    }

    async fn look(&self) -> SqlResult<bool> {
        let outbox = self.engine.catalog.control.scan(OUTBOX_PREFIX, None, OUTBOX_ROWS).await;
        let outbox = outbox.map_err(control)?;
        if outbox.is_empty() {
            let queued = self.engine.catalog.control.scan("warehouse/queue/", None, 1).await;
            if queued.map_err(control)?.is_empty() {
                return Ok(false);
            }
        }
        let (mut pipes, mut takers) = (Vec::new(), Vec::new());
        for Held { row, .. } in self.engine.catalog.all::<Pipe>().await? {
            match self.ready(&row).await {
                Ok(ready) => {
                    let reach = ready.place.reach(ready.copy.pattern.clone());
                    takers.extend(Taker::new(&row, reach)?);
                    pipes.push(ready);
                }
                // What may pass by itself must not cost the pipe its notifications.
                Err(e) if is_passing(&e) => return Err(e),
                Err(e) => {
                    self.trouble(&row, &e);
                    takers.extend(Taker::new(&row, row.reach.clone())?);
                }
            }
        }
        let mut busy = outbox.len() == OUTBOX_ROWS;
        if !outbox.is_empty() {
            self.queue(&takers, outbox).await?;
        }
        for ready in &pipes {
            busy |= self.drain(ready).await?;
        }
        Ok(busy)
    }

    async fn ready(&self, pipe: &Pipe) -> SqlResult<Ready> {
        let (copy, prepared) = pipe.copy()?;
        let place = stage::place(&self.engine.catalog, &copy.from, &pipe.names(), "COPY").await?;
        Ok(Ready { pipe: pipe.clone(), copy, prepared, place })
    }

    /// Turns notifications into queue entries, in the commit that deletes them.
    async fn queue(
        &self,
        takers: &[Taker],
        outbox: Vec<(String, hydrant_core::control::Entry)>,
    ) -> SqlResult<()> {
        let engine = &self.engine;
        let mut writes: BTreeMap<String, Write> = BTreeMap::new();
        let mut states: BTreeMap<&str, PipeState> = BTreeMap::new();
        for (row, entry) in &outbox {
            let object: ObjectCreated = entry.json(row).map_err(control)?;
            for taker in takers.iter().filter(|t| t.takes(&object)) {
                let uid = taker.pipe.uid.as_str();
                if !states.contains_key(uid) {
                    states.insert(uid, engine.pipe_state(uid).await?);
                }
                if let Some(state) = states.get_mut(uid) {
                    state.last_received = Some(object.created);
                    state.last_forwarded = Some(engine.clock.now());
                    state.last_forwarded_path = Some(object.key.clone());
                }
                let listed = Listed {
                    file: StagedFile {
                        url: format!("s3://{}/{}", object.bucket, object.key),
                        size_bytes: object.size_bytes,
                        etag: object.etag.clone(),
                    },
                    key: object.key.clone(),
                    modified: object.created,
                };
                if let Some(write) = engine.queue_write(uid, &listed).await? {
                    writes.insert(write.key.clone(), write);
                }
            }
            writes.insert(row.clone(), Write::delete(row.clone(), entry.version));
        }
        for (uid, state) in states {
            let key = state_key(uid);
            let seen = engine.catalog.control.get(&key).await.map_err(control)?;
            writes.insert(key.clone(), Write::put(key, seen.as_ref(), &state));
        }
        match engine.catalog.control.commit(writes.into_values().collect()).await {
            // REFRESH was faster with one of them; the next pass sees that.
            Ok(_) | Err(ControlError::Conflict { .. }) => Ok(()),
            Err(e) => Err(control(e)),
        }
    }

    /// Loads the first files of a pipe's queue. True if any were.
    async fn drain(&self, ready: &Ready) -> SqlResult<bool> {
        let engine = &self.engine;
        let waiting = engine.pipe_trouble.lock().get(&ready.pipe.uid).map(|t| t.until);
        if ready.pipe.paused || waiting.is_some_and(|t| engine.clock.now() < t) {
            return Ok(false);
        }
        let prefix = queue_prefix(&ready.pipe.uid);
        let rows = engine.catalog.control.scan(&prefix, None, COMMIT_FILES).await;
        let rows = rows.map_err(control)?;
        if rows.is_empty() {
            return Ok(false);
        }
        let mut files = Vec::with_capacity(rows.len());
        for (key, entry) in &rows {
            let queued: Queued = entry.json(key).map_err(control)?;
            files.push(Listed {
                file: StagedFile {
                    url: key[prefix.len()..].to_owned(),
                    size_bytes: queued.size_bytes,
                    etag: queued.etag,
                },
                key: queued.key,
                modified: queued.modified,
            });
        }
        let count = batch_len(&files);
        let deletions: Vec<Write> =
            rows.iter().take(count).map(|(k, e)| Write::delete(k.clone(), e.version)).collect();
        match self.load(ready, &files[..count], deletions).await {
            Ok(()) => {
                engine.pipe_trouble.lock().remove(&ready.pipe.uid);
                Ok(true)
            }
            Err(e) => {
                self.trouble(&ready.pipe, &e);
                Ok(false)
            }
        }
    }

    async fn load(&self, ready: &Ready, files: &[Listed], deletions: Vec<Write>) -> SqlResult<()> {
        let engine = &self.engine;
        let names = ready.pipe.names();
        let name = engine.catalog.resolve(&ready.copy.table, &names, "COPY")?;
        let table: Table = engine.catalog.expect(Kind::Table, &name).await?.row;
        crate::state::refuse(&table, "COPY")?;
        let context = engine.context(&names, &ready.pipe.owner);
        let rows =
            plan_copy(&engine.queries, &ready.copy, &ready.prepared, &table, &context).await?;
        let format =
            stage::resolve_format(&engine.catalog, &ready.copy.format, &ready.place.format, &names)
                .await?;
        let bucket = &ready.place.bucket;
        let store =
            (engine.open_bucket)(bucket).map_err(|e| stage::cannot_open(&bucket.bucket, &e))?;
        let load = Load {
            tables: &engine.tables,
            name: &name,
            table: &table,
            bucket: &bucket.bucket,
            store,
            format,
            rows: &rows,
            on_error: ready.copy.on_error.unwrap_or(OnError::SkipFile),
            force: false,
            clock: engine.clock.as_ref(),
            random: &engine.catalog.random,
            pipe: Some(ready.pipe.full_name().to_string()),
        };
        let mut writes = deletions;
        writes.push(self.ingested(&ready.pipe.uid, files).await?);
        let rows = PipeRows { uid: ready.pipe.uid.clone(), writes };
        let done = load.batch(files, Some(&rows)).await.map_err(|e| match e {
            Failed::Error(e) => e,
            other => other.into_error(&name),
        })?;
        self.remember_error(&ready.pipe.uid, &done).await
    }

    /// The pipe's state once the files are in, for the same commit.
    async fn ingested(&self, uid: &str, files: &[Listed]) -> SqlResult<Write> {
        let engine = &self.engine;
        let key = state_key(uid);
        let seen = engine.catalog.control.get(&key).await.map_err(control)?;
        let mut state: PipeState =
            seen.as_ref().map(|e| e.json(&key)).transpose().map_err(control)?.unwrap_or_default();
        state.last_ingested = Some(engine.clock.now());
        state.last_ingested_path = files.last().map(|f| f.key.clone());
        Ok(Write::put(key, seen.as_ref(), &state))
    }

    /// Puts the error of a bad file where SYSTEM$PIPE_STATUS shows it.
    async fn remember_error(&self, uid: &str, rows: &[LoadRow]) -> SqlResult<()> {
        let Some(bad) = rows.iter().rev().find(|r| r.errors_seen > 0) else { return Ok(()) };
        let why = bad.first_error.clone().unwrap_or_default().text;
        let key = state_key(uid);
        let seen = self.engine.catalog.control.get(&key).await.map_err(control)?;
        let mut state: PipeState =
            seen.as_ref().map(|e| e.json(&key)).transpose().map_err(control)?.unwrap_or_default();
        state.last_error = Some(format!("{}: {why}", bad.url));
        let write = Write::put(key, seen.as_ref(), &state);
        match self.engine.catalog.control.commit(vec![write]).await {
            Ok(_) | Err(ControlError::Conflict { .. }) => Ok(()),
            Err(e) => Err(control(e)),
        }
    }

    fn trouble(&self, pipe: &Pipe, e: &SqlError) {
        let mut all = self.engine.pipe_trouble.lock();
        let previous = all.get(&pipe.uid);
        // Said when it begins and when it changes, not at every try.
        if previous.is_none_or(|p| p.why != e.message) {
            tracing::warn!(pipe = %pipe.full_name(), error = %e, "a pipe cannot load");
        }
        let trouble = Trouble::after(previous, e, self.engine.clock.now());
        all.insert(pipe.uid.clone(), trouble);
    }

    /// Forgets what is older than the histories are kept.
    async fn expire(&self) -> SqlResult<()> {
        let engine = &self.engine;
        let now = engine.clock.now();
        for table in engine.catalog.all::<Table>().await? {
            engine.tables.expire_loads(&table.row.uid, now.minus(LOAD_HISTORY_LIFE)).await?;
        }
        let before = now.minus(PIPE_HISTORY_LIFE);
        let mut after: Option<String> = None;
        loop {
            let store = &engine.catalog.control;
            let page = store.scan("warehouse/pipe-load/", after.as_deref(), 1_000).await;
            let page = page.map_err(control)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut old = Vec::new();
            for (key, entry) in page {
                let row: PipeLoad = entry.json(&key).map_err(control)?;
                if row.at < before {
                    old.push(Write::delete(key, entry.version));
                }
            }
            match store.commit(old).await {
                Ok(_) | Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(control(e)),
            }
        }
    }
}

/// Whether an error is one of the moment: the store did not answer, or somebody was faster.
fn is_passing(e: &SqlError) -> bool {
    matches!(e.code, 625 | 300_005)
}
