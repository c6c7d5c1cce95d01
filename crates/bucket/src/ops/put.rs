//! `PutObject`, and how a body becomes a file.

use std::sync::Arc;

use futures::StreamExt;
use s3s::dto::{PutObjectInput, PutObjectOutput, StreamingBlob};
use s3s::{S3Request, S3Response, S3Result};

use super::{PUT_BYTES_MAX, describe, digests, missing_length, strong, sum, sum_type};
use crate::checksum::Algorithm;
use crate::error::{entity_too_large, error, from_io};
use crate::files::{Draft, Written};
use crate::index::{Data, ObjectRow};
use crate::store::{Condition, Store, Unpublished};

impl Store {
    /// Writes a body to a new file and syncs it. The caller still has to ask what the bytes came to.
    pub(super) async fn receive(
        &self,
        body: Option<StreamingBlob>,
        length: Option<i64>,
    ) -> S3Result<Written> {
        let length = length.and_then(|n| u64::try_from(n).ok()).ok_or_else(missing_length)?;
        if length > PUT_BYTES_MAX {
            return Err(entity_too_large());
        }
        let mut draft = Draft::create(&self.files, &self.random).await.map_err(from_io)?;
        if let Some(mut body) = body {
            while let Some(data) = body.next().await {
                // The front knows why, and says so in place of this.
                let data = data
                    .map_err(|cause| error(s3s::S3ErrorCode::IncompleteBody, cause.to_string()))?;
                metrics::counter!("hydrant_bucket_received_bytes_total")
                    .increment(data.len() as u64);
                draft.write(data).await.map_err(from_io)?;
            }
        }
        draft.finish().await.map_err(from_io)
    }

    pub(crate) async fn put_object(
        self: &Arc<Self>,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request { input, headers, extensions, .. } = request;
        self.bucket(&input.bucket).await?;
        let described = describe(&headers, input.metadata)?;
        let written = self.receive(input.body, input.content_length).await?;
        let digests = digests(&extensions)?;
        let row = ObjectRow {
            size_bytes: written.size_bytes,
            etag: digests.etag(),
            modified: self.now(),
            data: Data::File(written.pending.id()),
            described,
            checksum: digests.checksum,
            upload: None,
        };
        let condition = Condition { if_match: input.if_match, if_none_match: input.if_none_match };
        let unpublished = Unpublished {
            bucket: input.bucket,
            key: input.key,
            row,
            condition,
            pending: Some(written.pending),
            with: Vec::new(),
        };
        let row = self.publish(unpublished).await?;
        let checksum = row.checksum.as_ref();
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(strong(&row.etag)),
            checksum_crc32: sum(checksum, Algorithm::Crc32),
            checksum_crc32c: sum(checksum, Algorithm::Crc32c),
            checksum_crc64nvme: sum(checksum, Algorithm::Crc64nvme),
            checksum_sha1: sum(checksum, Algorithm::Sha1),
            checksum_sha256: sum(checksum, Algorithm::Sha256),
            checksum_type: sum_type(checksum),
            ..PutObjectOutput::default()
        }))
    }
}
