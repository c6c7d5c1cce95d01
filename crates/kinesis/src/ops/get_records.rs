//! `GetRecords`: records from a place in a shard on, and the place after them.

use hydrant_core::Timestamp;
use hydrant_core::limits::{GET_RECORDS_BYTES_MAX, GET_RECORDS_MAX};
use hydrant_core::log::{LogError, ReadLimit, ReadPage};
use hydrant_core::record::Frame;
use hydrant_wire::shape::{Flag, Integer, Text};
use hydrant_wire::{Call, Reply};
use serde::Deserialize;

use crate::Kinesis;
use crate::error::Error;
use crate::iterator::ShardIterator;
use crate::put::dry_run;
use crate::rates::rate_exceeded;
use crate::reply::Page;
use crate::shards;
use crate::streams::Named;
use crate::validate::{Checks, SHARD_ITERATOR};

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

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Reply, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    checks.number("limit", request.limit, 1, GET_RECORDS_MAX as i64);
    checks.required("shardIterator", request.shard_iterator.as_ref());
    checks.text("shardIterator", request.shard_iterator.as_ref(), &SHARD_ITERATOR);
    let named = Named::by(&None, &request.stream_arn, &request.stream_id);
    checks.stream_if_given(&named);
    checks.finish()?;
    let now = kinesis.clock.now();
    let text = request.shard_iterator.as_deref().unwrap_or_default();
    let iterator = ShardIterator::open(text, &kinesis.sealer, call.scope(), now)?;
    if named.is_given() && kinesis.named(call, &named)? != iterator.stream {
        return Err(Error::InvalidArgument(
            "The ShardIterator is not of the stream that StreamARN or StreamId names.".to_owned(),
        ));
    }
    kinesis.allow_stream(call, &iterator.stream, None)?;
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
    dry_run(request.dry_run)?;
    kinesis.allow_read(stream, shard)?;
    let limit = ReadLimit {
        records_max: request.limit.map_or(GET_RECORDS_MAX, |n| n.0 as usize),
        bytes_max: GET_RECORDS_BYTES_MAX,
    };
    let missing = |error| match error {
        LogError::NotFound => shards::missing(stream, shard.id),
        error => error.into(),
    };
    // Before there is room for it: who reads what is here does not wait for who reads an archive.
    kinesis.log.fetch(shard.uid, iterator.from).await.map_err(missing)?;
    // A reply that its reader does not take holds its room, and a read without room is not begun.
    let room = kinesis.replies.reserve().await.ok_or_else(|| rate_exceeded(stream, shard))?;
    let page = kinesis.log.read(shard.uid, iterator.from, limit).await.map_err(missing)?;
    let bytes = page.frames.iter().map(Frame::size_bytes).sum();
    kinesis.count_read(shard, bytes);
    let next = ShardIterator { from: page.next, issued: now, ..iterator };
    // The last page of a closed shard has no place after it. One that is sealed and not closed yet has
    // no children to go on with, so its readers come back.
    let ended = !shard.is_open() && page.tail.sealed && page.next >= page.tail.end;
    let next = (!ended).then(|| next.seal(&kinesis.sealer, call.scope()));
    let records = page.len() as u64;
    let newest = page.frames.last().map(|frame| now.since(frame.arrival()).as_millis() as u64);
    let age = newest.unwrap_or_else(|| millis_behind(&page, now));
    let around = Page {
        shard,
        behind_ms: millis_behind(&page, now),
        next: next.as_deref().map(|next| ("NextShardIterator", next)),
        children: ended.then(|| shards::children(stream, shard)),
    };
    let reply = around.reply(page.frames, call.format, room)?;
    kinesis.meters.read(stream, shard.id, records, bytes as u64, age);
    kinesis.totals.records_read.increment(records);
    Ok(reply)
}

/// How long ago the newest record of the page arrived, if there are later ones.
pub(crate) fn millis_behind(page: &ReadPage, now: Timestamp) -> u64 {
    if page.next >= page.tail.end {
        return 0;
    }
    let newest = page.frames.last().map_or(page.next.time(), Frame::arrival);
    now.as_millis().saturating_sub(newest.as_millis())
}
