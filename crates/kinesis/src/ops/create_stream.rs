//! `CreateStream`: a row that says CREATING, and shards that follow it.

use std::collections::BTreeMap;

use bytes::Bytes;
use hydrant_core::Random;
use hydrant_core::catalog::{
    Capacity, Shard, ShardId, Stream, StreamMode, StreamSettings, StreamState,
};
use hydrant_core::control::ControlError;
use hydrant_core::hash::HashRange;
use hydrant_core::limits::RETENTION_HOURS_MIN;
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Map, Structure, Text};
use serde::Deserialize;

use super::update_max_record_size::SIZES_KIB;
use super::update_stream_warm_throughput as warm;
use crate::Kinesis;
use crate::distribution;
use crate::error::Error;
use crate::lifecycle::NOT_YET;
use crate::streams::{Named, StreamKey};
use crate::tags;
use crate::validate::{Checks, STREAM_NAME};

/// Largest `ShardCount` that is a number of shards at all (AWS).
pub(super) const SHARD_COUNT_MAX: i64 = 100_000;
/// Shards of a new on-demand stream (AWS).
pub(crate) const ON_DEMAND_SHARDS: u32 = 4;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    shard_count: Option<Integer>,
    #[serde(borrow)]
    stream_mode_details: Option<Structure<ModeDetails<'a>>>,
    #[serde(borrow)]
    tags: Option<Map<'a, Option<Text<'a>>>>,
    #[serde(rename = "WarmThroughputMiBps")]
    warm_throughput: Option<Integer>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size: Option<Integer>,
    #[serde(borrow)]
    record_distribution_strategy: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ModeDetails<'a> {
    #[serde(borrow)]
    stream_mode: Option<Text<'a>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let (mode, mut shards) = check(&request)?;
    let warm = request.warm_throughput.map(warm::check_amount).transpose()?;
    let settings = settings(&request, mode)?;
    let named = Named { name: request.stream_name.as_ref(), arn: None, id: None };
    let id = kinesis.named(call, &named)?;
    let tags = tags::kept(request.tags)?;
    tags::check_count(&tags, &id)?;
    if let Some(mibps) = warm {
        kinesis.check_committed(&id.scope).await?;
        shards = warm::shards_for(mibps);
    }
    let capacity = Capacity { warm_mibps: warm, ..Capacity::default() };
    let with = |new| Stream { settings, capacity, tags, ..new };
    create(kinesis, &id, mode, shards, with).await?;
    Ok(Bytes::new())
}

/// Writes the row of a new stream, whose shards follow. `ResourceInUse` if there is one of the name.
pub(crate) async fn create(
    kinesis: &Kinesis,
    id: &StreamKey,
    mode: StreamMode,
    shards: u32,
    with: impl FnOnce(Stream) -> Stream,
) -> Result<(), Error> {
    clear_the_way(kinesis, id).await?;
    let _counted = kinesis.creating.lock().await;
    kinesis.check_streams(&id.scope, mode)?;
    kinesis.check_shards(&id.scope, shards)?;
    let new = new_stream(kinesis, id, mode, shards).await?;
    match kinesis.put(with(new), None).await {
        Ok(_) => Ok(()),
        Err(ControlError::Conflict { .. }) => Err(exists(id)),
        Err(e) => Err(e.into()),
    }
}

