//! `DescribeStreamConsumer`: what is known of a consumer.

use bytes::Bytes;
use hydrant_wire::Call;
use serde::Serialize;

use crate::Kinesis;
use crate::consumers::ConsumerReply;
use crate::error::Error;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    consumer_description: ConsumerReply,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let found = kinesis.consumer(&kinesis.named_consumer(call)?)?;
    let consumer_description =
        ConsumerReply::described(&found.held.stream, &found.consumer, found.status);
    Ok(call.write(&Reply { consumer_description })?)
}
