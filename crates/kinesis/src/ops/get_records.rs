//! `GetRecords`: records from a place in a shard on, and the place after them.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hydrant_core::Timestamp;
use hydrant_core::catalog::{Shard, Stream};
use hydrant_core::limits::{GET_RECORDS_BYTES_MAX, GET_RECORDS_MAX};
use hydrant_core::log::{LogError, ReadLimit, ReadPage};
use hydrant_core::record::{Frame, Record};
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, Integer, Text};
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::error::Error;
use crate::iterator::ShardIterator;
use crate::shards;
use crate::streams::{Named, refuse};
use crate::validate::{Checks, SHARD_ITERATOR};

/// Room for what stands around the data of one record in the reply.
const RECORD_ROOM_BYTES: usize = 192;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    shard_iterator: Option<Text<'a>>,
    limit: Option<Integer>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    dry_run: Option<Flag>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    checks.number("limit", request.limit, 1, GET_RECORDS_MAX as i64);
    checks.required("shardIterator", request.shard_iterator.as_ref());
    checks.text("shardIterator", request.shard_iterator.as_ref(), &SHARD_ITERATOR);
    let named = Named::by(&None, &request.stream_arn, &request.stream_id);
    checks.stream_if_given(&named);
    checks.finish()?;
    refuse(&[("DryRun", request.dry_run.is_some_and(|f| f.0))])?;
    let now = kinesis.clock.now();
    let text = request.shard_iterator.as_deref().unwrap_or_default();
    let iterator = ShardIterator::open(text, &kinesis.sealer, call.scope(), now)?;
    if named.is_given() && kinesis.named(call, &named)? != iterator.stream {
        return Err(Error::InvalidArgument(
            "The ShardIterator is not of the stream that StreamARN or StreamId names.".to_owned(),
        ));
    }
    let lost = || {
        let account = &iterator.stream.scope.account;
        let (shard, stream) = (iterator.shard, &iterator.stream.name);
        Error::ResourceNotFound(format!(
            "Shard {shard} in stream {stream} under account {account} does not exist"
        ))
    };
    let held = kinesis.usable(&iterator.stream).map_err(|_| lost())?;
    let stream = &held.stream;
    // A later stream of the same name has shards of the same numbers, but they are others.
    let shard = stream.shard(iterator.shard).filter(|s| s.uid == iterator.uid).ok_or_else(lost)?;
    let limit = ReadLimit {
        records_max: request.limit.map_or(GET_RECORDS_MAX, |n| n.0 as usize),
        bytes_max: GET_RECORDS_BYTES_MAX,
    };
    let page = match kinesis.log.read(shard.uid, iterator.from, limit).await {
        Err(LogError::NotFound) => return Err(shards::missing(stream, shard.id)),
        read => read?,
    };
    let next = ShardIterator { from: page.next, issued: now, ..iterator };
    // The last page of a closed shard has no place after it.
    let ended = page.tail.sealed && page.next >= page.tail.end;
    let next = (!ended).then(|| next.seal(&kinesis.sealer, call.scope()));
    let records = page.len() as u64;
    let reply = write_reply(&page, stream, shard, next, now)?;
    metrics::counter!("hydrant_kinesis_records_read_total").increment(records);
    Ok(reply)
}

/// Writes the reply into one buffer, record by record from the log's frames.
fn write_reply(
    page: &ReadPage,
    stream: &Stream,
    shard: &Shard,
    next: Option<String>,
    now: Timestamp,
) -> Result<Bytes, Error> {
    let records = || page.frames.iter().flat_map(Frame::records);
    let room: usize = records().map(|r| r.size_bytes() / 3 * 4 + RECORD_ROOM_BYTES).sum();
    let mut out = Vec::with_capacity(room + 1_024);
    out.extend(b"{\"Records\":[");
    for (n, record) in records().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_record(&mut out, &record, shard)?;
    }
    let behind = millis_behind(page, now);
    let _ = write!(out, "],\"MillisBehindLatest\":{behind}");
    if let Some(next) = next {
        // Base64 needs no escapes.
        let _ = write!(out, ",\"NextShardIterator\":\"{next}\"");
    } else {
        out.extend(b",\"ChildShards\":");
        put_json(&mut out, &shards::children(stream, shard))?;
    }
    out.push(b'}');
    Ok(out.into())
}

fn write_record(out: &mut Vec<u8>, record: &Record<'_>, shard: &Shard) -> Result<(), Error> {
    let number = shard.sequence_number(record.index);
    let ms = record.arrival.as_millis();
    let (s, rest) = (ms / 1_000, ms % 1_000);
    let _ = write!(
        out,
        "{{\"SequenceNumber\":\"{number}\",\"ApproximateArrivalTimestamp\":{s}.{rest:03},\"Data\":\""
    );
    let at = out.len();
    // One more group than whole ones: what is left over takes four characters too.
    out.resize(at + record.data.len() / 3 * 4 + 4, 0);
    let written = STANDARD
        .encode_slice(record.data, &mut out[at..])
        .map_err(|e| Error::Internal(e.to_string()))?;
    out.truncate(at + written);
    out.extend(b"\",\"PartitionKey\":");
    // The key was text when it was put.
    put_json(out, &String::from_utf8_lossy(record.partition_key))?;
    out.push(b'}');
    Ok(())
}

fn put_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    serde_json::to_writer(out, value).map_err(|e| Error::Internal(e.to_string()))
}

/// How long ago the newest record of the page arrived, if there are later ones.
fn millis_behind(page: &ReadPage, now: Timestamp) -> u128 {
    if page.next >= page.tail.end {
        return 0;
    }
    let newest = page.frames.last().map_or(page.next.time(), Frame::arrival);
    now.since(newest).as_millis()
}
