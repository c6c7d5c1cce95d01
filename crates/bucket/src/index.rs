//! The index: what the control store holds of buckets, objects and uploads.
//!
//! A key of an object is the last thing in its row's key, unchanged, and a bucket's name has no `/`,
//! so rows of two buckets cannot meet and the order of rows is S3's order of keys: by UTF-8 bytes.

use std::collections::BTreeMap;

use hydrant_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::checksum::Stored;
use crate::files::FileId;

/// Buckets: `bucket/bucket/<name>`.
pub(crate) const BUCKETS: &str = "bucket/bucket/";
/// Objects: `bucket/object/<bucket>/<key>`.
pub(crate) const OBJECTS: &str = "bucket/object/";
/// Unfinished multipart uploads: `bucket/upload/<bucket>/<key>U+0001<upload id>`.
pub(crate) const UPLOADS: &str = "bucket/upload/";
/// Parts of unfinished uploads: `bucket/part/<upload id>/<number>`.
pub(crate) const PARTS: &str = "bucket/part/";
/// Files of an object that was uploaded in parts: `bucket/layout/<id>`.
pub(crate) const LAYOUTS: &str = "bucket/layout/";
/// The first sequencer that no process has claimed yet.
pub(crate) const SEQUENCER: &str = "bucket/sequencer";

const BEFORE_UPLOAD_ID: char = '\u{1}';
const UPLOAD_ID_CHARS: usize = 32;

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BucketRow {
    pub(crate) created: Timestamp,
    pub(crate) region: String,
}

/// Where an object's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Data {
    /// In one file.
    File(FileId),
    /// In the files that this layout lists.
    Layout(FileId),
}

/// What a client said about an object, returned with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    /// `content-type` and its like, by lower-case name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// `x-amz-meta-…`, by the name after that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRow {
    pub(crate) size_bytes: u64,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) modified: Timestamp,
    pub(crate) data: Data,
    #[serde(flatten)]
    pub(crate) described: Described,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<Stored>,
    /// The upload that made it, so that completing it once more is answered as the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upload: Option<String>,
}

/// An unfinished multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadRow {
    pub(crate) created: Timestamp,
    #[serde(flatten)]
    pub(crate) described: Described,
    /// What each part's checksum is computed with, and whether the object's is one of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<crate::checksum::Choice>,
}

/// A part of an unfinished upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRow {
    /// Row key of the upload, so that a part whose upload is gone can be told.
    pub(crate) upload: String,
    pub(crate) file: FileId,
    pub(crate) size_bytes: u64,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) modified: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<Stored>,
}

/// One file of an object, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) file: FileId,
    pub(crate) size_bytes: u64,
}

pub(crate) fn bucket_key(bucket: &str) -> String {
    format!("{BUCKETS}{bucket}")
}

pub(crate) fn objects_of(bucket: &str) -> String {
    format!("{OBJECTS}{bucket}/")
}

pub(crate) fn object_key(bucket: &str, key: &str) -> String {
    format!("{OBJECTS}{bucket}/{key}")
}

pub(crate) fn uploads_of(bucket: &str) -> String {
    format!("{UPLOADS}{bucket}/")
}

pub(crate) fn upload_key(bucket: &str, key: &str, upload: &str) -> String {
    format!("{UPLOADS}{bucket}/{key}{BEFORE_UPLOAD_ID}{upload}")
}

/// The object key and upload id in what stands after [`uploads_of`].
pub(crate) fn split_upload(rest: &str) -> Option<(&str, &str)> {
    let at = rest.len().checked_sub(UPLOAD_ID_CHARS)?;
    let (key, upload) = (rest.get(..at)?, rest.get(at..)?);
    Some((key.strip_suffix(BEFORE_UPLOAD_ID)?, upload))
}

/// Whether the text can be an upload id of ours; anything else must not become part of a row's key.
pub(crate) fn is_upload_id(text: &str) -> bool {
    text.len() == UPLOAD_ID_CHARS
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

pub(crate) fn parts_of(upload: &str) -> String {
    format!("{PARTS}{upload}/")
}

pub(crate) fn part_key(upload: &str, number: u32) -> String {
    format!("{PARTS}{upload}/{number:05}")
}

pub(crate) fn layout_key(id: FileId) -> String {
    format!("{LAYOUTS}{id}")
}
