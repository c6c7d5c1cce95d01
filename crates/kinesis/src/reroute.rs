//! A put that meets a shard which was closed behind its back: it waits for the children.

use std::time::Duration;

use hydrant_core::catalog::{Held, Shard, Stream};

use crate::Kinesis;
use crate::error::Error;
use crate::streams::StreamKey;

/// Times that one put looks for another shard. A stream is resharded far more slowly than that.
pub(crate) const REROUTES_MAX: usize = 8;
/// Longest wait for the row that opens the children of a sealed shard; they follow at once, unless the
/// control store does not answer.
const CHILDREN_WAIT: Duration = Duration::from_secs(20);

impl Kinesis {
    /// The stream once none of `sealed` is open in it any more, so that what was for them goes to
    /// their children. `None` if that takes too long; fails if the stream goes meanwhile.
    pub(crate) async fn rerouted(
        &self,
        stream: &Stream,
        sealed: &[Shard],
    ) -> Result<Option<Held>, Error> {
        let id = StreamKey { scope: stream.scope.clone(), name: stream.name.clone() };
        let mut changes = self.catalog.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                let held = self.usable(&id)?;
                // Another one of the name is not what the caller meant.
                if held.stream.id != stream.id {
                    return Err(id.not_found());
                }
                let still = |s: &Shard| held.stream.shard(s.id).is_some_and(|now| now == s);
                if !sealed.iter().any(still) {
                    return Ok(Some(held));
                }
                if changes.changed().await.is_err() {
                    return Ok(None);
                }
            }
        };
        tokio::time::timeout(CHILDREN_WAIT, wait).await.unwrap_or(Ok(None))
    }
}
