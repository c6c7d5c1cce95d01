//! `UpdateDestination`: members that are given replace those there are; the others stay.

use std::collections::BTreeMap;

use hydrant_core::names::Scope;
use serde::Deserialize;
use serde_json::Value;

use super::{change, empty, find_to_change};
use crate::Delivery;
use crate::checks::{Checks, checked_name, read};
use crate::configuration::{S3Configuration, unsupported};
use crate::error::Error;
use crate::stream::{DESTINATION_ID, DeliveryStream};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    delivery_stream_name: Option<String>,
    current_delivery_stream_version_id: Option<String>,
    destination_id: Option<String>,
    #[serde(rename = "S3DestinationUpdate")]
    s3: Option<S3Configuration>,
    #[serde(rename = "ExtendedS3DestinationUpdate")]
    extended_s3: Option<S3Configuration>,
    /// Updates of AWS's other destinations.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

pub(super) async fn run(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    checks.name("deliveryStreamName", input.delivery_stream_name.clone());
    let version =
        checks.required("currentDeliveryStreamVersionId", input.current_delivery_stream_version_id);
    let destination_id = checks.required("destinationId", input.destination_id);
    checks.done()?;
    let name = checked_name(input.delivery_stream_name)?;
    if let Some((member, _)) = input.others.iter().find(|(_, value)| !value.is_null()) {
        let member: String = member.chars().take(100).collect();
        return Err(unsupported(&member, "a destination", "Use ExtendedS3DestinationUpdate."));
    }
    let held = find_to_change(delivery, scope, &name)?;
    if destination_id != DESTINATION_ID {
        let shown: String = destination_id.chars().take(100).collect();
        return Err(Error::InvalidArgument(format!("Destination Id {shown} not found")));
    }
    if version != held.stream.version.to_string() {
        return Err(Error::ConcurrentModification(format!(
            "Cannot update firehose: {name} since the current version id: {} and specified version \
             id: {} do not match",
            held.stream.version,
            version.chars().take(50).collect::<String>(),
        )));
    }
    let (at, update) = match (input.s3, input.extended_s3) {
        (Some(s3), None) => ("s3DestinationUpdate", s3),
        (None, Some(s3)) => ("extendedS3DestinationUpdate", s3),
        _ => {
            return Err(Error::InvalidArgument(
                "Exactly one destination update is supported for a Firehose".into(),
            ));
        }
    };
    let destination = update.into_destination(at, Some(&held.stream.destination))?;
    (delivery.shared.make_destination)(&destination.settings).map_err(Error::InvalidArgument)?;
    let updated = DeliveryStream {
        destination,
        version: held.stream.version + 1,
        updated: Some(delivery.shared.clock.now()),
        ..DeliveryStream::clone(&held.stream)
    };
    change(delivery, &held, updated).await?;
    Ok(empty())
}
