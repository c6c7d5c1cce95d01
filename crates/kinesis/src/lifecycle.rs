//! Streams coming into being and going: the states that end by themselves.
//!
//! The row comes first and goes last. A stream's row says CREATING without an end until every shard
//! is in the log; a crash before that leaves a row whose shards are made again (making one twice is
//! no error). A deletion drops the shards and then the row; a crash before that leaves a row whose
//! shards are dropped again. So nothing is in the log that no row knows, and no stream is active
//! whose shards are not there.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use hydrant_core::Timestamp;
use hydrant_core::catalog::{Held, Stream, StreamCatalog, StreamState};
use hydrant_core::control::ControlError;
use hydrant_core::log::LogError;
use hydrant_core::names::{Scope, StreamName};

use crate::error::Error;
use crate::{Attention, Kinesis, Options};

/// The end of CREATING before the shards are in the log.
pub(crate) const NOT_YET: Timestamp = Timestamp::MAX;
/// Streams worked on at once.
const STREAMS_AT_ONCE: usize = 8;
/// Calls to the log under way at once for one stream.
pub(crate) const CALLS_AT_ONCE: usize = 64;
/// Pause after a failure.
const RETRY_MS: u64 = 1_000;

/// Every stream whose state does not end by time alone, or that has shards which will expire.
pub(crate) fn unfinished(catalog: &StreamCatalog, now: Timestamp) -> BTreeSet<(Scope, StreamName)> {
    let waits = |s: &Stream| {
        let state = match s.state {
            StreamState::Active => false,
            StreamState::Creating(until) => until == NOT_YET,
            StreamState::Updating(until) => now < until,
            StreamState::Deleting(_) => true,
        };
        let shards = s.capacity.reshard.is_some() || !s.capacity.expired.is_empty();
        state || shards || s.shards.iter().any(|shard| !shard.is_open())
    };
    let streams = catalog.which(waits);
    streams.iter().map(|s| (s.scope.clone(), s.name.clone())).collect()
}

/// Makes these calls to the log, one for each shard of a stream, and stops at the first failure.
pub(crate) async fn all(calls: Vec<BoxFuture<'_, Result<(), LogError>>>) -> Result<(), LogError> {
    let mut done = stream::iter(calls).buffer_unordered(CALLS_AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

impl Attention {
    /// Has [`Kinesis::run`] look at a stream.
    pub(crate) fn add(&self, id: (Scope, StreamName)) {
        self.pending.lock().insert(id);
        self.wake.notify_one();
    }
}

impl Kinesis {
    /// Moves streams from state to state, for ever. The caller's duty: spawn it once; dropping it
    /// loses nothing, the next [`Kinesis::open`] finds what it left.
    pub async fn run(&self) {
        loop {
            let next = self.settle().await.into_iter().chain(self.scale().await).min();
            let pause = next.map(|at| at.since(self.clock.now()).max(Duration::from_millis(1)));
            tokio::select! {
                () = self.attention.wake.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// Does what is due, and tells when something will be due again. [`Kinesis::run`] calls it; a
    /// test with a clock of its own does so itself.
    pub async fn settle(&self) -> Option<Timestamp> {
        let taken = std::mem::take(&mut *self.attention.pending.lock());
        let work = stream::iter(taken).map(|id| async move {
            let due = match self.settle_one(&id.0, &id.1).await {
                Ok(due) => due?,
                Err(e) => {
                    tracing::warn!(stream = %id.1, error = %e, "will try again");
                    self.clock.now().plus(Duration::from_millis(RETRY_MS))
                }
            };
            self.attention.pending.lock().insert(id);
            Some(due)
        });
        let dues: Vec<_> = work.buffer_unordered(STREAMS_AT_ONCE).collect().await;
        dues.into_iter().flatten().min()
    }

    async fn settle_one(
        &self,
        scope: &Scope,
        name: &StreamName,
    ) -> Result<Option<Timestamp>, Error> {
        let Some(held) = self.catalog.get(scope, name) else { return Ok(None) };
        let now = self.clock.now();
        match held.stream.state {
            StreamState::Creating(NOT_YET) => self.finish_creation(&held).await,
            StreamState::Deleting(until) if now < until => Ok(Some(until)),
            StreamState::Deleting(_) => {
                self.finish_deletion(&held).await?;
                // Still there, or there again: somebody changed the row meanwhile.
                Ok(self.catalog.get(scope, name).map(|_| now))
            }
            _ if held.stream.capacity.reshard.is_some() => self.finish_reshard(&held).await,
            StreamState::Updating(NOT_YET) => self.begin_encryption(held).await,
            StreamState::Updating(until) if now < until => self.finish_update(&held, until).await,
            _ => self.expire_shards(&held).await,
        }
    }

    /// A change is over when its time is. It lasts no longer because the clock was set back.
    async fn finish_update(
        &self,
        held: &Held,
        until: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let now = self.clock.now();
        if until <= now.plus(self.options.update_delay) {
            return Ok(Some(until));
        }
        let next = Stream { state: StreamState::Active, ..Stream::clone(&held.stream) };
        match self.catalog.put(next, Some(held.version)).await {
            Ok(_) | Err(ControlError::Conflict { .. }) => Ok(Some(now)),
            Err(e) => Err(e.into()),
        }
    }

    async fn finish_creation(&self, held: &Held) -> Result<Option<Timestamp>, Error> {
        let made = &held.stream;
        let retention = made.retention();
        all(made.shards.iter().map(|s| self.log.create(s.uid, retention)).collect()).await?;
        let now = self.clock.now();
        let Options { create_delay, .. } = self.options;
        let state = StreamState::Creating(now.plus(create_delay));
        let next = Stream { state, ..Stream::clone(made) };
        match self.catalog.put(next, Some(held.version)).await {
            Ok(_) => Ok(None),
            Err(ControlError::Conflict { .. }) => Ok(Some(now)),
            Err(e) => Err(e.into()),
        }
    }

    /// Drops the shards of a stream that is past its end, then its row. Doing it twice, or two doing
    /// it at once, is no error.
    pub(crate) async fn finish_deletion(&self, held: &Held) -> Result<(), Error> {
        let gone = &held.stream;
        let planned = gone.capacity.reshard.iter().flat_map(|r| &r.children).map(|c| c.uid);
        let uids = gone.shards.iter().map(|s| s.uid).chain(planned);
        let uids = uids.chain(gone.capacity.expired.iter().copied());
        all(uids.map(|uid| self.log.drop_shard(uid)).collect()).await?;
        match self.catalog.remove(gone, held.version).await {
            Ok(()) => {
                self.forget_keys(gone);
                self.meters.forget(gone);
                Ok(())
            }
            Err(ControlError::Conflict { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
