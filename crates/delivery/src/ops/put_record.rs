//! `PutRecord`.

use hydrant_core::names::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::put::{Record, append};
use crate::Delivery;
use crate::checks::{Checks, checked_name, read};
use crate::error::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    delivery_stream_name: Option<String>,
    record: Option<Record>,
}

pub(super) async fn run(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    checks.name("deliveryStreamName", input.delivery_stream_name.clone());
    let missing = input.record.is_none();
    let record = checks.required("record", input.record);
    let data = if missing { &[] } else { record.check(&mut checks, "record") };
    checks.done()?;
    let name = checked_name(input.delivery_stream_name)?;
    let ids = append(delivery, scope, &name, [data].into_iter(), data.len()).await?;
    Ok(json!({ "RecordId": ids.first(), "Encrypted": false }))
}
