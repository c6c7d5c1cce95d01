//! What the two puts have in common: a record's data, where it goes, and the id it gets.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hydrant_core::limits::DELIVERY_RECORD_BYTES_MAX;
use hydrant_core::log::{LogError, ShardUid};
use hydrant_core::names::{DeliveryStreamName, Scope};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::RecordIndex;
use serde::{Deserialize, Deserializer, de};

use super::find;
use crate::Delivery;
use crate::checks::Checks;
use crate::error::Error;
use crate::stream::{Source, Status};

/// `Record`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Record {
    data: Option<Blob>,
}

impl Record {
    /// Checks the record standing at `at` in the request, and returns its data.
    pub(super) fn check(&self, checks: &mut Checks, at: &str) -> &[u8] {
        let Some(Blob(data)) = &self.data else {
            checks.required::<()>(&format!("{at}.data"), None);
            return &[];
        };
        if data.len() > DELIVERY_RECORD_BYTES_MAX {
            let rule = format!(
                "Member must have length less than or equal to {DELIVERY_RECORD_BYTES_MAX}"
            );
            checks.fail(&format!("{at}.data"), None, &rule);
        }
        data
    }
}

/// A blob member: decoded from base64 while the JSON is read, with no copy of the text.
#[derive(Debug)]
struct Blob(Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a base64 string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                STANDARD
                    .decode(text)
                    .map(Blob)
                    .map_err(|e| E::custom(format!("invalid base64: {e}")))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The shard that takes direct puts to this delivery stream.
pub(super) fn shard_for_puts(
    delivery: &Delivery,
    scope: &Scope,
    name: &DeliveryStreamName,
) -> Result<ShardUid, Error> {
    let stream = find(delivery, scope, name)?.stream;
    if stream.status(delivery.shared.clock.now()) != Status::Active {
        return Err(Error::not_found(scope, name));
    }
    match &stream.source {
        Source::DirectPut => Ok(stream.uid),
        Source::Kinesis { .. } | Source::Database(_) => Err(Error::InvalidArgument(
            "This operation is not permitted on KinesisStreamAsSource delivery stream type.".into(),
        )),
    }
}

/// Appends the records, all or none, and returns their ids. On return they are durable.
pub(super) async fn append<'a>(
    delivery: &Delivery,
    scope: &Scope,
    name: &DeliveryStreamName,
    records: impl ExactSizeIterator<Item = &'a [u8]>,
    bytes: usize,
) -> Result<Vec<String>, Error> {
    let shard = shard_for_puts(delivery, scope, name)?;
    let mut batch = RecordBatch::with_capacity(records.len(), bytes);
    for data in records {
        batch.push(b"", data);
    }
    let appended = delivery.shared.log.append(shard, batch).await.map_err(|e| match e {
        LogError::NotFound | LogError::Sealed => Error::not_found(scope, name),
        other => other.into(),
    })?;
    let range = appended.into_inner();
    Ok((0..range.count).map(|n| record_id(shard, range.nth(n))).collect())
}

/// Names the record among all records of the installation; opaque to the caller.
fn record_id(shard: ShardUid, index: RecordIndex) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&shard.0.to_be_bytes());
    bytes[8..].copy_from_slice(&index.0.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}
