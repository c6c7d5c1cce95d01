//! `DescribeStreamConsumer`: what is known of a consumer.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::consumers::{ConsumerReply, NamedConsumer};
use crate::error::Error;
use crate::streams::Named;
use crate::validate::Checks;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    consumer_name: Option<Text<'a>>,
    #[serde(borrow, rename = "ConsumerARN")]
    consumer_arn: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    consumer_description: ConsumerReply,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = NamedConsumer {
        arn: request.consumer_arn.as_ref(),
        name: request.consumer_name.as_ref(),
        stream: Named::by(&None, &request.stream_arn, &request.stream_id),
    };
    let mut checks = Checks::new();
    named.check(&mut checks);
    checks.finish()?;
    let found = kinesis.consumer(&kinesis.named_consumer(call, &named)?)?;
    let consumer_description =
        ConsumerReply::described(&found.held.stream, &found.consumer, found.status);
    Ok(call.write(&Reply { consumer_description })?)
}
