//! The worker of a delivery stream: tap, buffer, intent, delivery, checkpoint, in a circle.
//!
//! It keeps nothing that matters. Whenever something goes wrong it throws away what it knows and
//! starts again from the control store: the intent first, if there is one, then the checkpoints.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::capture::CaptureError;
use hydrant_core::control::{ControlError, Entry, Write, scan_all};
use hydrant_core::log::{LogError, ShardUid};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::attach::{attach, detach};
use crate::attempt::{Attempts, Outcome};
use crate::buffer::Buffer;
use crate::catalog::Held;
use crate::database::{Database, Stage};
use crate::intent::{
    Checkpoint, Intent, checkpoint_key, checkpoints_prefix, forget, intent_key, shard_of_key,
};
use crate::meter;
use crate::shared::Shared;
use crate::stream::{DeliveryStream, Source, State};
use crate::tap::Tap;

/// First pause after the log or the control store failed; it doubles with each failure in a row.
const FAILURE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A session that lasted this long was a success, so the next failure is a first one.
const SESSION_GOOD: Duration = Duration::from_secs(120);

/// How an operation reaches a worker.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The delivery stream's row was changed.
    pub(crate) changed: Notify,
    /// The delivery stream is being deleted: stop at once, whatever is under way.
    pub(crate) deleted: CancellationToken,
}

/// Why a session ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process is shutting down.
    Stopped,
    /// The row has changed: read it again.
    Changed,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// The row versions of the checkpoints.
type Versions = HashMap<ShardUid, u64>;

/// Runs a delivery stream until it is deleted or `stop` is cancelled.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) stop: CancellationToken,
    pub(crate) held: Held,
}

impl Worker {
    pub(crate) async fn run(mut self) {
        let mut pause = FAILURE_PAUSE_MIN;
        while !self.stop.is_cancelled() {
            let began = self.shared.clock.now();
            let stream = &self.held.stream;
            let ended = match (stream.state, &stream.source) {
                (State::Deleting(_), _) => self.delete().await.map(|()| None),
                (State::Creating(_), Source::Database(database)) => match database.stage {
                    Stage::Pending => self.attach(database).await.map(Some),
                    Stage::Attached => self.session().await.map(Some),
                    Stage::Failed(_) => Ok(Some(self.rest().await)),
                },
                (State::Creating(_), _) => self.session().await.map(Some),
            };
            match ended {
                Ok(Some(Ended::Changed)) => {}
                Ok(Some(Ended::Stopped)) => return,
                Ok(None) => {
                    self.shared.signals.lock().remove(&stream.uid);
                    return;
                }
                Err(e) => {
                    tracing::error!(delivery_stream = %stream.name, error = %e,
                        "delivery starts again from its last checkpoint");
                    if self.shared.clock.now().since(began) > SESSION_GOOD {
                        pause = FAILURE_PAUSE_MIN;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.stop.cancelled() => return,
                    }
                    pause = (pause * 2).min(FAILURE_PAUSE_MAX);
                }
            }
            let stream = &self.held.stream;
            match self.shared.catalog.get(&stream.scope, &stream.name) {
                Some(held) if held.stream.uid == stream.uid => self.held = held,
                _ => return,
            }
        }
    }

    /// Removes everything of a deleted delivery stream. Its own row goes last, so that a crash
    /// anywhere before leaves it to be done again.
    async fn delete(&self) -> Result<(), Failure> {
        let stream = &self.held.stream;
        if let State::Deleting(until) = stream.state {
            tokio::time::sleep(until.since(self.shared.clock.now())).await;
        }
        if matches!(stream.source, Source::Database(_)) {
            detach(self.shared.capture.as_ref(), stream).await?;
        }
        forget(self.shared.control.as_ref(), stream.uid).await?;
        if stream.source == Source::DirectPut {
            self.shared.log.drop_shard(stream.uid).await?;
        }
        self.shared.catalog.remove(&self.held).await?;
        meter::recovered(stream);
        meter::buffer_bytes(stream).set(0.0);
        Ok(())
    }

    /// Has the changes of the database captured, and writes down that they are, or why they cannot
    /// be. A crash anywhere before leaves it to be done again.
    async fn attach(&self, database: &Database) -> Result<Ended, Failure> {
        let stream = &self.held.stream;
        let done = tokio::select! {
            () = self.stop.cancelled() => return Ok(Ended::Stopped),
            done = attach(self.shared.capture.as_ref(), stream, database) => done,
        };
        let stage = match done {
            Ok(()) => Stage::Attached,
            Err(passes @ CaptureError::Unavailable(_)) => return Err(passes.into()),
            Err(stays) => {
                tracing::error!(delivery_stream = %stream.name, error = %stays,
                    "the changes of the database cannot be captured");
                Stage::Failed(stays.to_string())
            }
        };
        let source = Source::Database(Box::new(Database { stage, ..database.clone() }));
        let row = DeliveryStream { source, ..DeliveryStream::clone(stream) };
        self.shared.catalog.put(row, Some(self.held.version)).await?;
        Ok(Ended::Changed)
    }

    /// Waits for the end of a delivery stream that could not be made.
    async fn rest(&self) -> Ended {
        tokio::select! {
            () = self.stop.cancelled() => Ended::Stopped,
            () = self.signals.changed.notified() => Ended::Changed,
        }
    }

