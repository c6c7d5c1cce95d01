//! `DescribeStreamSummary`: what is known of a stream, without its shards.

use bytes::Bytes;
use hydrant_core::catalog::{StreamMode, StreamStatus};
use hydrant_wire::Call;
use hydrant_wire::shape::{Epoch, Text};
use serde::{Deserialize, Serialize};

use super::StreamModeDetails;
use super::update_stream_warm_throughput::WarmThroughput;
use crate::Kinesis;
use crate::distribution;
use crate::error::Error;
use crate::monitoring::{self, EnhancedMetrics};
use crate::streams::Named;
use crate::validate::Checks;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    stream_description_summary: Summary,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeDetails,
    retention_period_hours: u32,
    stream_creation_timestamp: Epoch,
    enhanced_monitoring: [EnhancedMetrics; 1],
    encryption_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    open_shard_count: usize,
    consumer_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_throughput: Option<WarmThroughput>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_distribution_strategy: Option<&'static str>,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let found = kinesis.find(&id)?;
    let stream = &found.held.stream;
    let shown = found.status != StreamStatus::Creating;
    let (encryption_type, key_id) = kinesis.encryption_shown(stream);
    Ok(call.write(&Reply {
        stream_description_summary: Summary {
            stream_name: stream.name.to_string(),
            stream_arn: stream.arn().to_string(),
            stream_status: found.status.as_str(),
            stream_mode_details: stream.mode.into(),
            retention_period_hours: stream.retention_hours,
            stream_creation_timestamp: Epoch(stream.created),
            enhanced_monitoring: monitoring::shown(stream),
            encryption_type,
            key_id,
            open_shard_count: if shown { found.held.open_shards() } else { 0 },
            warm_throughput: WarmThroughput::of(stream, found.held.open_shards()),
            consumer_count: stream.consumers(kinesis.clock.now()).count(),
            max_record_size: stream.settings.max_record_kib,
            record_distribution_strategy: (stream.mode == StreamMode::OnDemand)
                .then(|| distribution::name_of(stream.settings.distribution)),
        },
    })?)
}
