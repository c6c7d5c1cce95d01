//! `DescribeLimits`: how many shards and streams there are and may be.

use bytes::Bytes;
use hydrant_core::catalog::StreamMode;
use hydrant_wire::Call;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::Kinesis;
use crate::error::Error;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    shard_limit: u32,
    open_shard_count: u32,
    on_demand_stream_count: u32,
    on_demand_stream_count_limit: u32,
    channel_count: u32,
    channel_count_limit: u32,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    call.read::<IgnoredAny>()?;
    kinesis.allow_call(call, None)?;
    let streams = kinesis.streams(call.scope());
    let on_demand = streams.iter().filter(|s| s.mode == StreamMode::OnDemand).count();
    Ok(call.write(&Reply {
        shard_limit: kinesis.shard_limit(call.scope()),
        open_shard_count: kinesis.open_shards(call.scope()),
        on_demand_stream_count: u32::try_from(on_demand).unwrap_or(u32::MAX),
        on_demand_stream_count_limit: kinesis.on_demand_limit(call.scope()),
        // hydrant has no channels.
        channel_count: 0,
        channel_count_limit: 0,
    })?)
}
