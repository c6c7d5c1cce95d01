//! `TagResource`: adds tags to the stream or consumer of an ARN, or overwrites those of the same keys.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Map, Text};
use serde::Deserialize;

use crate::Kinesis;
use crate::access;
use crate::error::Error;
use crate::tags;
use crate::validate::Checks;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "ResourceARN")]
    resource_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    tags: Option<Map<'a, Option<Text<'a>>>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    checks.required("tags", request.tags.as_ref());
    tags::check_map(&mut checks, request.tags.as_ref());
    access::check(&mut checks, request.resource_arn.as_ref(), request.stream_id.as_ref());
    checks.finish()?;
    let resource = kinesis.resource(call, &request.resource_arn, &request.stream_id)?;
    let more = tags::kept(request.tags)?;
    kinesis.retag_resource(&resource, |tags| tags.extend(more.clone())).await?;
    Ok(Bytes::new())
}
