//! `UpdateShardCount`: as many shards of one size as are asked for.

use std::time::Duration;

use bytes::Bytes;
use hydrant_core::catalog::{Shard, Stream};
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Text};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::create_stream::SHARD_COUNT_MAX;
use crate::Kinesis;
use crate::error::Error;
use crate::reshard::plan::Plan;
use crate::reshard::{Wanted, check_provisioned};
use crate::streams::{Named, check_active};
use crate::validate::Checks;

/// Calls that change a stream in [`SCALINGS_WINDOW`], where AWS's rates hold (AWS).
const SCALINGS_MAX: usize = 10;
const SCALINGS_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Most shards of a stream (AWS).
const TARGET_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    target_shard_count: Option<Integer>,
    #[serde(borrow)]
    scaling_type: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    stream_name: String,
    current_shard_count: usize,
    target_shard_count: usize,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("scalingType", request.scaling_type.as_ref());
    checks.one_of("scalingType", request.scaling_type.as_ref(), &["UNIFORM_SCALING"]);
    checks.stream(&named);
    checks.required("targetShardCount", request.target_shard_count.as_ref());
    checks.number("targetShardCount", request.target_shard_count, 1, SHARD_COUNT_MAX);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    // In range: the checks above have passed.
    let target = request.target_shard_count.map_or(1, |n| n.0 as usize);
    let reply = Mutex::new(None);
    let decide = || {
        let found = kinesis.find(&id)?;
        let stream = &found.held.stream;
        check_provisioned(stream)?;
        let open: Vec<&Shard> = (0..).map_while(|n| found.held.open_shard(n)).collect();
        check_target(open.len(), target, TARGET_MAX.min(kinesis.shard_limit(&id.scope) as usize))?;
        check_active(&found)?;
        kinesis.check_shards(&id.scope, target.saturating_sub(open.len()) as u32)?;
        *reply.lock() = Some(Reply {
            stream_name: stream.name.to_string(),
            current_shard_count: open.len(),
            target_shard_count: target,
            stream_arn: stream.arn().to_string(),
        });
        let plan = Plan::uniform(stream, &open, target as u32);
        if plan.is_empty() {
            return Ok(None);
        }
        let mut next = Stream::clone(stream);
        let now = kinesis.clock.now();
        next.capacity.scalings.retain(|at| now.since(*at) < SCALINGS_WINDOW);
        if kinesis.limited() && next.capacity.scalings.len() >= SCALINGS_MAX {
            return Err(Error::LimitExceeded(format!(
                "Rate exceeded for stream {} under account {}. UpdateShardCount can be called at most \
                 {SCALINGS_MAX} times per rolling 24-hour period per stream.",
                stream.name, stream.scope.account
            )));
        }
        next.capacity.scalings.push(now);
        let surplus = next.capacity.scalings.len().saturating_sub(SCALINGS_MAX);
        next.capacity.scalings.drain(..surplus);
        Ok(Some(Wanted { next, seen: found.held.version, plan }))
    };
    kinesis.reshard(&id, decide).await?;
    let reply = reply.into_inner();
    Ok(call.write(&reply.ok_or_else(|| id.not_found())?)?)
}

fn check_target(open: usize, target: usize, limit: usize) -> Result<(), Error> {
    let counts = format!("Current open shard count: {open}, Target shard count: {target}");
    let wrong = if target > limit {
        format!("Target shard count or number of open shards cannot be greater than {limit}.")
    } else if target > open * 2 {
        "UpdateShardCount cannot scale up over double your current open shard count.".to_owned()
    } else if target * 2 < open {
        "UpdateShardCount cannot scale down below half your current open shard count.".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::LimitExceeded(format!("{wrong} {counts}")))
}
