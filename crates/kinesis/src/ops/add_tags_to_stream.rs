//! `AddTagsToStream`: adds tags, or overwrites those of the same keys.

use bytes::Bytes;
use hydrant_wire::Principal;
use hydrant_wire::shape::{Map, Text, parse};
use serde::Deserialize;

use crate::Kinesis;
use crate::error::Error;
use crate::streams::{name_of, refuse};
use crate::tags;
use crate::validate::Checks;

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
    tags: Option<Map<'a, Option<Text<'a>>>>,
}

pub(super) async fn run(kinesis: &Kinesis, who: &Principal, body: &[u8]) -> Result<Bytes, Error> {
    let request: Request<'_> = parse(body)?;
    let mut checks = Checks::new();
    checks.required("tags", request.tags.as_ref());
    tags::check_map(&mut checks, request.tags.as_ref());
    checks.stream(request.stream_name.as_ref(), request.stream_arn.as_ref());
    checks.finish()?;
    refuse(&[("StreamId", request.stream_id.is_some())])?;
    let (name, arn) = (request.stream_name.as_ref(), request.stream_arn.as_ref());
    let name = name_of(who, "AddTagsToStream", name, arn)?;
    let more = tags::kept(request.tags)?;
    kinesis.retag(who, &name, |tags| tags.extend(more.clone())).await?;
    Ok(Bytes::new())
}
