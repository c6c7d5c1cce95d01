//! `CopyObject` and `UploadPartCopy`: the bytes are read, checked and written anew, so that the
//! copy stands when its source goes.

use std::sync::Arc;

use s3s::dto::{
    self, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource,
    MetadataDirective, UploadPartCopyInput, UploadPartCopyOutput,
};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::get::{Selected, Wanted};
use super::{
    PUT_BYTES_MAX, ReadCondition, check_version, describe, part_number, strong, sum, sum_type,
    timestamp,
};
use crate::checksum::{Algorithm, Digester, Digests};
use crate::error::{
    error, from_io, from_read, invalid_argument, invalid_request, not_implemented,
    precondition_failed,
};
use crate::files::{Draft, Reader, Written};
use crate::index::{Data, ObjectRow};
use crate::store::{Condition, Store, Unpublished};

fn source(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            check_version(version_id.as_deref())?;
            Ok((bucket, key))
        }
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            Err(not_implemented("x-amz-copy-source with an ARN"))
        }
    }
}

impl Store {
    /// Opens the source of a copy. There is no 304 for it: an unmet condition is 412.
    async fn open_source(
        &self,
        bucket: &str,
        key: &str,
        wanted: Wanted,
        condition: ReadCondition,
    ) -> S3Result<(Selected, Reader)> {
        let opened = self.open(bucket, key, wanted, &condition).await;
        opened.map_err(|error| match error.code() {
            S3ErrorCode::NotModified => precondition_failed(),
            _ => error,
        })
    }

    async fn duplicate(
        &self,
        reader: &mut Reader,
        algorithm: Option<Algorithm>,
    ) -> S3Result<(Written, Digests)> {
        let mut draft = Draft::create(&self.files, &self.random).await.map_err(from_io)?;
        let mut digester = Digester::new(algorithm);
        while let Some(data) = reader.next().await.map_err(from_read)? {
            digester.update(&data);
            draft.write(data).await.map_err(from_io)?;
        }
        Ok((draft.finish().await.map_err(from_io)?, digester.finish()))
    }

    pub(crate) async fn copy_object(
        self: &Arc<Self>,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let S3Request { input, headers, .. } = request;
        self.bucket(&input.bucket).await?;
        let (from_bucket, from_key) = source(&input.copy_source)?;
        let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
            None | Some(MetadataDirective::COPY) => false,
            Some(MetadataDirective::REPLACE) => true,
            Some(_) => return Err(invalid_argument("Unknown metadata directive.")),
        };
        if !replace && from_bucket == input.bucket && from_key == input.key {
            return Err(invalid_request(
                "This copy request is illegal because it is trying to copy an object to itself \
                 without changing the object's metadata, storage class, website redirect location \
                 or encryption attributes.",
            ));
        }
        let condition = ReadCondition {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let (selected, mut reader) =
            self.open_source(from_bucket, from_key, Wanted::All, condition).await?;
        let row = selected.row;
        if row.size_bytes > PUT_BYTES_MAX {
            return Err(invalid_request(
                "The specified copy source is larger than the maximum allowable size for a copy \
                 source: 5368709120",
            ));
        }
        let asked = match &input.checksum_algorithm {
            Some(name) => Some(algorithm(name)?),
            None => row.checksum.as_ref().map(|stored| stored.algorithm),
        };
        let described = if replace { describe(&headers, input.metadata)? } else { row.described };
        let (written, digests) = self.duplicate(&mut reader, asked).await?;
        drop(reader);
        let copy = ObjectRow {
            size_bytes: written.size_bytes,
            etag: digests.etag(),
            modified: self.now(),
            data: Data::File(written.pending.id()),
            described,
            checksum: digests.checksum,
            upload: None,
        };
        let copy = self
            .publish(Unpublished {
                bucket: input.bucket,
                key: input.key,
                row: copy,
                condition: Condition::of_copy(&headers)?,
                pending: Some(written.pending),
                with: Vec::new(),
            })
            .await?;
        let checksum = copy.checksum.as_ref();
        let result = CopyObjectResult {
            checksum_crc32: sum(checksum, Algorithm::Crc32),
            checksum_crc32c: sum(checksum, Algorithm::Crc32c),
            checksum_crc64nvme: sum(checksum, Algorithm::Crc64nvme),
            checksum_sha1: sum(checksum, Algorithm::Sha1),
            checksum_sha256: sum(checksum, Algorithm::Sha256),
            checksum_type: sum_type(checksum),
            e_tag: Some(strong(&copy.etag)),
            last_modified: Some(timestamp(copy.modified)),
        };
        let copy_object_result = Some(result);
        Ok(S3Response::new(CopyObjectOutput { copy_object_result, ..CopyObjectOutput::default() }))
    }

    pub(crate) async fn upload_part_copy(
        self: &Arc<Self>,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let number = part_number(input.part_number)?;
        let (upload_key, upload) = self.upload(&input.bucket, &input.key, &input.upload_id).await?;
        let (from_bucket, from_key) = source(&input.copy_source)?;
        let wanted = match &input.copy_source_range {
            None => Wanted::All,
            // Unlike a GET's, this range has both ends, and both within the source.
            Some(range) => match dto::Range::parse(range) {
                Ok(range @ dto::Range::Int { last: Some(_), .. }) => Wanted::Range(range),
                _ => {
                    return Err(invalid_argument(
                        "The x-amz-copy-source-range value must be of the form bytes=first-last \
                         where first and last are the zero-based offsets of the first and last \
                         bytes to copy",
                    ));
                }
            },
        };
        let condition = ReadCondition {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let (selected, mut reader) =
            self.open_source(from_bucket, from_key, wanted, condition).await?;
        if let Wanted::Range(dto::Range::Int { last: Some(last), .. }) = wanted
            && last >= selected.row.size_bytes
        {
            return Err(invalid_argument(format!(
                "Range specified is not valid for source object of size: {}",
                selected.row.size_bytes
            )));
        }
        if selected.range.end - selected.range.start > PUT_BYTES_MAX {
            return Err(crate::error::entity_too_large());
        }
        let asked = upload.checksum.map(|choice| choice.algorithm);
        let (written, digests) = self.duplicate(&mut reader, asked).await?;
        drop(reader);
        let part = self.add_part(upload_key, input.upload_id, number, written, digests).await?;
        let checksum = part.checksum.as_ref();
        let result = CopyPartResult {
            checksum_crc32: sum(checksum, Algorithm::Crc32),
            checksum_crc32c: sum(checksum, Algorithm::Crc32c),
            checksum_crc64nvme: sum(checksum, Algorithm::Crc64nvme),
            checksum_sha1: sum(checksum, Algorithm::Sha1),
            checksum_sha256: sum(checksum, Algorithm::Sha256),
            e_tag: Some(strong(&part.etag)),
            last_modified: Some(timestamp(part.modified)),
        };
        let copy_part_result = Some(result);
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result,
            ..UploadPartCopyOutput::default()
        }))
    }
}

/// The algorithm that a header names.
pub(super) fn algorithm(name: &dto::ChecksumAlgorithm) -> S3Result<Algorithm> {
    Algorithm::named(name.as_str()).ok_or_else(|| {
        error(
            S3ErrorCode::InvalidRequest,
            "Checksum algorithm provided is unsupported. Please try again with any of the valid \
             types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    })
}
