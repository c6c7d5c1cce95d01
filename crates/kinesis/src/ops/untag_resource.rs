//! `UntagResource`: removes the tags of these keys from the stream or consumer of an ARN.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{List, Text};
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
    tag_keys: Option<List<Option<Text<'a>>>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    checks.required("tagKeys", request.tag_keys.as_ref());
    tags::check_keys(&mut checks, request.tag_keys.as_ref());
    access::check(&mut checks, request.resource_arn.as_ref(), request.stream_id.as_ref());
    checks.finish()?;
    let resource = kinesis.resource(call, &request.resource_arn, &request.stream_id)?;
    let keys = tags::keys(request.tag_keys.as_ref(), resource.stream())?;
    kinesis
        .retag_resource(&resource, |tags| tags.retain(|key, _| !keys.contains(&key.as_str())))
        .await?;
    Ok(Bytes::new())
}
