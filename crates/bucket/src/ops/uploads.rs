//! `ListParts` and `ListMultipartUploads`.

use std::sync::Arc;

use s3s::dto::{
    ChecksumAlgorithm, ChecksumType, Initiator, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part,
    StorageClass,
};
use s3s::{S3Request, S3Response, S3Result};

use super::list::Encoding;
use super::{page_size, size, strong, sum, timestamp};
use crate::checksum::{Algorithm, Choice};
use crate::error::{from_control, not_implemented};
use crate::index::{PartRow, UploadRow, part_key, parts_of, split_upload, upload_key, uploads_of};
use crate::owner;
use crate::store::Store;

fn initiator() -> Initiator {
    let owner = owner();
    Initiator { display_name: owner.display_name, id: owner.id }
}

fn algorithm_of(choice: Option<Choice>) -> Option<ChecksumAlgorithm> {
    choice.map(|choice| ChecksumAlgorithm::from_static(choice.algorithm.name()))
}

fn type_of(choice: Option<Choice>) -> Option<ChecksumType> {
    choice.map(|choice| {
        let full = choice.full_object;
        ChecksumType::from_static(if full { "FULL_OBJECT" } else { "COMPOSITE" })
    })
}

impl Store {
    pub(crate) async fn list_parts(
        self: &Arc<Self>,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let max = page_size(input.max_parts, "max-parts")?;
        let (_, upload) = self.upload(&input.bucket, &input.key, &input.upload_id).await?;
        let prefix = parts_of(&input.upload_id);
        let marker = input.part_number_marker.and_then(|n| u32::try_from(n).ok());
        let after = part_key(&input.upload_id, marker.unwrap_or_default().min(99_999));
        let rows = self.control.scan(&prefix, Some(&after), max as usize + 1).await;
        let mut rows = rows.map_err(from_control)?;
        let is_truncated = rows.len() > max as usize && max > 0;
        rows.truncate(max as usize);
        let mut parts = Vec::with_capacity(rows.len());
        for (key, entry) in rows {
            let row: PartRow = entry.json(&key).map_err(from_control)?;
            let checksum = row.checksum.as_ref();
            parts.push(Part {
                checksum_crc32: sum(checksum, Algorithm::Crc32),
                checksum_crc32c: sum(checksum, Algorithm::Crc32c),
                checksum_crc64nvme: sum(checksum, Algorithm::Crc64nvme),
                checksum_sha1: sum(checksum, Algorithm::Sha1),
                checksum_sha256: sum(checksum, Algorithm::Sha256),
                e_tag: Some(strong(&row.etag)),
                last_modified: Some(timestamp(row.modified)),
                part_number: key[prefix.len()..].parse().ok(),
                size: Some(size(row.size_bytes)),
            });
        }
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            checksum_algorithm: algorithm_of(upload.checksum),
            checksum_type: type_of(upload.checksum),
            initiator: Some(initiator()),
            is_truncated: Some(is_truncated),
            key: Some(input.key),
            max_parts: Some(max),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            owner: Some(owner()),
            part_number_marker: Some(input.part_number_marker.unwrap_or_default()),
            parts: Some(parts),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            upload_id: Some(input.upload_id),
            ..ListPartsOutput::default()
        }))
    }

    pub(crate) async fn list_multipart_uploads(
        self: &Arc<Self>,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        self.bucket(&input.bucket).await?;
        if input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty()) {
            return Err(not_implemented("delimiter in ListMultipartUploads"));
        }
        let encoding = Encoding::new(input.encoding_type.as_ref())?;
        let max = page_size(input.max_uploads, "max-uploads")?;
        let within = uploads_of(&input.bucket);
        let prefix = input.prefix.unwrap_or_default();
        let scanned = format!("{within}{prefix}");
        let key_marker = input.key_marker.filter(|marker| !marker.is_empty());
        let after = key_marker.as_ref().map(|key| match &input.upload_id_marker {
            Some(id) if !id.is_empty() => upload_key(&input.bucket, key, id),
            // After every upload of the key: ids are hexadecimal.
            _ => upload_key(&input.bucket, key, "g"),
        });
        let rows = self.control.scan(&scanned, after.as_deref(), max as usize + 1).await;
        let mut rows = rows.map_err(from_control)?;
        let is_truncated = rows.len() > max as usize && max > 0;
        rows.truncate(max as usize);
        let mut uploads = Vec::with_capacity(rows.len());
        let mut last = None;
        for (row_key, entry) in rows {
            let row: UploadRow = entry.json(&row_key).map_err(from_control)?;
            let Some((key, id)) = split_upload(&row_key[within.len()..]) else { continue };
            last = Some((encoding.encode(key), id.to_owned()));
            uploads.push(MultipartUpload {
                checksum_algorithm: algorithm_of(row.checksum),
                checksum_type: type_of(row.checksum),
                initiated: Some(timestamp(row.created)),
                initiator: Some(initiator()),
                key: Some(encoding.encode(key)),
                owner: Some(owner()),
                storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                upload_id: Some(id.to_owned()),
            });
        }
        let (next_key_marker, next_upload_id_marker) = last.filter(|_| is_truncated).unzip();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            encoding_type: input.encoding_type,
            is_truncated: Some(is_truncated),
            key_marker: key_marker.map(|key| encoding.encode(&key)),
            max_uploads: Some(max),
            next_key_marker,
            next_upload_id_marker,
            prefix: Some(encoding.encode(&prefix)),
            upload_id_marker: input.upload_id_marker,
            uploads: Some(uploads),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}
