//! `DeleteStream`: DELETING for a moment, then gone with its records.

use bytes::Bytes;
use hydrant_core::catalog::{ConsumerState, Stream, StreamState, StreamStatus};
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, Text};
use serde::Deserialize;

use crate::Kinesis;
use crate::error::Error;
use crate::streams::{Named, not_active};
use crate::validate::Checks;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    enforce_consumer_deletion: Option<Flag>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let decide = || {
        let found = kinesis.find(&id)?;
        match found.status {
            StreamStatus::Creating => return Err(not_active(&found.held, found.status)),
            // Asked twice, deleted once.
            StreamStatus::Deleting => return Ok(None),
            StreamStatus::Active | StreamStatus::Updating => {}
        }
        let now = kinesis.clock.now();
        let enforced = request.enforce_consumer_deletion.is_some_and(|f| f.0);
        if !enforced && found.held.stream.consumers(now).next().is_some() {
            return Err(has_consumers(&found.held.stream));
        }
        let until = now.plus(kinesis.options.delete_delay);
        let mut next = Stream::clone(&found.held.stream);
        next.state = StreamState::Deleting(until);
        // They go with the stream's row.
        for consumer in &mut next.consumers {
            consumer.state = ConsumerState::Deleting(until);
        }
        Ok(Some((next, found.held.version)))
    };
    kinesis.change(decide).await?;
    Ok(Bytes::new())
}

fn has_consumers(Stream { scope, name, .. }: &Stream) -> Error {
    let account = &scope.account;
    Error::ResourceInUse(format!(
        "DeleteStream can't delete {account}:{name} because there are consumers associated with this \
         data stream. To delete {name} anyway, set the EnforceConsumerDeletion parameter to true to \
         force the deletion of all the consumers that are associated with it."
    ))
}
