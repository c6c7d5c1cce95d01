//! `UpdateStreamWarmThroughput`: an on-demand stream gets its shards ahead of its records.

use bytes::Bytes;
use hydrant_core::catalog::{Held, Shard, Stream, StreamMode};
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Text};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::create_stream::ON_DEMAND_SHARDS;
use crate::Kinesis;
use crate::error::Error;
use crate::reshard::Wanted;
use crate::reshard::plan::Plan;
use crate::streams::{Named, check_active};
use crate::validate::Checks;

/// Most that a stream can be told to be ready for (AWS: 10 GiB/s), in MiB/s.
const WARM_MIBPS_MAX: i64 = 10 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(rename = "WarmThroughputMiBps")]
    warm_throughput: Option<Integer>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_name: String,
    warm_throughput: WarmThroughput,
}

/// `WarmThroughputObject` of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WarmThroughput {
    #[serde(rename = "TargetMiBps")]
    target: u32,
    #[serde(rename = "CurrentMiBps")]
    current: u32,
}

impl WarmThroughput {
    /// That of a stream, if it was ever set: what its open shards are good for, at 1 MiB/s each.
    pub(super) fn of(stream: &Stream, open: usize) -> Option<Self> {
        let target = stream.capacity.warm_mibps?;
        Some(Self { target, current: u32::try_from(open).unwrap_or(u32::MAX) })
    }
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("warmThroughputMiBps", request.warm_throughput.as_ref());
    checks.number("warmThroughputMiBps", request.warm_throughput, 0, i64::from(i32::MAX));
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    kinesis.find(&id)?;
    let mibps = check_amount(request.warm_throughput.unwrap_or(Integer(0)))?;
    kinesis.check_committed(&id.scope).await?;
    let reply = Mutex::new(None);
    let decide = || {
        let found = kinesis.find(&id)?;
        let stream = &found.held.stream;
        if stream.mode != StreamMode::OnDemand {
            return Err(not_on_demand(stream));
        }
        check_active(&found)?;
        let mut next = Stream::clone(stream);
        let plan = apply(kinesis, &found.held, &mut next, mibps)?;
        *reply.lock() = WarmThroughput::of(&next, found.held.open_shards()).map(|shown| Reply {
            stream_arn: stream.arn().to_string(),
            stream_name: stream.name.to_string(),
            warm_throughput: shown,
        });
        Ok(Some(Wanted { next, seen: found.held.version, plan }))
    };
    kinesis.reshard(&id, decide).await?;
    let reply = reply.into_inner();
    Ok(call.write(&reply.ok_or_else(|| id.not_found())?)?)
}

/// Notes what a stream is to be ready for, and has it get as many shards, at 1 MiB/s each: fewer too,
/// but never fewer than a new stream has.
pub(super) fn apply(
    kinesis: &Kinesis,
    held: &Held,
    next: &mut Stream,
    mibps: u32,
) -> Result<Plan, Error> {
    next.capacity.warm_mibps = Some(mibps);
    let open: Vec<&Shard> = (0..).map_while(|n| held.open_shard(n)).collect();
    let count = shards_for(mibps);
    let more = count.saturating_sub(open.len() as u32);
    kinesis.check_shards(&held.stream.scope, more)?;
    Ok(Plan::uniform(&held.stream, &open, count))
}

/// The shards that take so much: 1 MiB/s each, and never fewer than a new stream has.
pub(super) fn shards_for(mibps: u32) -> u32 {
    mibps.max(ON_DEMAND_SHARDS)
}

/// The amount, if a stream may be that ready.
pub(super) fn check_amount(Integer(mibps): Integer) -> Result<u32, Error> {
    u32::try_from(mibps).ok().filter(|_| mibps <= WARM_MIBPS_MAX).ok_or_else(|| {
        Error::LimitExceeded(format!(
            "WarmThroughputMiBps {mibps} is more than the {WARM_MIBPS_MAX} MiBps that an on-demand \
             stream can be scaled to."
        ))
    })
}

/// Only on-demand streams have a warm throughput.
pub(super) fn not_on_demand(stream: &Stream) -> Error {
    Error::Validation(format!(
        "Request is invalid. Stream {} under account {} is in Provisioned mode.",
        stream.name, stream.scope.account
    ))
}
