//! `DeregisterStreamConsumer`: DELETING for a moment, then gone.

use bytes::Bytes;
use hydrant_core::catalog::{Consumer, ConsumerState, ConsumerStatus};
use hydrant_wire::Call;

use crate::Kinesis;
use crate::error::Error;

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let key = kinesis.named_consumer(call)?;
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
