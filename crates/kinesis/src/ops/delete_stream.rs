//! `DeleteStream`: DELETING for a moment, then gone with its records.

use bytes::Bytes;
use hydrant_core::catalog::{Stream, StreamState, StreamStatus};
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
    /// Read for its type only: a stream has no consumers that could stand in the way.
    #[serde(rename = "EnforceConsumerDeletion")]
    _enforce_consumer_deletion: Option<Flag>,
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
        let until = kinesis.clock.now().plus(kinesis.options.delete_delay);
        let state = StreamState::Deleting(until);
        let next = Stream { state, ..Stream::clone(&found.held.stream) };
        Ok(Some((next, found.held.version)))
    };
    kinesis.change(decide).await?;
    Ok(Bytes::new())
}
