//! The port to whatever a delivery stream delivers to, and the settings a destination is made from.
//!
//! The settings stand here because two crates that must not see each other share them: `delivery`
//! reads them from a request and keeps them, `destinations` turns them into something that delivers.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::names::DeliveryStreamName;
use crate::record::Frame;

/// A batch on its way to a destination. Built from a stored intent, so that after a crash the very
/// same batch, with the same `id`, is delivered again.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Made from the delivery stream and the ranges of sequence numbers in the batch: 16 bytes that
    /// are the same whenever the same batch is built again, and no other's.
    pub id: [u8; 16],
    /// The delivery stream.
    pub delivery_stream: DeliveryStreamName,
    /// The destination's version when the batch was cut, from 1 (AWS: `VersionId`).
    pub version: u64,
    /// Arrival of the oldest record: what the prefix and the object's name are made from.
    pub first_arrival: Timestamp,
    /// The records, in order within each shard. Never empty.
    pub frames: Vec<Frame>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Where it is now, for the operator: object URLs, table names.
    pub written: Vec<String>,
    /// Bytes written, after compression.
    pub bytes: u64,
    /// Records the destination refused for good, by their place in the batch, with the reason.
    pub rejected: Vec<Rejected>,
}

/// A record that a destination will never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Place of the record in the batch, from 0.
    pub nth: usize,
    /// The destination's code for it.
    pub code: String,
    /// The destination's words for it.
    pub message: String,
}

/// Why a batch was not delivered, named by what the worker must do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// It may work later: deliver the same batch again, after a pause.
    #[error("{0}")]
    Retry(String),
    /// It will not work until somebody changes the configuration. Keep the batch, tell the operator,
    /// and go on trying at the longest pause.
    #[error("{0}")]
    Misconfigured(String),
}

/// A place that takes batches.
///
/// Guarantee, for every implementation (`hydrant_testkit::destination_conformance` checks it):
/// delivering one `batch.id` twice, whole or after a crash anywhere within the first delivery,
/// leaves the target as delivering it once.
#[async_trait]
pub trait Destination: Send + Sync + 'static {
    /// Delivers the whole batch; on success it is durable at the target.
    async fn deliver(&self, batch: &Batch) -> Result<Delivered, DeliveryError>;
}

/// What a destination is made from. Kept in the control store, so a change must stay readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DestinationSettings {
    /// Objects in a bucket.
    S3(S3Settings),
}

/// Settings of an S3 destination, under AWS's names (`ExtendedS3DestinationConfiguration`) and as
/// the caller gave them: the destination itself checks them when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Settings {
    /// Name of the bucket, from `BucketARN`.
    pub bucket: String,
    /// `Prefix`, empty if there is none.
    pub prefix: String,
    /// `ErrorOutputPrefix`, empty if there is none.
    pub error_output_prefix: String,
    /// `CompressionFormat`.
    pub compression: Compression,
    /// `FileExtension`, empty for the compression's own.
    pub file_extension: String,
    /// `CustomTimeZone`, an IANA name, empty for UTC.
    pub time_zone: String,
}

/// `CompressionFormat`: the formats there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// `UNCOMPRESSED`: the records' bytes as they are.
    #[default]
    Uncompressed,
    /// `GZIP`: one gzip member an object.
    Gzip,
}

/// Makes a destination, or says in words for the caller of the API why these settings cannot be
/// one. Makes no connection that has to work now: a bucket may come into being later. Injected by
/// `server`, the only one who knows every destination.
pub type MakeDestination =
    Arc<dyn Fn(&DestinationSettings) -> Result<Arc<dyn Destination>, String> + Send + Sync>;
