//! `GetShardIterator`: a place in a shard to read from.

use bytes::Bytes;
use hydrant_core::Timestamp;
use hydrant_core::catalog::{Shard, Stream};
use hydrant_core::log::LogError;
use hydrant_core::sequence::{RecordIndex, SequenceNumber};
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, Seconds, Text};
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::error::Error;
use crate::iterator::ShardIterator;
use crate::shards::{self, shard_id};
use crate::streams::{Named, refuse};
use crate::validate::{Checks, SEQUENCE_NUMBER, SHARD_ID};

/// In the order in which AWS's error lists them.
const TYPES: [&str; 5] =
    ["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"];

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
    shard_id: Option<Text<'a>>,
    #[serde(borrow)]
    shard_iterator_type: Option<Text<'a>>,
    #[serde(borrow)]
    starting_sequence_number: Option<Text<'a>>,
    timestamp: Option<Seconds>,
    dry_run: Option<Flag>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    shard_iterator: String,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("shardId", request.shard_id.as_ref());
    checks.text("shardId", request.shard_id.as_ref(), &SHARD_ID);
    checks.required("shardIteratorType", request.shard_iterator_type.as_ref());
    checks.one_of("shardIteratorType", request.shard_iterator_type.as_ref(), &TYPES);
    let number = request.starting_sequence_number.as_ref();
    checks.text("startingSequenceNumber", number, &SEQUENCE_NUMBER);
    checks.stream(&named);
    checks.finish()?;
    refuse(&[("DryRun", request.dry_run.is_some_and(|f| f.0))])?;
    let id = kinesis.named(call, &named)?;
    let (name, account) = (&id.name, &id.scope.account);
    let shard_text = request.shard_id.as_deref().unwrap_or_default();
    let held = kinesis.usable(&id).map_err(|e| match shard_id(shard_text) {
        // AWS looks at the shard's id before it looks for the stream, and then misses the shard.
        Err(_) => Error::ResourceNotFound(format!(
            "Could not find shard {shard_text} in stream {name} under account {account}."
        )),
        Ok(shard) if matches!(e, Error::ResourceNotFound(_)) => Error::ResourceNotFound(format!(
            "Shard {shard} in stream {name} under account {account} does not exist"
        )),
        Ok(_) => e,
    })?;
    let stream = &held.stream;
    let shard = shards::find(stream, shard_text)?;
    let from = start(kinesis, &request, stream, shard).await?;
    let iterator = ShardIterator {
        stream: id,
        shard: shard.id,
        uid: shard.uid,
        from,
        issued: kinesis.clock.now(),
    };
    Ok(call.write(&Reply { shard_iterator: iterator.seal(&kinesis.sealer, call.scope()) })?)
}

async fn start(
    kinesis: &Kinesis,
    request: &Request<'_>,
    stream: &Stream,
    shard: &Shard,
) -> Result<RecordIndex, Error> {
    let kind = request.shard_iterator_type.as_deref().unwrap_or_default();
    match (kind, &request.starting_sequence_number) {
        ("AT_SEQUENCE_NUMBER", Some(text)) => Ok(index_of(text, stream, shard)?),
        ("AFTER_SEQUENCE_NUMBER", Some(text)) => match index_of(text, stream, shard)? {
            // Nothing is after the end of a closed shard.
            RecordIndex::MAX => Err(invalid_number(text, stream, shard, "")),
            index => Ok(index.next()),
        },
        ("TRIM_HORIZON", None) => Ok(RecordIndex::MIN),
        // Fixed now: what is put from here on is read, however late the iterator is used.
        ("LATEST", None) => {
            let tail = kinesis.log.tail(shard.uid).await.map_err(|e| gone(e, stream, shard))?;
            Ok(tail.end)
        }
        ("AT_TIMESTAMP", None) => {
            let seconds = request.timestamp.ok_or_else(|| {
                Error::InvalidArgument(
                    "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. \
                     Current request has no timestamp parameter."
                        .to_owned(),
                )
            })?;
            let at = moment(seconds, kinesis.clock.now())?;
            kinesis.log.locate(shard.uid, at).await.map_err(|e| gone(e, stream, shard))
        }
        (kind, number) => Err(Error::InvalidArgument(format!(
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and \
             StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. \
             Request specified {kind} and {} StartingSequenceNumber.",
            if number.is_some() { "also a" } else { "no" }
        ))),
    }
}

/// The log does not know a shard any more whose stream was deleted meanwhile.
fn gone(error: LogError, stream: &Stream, shard: &Shard) -> Error {
    match error {
        LogError::NotFound => shards::missing(stream, shard.id),
        other => other.into(),
    }
}

/// A moment of a request, which must not lie ahead.
pub(super) fn moment(Seconds(seconds): Seconds, now: Timestamp) -> Result<Timestamp, Error> {
    // Cut to milliseconds, but not below what a decimal fraction meant. Past what a number can hold,
    // the cast saturates; not a number is 0.
    let ms = ((seconds * 1e6).round() as i64).div_euclid(1_000);
    let now_ms = now.as_millis();
    match u64::try_from(ms) {
        Ok(ms) if ms > now_ms => Err(Error::InvalidArgument(format!(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
             timestampInMillis: {ms}, currentTimestampInMillis: {now_ms}"
        ))),
        Ok(ms) => Ok(Timestamp::from_millis(ms)),
        Err(_) => Ok(Timestamp::ZERO),
    }
}

/// The place in the shard that a sequence number means.
fn index_of(text: &str, stream: &Stream, shard: &Shard) -> Result<RecordIndex, Error> {
    let number: SequenceNumber =
        text.parse().map_err(|_| invalid_number(text, stream, shard, ""))?;
    if number.shard != shard.id.0 {
        return Err(Error::InvalidArgument(format!(
            "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard \
             with {}",
            hydrant_core::catalog::ShardId(number.shard),
            shard.id
        )));
    }
    if number.shard_created_s != shard.created.as_secs() {
        let why = " because it did not come from this stream";
        return Err(invalid_number(text, stream, shard, why));
    }
    Ok(number.index)
}

fn invalid_number(text: &str, stream: &Stream, shard: &Shard, why: &str) -> Error {
    Error::InvalidArgument(format!(
        "StartingSequenceNumber {text} used in GetShardIterator on shard {} in stream {} under \
         account {} is invalid{why}.",
        shard.id, stream.name, stream.scope.account
    ))
}
