//! The operations of `Firehose_20150804`, one file each.

mod create_delivery_stream;
mod delete_delivery_stream;
mod describe_delivery_stream;
mod list_delivery_streams;
mod put;
mod put_record;
mod put_record_batch;
mod tags;
mod update_destination;

use bytes::Bytes;
use hydrant_core::names::{DeliveryStreamName, Scope};
use serde_json::Value;

use crate::Delivery;
use crate::catalog::Held;
use crate::error::Error;
use crate::stream::{DeliveryStream, Status};
use crate::worker::Signals;

/// Runs one operation.
pub(crate) async fn call(
    delivery: &Delivery,
    scope: &Scope,
    operation: &str,
    body: &Bytes,
) -> Result<Bytes, Error> {
    let reply = match operation {
        "PutRecord" => put_record::run(delivery, scope, body).await?,
        "PutRecordBatch" => put_record_batch::run(delivery, scope, body).await?,
        "CreateDeliveryStream" => create_delivery_stream::run(delivery, scope, body).await?,
        "DescribeDeliveryStream" => describe_delivery_stream::run(delivery, scope, body).await?,
        "ListDeliveryStreams" => list_delivery_streams::run(delivery, scope, body)?,
        "DeleteDeliveryStream" => delete_delivery_stream::run(delivery, scope, body).await?,
        "UpdateDestination" => update_destination::run(delivery, scope, body).await?,
        "TagDeliveryStream" => tags::tag(delivery, scope, body).await?,
        "UntagDeliveryStream" => tags::untag(delivery, scope, body).await?,
        "ListTagsForDeliveryStream" => tags::list(delivery, scope, body)?,
        "StartDeliveryStreamEncryption" | "StopDeliveryStreamEncryption" => {
            return Err(Error::InvalidArgument(format!(
                "hydrant does not support {operation}: records are not encrypted at rest. Encrypt \
                 the disk that holds the data directory."
            )));
        }
        other => return Err(Error::UnknownOperation(other.chars().take(100).collect())),
    };
    // Operations without output answer with an empty object, as the model has a structure for each.
    serde_json::to_vec(&reply).map(Bytes::from).map_err(|e| Error::Internal(e.to_string()))
}

/// The delivery stream, whatever its status.
fn find(delivery: &Delivery, scope: &Scope, name: &DeliveryStreamName) -> Result<Held, Error> {
    delivery.shared.catalog.get(scope, name).ok_or_else(|| Error::not_found(scope, name))
}

/// The delivery stream, if it is active; else the error of a change to one that is not.
fn find_to_change(
    delivery: &Delivery,
    scope: &Scope,
    name: &DeliveryStreamName,
) -> Result<Held, Error> {
    let held = find(delivery, scope, name)?;
    match held.stream.status(delivery.shared.clock.now()) {
        Status::Active => Ok(held),
        status => Err(in_use(&held.stream, status)),
    }
}

fn in_use(stream: &DeliveryStream, status: Status) -> Error {
    let (name, account) = (&stream.name, &stream.scope.account);
    let status = status.as_str();
    Error::InUse(format!(
        "Firehose {name} under account {account} is in {status} state and cannot be changed now."
    ))
}

/// Replaces a delivery stream's row and tells its worker.
async fn change(delivery: &Delivery, held: &Held, stream: DeliveryStream) -> Result<Held, Error> {
    let changed = delivery.shared.catalog.put(stream, Some(held.version)).await?;
    signal(delivery, &changed, |signals| signals.changed.notify_one());
    Ok(changed)
}

fn signal(delivery: &Delivery, held: &Held, tell: impl Fn(&Signals)) {
    if let Some(signals) = delivery.shared.signals.lock().get(&held.stream.uid) {
        tell(signals);
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}
