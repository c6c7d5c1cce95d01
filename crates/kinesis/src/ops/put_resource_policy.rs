//! `PutResourcePolicy`: gives a stream or a consumer a policy, or another one.

use std::sync::Arc;

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::Deserialize;

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
    #[serde(borrow)]
    policy: Option<Text<'a>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    access::check(&mut checks, request.resource_arn.as_ref(), request.stream_id.as_ref());
    checks.required("policy", request.policy.as_ref());
    checks.finish()?;
    let resource = kinesis.resource(call, &request.resource_arn, &request.stream_id)?;
    // What is not there is told of before what is wrong with its policy.
    kinesis.policy(&resource)?;
    let arn = request.resource_arn.as_deref().unwrap_or_default();
    let policy = request.policy.as_deref().unwrap_or_default();
    let policy = Kinesis::read_policy(&resource, arn, policy)?;
    kinesis.set_policy(&resource, Some(Arc::new(policy))).await?;
    Ok(Bytes::new())
}
