//! Multipart uploads: begin, add parts, complete, abort.
//!
//! A part is a file and a row. Completing copies nothing: one commit takes the upload's row away and
//! makes an object whose layout names the parts' files. Replacing a part touches the upload's row
//! too, so that it cannot pass unseen while the upload is being completed.

use std::collections::HashMap;
use std::sync::Arc;

use hydrant_core::control::{ControlError, Entry, Write, scan_all};
use hydrant_core::limits::SCAN_ROWS_MAX;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::copy::algorithm;
use super::{
    OBJECT_BYTES_MAX, PART_BYTES_MIN, describe, digests, part_number, strong, sum, sum_type,
};
use crate::checksum::{Algorithm, Choice, Digests, Stored, multipart_etag};
use crate::error::{
    entity_too_large, error, from_control, internal, invalid_request, no_such_upload, slow_down,
};
use crate::files::{FileId, Written, off_thread};
use crate::index::{
    Data, ObjectRow, PartRow, Segment, UploadRow, is_upload_id, layout_key, object_key, part_key,
    parts_of, upload_key,
};
use crate::store::{Condition, NotPublished, Store, Unpublished};

/// How often a commit is tried again because the upload changed meanwhile.
const ATTEMPTS_MAX: usize = 100;
/// Rows of parts deleted in one commit.
const CLEAR_ROWS: usize = 1_000;

