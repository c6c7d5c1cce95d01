//! `ListObjectsV2` and `ListObjects`: a range scan of the index, rolled up at the delimiter.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    self, ChecksumAlgorithm, CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ObjectStorageClass,
};
use s3s::{S3Request, S3Response, S3Result};

use super::{page_size, size, strong, sum_type, timestamp};
use crate::error::{from_control, invalid_argument};
use crate::index::{ObjectRow, object_key, objects_of};
use crate::owner;
use crate::store::Store;

/// Rows read from the index at a time.
const SCAN_ROWS: usize = 1_000;
/// Longest key of an object (S3).
const KEY_BYTES_MAX: usize = 1_024;
/// What stays as it is in a listing with `encoding-type=url`.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Where a page begins: after a key, or after every key with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    After(String),
    AfterPrefix(String),
}

impl Start {
    /// Opaque to the client, and good for any later listing.
    fn token(&self) -> String {
        let (kind, text) = match self {
            Self::After(key) => ('k', key),
            Self::AfterPrefix(prefix) => ('p', prefix),
        };
        BASE64_URL_SAFE_NO_PAD.encode(format!("{kind}{text}"))
    }

    fn from_token(token: &str) -> S3Result<Self> {
        let text = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let start = match text.as_deref().map(|text| (text.get(..1), text)) {
            Some((Some("k"), text)) => Some(Self::After(text[1..].to_owned())),
            Some((Some("p"), text)) => Some(Self::AfterPrefix(text[1..].to_owned())),
            _ => None,
        };
        start.ok_or_else(|| invalid_argument("The continuation token provided is incorrect"))
    }

    /// From a key that the client names. One that is a common prefix of this listing is taken as
    /// that: the page it came from has shown it.
    fn from_key(key: String, prefix: &str, delimiter: &str) -> Self {
        match roll_up(&key, prefix, delimiter) {
            Some(common) if common == key => Self::AfterPrefix(key),
            _ => Self::After(key),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::After(text) | Self::AfterPrefix(text) => text,
        }
    }

    /// The row key that the scan begins after.
    fn row_key(&self, bucket: &str) -> String {
        match self {
            Self::After(key) => object_key(bucket, key),
            Self::AfterPrefix(prefix) => past(bucket, prefix),
        }
    }
}

/// A row key that no key with this prefix is above, and every later key is: the prefix, filled up
/// with the greatest character to more bytes than a key can have.
fn past(bucket: &str, prefix: &str) -> String {
    let mut key = object_key(bucket, prefix);
    let filled = key.len() - prefix.len() + KEY_BYTES_MAX;
    while key.len() <= filled {
        key.push(char::MAX);
    }
    key
}

/// The common prefix that a key belongs to: up to the first delimiter after the listing's prefix.
fn roll_up<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    let at = key.strip_prefix(prefix)?.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// A page of a listing.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, ObjectRow)>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<Start>,
}

