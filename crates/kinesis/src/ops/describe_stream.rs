//! `DescribeStream`: what is known of a stream, with its shards page by page.

use bytes::Bytes;
use hydrant_core::catalog::{Shard, StreamStatus};
use hydrant_wire::Call;
use hydrant_wire::shape::{Epoch, Integer, Text};
use serde::{Deserialize, Serialize};

use super::StreamModeDetails;
use crate::Kinesis;
use crate::error::Error;
use crate::expiry::is_expired;
use crate::monitoring::{self, EnhancedMetrics};
use crate::shards::{ShardReply, shard_id};
use crate::streams::Named;
use crate::validate::{Checks, SHARD_ID};

/// Most shards in one reply, and the default (AWS).
const SHARDS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    limit: Option<Integer>,
    #[serde(borrow)]
    exclusive_start_shard_id: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    stream_description: Description,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeDetails,
    shards: Vec<ShardReply>,
    has_more_shards: bool,
    retention_period_hours: u32,
    stream_creation_timestamp: Epoch,
    enhanced_monitoring: [EnhancedMetrics; 1],
    encryption_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.number("limit", request.limit, 1, 10_000);
    let after = request.exclusive_start_shard_id.as_ref();
    checks.text("exclusiveStartShardId", after, &SHARD_ID);
    checks.stream(&named);
    checks.finish()?;
    let after = after.map(|text| exclusive_start(text)).transpose()?;
    let id = kinesis.named(call, &named)?;
    let found = kinesis.find(&id)?;
    let stream = &found.held.stream;
    let limit = request.limit.map_or(SHARDS_MAX, |n| (n.0 as usize).min(SHARDS_MAX));
    // AWS shows no shard before the stream is active.
    let shown = found.status != StreamStatus::Creating;
    let now = kinesis.clock.now();
    let shown =
        |s: &&Shard| shown && !is_expired(stream, s, now) && after.is_none_or(|id| s.id > id);
    let mut rest = stream.shards.iter().filter(shown);
    let shards: Vec<ShardReply> = rest.by_ref().take(limit).map(ShardReply::from).collect();
    let (encryption_type, key_id) = kinesis.encryption_shown(stream);
    Ok(call.write(&Reply {
        stream_description: Description {
            stream_name: stream.name.to_string(),
            stream_arn: stream.arn().to_string(),
            stream_status: found.status.as_str(),
            stream_mode_details: stream.mode.into(),
            shards,
            has_more_shards: rest.next().is_some(),
            retention_period_hours: stream.retention_hours,
            stream_creation_timestamp: Epoch(stream.created),
            enhanced_monitoring: monitoring::shown(stream),
            encryption_type,
            key_id,
        },
    })?)
}

/// `ExclusiveStartShardId`, which names a number, whether or not there is such a shard.
pub(super) fn exclusive_start(text: &str) -> Result<hydrant_core::catalog::ShardId, Error> {
    shard_id(text).map_err(|_| {
        Error::InvalidArgument(format!("ExclusiveStartShardId {text} is not a valid shard id."))
    })
}
