//! `DescribeDeliveryStream`.

use hydrant_core::names::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::find;
use crate::Delivery;
use crate::attach;
use crate::checks::{Checks, checked_name, read};
use crate::description::describe;
use crate::error::Error;
use crate::stream::{DESTINATION_ID, Source};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    delivery_stream_name: Option<String>,
    limit: Option<i64>,
    exclusive_start_destination_id: Option<String>,
}

pub(super) async fn run(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    checks.name("deliveryStreamName", input.delivery_stream_name.clone());
    if let Some(limit) = input.limit {
        checks.number("limit", limit, 1, 10_000);
    }
    checks.done()?;
    let name = checked_name(input.delivery_stream_name)?;
    let stream = find(delivery, scope, &name)?.stream;
    let after = input.exclusive_start_destination_id;
    let destinations = after.is_none_or(|id| id.as_str() < DESTINATION_ID);
    let source = match (&stream.source, &delivery.shared.capture) {
        (Source::Database(_), Some(capture)) => {
            attach::own_source(capture.as_ref(), &stream).await?
        }
        _ => None,
    };
    let now = delivery.shared.clock.now();
    let description = describe(&stream, source.as_ref(), now, destinations);
    Ok(json!({ "DeliveryStreamDescription": description }))
}
