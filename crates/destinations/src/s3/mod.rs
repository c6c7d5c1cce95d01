//! S3: a batch becomes one object.

mod config;
mod encode;
mod error;
mod prefix;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::bucket::BucketRef;
use hydrant_core::destination::{
    Batch, Compression, Delivered, DeliveryError, Destination, S3Settings,
};
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, PutMultipartOptions};

use config::Naming;
pub use error::InvalidSettings;
use error::what_to_do;

/// Objects above this go up in parts.
const WHOLE_OBJECT_BYTES_MAX: usize = 64 << 20;
/// Size of a part. S3 takes 10,000 of them, so an object may have 156 GiB.
const PART_BYTES: usize = 16 << 20;
/// Batches smaller than this are encoded where they are, without a trip to a blocking thread.
const INLINE_ENCODE_BYTES_MAX: usize = 64 << 10;

/// Opens a bucket. Injected by `server`, which knows which buckets are hydrant's own and how the
/// others are reached; the words of a refusal go to whoever configured the bucket.
pub type OpenBucket = Arc<dyn Fn(&BucketRef) -> Result<Arc<dyn ObjectStore>, String> + Send + Sync>;

/// Delivers batches as objects of a bucket.
///
/// The object's key is made from the batch alone (its id, its version, the arrival of its oldest
/// record) and its bytes from the records alone, so delivering a batch again rewrites the same
/// object with the same bytes.
pub struct S3Destination {
    naming: Naming,
    compression: Compression,
    bucket: String,
    store: Arc<dyn ObjectStore>,
}

impl S3Destination {
    /// A destination over an open bucket. Fails, with words for the caller of the API, if the
    /// settings break a rule of "Understand custom prefixes for Amazon S3 objects" in the Firehose
    /// developer guide, or ask for an expression hydrant does not have.
    pub fn new(
        settings: &S3Settings,
        store: Arc<dyn ObjectStore>,
    ) -> Result<Self, InvalidSettings> {
        Ok(Self {
            naming: Naming::new(settings)?,
            compression: settings.compression,
            bucket: settings.bucket.clone(),
            store,
        })
    }

    /// As [`S3Destination::new`], with the bucket opened by `open`.
    pub fn open(settings: &S3Settings, open: &OpenBucket) -> Result<Self, InvalidSettings> {
        let naming = Naming::new(settings)?;
        let bucket = BucketRef {
            bucket: settings.bucket.clone(),
            region: None,
            endpoint: None,
            credentials: None,
        };
        let store = open(&bucket).map_err(InvalidSettings::Bucket)?;
        let (compression, bucket) = (settings.compression, bucket.bucket);
        Ok(Self { naming, compression, bucket, store })
    }

    /// The key of the object that this batch becomes.
    pub fn key(&self, batch: &Batch) -> String {
        self.naming.key(batch)
    }

    async fn encode(&self, batch: &Batch) -> Result<Bytes, DeliveryError> {
        let bytes = encode::data_bytes(&batch.frames);
        let compression = self.compression;
        if bytes <= INLINE_ENCODE_BYTES_MAX {
            return encode::encode(&batch.frames, compression, bytes).map_err(retry);
        }
        let frames = batch.frames.clone();
        tokio::task::spawn_blocking(move || encode::encode(&frames, compression, bytes))
            .await
            .map_err(retry)?
            .map_err(retry)
    }

    async fn put(&self, path: &Path, body: Bytes) -> object_store::Result<()> {
        // No Content-Encoding: a client would otherwise unpack a GZIP object on the way, and what is
        // stored under a name ending in .gz would not be what was fetched.
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/octet-stream".into());
        if body.len() <= WHOLE_OBJECT_BYTES_MAX {
            return self.store.put_opts(path, body.into(), attributes.into()).await.map(drop);
        }
        let options = PutMultipartOptions { attributes, ..Default::default() };
        let mut upload = self.store.put_multipart_opts(path, options).await?;
        let mut sent = Ok(());
        for start in (0..body.len()).step_by(PART_BYTES) {
            let part = body.slice(start..body.len().min(start + PART_BYTES));
            sent = upload.put_part(part.into()).await;
            if sent.is_err() {
                break;
            }
        }
        let done = match sent {
            Ok(()) => upload.complete().await.map(drop),
            Err(e) => Err(e),
        };
        if done.is_err() {
            // The parts cost room until they are aborted. The error to report is the first one.
            if let Err(e) = upload.abort().await {
                tracing::warn!(key = %path, error = %e, "parts of an unfinished upload stay behind");
            }
        }
        done
    }
}

fn retry(error: impl std::fmt::Display) -> DeliveryError {
    DeliveryError::Retry(error.to_string())
}

#[async_trait]
impl Destination for S3Destination {
    async fn deliver(&self, batch: &Batch) -> Result<Delivered, DeliveryError> {
        let key = self.naming.key(batch);
        let path = Path::parse(&key).map_err(|e| DeliveryError::Misconfigured(e.to_string()))?;
        let body = self.encode(batch).await?;
        let bytes = body.len() as u64;
        self.put(&path, body).await.map_err(|e| what_to_do(&self.bucket, e))?;
        let url = format!("s3://{}/{key}", self.bucket);
        Ok(Delivered { written: vec![url], bytes, rejected: Vec::new() })
    }
}

#[cfg(test)]
mod tests;
