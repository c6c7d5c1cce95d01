//! A delivery stream: what is kept of it.

use std::collections::BTreeMap;
use std::time::Duration;

use hydrant_core::arn::Arn;
use hydrant_core::clock::Timestamp;
use hydrant_core::destination::DestinationSettings;
use hydrant_core::log::ShardUid;
use hydrant_core::names::{DeliveryStreamName, Scope, StreamName};
use serde::{Deserialize, Serialize};

use crate::database::{Database, Stage};

/// The id AWS gives to the first destination, which is the only one a delivery stream has.
pub(crate) const DESTINATION_ID: &str = "destinationId-000000000001";

/// A delivery stream: one row of the control store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeliveryStream {
    pub(crate) scope: Scope,
    pub(crate) name: DeliveryStreamName,
    /// Tells it apart from an earlier one of the same name, and names its rows. Direct puts are the
    /// records of the shard of this name; a delivery stream with another source leaves it unused.
    pub(crate) uid: ShardUid,
    pub(crate) created: Timestamp,
    pub(crate) updated: Option<Timestamp>,
    pub(crate) state: State,
    pub(crate) source: Source,
    /// `VersionId`: 1, and one more with every change of the destination.
    pub(crate) version: u64,
    pub(crate) destination: Destination,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
}

/// What it is doing, with the moment at which that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Being made; active from this moment on.
    Creating(Timestamp),
    /// Being deleted; its rows go from this moment on.
    Deleting(Timestamp),
}

/// `DeliveryStreamStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    CreatingFailed,
    Active,
    Deleting,
}

impl Status {
    /// As AWS spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::CreatingFailed => "CREATING_FAILED",
            Self::Active => "ACTIVE",
            Self::Deleting => "DELETING",
        }
    }
}

/// Where the records come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// `PutRecord` and `PutRecordBatch`.
    DirectPut,
    /// A stream, from `start` on (AWS: `DeliveryStartTimestamp`).
    Kinesis { stream: StreamName, role_arn: String, start: Timestamp },
    /// A database, through a stream of the delivery stream's name that is read from its first record.
    Database(Box<Database>),
}

impl Source {
    /// `DeliveryStreamType`.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::DirectPut => "DirectPut",
            Self::Kinesis { .. } => "KinesisStreamAsSource",
            Self::Database(_) => "DatabaseAsSource",
        }
    }

    /// The stream that is read.
    pub(crate) fn stream(&self) -> Option<&StreamName> {
        match self {
            Self::DirectPut => None,
            Self::Kinesis { stream, .. } => Some(stream),
            Self::Database(database) => Some(&database.stream),
        }
    }

    /// How far the capture of a database has come.
    pub(crate) fn stage(&self) -> Option<&Stage> {
        match self {
            Self::Database(database) => Some(&database.stage),
            Self::DirectPut | Self::Kinesis { .. } => None,
        }
    }
}

/// Where they go: what makes the destination, and what is only shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Destination {
    pub(crate) settings: DestinationSettings,
    pub(crate) hints: Hints,
    pub(crate) role_arn: String,
    pub(crate) bucket_arn: String,
    /// Members that were given and are shown again as they came: prefixes, and blocks that are
    /// switched off.
    pub(crate) shown: BTreeMap<String, serde_json::Value>,
}

/// `BufferingHints`: a batch is cut when either is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hints {
    pub(crate) size_mbs: u32,
    pub(crate) interval_seconds: u32,
}

impl Hints {
    /// AWS's defaults for S3.
    pub(crate) const DEFAULT: Self = Self { size_mbs: 5, interval_seconds: 300 };

    pub(crate) fn size_bytes(self) -> u64 {
        u64::from(self.size_mbs) << 20
    }

    pub(crate) fn interval(self) -> Duration {
        Duration::from_secs(u64::from(self.interval_seconds))
    }
}

impl DeliveryStream {
    pub(crate) fn arn(&self) -> Arn {
        Arn::new("firehose", &self.scope, format!("deliverystream/{}", self.name))
    }

    pub(crate) fn status(&self, now: Timestamp) -> Status {
        match (self.state, self.source.stage()) {
            (State::Deleting(_), _) => Status::Deleting,
            (State::Creating(_), Some(Stage::Failed(_))) => Status::CreatingFailed,
            (State::Creating(_), Some(Stage::Pending)) => Status::Creating,
            (State::Creating(until), _) if now < until => Status::Creating,
            (State::Creating(_), _) => Status::Active,
        }
    }
}
