//! `RemoveTagsFromStream`: removes the tags of these keys, as far as there are any.

use bytes::Bytes;
use hydrant_wire::Principal;
use hydrant_wire::shape::{List, Text, parse};
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
    tag_keys: Option<List<Option<Text<'a>>>>,
}

pub(super) async fn run(kinesis: &Kinesis, who: &Principal, body: &[u8]) -> Result<Bytes, Error> {
    let request: Request<'_> = parse(body)?;
    let mut checks = Checks::new();
    checks.required("tagKeys", request.tag_keys.as_ref());
    tags::check_keys(&mut checks, request.tag_keys.as_ref());
    checks.stream(request.stream_name.as_ref(), request.stream_arn.as_ref());
    checks.finish()?;
    refuse(&[("StreamId", request.stream_id.is_some())])?;
    let (name, arn) = (request.stream_name.as_ref(), request.stream_arn.as_ref());
    let name = name_of(who, "RemoveTagsFromStream", name, arn)?;
    let keys = tags::keys(request.tag_keys.as_ref());
    kinesis.retag(who, &name, |tags| tags.retain(|key, _| !keys.contains(&key.as_str()))).await?;
    Ok(Bytes::new())
}
