//! `ListTagsForResource`: the tags of the stream of an ARN.

use bytes::Bytes;
use hydrant_wire::Principal;
use hydrant_wire::shape::{Text, parse};
use serde::{Deserialize, Serialize};

use super::json;
use crate::Kinesis;
use crate::error::Error;
use crate::streams::{name_of, refuse};
use crate::tags::{self, Tag};
use crate::validate::{Checks, STREAM_ARN};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "ResourceARN")]
    resource_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a> {
    tags: Vec<Tag<'a>>,
}

pub(super) fn run(kinesis: &Kinesis, who: &Principal, body: &[u8]) -> Result<Bytes, Error> {
    let request: Request<'_> = parse(body)?;
    let mut checks = Checks::new();
    checks.required("resourceARN", request.resource_arn.as_ref());
    checks.text("resourceARN", request.resource_arn.as_ref(), &STREAM_ARN);
    checks.finish()?;
    refuse(&[("StreamId", request.stream_id.is_some())])?;
    let name = name_of(who, "ListTagsForResource", None, request.resource_arn.as_ref())?;
    let stream = kinesis.find(who, &name)?.held.stream;
    json(&Reply { tags: tags::shown(&stream, None).collect() })
}
