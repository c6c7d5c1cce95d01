//! `DeregisterStreamConsumer`: DELETING for a moment, then gone.

use bytes::Bytes;
use hydrant_core::catalog::{Consumer, ConsumerState, ConsumerStatus};
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::Deserialize;

use crate::Kinesis;
use crate::consumers::NamedConsumer;
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

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = NamedConsumer {
        arn: request.consumer_arn.as_ref(),
        name: request.consumer_name.as_ref(),
        stream: Named::by(&None, &request.stream_arn, &request.stream_id),
    };
    let mut checks = Checks::new();
    named.check(&mut checks);
    checks.finish()?;
    let key = kinesis.named_consumer(call, &named)?;
    let until = kinesis.clock.now().plus(kinesis.options.consumer_delete_delay);
    let delete = |consumer: &mut Consumer, status| {
        // Asked twice, deleted once.
        if status != ConsumerStatus::Deleting {
            consumer.state = ConsumerState::Deleting(until);
        }
        Ok(())
    };
    kinesis.change_consumer(&key, delete).await?;
    Ok(Bytes::new())
}
