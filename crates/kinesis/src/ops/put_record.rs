//! `PutRecord`: one record, durable when the reply is sent.

use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::catalog::{Held, Shard, ShardId, Stream};
use hydrant_core::encryption::DataKeyId;
use hydrant_core::hash::HashKey;
use hydrant_core::log::LogError;
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::{OldSequenceNumber, RecordIndex, SequenceNumber};
use hydrant_wire::Call;
use hydrant_wire::shape::{Blob, Flag, Text};
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::error::Error;
use crate::meter::Metric;
use crate::put;
use crate::rates::rate_exceeded;
use crate::reroute::REROUTES_MAX;
use crate::route::Routes;
use crate::streams::{Named, StreamKey};
use crate::validate::{Checks, SEQUENCE_NUMBER};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Blob<'a>>,
    #[serde(borrow)]
    partition_key: Option<Text<'a>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Text<'a>>,
    #[serde(borrow)]
    sequence_number_for_ordering: Option<Text<'a>>,
    dry_run: Option<Flag>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    shard_id: String,
    sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_type: Option<&'static str>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    let ordering = request.sequence_number_for_ordering.as_ref();
    checks.text("sequenceNumberForOrdering", ordering, &SEQUENCE_NUMBER);
    let (key, explicit) = (request.partition_key.as_ref(), request.explicit_hash_key.as_ref());
    let terms = kinesis.terms(call, &named);
    put::check(&mut checks, terms, String::new, key, explicit, request.data.as_ref());
    checks.stream(&named);
    // AWS reads the whole request before it checks any of it.
    checks.finish().map_err(|e| put::unreadable(request.data.as_ref()).unwrap_or(e))?;
    let key = request.partition_key.as_deref().unwrap_or_default();
    let mut room = Vec::new();
    let data = match &request.data {
        Some(blob) => blob.decoded(&mut room)?,
        None => &[],
    };
    let explicit = put::hash_key(explicit)?;
    let id = kinesis.named(call, &named)?;
    let _under_way = kinesis.puts.begin();
    let held = kinesis.usable(&id)?;
    if let Some(text) = ordering {
        check_ordering(kinesis, &id, &held.stream, text).await?;
    }
    let data_key = kinesis.data_key(&held.stream)?;
    put::dry_run(request.dry_run)?;
    let (stream, shard, index) = append(kinesis, held, key, explicit, data, data_key).await?;
    let bytes = (key.len() + data.len()) as u64;
    kinesis.count_load(&stream, &shard, 1, bytes);
    let counts = [(Metric::PutRecordSuccess, 1), (Metric::PutRecordBytes, bytes)];
    kinesis.meters.put(&stream, [(shard.id, 1, bytes)].into_iter(), &counts);
    kinesis.totals.records_put.increment(1);
    kinesis.totals.bytes_put.increment(bytes);
    Ok(call.write(&Reply {
        shard_id: shard.id.to_string(),
        sequence_number: shard.sequence_number(index).to_string(),
        encryption_type: data_key.map(|_| "KMS"),
    })?)
}

/// Appends the record to its shard, or to a child of that if it is closed meanwhile.
async fn append(
    kinesis: &Kinesis,
    mut held: Held,
    key: &str,
    explicit: Option<HashKey>,
    data: &[u8],
    mut data_key: Option<DataKeyId>,
) -> Result<(Arc<Stream>, Shard, RecordIndex), Error> {
    for _ in 0..=REROUTES_MAX {
        let stream = &held.stream;
        let routes = Routes::of(&held);
        let route = match stream.spreads() {
            true => routes.in_turn(kinesis.random.next_u64()),
            false => routes.shard(key, explicit),
        };
        let (_, shard) = route.ok_or_else(|| no_shard(stream.name.as_str()))?;
        let bytes = key.len() + data.len();
        if !kinesis.allow_put(stream, shard, bytes) {
            return Err(rate_exceeded(stream, shard));
        }
        let mut batch = RecordBatch::with_capacity(1, bytes);
        batch.push(key.as_bytes(), data);
        match kinesis.log.append(shard.uid, batch.encrypted_with(data_key)).await {
            Ok(range) => {
                return Ok((Arc::clone(stream), shard.clone(), range.get().first));
            }
            Err(LogError::Sealed) => {
                let shard = [shard.clone()];
                let Some(next) = kinesis.rerouted(stream, &shard).await? else { break };
                held = next;
                // Encryption may have been started or stopped while it waited.
                data_key = kinesis.data_key(&held.stream)?;
            }
            Err(e) => {
                if e == LogError::Full {
                    kinesis.meters.write_exceeded(stream, shard.id, 1);
                }
                return Err(put::refusal(e, stream, shard));
            }
        }
    }
    Err(Error::Internal(format!("the shard of a put to {} stays closed", held.stream.name)))
}

/// The number only has to be one that was given out: records of a shard are numbered in the order of
/// their acknowledgements anyway, so a later put is always above an earlier one.
async fn check_ordering(
    kinesis: &Kinesis,
    id: &StreamKey,
    stream: &Stream,
    text: &str,
) -> Result<(), Error> {
    let now = kinesis.clock.now().as_secs();
    let number: Option<SequenceNumber> = text.parse().ok();
    let old: Option<OldSequenceNumber> = text.parse().ok();
    let record_s = number.map(|n| n.record_s).or(old.map(|n| n.record_s.unwrap_or_default()));
    if record_s.is_some_and(|s| s <= now + 1) {
        return Ok(());
    }
    // After the clock was set back, numbers that were given out are ahead of it.
    if let Some(number) = number
        && was_given_out(kinesis, stream, number).await
    {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {} under account {} is \
         invalid.",
        id.name, id.scope.account
    )))
}

async fn was_given_out(kinesis: &Kinesis, stream: &Stream, number: SequenceNumber) -> bool {
    let Some(shard) = stream.shard(ShardId(number.shard)) else { return false };
    shard.sequence_number(number.index) == number
        && kinesis.log.tail(shard.uid).await.is_ok_and(|tail| number.index < tail.end)
}

/// Every stream has open shards; a row that says otherwise was not written by this program.
pub(super) fn no_shard(name: &str) -> Error {
    Error::Internal(format!("stream {name} has no open shard"))
}
