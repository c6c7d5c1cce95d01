//! What a stream is doing, and who decides on its shards.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The longest that a state can be set to last.
const LASTS_MAX: Duration = Duration::from_secs(3_600);

/// Whether a state that ends at `until` lasts still. One that would last longer than any can was
/// begun before the clock was set back, and is over; the end of time means work that is not done.
pub(super) fn lasts(until: Timestamp, now: Timestamp) -> bool {
    now < until && (until == Timestamp::MAX || until <= now.plus(LASTS_MAX))
}

/// What a stream is doing, with the moment at which that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamState {
    /// Being made; active from this moment on, which is [`Timestamp::MAX`] until its shards are in the
    /// log.
    Creating(Timestamp),
    /// Ready.
    Active,
    /// Being changed, taking records meanwhile; active from this moment on.
    Updating(Timestamp),
    /// Being deleted; gone from this moment on.
    Deleting(Timestamp),
}

/// `StreamStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum StreamStatus {
    Creating,
    Active,
    Updating,
    Deleting,
}

impl StreamStatus {
    /// As AWS spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
            Self::Deleting => "DELETING",
        }
    }
}

/// `StreamModeDetails.StreamMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamMode {
    /// The user says how many shards.
    Provisioned,
    /// hydrant says how many shards.
    OnDemand,
}