    /// From the rows in the control store to the end of the process or the next change.
    async fn session(&self) -> Result<Ended, Failure> {
        let stream = &self.held.stream;
        let control = self.shared.control.as_ref();
        let mut attempts = Attempts::new(self);
        let mut next = HashMap::new();
        let mut versions = Versions::new();
        for (key, row) in scan_all(control, &checkpoints_prefix(stream.uid)).await? {
            let Some(shard) = shard_of_key(&key) else { continue };
            next.insert(shard, row.json::<Checkpoint>(&key)?.next);
            versions.insert(shard, row.version);
        }
        let key = intent_key(stream.uid);
        if let Some(row) = control.get(&key).await? {
            let intent: Intent = row.json(&key)?;
            next.extend(intent.ranges.iter().map(|r| (r.shard, r.to)));
            if let Some(ended) =
                self.finish(intent, row.version, &mut attempts, &mut versions).await?
            {
                return Ok(ended);
            }
        }
        let (log, clock) = (Arc::clone(&self.shared.log), Arc::clone(&self.shared.clock));
        let mut tap = Tap::new(log, clock, Arc::clone(stream), next);
        let mut changes = self.shared.streams.changes();
        changes.mark_unchanged();
        self.refresh(&mut tap, &mut versions).await?;
        let hints = stream.destination.hints;
        let from_stream = stream.source != Source::DirectPut;
        let buffer_bytes = meter::buffer_bytes(stream);
        let mut buffer = Buffer::default();
        loop {
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            if tap.fill(&mut buffer, hints).await? {
                self.refresh(&mut tap, &mut versions).await?;
                continue;
            }
            buffer_bytes.set(buffer.data_bytes() as f64);
            let now = self.shared.clock.now();
            // A source that is being deleted takes its records with it, so they go now.
            let cut = if tap.source_goes(&self.shared.streams, now) {
                buffer.cut_now()
            } else {
                buffer.cut(hints, now)
            };
            if let Some(cut) = cut {
                let intent = Intent::new(stream, cut);
                let row = control.commit(vec![Write::insert(key.clone(), &intent)]).await?;
                buffer_bytes.set(0.0);
                match self.finish(intent, row, &mut attempts, &mut versions).await? {
                    Some(ended) => return Ok(ended),
                    None => continue,
                }
            }
            let due = buffer.due(hints, now);
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.signals.deleted.cancelled() => {}
                () = self.signals.changed.notified() => {}
                woken = tap.wait() => woken?,
                _ = changes.changed(), if from_stream => {
                    self.refresh(&mut tap, &mut versions).await?;
                }
                () = sleep(due.map(|at| at.since(now))), if due.is_some() => {}
            }
        }
    }

    /// Why the session should end, if it should.
    fn ended(&self) -> Option<Ended> {
        if self.stop.is_cancelled() {
            return Some(Ended::Stopped);
        }
        let stream = &self.held.stream;
        let row = self.shared.catalog.get(&stream.scope, &stream.name);
        let changed = row.is_none_or(|row| row.version != self.held.version);
        changed.then_some(Ended::Changed)
    }

    /// Delivers the intent, however often it takes, and moves the checkpoints in the commit that
    /// deletes it.
    async fn finish(
        &self,
        mut intent: Intent,
        mut row: u64,
        attempts: &mut Attempts<'_>,
        versions: &mut Versions,
    ) -> Result<Option<Ended>, Failure> {
        let uid = self.held.stream.uid;
        let control = self.shared.control.as_ref();
        loop {
            match attempts.deliver(&intent).await {
                Outcome::Done => break,
                Outcome::Ended(ended) => return Ok(Some(ended)),
                Outcome::Aim(version, settings) => {
                    (intent.version, intent.settings) = (version, settings);
                    let write = Write::update(intent_key(uid), row, &intent);
                    row = control.commit(vec![write]).await?;
                }
            }
        }
        let mut writes = vec![Write::delete(intent_key(uid), row)];
        for range in &intent.ranges {
            let key = checkpoint_key(uid, range.shard);
            let seen = versions.get(&range.shard).map(|v| Entry { version: *v, value: "".into() });
            writes.push(Write::put(key, seen.as_ref(), &Checkpoint { next: range.to }));
        }
        let version = control.commit(writes).await?;
        versions.extend(intent.ranges.iter().map(|r| (r.shard, version)));
        Ok(None)
    }

    /// Has the tap look for new shards, and forgets how far those were delivered that are no more.
    async fn refresh(&self, tap: &mut Tap, versions: &mut Versions) -> Result<(), Failure> {
        let there = tap.refresh(&self.shared.streams).await?;
        self.drop_checkpoints(versions, |shard| there.contains(&shard)).await
    }

    /// Deletes the checkpoints of shards that are no more.
    async fn drop_checkpoints(
        &self,
        versions: &mut Versions,
        is_there: impl Fn(ShardUid) -> bool,
    ) -> Result<(), Failure> {
        let uid = self.held.stream.uid;
        let gone: Vec<(ShardUid, u64)> =
            versions.iter().filter(|(s, _)| !is_there(**s)).map(|(s, v)| (*s, *v)).collect();
        for some in gone.chunks(hydrant_core::limits::COMMIT_WRITES_MAX) {
            let deletes = some.iter().map(|(s, v)| Write::delete(checkpoint_key(uid, *s), *v));
            self.shared.control.commit(deletes.collect()).await?;
        }
        for (shard, _) in gone {
            versions.remove(&shard);
        }
        Ok(())
    }
}

async fn sleep(time: Option<Duration>) {
    tokio::time::sleep(time.unwrap_or_default()).await;
}
