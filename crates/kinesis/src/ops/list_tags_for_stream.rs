//! `ListTagsForStream`: the tags of a stream by key, page by page.

use bytes::Bytes;
use hydrant_core::limits::TAGS_MAX;
use hydrant_wire::Principal;
use hydrant_wire::shape::{Integer, Text, parse};
use serde::{Deserialize, Serialize};

use super::json;
use crate::Kinesis;
use crate::error::Error;
use crate::streams::{name_of, refuse};
use crate::tags::{self, Tag};
use crate::validate::{Checks, TAG_KEY};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    exclusive_start_tag_key: Option<Text<'a>>,
    limit: Option<Integer>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a> {
    tags: Vec<Tag<'a>>,
    has_more_tags: bool,
}

pub(super) fn run(kinesis: &Kinesis, who: &Principal, body: &[u8]) -> Result<Bytes, Error> {
    let request: Request<'_> = parse(body)?;
    let mut checks = Checks::new();
    checks.number("limit", request.limit, 1, TAGS_MAX as i64);
    let after = request.exclusive_start_tag_key.as_ref();
    checks.text("exclusiveStartTagKey", after, &TAG_KEY);
    checks.stream(request.stream_name.as_ref(), request.stream_arn.as_ref());
    checks.finish()?;
    refuse(&[("StreamId", request.stream_id.is_some())])?;
    let (name, arn) = (request.stream_name.as_ref(), request.stream_arn.as_ref());
    let name = name_of(who, "ListTagsForStream", name, arn)?;
    let stream = kinesis.find(who, &name)?.held.stream;
    let limit = request.limit.map_or(TAGS_MAX, |n| n.0 as usize);
    let mut rest = tags::shown(&stream, after.map(|key| &**key));
    let tags: Vec<_> = rest.by_ref().take(limit).collect();
    json(&Reply { tags, has_more_tags: rest.next().is_some() })
}
