//! `SplitShard`: one shard makes way for two.

use bytes::Bytes;
use hydrant_core::catalog::{Shard, Stream};
use hydrant_core::hash::HashKey;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::Deserialize;

use crate::Kinesis;
use crate::error::Error;
use crate::reshard::plan::Plan;
use crate::reshard::{Wanted, check_provisioned};
use crate::shards::{shard_id, unknown};
use crate::streams::{Named, check_active};
use crate::validate::{Checks, HASH_KEY, SHARD_ID};

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
    shard_to_split: Option<Text<'a>>,
    #[serde(borrow)]
    new_starting_hash_key: Option<Text<'a>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    let key = request.new_starting_hash_key.as_ref();
    checks.required("newStartingHashKey", key);
    checks.text("newStartingHashKey", key, &HASH_KEY);
    checks.stream(&named);
    checks.required("shardToSplit", request.shard_to_split.as_ref());
    checks.text("shardToSplit", request.shard_to_split.as_ref(), &SHARD_ID);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let text = request.shard_to_split.as_deref().unwrap_or_default();
    let shard = shard_id(text).map_err(|_| unknown(text, &id.scope, id.name.as_str()))?;
    let key = key.map(|key| &**key).unwrap_or_default();
    let decide = || {
        let found = kinesis.find(&id)?;
        let stream = &found.held.stream;
        check_provisioned(stream)?;
        let missing = || unknown(&shard.to_string(), &id.scope, id.name.as_str());
        let shard = stream.shard(shard).ok_or_else(missing)?;
        kinesis.check_shards(&id.scope, 1)?;
        let at = split_key(stream, shard, key)?;
        if !shard.is_open() {
            return Err(closed(stream, shard));
        }
        check_active(&found)?;
        let plan = Plan::split(stream, shard, at);
        Ok(Some(Wanted { next: Stream::clone(stream), seen: found.held.version, plan }))
    };
    kinesis.reshard(&id, decide).await?;
    Ok(Bytes::new())
}

/// The key at which the second child begins: both children have at least two keys (AWS).
fn split_key(stream: &Stream, shard: &Shard, text: &str) -> Result<HashKey, Error> {
    let (start, end) = (shard.range.start, shard.range.end);
    let key: Option<HashKey> = text.parse().ok();
    let fits = |key: &HashKey| *key > start && key.0 - start.0 > 1 && *key < end;
    key.filter(fits).ok_or_else(|| {
        let (id, name, account) = (shard.id, &stream.name, &stream.scope.account);
        Error::InvalidArgument(format!(
            "NewStartingHashKey {text} used in SplitShard() on shard {id} in stream {name} under \
             account {account} is not both greater than one plus the shard's StartingHashKey {start} \
             and less than the shard's EndingHashKey {end}."
        ))
    })
}

/// AWS's text for a shard that has its children already.
pub(super) fn closed(stream: &Stream, shard: &Shard) -> Error {
    let (id, name, account) = (shard.id, &stream.name, &stream.scope.account);
    Error::InvalidArgument(format!(
        "Shard {id} in stream {name} under account {account} has already been merged or split, and \
         thus is not eligible for merging or splitting."
    ))
}
