//! The operations, one file for each or for a few that belong together, and what several need.

mod buckets;
mod copy;
mod delete;
mod get;
pub(crate) mod list;
mod multipart;
mod put;
mod uploads;

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use hydrant_core::Timestamp;
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::body::Outcome;
use crate::checksum::{Algorithm, Digests, Stored};
use crate::error::{error, internal};
use crate::index::{Described, ObjectRow};

/// Most bytes of one PUT or part (S3: 5 GiB).
pub(crate) const PUT_BYTES_MAX: u64 = 5 << 30;
/// Most bytes of an object (S3: 5 TiB).
pub(crate) const OBJECT_BYTES_MAX: u64 = 5 << 40;
/// Fewest bytes of a part, the last one excepted (S3: 5 MiB).
pub(crate) const PART_BYTES_MIN: u64 = 5 << 20;
/// Greatest number of a part (S3).
pub(crate) const PART_NUMBER_MAX: u32 = 10_000;
/// Most bytes of user metadata, names and values together (S3: 2 KB).
const METADATA_BYTES_MAX: usize = 2_048;
/// Most entries of one page of any listing (S3).
pub(crate) const PAGE_MAX: i32 = 1_000;

/// Headers that are kept with an object and returned with it.
const KEPT: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];

/// What a client says about the object it writes.
pub(crate) fn describe(
    headers: &HeaderMap,
    metadata: Option<dto::Metadata>,
) -> S3Result<Described> {
    let mut described = Described::default();
    for name in KEPT {
        if let Some(value) = headers.get(name)
            && let Ok(value) = value.to_str()
            && !value.is_empty()
        {
            described.headers.insert(name.to_owned(), value.to_owned());
        }
    }
    let metadata = metadata.unwrap_or_default();
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(error(
            S3ErrorCode::MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size",
        ));
    }
    described.metadata.extend(metadata);
    Ok(described)
}

/// What the front found the body's bytes to come to.
pub(crate) fn digests(extensions: &http::Extensions) -> S3Result<Digests> {
    let found = extensions.get::<Outcome>().and_then(Outcome::digests);
    found.ok_or_else(|| internal("a body was read, but not to its end"))
}

/// hydrant keeps no versions: every object is the version `null`.
pub(crate) fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(error(S3ErrorCode::NoSuchVersion, "The specified version does not exist.")),
    }
}

/// S3 shows whole seconds.
pub(crate) fn timestamp(moment: Timestamp) -> dto::Timestamp {
    (UNIX_EPOCH + Duration::from_secs(moment.as_secs())).into()
}

pub(crate) fn strong(etag: &str) -> dto::ETag {
    dto::ETag::Strong(etag.to_owned())
}

pub(crate) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The value of a checksum, if it is of this algorithm.
pub(crate) fn sum(stored: Option<&Stored>, algorithm: Algorithm) -> Option<String> {
    stored.and_then(|s| s.of(algorithm))
}

pub(crate) fn sum_type(stored: Option<&Stored>) -> Option<dto::ChecksumType> {
    stored.map(|s| dto::ChecksumType::from_static(s.type_name()))
}

/// At most [`PAGE_MAX`]; a negative number is refused.
pub(crate) fn page_size(asked: Option<i32>, name: &str) -> S3Result<i32> {
    match asked.unwrap_or(PAGE_MAX) {
        n if n < 0 => Err(crate::error::invalid_argument(format!(
            "Argument {name} must be an integer between 0 and 2147483647"
        ))),
        n => Ok(n.min(PAGE_MAX)),
    }
}

/// `If-Match` and its like, of a read.
pub(crate) struct ReadCondition {
    pub(crate) if_match: Option<dto::ETagCondition>,
    pub(crate) if_none_match: Option<dto::ETagCondition>,
    pub(crate) if_modified_since: Option<dto::Timestamp>,
    pub(crate) if_unmodified_since: Option<dto::Timestamp>,
}

/// Why a read does not happen.
pub(crate) enum Unmet {
    /// 412.
    Failed,
    /// 304, or 412 for the source of a copy.
    NotModified,
}

impl ReadCondition {
    /// Follows RFC 9110, section 13.2.2, as S3 does: an ETag condition outweighs its date.
    pub(crate) fn check(&self, row: &ObjectRow) -> Result<(), Unmet> {
        let matches = |condition: &dto::ETagCondition| match condition {
            dto::ETagCondition::Any => true,
            dto::ETagCondition::ETag(etag) => etag.value() == row.etag,
        };
        let modified = timestamp(row.modified);
        let met = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(moment)) => modified <= *moment,
            (None, None) => true,
        };
        if !met {
            return Err(Unmet::Failed);
        }
        let unchanged = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(moment)) => modified <= *moment,
            (None, None) => false,
        };
        if unchanged { Err(Unmet::NotModified) } else { Ok(()) }
    }
}

/// A part's number, 1 to 10,000.
pub(crate) fn part_number(asked: i32) -> S3Result<u32> {
    let number = u32::try_from(asked).ok().filter(|n| (1..=PART_NUMBER_MAX).contains(n));
    number.ok_or_else(|| {
        crate::error::invalid_argument(
            "Part number must be an integer between 1 and 10000, inclusive",
        )
    })
}

pub(crate) fn missing_length() -> S3Error {
    error(S3ErrorCode::MissingContentLength, "You must provide the Content-Length HTTP header.")
}
