//! `ListDeliveryStreams`.

use hydrant_core::names::{DeliveryStreamName, Scope};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Delivery;
use crate::checks::{Checks, read};
use crate::error::Error;

/// How many names a reply has if the caller does not say (AWS).
const LIMIT_DEFAULT: i64 = 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    limit: Option<i64>,
    delivery_stream_type: Option<String>,
    exclusive_start_delivery_stream_name: Option<String>,
}

pub(super) fn run(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    let limit = checks.number("limit", input.limit.unwrap_or(LIMIT_DEFAULT), 1, 10_000);
    if let Some(kind) = &input.delivery_stream_type {
        let kinds = ["DirectPut", "KinesisStreamAsSource", "MSKAsSource", "DatabaseAsSource"];
        checks.one_of("deliveryStreamType", kind, &kinds);
    }
    let start = input.exclusive_start_delivery_stream_name;
    if start.is_some() {
        checks.name("exclusiveStartDeliveryStreamName", start.clone());
    }
    checks.done()?;
    let after: Option<DeliveryStreamName> = start.and_then(|name| name.parse().ok());
    let limit = limit as usize;
    let mut streams = delivery.shared.catalog.list(scope, after.as_ref(), limit + 1, |stream| {
        input.delivery_stream_type.as_deref().is_none_or(|kind| kind == stream.source.type_name())
    });
    let more = streams.len() > limit;
    streams.truncate(limit);
    let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
    Ok(json!({ "DeliveryStreamNames": names, "HasMoreDeliveryStreams": more }))
}
