//! `PutRecordBatch`. The batch is appended as one, so either every record is taken or none is, and
//! `FailedPutCount` is 0 in every reply that is not an error.

use hydrant_core::limits::{PUT_RECORD_BATCH_BYTES_MAX, PUT_RECORD_BATCH_MAX};
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
    records: Option<Vec<Record>>,
}

pub(super) async fn run(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    checks.name("deliveryStreamName", input.delivery_stream_name.clone());
    let missing = input.records.is_none();
    let records = checks.required("records", input.records);
    if !missing {
        checks.count("records", records.len(), 1, PUT_RECORD_BATCH_MAX);
    }
    let data: Vec<&[u8]> = records
        .iter()
        .take(PUT_RECORD_BATCH_MAX)
        .enumerate()
        .map(|(nth, record)| record.check(&mut checks, &format!("records.{}.member", nth + 1)))
        .collect();
    checks.done()?;
    let name = checked_name(input.delivery_stream_name)?;
    let bytes = data.iter().map(|d| d.len()).sum();
    if bytes > PUT_RECORD_BATCH_BYTES_MAX {
        return Err(Error::InvalidArgument("Records size exceeds 4 MB limit".into()));
    }
    let ids = append(delivery, scope, &name, data.into_iter(), bytes).await?;
    let responses: Vec<Value> = ids.iter().map(|id| json!({ "RecordId": id })).collect();
    Ok(json!({ "FailedPutCount": 0, "Encrypted": false, "RequestResponses": responses }))
}
