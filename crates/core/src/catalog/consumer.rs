//! Consumers with enhanced fan-out: part of their stream's row, so that they come and go with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Stream;
use super::state::lasts;
use crate::arn::Arn;
use crate::clock::Timestamp;
use crate::policy::Policy;

/// What a consumer is doing, with the moment at which that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumerState {
    /// Being made; active from this moment on.
    Creating(Timestamp),
    /// Being deleted; gone from this moment on.
    Deleting(Timestamp),
}

/// `ConsumerStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum ConsumerStatus {
    Creating,
    Active,
    Deleting,
}

impl ConsumerStatus {
    /// As AWS spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Deleting => "DELETING",
        }
    }
}

/// A registered consumer (AWS: `RegisterStreamConsumer`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// Its name, unlike that of every other one of the stream.
    pub name: String,
    /// When it was registered. No two consumers of a name were in the same second, since the ARN
    /// tells them apart by it.
    pub created: Timestamp,
    /// What it is doing.
    pub state: ConsumerState,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Its resource policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<Policy>>,
}

impl Consumer {
    /// Its status at `now`; `None` once a deletion is through.
    pub fn status(&self, now: Timestamp) -> Option<ConsumerStatus> {
        match self.state {
            ConsumerState::Creating(until) if lasts(until, now) => Some(ConsumerStatus::Creating),
            ConsumerState::Creating(_) => Some(ConsumerStatus::Active),
            ConsumerState::Deleting(until) if lasts(until, now) => Some(ConsumerStatus::Deleting),
            ConsumerState::Deleting(_) => None,
        }
    }

    /// Its ARN. The caller's duty: it is a consumer of that stream.
    pub fn arn(&self, stream: &Stream) -> Arn {
        let (name, created) = (&self.name, self.created.as_secs());
        let resource = format!("stream/{}/consumer/{name}:{created}", stream.name);
        Arn::new("kinesis", &stream.scope, resource)
    }
}

impl Stream {
    /// The consumers that are not gone at `now`, by name, with their status.
    pub fn consumers(&self, now: Timestamp) -> impl Iterator<Item = (&Consumer, ConsumerStatus)> {
        self.consumers.iter().filter_map(move |c| Some((c, c.status(now)?)))
    }

    /// The consumer of a name that is not gone at `now`, with its status.
    pub fn consumer(&self, name: &str, now: Timestamp) -> Option<(&Consumer, ConsumerStatus)> {
        let place = self.consumers.binary_search_by(|c| c.name.as_str().cmp(name)).ok()?;
        let consumer = self.consumers.get(place)?;
        Some((consumer, consumer.status(now)?))
    }
}
