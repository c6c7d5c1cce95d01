//! `DeleteResourcePolicy`: takes the policy of a stream or a consumer away.

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
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    access::check(&mut checks, request.resource_arn.as_ref(), request.stream_id.as_ref());
    checks.finish()?;
    let resource = kinesis.resource(call, &request.resource_arn, &request.stream_id)?;
    if kinesis.policy(&resource)?.is_none() {
        let arn = request.resource_arn.as_deref().unwrap_or_default();
        return Err(Error::ResourceNotFound(format!(
            "No resource policy found for resource ARN {arn}"
        )));
    }
    kinesis.set_policy(&resource, None).await?;
    Ok(Bytes::new())
}
