//! `ListTagsForResource`: the tags of the stream of an ARN.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::error::Error;
use crate::streams::Named;
use crate::tags::{self, Tag};
use crate::validate::{Checks, RESOURCE_ARN, STREAM_ID};

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

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&None, &request.resource_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("resourceARN", request.resource_arn.as_ref());
    checks.text("resourceARN", request.resource_arn.as_ref(), &RESOURCE_ARN);
    checks.text("streamId", request.stream_id.as_ref(), &STREAM_ID);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let stream = kinesis.find(&id)?.held.stream;
    Ok(call.write(&Reply { tags: tags::shown(&stream, None).collect() })?)
}
