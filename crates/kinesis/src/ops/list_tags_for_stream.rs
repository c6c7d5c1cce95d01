//! `ListTagsForStream`: the tags of a stream by key, page by page.

use bytes::Bytes;
use hydrant_core::limits::TAGS_MAX;
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Text};
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::error::Error;
use crate::streams::Named;
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

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.number("limit", request.limit, 1, TAGS_MAX as i64);
    let after = request.exclusive_start_tag_key.as_ref();
    checks.text("exclusiveStartTagKey", after, &TAG_KEY);
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let stream = kinesis.find(&id)?.held.stream;
    let limit = request.limit.map_or(TAGS_MAX, |n| n.0 as usize);
    let mut rest = tags::shown(&stream.tags, after.map(|key| &**key));
    let tags: Vec<_> = rest.by_ref().take(limit).collect();
    Ok(call.write(&Reply { tags, has_more_tags: rest.next().is_some() })?)
}
