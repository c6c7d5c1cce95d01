//! `GetResourcePolicy`: the policy of a stream or a consumer, `{}` if it has none.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::access;
use crate::error::Error;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    access::check(&mut checks, request.resource_arn.as_ref(), request.stream_id.as_ref());
    checks.finish()?;
    let resource = kinesis.resource(call, &request.resource_arn, &request.stream_id)?;
    let policy = kinesis.policy(&resource)?;
    Ok(call.write(&Reply { policy: policy.as_ref().map(|policy| policy.text()) })?)
}