fn malformed() -> s3s::S3Error {
    error(
        S3ErrorCode::MalformedXML,
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
}

fn invalid_part() -> s3s::S3Error {
    error(
        S3ErrorCode::InvalidPart,
        "One or more of the specified parts could not be found.  The part may not have been \
         uploaded, or the specified entity tag may not match the part's entity tag.",
    )
}

impl Store {
    /// An unfinished upload and its row's key, or `NoSuchUpload`.
    pub(super) async fn upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> S3Result<(String, UploadRow)> {
        let (row_key, _, row) = self.upload_entry(bucket, key, id).await?;
        Ok((row_key, row))
    }

    async fn upload_entry(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> S3Result<(String, Entry, UploadRow)> {
        if !is_upload_id(id) {
            return Err(no_such_upload());
        }
        let row_key = upload_key(bucket, key, id);
        match self.row(&row_key).await? {
            Some((entry, row)) => Ok((row_key, entry, row)),
            None => Err(self.bucket(bucket).await.map_or_else(|e| e, |_| no_such_upload())),
        }
    }

    pub(crate) async fn create_multipart_upload(
        self: &Arc<Self>,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let S3Request { input, headers, .. } = request;
        let asked = input.checksum_algorithm.as_ref().map(algorithm).transpose()?;
        let full_object = match input.checksum_type.as_ref().map(ChecksumType::as_str) {
            None => None,
            Some(ChecksumType::FULL_OBJECT) => Some(true),
            Some(ChecksumType::COMPOSITE) => Some(false),
            Some(_) => {
                return Err(invalid_request("Value for x-amz-checksum-type header is invalid."));
            }
        };
        let checksum = match (asked, full_object) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(invalid_request(
                    "The x-amz-checksum-type header can only be used with the \
                     x-amz-checksum-algorithm header.",
                ));
            }
            (Some(algorithm), full_object) => {
                Some(Choice::new(algorithm, full_object).ok_or_else(|| {
                    invalid_request(format!(
                        "The {} checksum type cannot be used with the {} checksum algorithm.",
                        if full_object == Some(true) { "FULL_OBJECT" } else { "COMPOSITE" },
                        algorithm.name().to_lowercase()
                    ))
                })?)
            }
        };
        let described = describe(&headers, input.metadata)?;
        let row = UploadRow { created: self.now(), described, checksum };
        let id = FileId::draw(&self.random).to_string();
        let write = Write::insert(upload_key(&input.bucket, &input.key, &id), &row);
        let (store, bucket) = (Arc::clone(self), input.bucket.clone());
        // To the end even if the caller goes away: the commit is not to outlive its lock.
        let begun = tokio::spawn(async move {
            let _bucket_stays = store.buckets.read().await;
            store.bucket(&bucket).await?;
            store.control.commit(vec![write]).await.map_err(from_control)
        });
        begun.await.map_err(internal)??;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            checksum_algorithm: checksum
                .map(|choice| ChecksumAlgorithm::from_static(choice.algorithm.name())),
            checksum_type: checksum.map(|choice| {
                ChecksumType::from_static(match choice.full_object {
                    true => ChecksumType::FULL_OBJECT,
                    false => ChecksumType::COMPOSITE,
                })
            }),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub(crate) async fn upload_part(
        self: &Arc<Self>,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let S3Request { input, extensions, .. } = request;
        let number = part_number(input.part_number)?;
        let (row_key, upload) = self.upload(&input.bucket, &input.key, &input.upload_id).await?;
        let written = self.receive(input.body, input.content_length).await?;
        let digests = digests(&extensions)?;
        if let (Some(choice), Some(stored)) = (upload.checksum, &digests.checksum)
            && choice.algorithm != stored.algorithm
        {
            return Err(invalid_request(format!(
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum \
                 Type: {}",
                choice.algorithm.name().to_lowercase(),
                stored.algorithm.name().to_lowercase()
            )));
        }
        let part = self.add_part(row_key, input.upload_id, number, written, digests).await?;
        let checksum = part.checksum.as_ref();
        Ok(S3Response::new(UploadPartOutput {
            checksum_crc32: sum(checksum, Algorithm::Crc32),
            checksum_crc32c: sum(checksum, Algorithm::Crc32c),
            checksum_crc64nvme: sum(checksum, Algorithm::Crc64nvme),
            checksum_sha1: sum(checksum, Algorithm::Sha1),
            checksum_sha256: sum(checksum, Algorithm::Sha256),
            e_tag: Some(strong(&part.etag)),
            ..UploadPartOutput::default()
        }))
    }

    /// Makes a written file a part of the upload, to the end even if the caller goes away.
    pub(super) async fn add_part(
        self: &Arc<Self>,
        upload: String,
        upload_id: String,
        number: u32,
        written: Written,
        digests: Digests,
    ) -> S3Result<PartRow> {
        let store = Arc::clone(self);
        let part = PartRow {
            upload,
            file: written.pending.id(),
            size_bytes: written.size_bytes,
            etag: digests.etag(),
            modified: self.now(),
            checksum: digests.checksum,
        };
        let row_key = part_key(&upload_id, number);
        let added = tokio::spawn(async move { store.commit_part(row_key, part, written).await });
        added.await.map_err(internal)?
    }

    async fn commit_part(
        &self,
        row_key: String,
        part: PartRow,
        mut written: Written,
    ) -> S3Result<PartRow> {
        for _ in 0..ATTEMPTS_MAX {
            let upload = self.row::<UploadRow>(&part.upload).await?;
            let (upload, upload_row) = upload.ok_or_else(no_such_upload)?;
            let seen = self.row::<PartRow>(&row_key).await?;
            let mut writes = vec![Write::put(&row_key, seen.as_ref().map(|(e, _)| e), &part)];
            if seen.is_some() {
                writes.push(Write::update(&part.upload, upload.version, &upload_row));
            }
            written.pending.commit_begins();
            let committed = self.control.commit(writes).await;
            if !matches!(committed, Err(ControlError::Unavailable(_))) {
                written.pending.commit_refused();
            }
            match committed {
                Ok(_) => {
                    written.pending.keep();
                    if let Some((_, old)) = seen {
                        off_thread(Arc::clone(&self.files), move |f| f.remove(&[old.file]));
                    } else if self.row::<UploadRow>(&part.upload).await?.is_none() {
                        // Completed or aborted meanwhile, perhaps with this part: whether its file
                        // is needed is for the sweep to find out.
                        return Err(no_such_upload());
                    }
                    return Ok(part);
                }
                Err(ControlError::Conflict { .. }) => {}
                Err(cause) => return Err(from_control(cause)),
            }
        }
        Err(slow_down())
    }

    pub(crate) async fn complete_multipart_upload(
        self: &Arc<Self>,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let row = self.complete(&input).await?;
        let checksum = row.checksum.as_ref();
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            checksum_crc32: sum(checksum, Algorithm::Crc32),
            checksum_crc32c: sum(checksum, Algorithm::Crc32c),
            checksum_crc64nvme: sum(checksum, Algorithm::Crc64nvme),
            checksum_sha1: sum(checksum, Algorithm::Sha1),
            checksum_sha256: sum(checksum, Algorithm::Sha256),
            checksum_type: sum_type(checksum),
            e_tag: Some(strong(&row.etag)),
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn complete(
        self: &Arc<Self>,
        input: &CompleteMultipartUploadInput,
    ) -> S3Result<ObjectRow> {
        for _ in 0..ATTEMPTS_MAX {
            let found = self.upload_entry(&input.bucket, &input.key, &input.upload_id).await;
            let (row_key, entry, upload) = match found {
                Ok(found) => found,
                // Completed before, and the client did not hear of it.
                Err(cause) => {
                    let seen = self.row(&object_key(&input.bucket, &input.key)).await?;
                    return match seen {
                        Some((_, ObjectRow { upload: Some(id), .. })) if id != input.upload_id => {
                            Err(cause)
                        }
                        Some((_, row @ ObjectRow { upload: Some(_), .. })) => Ok(row),
                        _ => Err(cause),
                    };
                }
            };
            let parts = self.parts(&input.upload_id).await?;
            let (row, segments) = self.assemble(input, upload, &parts)?;
            let Data::Layout(layout) = row.data else { return Err(internal("not a layout")) };
            let with = vec![
                Write::delete(row_key, entry.version),
                Write::insert(layout_key(layout), &segments),
            ];
            let condition = Condition {
                if_match: input.if_match.clone(),
                if_none_match: input.if_none_match.clone(),
            };
            let unpublished = Unpublished {
                bucket: input.bucket.clone(),
                key: input.key.clone(),
                row,
                condition,
                pending: None,
                with,
            };
            match self.publish(unpublished).await {
                Ok(row) => {
                    let used = segments.iter().map(|s| s.file).collect::<Vec<_>>();
                    self.clear_parts(&input.upload_id, &used).await;
                    return Ok(row);
                }
                Err(NotPublished::Overtaken) => {}
                Err(NotPublished::Refused(cause)) => return Err(cause),
            }
        }
        Err(slow_down())
    }

    /// The parts of an upload by number.
    async fn parts(&self, upload_id: &str) -> S3Result<HashMap<u32, PartRow>> {
        let prefix = parts_of(upload_id);
        let rows = scan_all(self.control.as_ref(), &prefix).await.map_err(from_control)?;
        let parse = |(key, entry): (String, Entry)| {
            let number = key[prefix.len()..].parse().unwrap_or_default();
            Ok((number, entry.json(&key)?))
        };
        rows.into_iter().map(parse).collect::<Result<_, ControlError>>().map_err(from_control)
    }

    /// Checks the client's list against the parts, and makes an object of them.
    fn assemble(
        &self,
        input: &CompleteMultipartUploadInput,
        upload: UploadRow,
        parts: &HashMap<u32, PartRow>,
    ) -> S3Result<(ObjectRow, Vec<Segment>)> {
        let listed = input.multipart_upload.as_ref().and_then(|m| m.parts.as_deref());
        let listed = listed.filter(|l| !l.is_empty()).ok_or_else(malformed)?;
        let mut chosen: Vec<&PartRow> = Vec::with_capacity(listed.len());
        let mut previous = 0;
        for (n, listed_part) in listed.iter().enumerate() {
            let number = part_number(listed_part.part_number.ok_or_else(malformed)?)?;
            if number <= previous {
                return Err(error(
                    S3ErrorCode::InvalidPartOrder,
                    "The list of parts was not in ascending order. Parts must be ordered by part \
                     number.",
                ));
            }
            previous = number;
            let part = parts.get(&number).ok_or_else(invalid_part)?;
            check_listed(listed_part, part)?;
            if part.size_bytes < PART_BYTES_MIN && n + 1 < listed.len() {
                return Err(error(
                    S3ErrorCode::EntityTooSmall,
                    "Your proposed upload is smaller than the minimum allowed size",
                ));
            }
            chosen.push(part);
        }
        let size_bytes = chosen.iter().map(|p| p.size_bytes).sum();
        if size_bytes > OBJECT_BYTES_MAX {
            return Err(entity_too_large());
        }
        if input.mpu_object_size.is_some_and(|n| u64::try_from(n) != Ok(size_bytes)) {
            return Err(invalid_request(
                "The provided 'x-amz-mp-object-size' header value does not match what was computed.",
            ));
        }
        let etag = multipart_etag(chosen.iter().map(|p| p.etag.as_str()));
        let sums: Vec<_> = chosen.iter().map(|p| (p.checksum.as_ref(), p.size_bytes)).collect();
        let checksum = upload.checksum.and_then(|choice| Stored::of_parts(choice, &sums));
        check_declared(input, checksum.as_ref())?;
        let segments =
            chosen.iter().map(|p| Segment { file: p.file, size_bytes: p.size_bytes }).collect();
        let row = ObjectRow {
            size_bytes,
            etag: etag.ok_or_else(|| internal("a part's ETag is not an MD5"))?,
            modified: self.now(),
            data: Data::Layout(FileId::draw(&self.random)),
            described: upload.described,
            checksum,
            upload: Some(input.upload_id.clone()),
        };
        Ok((row, segments))
    }

    pub(crate) async fn abort_multipart_upload(
        self: &Arc<Self>,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        if input.if_match_initiated_time.is_some() {
            return Err(crate::error::not_implemented("x-amz-if-match-initiated-time"));
        }
        for _ in 0..ATTEMPTS_MAX {
            let (row_key, entry, _) =
                self.upload_entry(&input.bucket, &input.key, &input.upload_id).await?;
            match self.control.commit(vec![Write::delete(row_key, entry.version)]).await {
                Ok(_) => {
                    self.clear_parts(&input.upload_id, &[]).await;
                    return Ok(S3Response::new(AbortMultipartUploadOutput::default()));
                }
                Err(ControlError::Conflict { .. }) => {}
                Err(cause) => return Err(from_control(cause)),
            }
        }
        Err(slow_down())
    }

    /// Deletes the part rows of an upload that is over, and the files that are not `used`. What a
    /// failure or a crash leaves is for the sweep.
    pub(crate) async fn clear_parts(&self, upload_id: &str, used: &[FileId]) {
        let used: std::collections::HashSet<&FileId> = used.iter().collect();
        let prefix = parts_of(upload_id);
        let limit = CLEAR_ROWS.min(SCAN_ROWS_MAX);
        while let Ok(rows) = self.control.scan(&prefix, None, limit).await {
            let writes: Vec<_> =
                rows.iter().map(|(key, entry)| Write::delete(key, entry.version)).collect();
            if writes.is_empty() || self.control.commit(writes).await.is_err() {
                return;
            }
            let files: Vec<FileId> = rows
                .iter()
                .filter_map(|(key, entry)| entry.json::<PartRow>(key).ok())
                .map(|part| part.file)
                .filter(|file| !used.contains(file))
                .collect();
            off_thread(Arc::clone(&self.files), move |owner| owner.remove(&files));
        }
    }
}

/// A listed part has to name the ETag, and may name the checksum, that the part has.
fn check_listed(listed: &CompletedPart, part: &PartRow) -> S3Result<()> {
    let etag = listed.e_tag.as_ref().ok_or_else(malformed)?;
    if etag.value() != part.etag {
        return Err(invalid_part());
    }
    for (algorithm, value) in [
        (Algorithm::Crc32, &listed.checksum_crc32),
        (Algorithm::Crc32c, &listed.checksum_crc32c),
        (Algorithm::Crc64nvme, &listed.checksum_crc64nvme),
        (Algorithm::Sha1, &listed.checksum_sha1),
        (Algorithm::Sha256, &listed.checksum_sha256),
    ] {
        if value.is_some() && *value != sum(part.checksum.as_ref(), algorithm) {
            return Err(invalid_part());
        }
    }
    Ok(())
}

/// A checksum of the whole object that the client declares has to be the one it has.
fn check_declared(input: &CompleteMultipartUploadInput, is: Option<&Stored>) -> S3Result<()> {
    for (algorithm, declared) in [
        (Algorithm::Crc32, &input.checksum_crc32),
        (Algorithm::Crc32c, &input.checksum_crc32c),
        (Algorithm::Crc64nvme, &input.checksum_crc64nvme),
        (Algorithm::Sha1, &input.checksum_sha1),
        (Algorithm::Sha256, &input.checksum_sha256),
    ] {
        let Some(declared) = declared else { continue };
        let is = sum(is, algorithm);
        let without_count = is.as_ref().and_then(|v| v.split_once('-')).map(|(v, _)| v);
        if is.as_ref() != Some(declared) && without_count != Some(declared.as_str()) {
            return Err(error(
                S3ErrorCode::BadDigest,
                format!(
                    "The {} you specified did not match the calculated checksum.",
                    algorithm.header().trim_start_matches("x-amz-checksum-")
                ),
            ));
        }
    }
    let asked = input.checksum_type.as_ref().map(ChecksumType::as_str);
    if let (Some(asked), Some(is)) = (asked, is)
        && asked != is.type_name()
    {
        return Err(invalid_request(format!(
            "The upload was created using the {} checksum mode. The complete request must use the \
             same checksum mode.",
            is.type_name()
        )));
    }
    Ok(())
}
