//! `ListTagsForResource`: the tags of the stream or consumer of an ARN.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::access::{self, Resource};
use crate::error::Error;
use crate::tags::{self, Tag};
use crate::validate::Checks;

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
    let mut checks = Checks::new();
    access::check(&mut checks, request.resource_arn.as_ref(), request.stream_id.as_ref());
    checks.finish()?;
    let resource = kinesis.resource(call, &request.resource_arn, &request.stream_id)?;
    let tags = match &resource {
        Resource::Stream(id) => kinesis.find(id)?.held.stream.tags.clone(),
        Resource::Consumer(key) => kinesis.consumer(key)?.consumer.tags,
    };
    Ok(call.write(&Reply { tags: tags::shown(&tags, None).collect() })?)
}
