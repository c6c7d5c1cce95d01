//! `UntagResource`: removes the tags of these keys from the stream of an ARN.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{List, Text};
use serde::Deserialize;

use crate::Kinesis;
use crate::error::Error;
use crate::streams::Named;
use crate::tags;
use crate::validate::{Checks, RESOURCE_ARN, STREAM_ID};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "ResourceARN")]
    resource_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    tag_keys: Option<List<Option<Text<'a>>>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&None, &request.resource_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("tagKeys", request.tag_keys.as_ref());
    tags::check_keys(&mut checks, request.tag_keys.as_ref());
    checks.required("resourceARN", request.resource_arn.as_ref());
    checks.text("resourceARN", request.resource_arn.as_ref(), &RESOURCE_ARN);
    checks.text("streamId", request.stream_id.as_ref(), &STREAM_ID);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let keys = tags::keys(request.tag_keys.as_ref(), &id)?;
    kinesis.retag(&id, |tags| tags.retain(|key, _| !keys.contains(&key.as_str()))).await?;
    Ok(Bytes::new())
}