impl Store {
    /// At most `max` objects and common prefixes, in the order of their UTF-8 bytes.
    pub(crate) async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: &str,
        start: Option<Start>,
        max: usize,
    ) -> S3Result<Page> {
        let mut page = Page::default();
        if max == 0 || prefix.len() > KEY_BYTES_MAX {
            return Ok(page);
        }
        let start = start.filter(|start| start.text().len() <= KEY_BYTES_MAX);
        let within = objects_of(bucket);
        let scanned = format!("{within}{prefix}");
        let mut after = start.as_ref().map(|start| start.row_key(bucket));
        let mut last = start;
        loop {
            let rows = self.control.scan(&scanned, after.as_deref(), SCAN_ROWS).await;
            let rows = rows.map_err(from_control)?;
            let Some((end, _)) = rows.last() else { return Ok(page) };
            after = Some(end.clone());
            for (row_key, entry) in &rows {
                let key = &row_key[within.len()..];
                if let Some(Start::AfterPrefix(shown)) = &last
                    && key.starts_with(shown.as_str())
                {
                    continue;
                }
                if page.objects.len() + page.prefixes.len() == max {
                    page.next = last;
                    return Ok(page);
                }
                if let Some(common) = roll_up(key, prefix, delimiter) {
                    page.prefixes.push(common.to_owned());
                    last = Some(Start::AfterPrefix(common.to_owned()));
                } else {
                    let row = entry.json(row_key).map_err(from_control)?;
                    page.objects.push((key.to_owned(), row));
                    last = Some(Start::After(key.to_owned()));
                }
            }
            // The rest of a common prefix need not be read.
            if let Some(Start::AfterPrefix(shown)) = &last
                && after.as_deref().is_some_and(|key| key[within.len()..].starts_with(shown))
            {
                after = Some(past(bucket, shown));
            }
        }
    }

    pub(crate) async fn list_objects_v2(
        self: &Arc<Self>,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        self.bucket(&input.bucket).await?;
        let encoding = Encoding::new(input.encoding_type.as_ref())?;
        let max_keys = page_size(input.max_keys, "max-keys")?;
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.filter(|d| !d.is_empty());
        let split = delimiter.as_deref().unwrap_or_default();
        let start = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => Some(Start::from_token(token)?),
            (None, Some(key)) => Some(Start::from_key(key.clone(), &prefix, split)),
            (None, None) => None,
        };
        let page = self.list(&input.bucket, &prefix, split, start, max_keys as usize).await?;
        let with_owner = input.fetch_owner.unwrap_or(false);
        let count = page.objects.len() + page.prefixes.len();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encoding.encode(&prefix)),
            max_keys: Some(max_keys),
            key_count: i32::try_from(count).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_ref().map(Start::token),
            contents: Some(encoding.objects(page.objects, with_owner)),
            common_prefixes: Some(encoding.prefixes(page.prefixes)),
            delimiter: delimiter.map(|d| encoding.encode(&d)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|key| encoding.encode(&key)),
            request_charged: None,
        }))
    }

    pub(crate) async fn list_objects(
        self: &Arc<Self>,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        self.bucket(&input.bucket).await?;
        let encoding = Encoding::new(input.encoding_type.as_ref())?;
        let max_keys = page_size(input.max_keys, "max-keys")?;
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.filter(|d| !d.is_empty());
        let split = delimiter.as_deref().unwrap_or_default();
        let marker = input.marker.unwrap_or_default();
        let start = (!marker.is_empty()).then(|| Start::from_key(marker.clone(), &prefix, split));
        let page = self.list(&input.bucket, &prefix, split, start, max_keys as usize).await?;
        // S3 names the next marker only where the last key does not show it.
        let next = page.next.as_ref().filter(|_| delimiter.is_some());
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.encode(&prefix)),
            marker: Some(encoding.encode(&marker)),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            next_marker: next.map(|start| encoding.encode(start.text())),
            contents: Some(encoding.objects(page.objects, true)),
            common_prefixes: Some(encoding.prefixes(page.prefixes)),
            delimiter: delimiter.map(|d| encoding.encode(&d)),
            encoding_type: input.encoding_type,
            request_charged: None,
        }))
    }
}

/// `encoding-type`: whether keys are percent-encoded, for those that XML cannot hold.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    url: bool,
}

impl Encoding {
    pub(super) fn new(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None | Some("") => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(invalid_argument("Invalid Encoding Method specified in Request")),
        }
    }

    pub(super) fn encode(self, text: &str) -> String {
        if self.url { utf8_percent_encode(text, PLAIN).to_string() } else { text.to_owned() }
    }

    pub(super) fn prefixes(self, prefixes: Vec<String>) -> Vec<CommonPrefix> {
        let encode = |prefix: String| CommonPrefix { prefix: Some(self.encode(&prefix)) };
        prefixes.into_iter().map(encode).collect()
    }

    fn objects(self, objects: Vec<(String, ObjectRow)>, with_owner: bool) -> Vec<dto::Object> {
        let show = |(key, row): (String, ObjectRow)| dto::Object {
            checksum_algorithm: row
                .checksum
                .as_ref()
                .map(|stored| vec![ChecksumAlgorithm::from_static(stored.algorithm.name())]),
            checksum_type: sum_type(row.checksum.as_ref()),
            e_tag: Some(strong(&row.etag)),
            key: Some(self.encode(&key)),
            last_modified: Some(timestamp(row.modified)),
            owner: with_owner.then(owner),
            restore_status: None,
            size: Some(size(row.size_bytes)),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        };
        objects.into_iter().map(show).collect()
    }
}
