//! Closed shards that go once their last record has expired.
//!
//! Two writes of the row with the log between them: the first takes the shards out of the stream and
//! remembers their names in the log, the second forgets those. So a retention that is made longer
//! meanwhile never finds a shard half gone, and a stop leaves names that the next start drops.
//! Follows "Data routing, data persistence, and shard state after a reshard" in the developer guide.

use hydrant_core::Timestamp;
use hydrant_core::catalog::{Held, Shard, Stream};
use hydrant_core::control::ControlError;

use crate::Kinesis;
use crate::error::Error;
use crate::lifecycle::all;

impl Kinesis {
    /// Does what is due about a stream's closed shards, and tells when something will be due again.
    pub(crate) async fn expire_shards(&self, held: &Held) -> Result<Option<Timestamp>, Error> {
        let (stream, now) = (&held.stream, self.clock.now());
        let gone = |shard: &&Shard| is_expired(stream, shard, now);
        let next = if stream.capacity.expired.is_empty() {
            let expired: Vec<_> = stream.shards.iter().filter(gone).map(|s| s.uid).collect();
            if expired.is_empty() {
                return Ok(stream.shards.iter().filter_map(|s| stream.expires(s)).min());
            }
            let mut next = Stream::clone(stream);
            next.shards.retain(|s| !is_expired(stream, s, now));
            next.capacity.expired = expired;
            next
        } else {
            let expired = stream.capacity.expired.iter();
            all(expired.map(|uid| self.log.drop_shard(*uid)).collect()).await?;
            let mut next = Stream::clone(stream);
            next.capacity.expired = Vec::new();
            next
        };
        match self.catalog.put(next, Some(held.version)).await {
            // There may be more to do at once.
            Ok(_) | Err(ControlError::Conflict { .. }) => Ok(Some(now)),
            Err(e) => Err(e.into()),
        }
    }
}

/// Whether all records of the shard have expired, so that it is not shown any more.
pub(crate) fn is_expired(stream: &Stream, shard: &Shard, now: Timestamp) -> bool {
    stream.expires(shard).is_some_and(|at| at <= now)
}
