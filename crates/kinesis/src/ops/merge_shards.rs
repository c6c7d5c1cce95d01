//! `MergeShards`: two shards that lie side by side make way for one.

use bytes::Bytes;
use hydrant_core::catalog::Stream;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::Deserialize;

use super::split_shard::closed;
use crate::Kinesis;
use crate::error::Error;
use crate::reshard::plan::Plan;
use crate::reshard::{Wanted, check_provisioned};
use crate::shards::{shard_id, unknown};
use crate::streams::{Named, check_active};
use crate::validate::{Checks, SHARD_ID};

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
    shard_to_merge: Option<Text<'a>>,
    #[serde(borrow)]
    adjacent_shard_to_merge: Option<Text<'a>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let texts = [request.shard_to_merge.as_ref(), request.adjacent_shard_to_merge.as_ref()];
    let mut checks = Checks::new();
    for (at, text) in ["shardToMerge", "adjacentShardToMerge"].into_iter().zip(texts) {
        checks.required(at, text);
        checks.text(at, text, &SHARD_ID);
    }
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let missing = |text: &str| unknown(text, &id.scope, id.name.as_str());
    let parse = |text: Option<&Text<'_>>| {
        let text = text.map(|text| &**text).unwrap_or_default();
        shard_id(text).map_err(|_| missing(text))
    };
    let [first, second] = texts.map(parse);
    let (first, second) = (first?, second?);
    let decide = || {
        let found = kinesis.find(&id)?;
        let stream = &found.held.stream;
        check_provisioned(stream)?;
        let find = |id| stream.shard(id).ok_or_else(|| missing(&id.to_string()));
        let (first, second) = (find(first)?, find(second)?);
        if let Some(shard) = [first, second].into_iter().find(|s| !s.is_open()) {
            return Err(closed(stream, shard));
        }
        if first.range.end.0.checked_add(1) != Some(second.range.start.0) {
            return Err(Error::InvalidArgument(format!(
                "Shards {} and {} in stream {} under account {} are not an adjacent pair of shards \
                 eligible for merging",
                first.id, second.id, stream.name, stream.scope.account
            )));
        }
        check_active(&found)?;
        let plan = Plan::merge(stream, first, second);
        Ok(Some(Wanted { next: Stream::clone(stream), seen: found.held.version, plan }))
    };
    kinesis.reshard(&id, decide).await?;
    Ok(Bytes::new())
}
