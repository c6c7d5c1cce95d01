//! `GetObject` and `HeadObject`.

use std::ops::Range;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use s3s::dto::{
    self, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, StreamingBlob,
};
use s3s::{Body, S3ErrorCode, S3Request, S3Response, S3Result};

use super::{
    ReadCondition, Unmet, check_version, part_number, size, strong, sum, sum_type, timestamp,
};
use crate::checksum::Algorithm;
use crate::error::{error, from_read, invalid_request, not_modified, precondition_failed};
use crate::files::{Lease, ReadError, Reader};
use crate::index::{Data, ObjectRow, Segment};
use crate::store::Store;

/// What S3 says of an object that was stored without a content type.
const CONTENT_TYPE: &str = "binary/octet-stream";
/// How often a read begins anew because its object was replaced meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// A part of an object, ready to be read.
pub(super) struct Selected {
    pub(super) row: ObjectRow,
    pub(super) range: Range<u64>,
    /// The `Content-Range` of a partial answer.
    content_range: Option<String>,
    parts_count: Option<i32>,
    segments: Vec<Segment>,
    lease: Option<Lease>,
}

/// Which bytes are wanted.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    All,
    Range(dto::Range),
    Part(i32),
}

impl Wanted {
    fn new(range: Option<dto::Range>, part: Option<i32>) -> S3Result<Self> {
        match (range, part) {
            (None, None) => Ok(Self::All),
            (Some(range), None) => Ok(Self::Range(range)),
            (None, Some(part)) => Ok(Self::Part(part)),
            (Some(_), Some(_)) => Err(invalid_request(
                "Cannot specify both Range header and partNumber query parameter",
            )),
        }
    }
}

fn invalid_range() -> s3s::S3Error {
    error(S3ErrorCode::InvalidRange, "The requested range is not satisfiable")
}

impl Store {
    /// The row and files of an object, as they were at one moment. `None` if the object was
    /// replaced while looking.
    async fn try_select(
        &self,
        bucket: &str,
        key: &str,
        wanted: Wanted,
        condition: &ReadCondition,
    ) -> S3Result<Option<Selected>> {
        let row = self.object(bucket, key).await?;
        match condition.check(&row) {
            Ok(()) => {}
            Err(Unmet::Failed) => return Err(precondition_failed()),
            Err(Unmet::NotModified) => return Err(not_modified(&row.etag)),
        }
        let (segments, lease) = match row.data {
            Data::File(file) => (vec![Segment { file, size_bytes: row.size_bytes }], None),
            Data::Layout(id) => {
                let lease = self.files.lease(id);
                let Some((_, segments)) = self.layout(id).await? else { return Ok(None) };
                (segments, Some(lease))
            }
        };
        let mut parts_count = None;
        let (range, partial) = match wanted {
            Wanted::All => (0..row.size_bytes, false),
            Wanted::Range(range) => {
                (range.check(row.size_bytes).map_err(|_| invalid_range())?, true)
            }
            Wanted::Part(number) => {
                let at = part_number(number)? as usize - 1;
                let Some(segment) = segments.get(at) else {
                    return Err(error(
                        S3ErrorCode::from_bytes(b"InvalidPartNumber")
                            .unwrap_or(S3ErrorCode::InvalidRange),
                        "The requested partnumber is not satisfiable",
                    ));
                };
                if lease.is_some() {
                    parts_count = i32::try_from(segments.len()).ok();
                }
                let start = segments[..at].iter().map(|s| s.size_bytes).sum();
                (start..start + segment.size_bytes, true)
            }
        };
        let content_range = (partial && !range.is_empty())
            .then(|| format!("bytes {}-{}/{}", range.start, range.end - 1, row.size_bytes));
        Ok(Some(Selected { row, range, content_range, parts_count, segments, lease }))
    }

