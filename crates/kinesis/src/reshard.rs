//! Changing the shards of a stream.
//!
//! The decision comes first: the row says which shards are to be, and the stream is UPDATING. When
//! the moment has come, the children are made in the log, then the parents are sealed there, so that
//! their ends are known and stand; then one write of the row closes the parents and opens the
//! children. Whatever stops it in between is gone on with by [`Kinesis::settle`], because each step
//! may be done twice. Follows "Reshard a stream" in the Kinesis Data Streams developer guide.

pub(crate) mod plan;

use futures::stream::{self, StreamExt};
use hydrant_core::Timestamp;
use hydrant_core::catalog::{Held, Reshard, Stream, StreamMode, StreamState};
use hydrant_core::control::ControlError;
use hydrant_core::log::{LogError, ShardUid, Tail};
use hydrant_core::names::Scope;

use crate::Kinesis;
use crate::change::{ATTEMPTS_MAX, crowded_out};
use crate::error::Error;
use crate::lifecycle::{CALLS_AT_ONCE, all};
use crate::reshard::plan::{Plan, parents, short_lived};
use crate::streams::StreamKey;

/// Most shards of one stream, open and closed: what its row has room for.
pub(crate) const SHARDS_KEPT_MAX: usize = 40_000;

/// What is to be done about a stream: its row with what else changes, and the shards it gets.
pub(crate) struct Wanted {
    pub(crate) next: Stream,
    pub(crate) seen: u64,
    pub(crate) plan: Plan,
}

impl Kinesis {
    /// Writes down a change of shards as `decide` wants it of the stream as it is; nothing, if it
    /// wants nothing. On return the stream is UPDATING.
    pub(crate) async fn reshard(
        &self,
        id: &StreamKey,
        decide: impl Fn() -> Result<Option<Wanted>, Error> + Send + Sync,
    ) -> Result<(), Error> {
        // Held from counting the shards to writing the row.
        let _counted = self.creating.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let Some(Wanted { mut next, seen, plan }) = decide()? else { return Ok(()) };
            if !plan.is_empty() {
                let due = self.clock.now().plus(self.options.update_delay);
                check_room(&next, plan.len())?;
                let uids = self.catalog.allocate_shards(plan.len() as u32).await?;
                next.capacity.reshard = Some(Reshard { due, children: plan.with(uids) });
                next.state = StreamState::Updating(due);
            }
            match self.put(next, Some(seen)).await {
                Ok(_) => return Ok(()),
                Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(crowded_out(&id.name))
    }

    /// Goes on with the change of shards that the row speaks of. Tells when to look again.
    pub(crate) async fn finish_reshard(&self, held: &Held) -> Result<Option<Timestamp>, Error> {
        let stream = &held.stream;
        let Some(Reshard { due, children }) = &stream.capacity.reshard else { return Ok(None) };
        if self.clock.now() < *due {
            return Ok(Some(*due));
        }
        let retention = stream.retention();
        let made = all(children.iter().map(|c| self.log.create(c.uid, retention)).collect()).await;
        if !self.goes_on(held) {
            // Deleted meanwhile, perhaps before the last of them was made.
            all(children.iter().map(|c| self.log.drop_shard(c.uid)).collect()).await?;
            return Ok(Some(self.clock.now()));
        }
        made?;
        let parents = parents(stream, children);
        let passing = short_lived(children);
        let mut sealed: Vec<ShardUid> = parents.iter().map(|s| s.uid).collect();
        sealed.extend(children.iter().filter(|c| passing.contains(&c.id)).map(|c| c.uid));
        let seals: Vec<_> = sealed.into_iter().map(|uid| self.log.seal(uid)).collect();
        let tails: Vec<Result<Tail, LogError>> =
            stream::iter(seals).buffer_unordered(CALLS_AT_ONCE).collect().await;
        // After every record of the parents, and no earlier than they began, whatever the clock does.
        let mut at = self.clock.now();
        for tail in tails {
            at = at.max(tail?.end.time());
        }
        let at = parents.iter().map(|s| stream.opened(s)).fold(at, Timestamp::max);
        match self.put(plan::through(stream, at), Some(held.version)).await {
            Ok(_) => Ok(None),
            Err(ControlError::Conflict { .. }) => Ok(Some(self.clock.now())),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the stream is still about to have the shards that it was to have when it was read.
    fn goes_on(&self, held: &Held) -> bool {
        let then = &held.stream;
        self.catalog.get(&then.scope, &then.name).is_some_and(|now| {
            let deleted = matches!(now.stream.state, StreamState::Deleting(_));
            !deleted && now.stream.capacity.reshard == then.capacity.reshard
        })
    }

    /// Open shards of an account and region, those that are decided on included.
    pub(crate) fn claimed_shards(&self, scope: &Scope) -> u32 {
        let streams = self.streams(scope);
        let claimed: usize = streams.iter().map(|s| claimed(s)).sum();
        u32::try_from(claimed).unwrap_or(u32::MAX)
    }

    /// Refuses what would leave an account and region with more shards than it may have.
    pub(crate) fn check_shards(&self, scope: &Scope, more: u32) -> Result<(), Error> {
        let limit = self.shard_limit(scope);
        // Far from the limit, which is where one is, there is no need to look at every stream.
        if self.catalog.shards_at_most(scope) + more as usize <= limit as usize {
            return Ok(());
        }
        let now = self.claimed_shards(scope);
        if u64::from(now) + u64::from(more) <= u64::from(limit) {
            return Ok(());
        }
        Err(Error::LimitExceeded(format!(
            "This request would exceed the shard limit for the account {} in {}. Current shard \
             count for the account: {now}. Limit: {limit}. Number of additional shards that would \
             have resulted from this request: {more}. Refer to the AWS Service Limits page \
             (https://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current \
             limits and how to request higher limits.",
            scope.account, scope.region
        )))
    }
}

/// Shards a stream has open now, or will have if those are more.
fn claimed(stream: &Stream) -> usize {
    let open = stream.shards.iter().filter(|s| s.is_open()).count();
    let Some(Reshard { children, .. }) = &stream.capacity.reshard else { return open };
    let (closing, passing) = (parents(stream, children).len(), short_lived(children).len());
    open.max((open + children.len()).saturating_sub(closing + passing))
}

fn check_room(stream: &Stream, more: usize) -> Result<(), Error> {
    if stream.shards.len() + more <= SHARDS_KEPT_MAX {
        return Ok(());
    }
    Err(Error::LimitExceeded(format!(
        "Stream {} under account {} has {} shards that have not expired and would get {more} more. \
         hydrant keeps at most {SHARDS_KEPT_MAX} of a stream; closed shards expire with its retention \
         period.",
        stream.name,
        stream.scope.account,
        stream.shards.len()
    )))
}

/// AWS's text for what only a provisioned stream can be asked.
pub(crate) fn check_provisioned(stream: &Stream) -> Result<(), Error> {
    match stream.mode {
        StreamMode::Provisioned => Ok(()),
        StreamMode::OnDemand => Err(Error::Validation(format!(
            "Request is invalid. Stream {} under account {} is in On-Demand mode.",
            stream.name, stream.scope.account
        ))),
    }
}
