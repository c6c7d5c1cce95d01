//! `DeleteDeliveryStream`. What is not delivered yet is deleted with it, as AWS documents it. The
//! source and the connection of a database go too; the stream its changes were in stays.

use hydrant_core::names::Scope;
use serde::Deserialize;
use serde_json::Value;

use super::{change, empty, find, in_use, signal};
use crate::Delivery;
use crate::checks::{checked_name, read};
use crate::error::Error;
use crate::stream::{DeliveryStream, State, Status};

/// `AllowForceDelete` is about a KMS grant that AWS cannot retire; there is none here, so a deletion
/// never needs to be forced.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    delivery_stream_name: Option<String>,
}

pub(super) async fn run(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let name = checked_name(input.delivery_stream_name)?;
    let held = find(delivery, scope, &name)?;
    let now = delivery.shared.clock.now();
    match held.stream.status(now) {
        Status::Creating => return Err(in_use(&held.stream, Status::Creating)),
        Status::Deleting => return Ok(empty()),
        Status::Active | Status::CreatingFailed => {}
    }
    let state = State::Deleting(now.plus(delivery.shared.options.delete_delay));
    let deleted =
        DeliveryStream { state, updated: Some(now), ..DeliveryStream::clone(&held.stream) };
    let held = change(delivery, &held, deleted).await?;
    signal(delivery, &held, |signals| signals.deleted.cancel());
    Ok(empty())
}