fn check(request: &Request<'_>) -> Result<(StreamMode, u32), Error> {
    let mode = request.stream_mode_details.as_ref().map(|d| d.0.stream_mode.as_ref());
    let on_demand = mode.flatten().is_some_and(|m| &**m == "ON_DEMAND");
    let mut checks = Checks::new();
    if !on_demand {
        checks.required("shardCount", request.shard_count.as_ref());
    }
    checks.number("shardCount", request.shard_count, 1, SHARD_COUNT_MAX);
    checks.required("streamName", request.stream_name.as_ref());
    checks.text("streamName", request.stream_name.as_ref(), &STREAM_NAME);
    if let Some(mode) = mode {
        checks.required("streamModeDetails.streamMode", mode);
        checks.one_of("streamModeDetails.streamMode", mode, &["PROVISIONED", "ON_DEMAND"]);
    }
    tags::check_map(&mut checks, request.tags.as_ref());
    checks.number("maxRecordSizeInKiB", request.max_record_size, SIZES_KIB.0, SIZES_KIB.1);
    let strategy = request.record_distribution_strategy.as_ref();
    checks.one_of("recordDistributionStrategy", strategy, &distribution::NAMES);
    checks.number("warmThroughputMiBps", request.warm_throughput, 0, i64::from(i32::MAX));
    checks.finish()?;
    if !on_demand && request.warm_throughput.is_some() {
        return Err(Error::Validation(
            "WarmThroughputMiBps must not be specified for a stream in PROVISIONED mode."
                .to_owned(),
        ));
    }
    match (on_demand, request.shard_count) {
        (true, Some(_)) => Err(Error::InvalidArgument(
            "ShardCount must not be specified for a stream in ON_DEMAND mode.".to_owned(),
        )),
        (true, None) => Ok((StreamMode::OnDemand, ON_DEMAND_SHARDS)),
        // In range: the checks above have passed.
        (false, count) => Ok((StreamMode::Provisioned, count.map_or(1, |n| n.0 as u32))),
    }
}

/// What the request sets, once it has passed the model's constraints.
fn settings(request: &Request<'_>, mode: StreamMode) -> Result<StreamSettings, Error> {
    let default = StreamSettings::default();
    let size = request.max_record_size.map_or(default.max_record_kib, |kib| kib.0 as u32);
    let distribution = match &request.record_distribution_strategy {
        Some(name) => distribution::checked(name, mode)?,
        None => default.distribution,
    };
    Ok(StreamSettings { max_record_kib: size, distribution, ..default })
}

/// A stream of this name must not be there, unless all that is left of it is its deletion.
async fn clear_the_way(kinesis: &Kinesis, id: &StreamKey) -> Result<(), Error> {
    let Some(held) = kinesis.catalog.get(&id.scope, &id.name) else { return Ok(()) };
    match held.stream.status(kinesis.clock.now()) {
        Some(_) => Err(exists(id)),
        None => kinesis.finish_deletion(&held).await,
    }
}

fn exists(StreamKey { scope, name }: &StreamKey) -> Error {
    let account = &scope.account;
    Error::ResourceInUse(format!("Stream {name} under account {account} already exists."))
}

async fn new_stream(
    kinesis: &Kinesis,
    id: &StreamKey,
    mode: StreamMode,
    shards: u32,
) -> Result<Stream, Error> {
    let uids = kinesis.catalog.allocate_shards(shards).await?;
    let created = kinesis.clock.now();
    let shards = HashRange::split_evenly(shards).into_iter().zip(uids).zip(0..);
    let shards = shards.map(|((range, uid), n)| Shard {
        id: ShardId(n),
        uid,
        range,
        created,
        parent: None,
        adjacent_parent: None,
        closed: None,
    });
    Ok(Stream {
        scope: id.scope.clone(),
        name: id.name.clone(),
        created,
        state: StreamState::Creating(NOT_YET),
        mode,
        retention_hours: RETENTION_HOURS_MIN,
        shards: shards.collect(),
        tags: BTreeMap::new(),
        id: stream_id(&kinesis.random),
        settings: StreamSettings::default(),
        capacity: Capacity::default(),
        consumers: Vec::new(),
    })
}

/// A new `StreamId`. (The documentation says nothing of what its characters mean.)
fn stream_id(random: &Random) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghijkmnpqrstvwxy";
    let drawn = random.bytes::<23>();
    let mut id: String = drawn.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect();
    id.insert(20, '-');
    id
}