    async fn select(
        &self,
        bucket: &str,
        key: &str,
        wanted: Wanted,
        condition: &ReadCondition,
    ) -> S3Result<Selected> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(selected) = self.try_select(bucket, key, wanted, condition).await? {
                return Ok(selected);
            }
        }
        Err(crate::error::slow_down())
    }

    /// Selects and opens, so that the object can be replaced without harm to the reader.
    pub(super) async fn open(
        &self,
        bucket: &str,
        key: &str,
        wanted: Wanted,
        condition: &ReadCondition,
    ) -> S3Result<(Selected, Reader)> {
        let mut attempt = 0;
        loop {
            let mut selected = self.select(bucket, key, wanted, condition).await?;
            let (range, lease) = (selected.range.clone(), selected.lease.take());
            match Reader::open(&self.files, &selected.segments, range, lease).await {
                Ok(reader) => return Ok((selected, reader)),
                Err(ReadError::Missing(_)) if attempt < ATTEMPTS_MAX => attempt += 1,
                Err(error) => return Err(from_read(error)),
            }
        }
    }

    pub(crate) async fn get_object(
        self: &Arc<Self>,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        check_version(input.version_id.as_deref())?;
        let wanted = Wanted::new(input.range, input.part_number)?;
        let condition = ReadCondition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let (selected, mut reader) =
            self.open(&input.bucket, &input.key, wanted, &condition).await?;
        // The first bytes before the status: damage found there is an error, not a cut connection.
        let first = reader.next().await.map_err(from_read)?;
        let length = selected.range.end - selected.range.start;
        let Selected { row, content_range, parts_count, .. } = selected;
        let checked = input.checksum_mode.is_some() && content_range.is_none();
        let checksum = row.checksum.as_ref().filter(|_| checked);
        let header = |name: &str| row.described.headers.get(name).cloned();
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(blob(bytes_of(input.bucket, input.key, first, reader))),
            cache_control: header("cache-control"),
            checksum_crc32: sum(checksum, Algorithm::Crc32),
            checksum_crc32c: sum(checksum, Algorithm::Crc32c),
            checksum_crc64nvme: sum(checksum, Algorithm::Crc64nvme),
            checksum_sha1: sum(checksum, Algorithm::Sha1),
            checksum_sha256: sum(checksum, Algorithm::Sha256),
            checksum_type: sum_type(checksum),
            content_disposition: header("content-disposition"),
            content_encoding: header("content-encoding"),
            content_language: header("content-language"),
            content_length: Some(size(length)),
            content_range,
            content_type: Some(header("content-type").unwrap_or_else(|| CONTENT_TYPE.to_owned())),
            e_tag: Some(strong(&row.etag)),
            expires: expires(&row),
            last_modified: Some(timestamp(row.modified)),
            metadata: metadata(&row),
            parts_count,
            ..GetObjectOutput::default()
        }))
    }

    pub(crate) async fn head_object(
        self: &Arc<Self>,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        check_version(input.version_id.as_deref())?;
        let wanted = Wanted::new(input.range, input.part_number)?;
        let condition = ReadCondition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let Selected { row, range, content_range, parts_count, .. } =
            self.select(&input.bucket, &input.key, wanted, &condition).await?;
        let checked = input.checksum_mode.is_some() && content_range.is_none();
        let checksum = row.checksum.as_ref().filter(|_| checked);
        let header = |name: &str| row.described.headers.get(name).cloned();
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: header("cache-control"),
            checksum_crc32: sum(checksum, Algorithm::Crc32),
            checksum_crc32c: sum(checksum, Algorithm::Crc32c),
            checksum_crc64nvme: sum(checksum, Algorithm::Crc64nvme),
            checksum_sha1: sum(checksum, Algorithm::Sha1),
            checksum_sha256: sum(checksum, Algorithm::Sha256),
            checksum_type: sum_type(checksum),
            content_disposition: header("content-disposition"),
            content_encoding: header("content-encoding"),
            content_language: header("content-language"),
            content_length: Some(size(range.end - range.start)),
            content_range,
            content_type: Some(header("content-type").unwrap_or_else(|| CONTENT_TYPE.to_owned())),
            e_tag: Some(strong(&row.etag)),
            expires: expires(&row),
            last_modified: Some(timestamp(row.modified)),
            metadata: metadata(&row),
            parts_count,
            ..HeadObjectOutput::default()
        }))
    }
}

fn metadata(row: &ObjectRow) -> Option<dto::Metadata> {
    let metadata: dto::Metadata = row.described.metadata.clone().into_iter().collect();
    (!metadata.is_empty()).then_some(metadata)
}

fn expires(row: &ObjectRow) -> Option<dto::Timestamp> {
    let text = row.described.headers.get("expires")?;
    dto::Timestamp::parse(dto::TimestampFormat::HttpDate, text).ok()
}

/// The bytes as they are read. An error cuts the connection, so that the client sees too few.
fn bytes_of(
    bucket: String,
    key: String,
    first: Option<bytes::Bytes>,
    reader: Reader,
) -> impl Stream<Item = Result<bytes::Bytes, ReadError>> + Send {
    let rest = stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|data| (data, reader)))
    });
    stream::iter(first.map(Ok)).chain(rest).inspect(move |read| match read {
        Ok(data) => {
            metrics::counter!("hydrant_bucket_sent_bytes_total").increment(data.len() as u64)
        }
        Err(error) => tracing::error!(bucket, key, %error, "an object could not be read"),
    })
}

fn blob(
    bytes: impl Stream<Item = Result<bytes::Bytes, ReadError>> + Send + 'static,
) -> StreamingBlob {
    let body = StreamBody::new(bytes.map(|read| read.map(http_body::Frame::data)));
    StreamingBlob::from(Body::http_body_unsync(body))
}
