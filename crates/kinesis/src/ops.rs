//! The operations, one file each, named as AWS names them.

mod add_tags_to_stream;
pub(crate) mod create_stream;
mod decrease_stream_retention_period;
mod delete_resource_policy;
mod delete_stream;
mod deregister_stream_consumer;
mod describe_account_settings;
mod describe_limits;
mod describe_stream;
mod describe_stream_consumer;
mod describe_stream_summary;
mod disable_enhanced_monitoring;
mod enable_enhanced_monitoring;
pub(crate) mod get_records;
mod get_resource_policy;
mod get_shard_iterator;
mod increase_stream_retention_period;
mod list_shards;
mod list_stream_consumers;
mod list_streams;
mod list_tags_for_resource;
mod list_tags_for_stream;
mod merge_shards;
mod put_record;
mod put_records;
mod put_resource_policy;
mod register_stream_consumer;
mod remove_tags_from_stream;
mod split_shard;
mod start_stream_encryption;
mod stop_stream_encryption;
mod subscribe_to_shard;
mod tag_resource;
mod untag_resource;
mod update_account_settings;
mod update_max_record_size;
mod update_shard_count;
mod update_stream_mode;
mod update_stream_record_distribution_strategy;
mod update_stream_warm_throughput;

pub(crate) use self::create_stream::ON_DEMAND_SHARDS;
use hydrant_wire::{Call, Reply};
use serde::Serialize;

use crate::Kinesis;
use crate::error::Error;

/// What the API has (as of November 2026) beyond the operations of this crate.
const UNSUPPORTED: &[&str] = &[
    "AcknowledgeDeadLetterQueueRecords",
    "AcknowledgeQueueRecords",
    "CreateChannel",
    "CreateQueue",
    "DeleteChannel",
    "DeleteQueue",
    "DescribeChannel",
    "DescribeQueue",
    "ListChannels",
    "ListQueues",
    "ReceiveDeadLetterQueueRecords",
    "ReceiveQueueRecords",
    "RestoreDeadLetterQueueRecords",
    "UpdateChannel",
    "UpdateDeadLetterQueueRecordsVisibility",
    "UpdateQueue",
    "UpdateQueueRecordsVisibility",
];

/// Runs the operation of that name.
pub(crate) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Reply, Error> {
    let whole = match call.operation.as_str() {
        "PutRecords" => put_records::run(kinesis, call).await,
        "PutRecord" => put_record::run(kinesis, call).await,
        "GetRecords" => return get_records::run(kinesis, call).await,
        "GetShardIterator" => get_shard_iterator::run(kinesis, call).await,
        "AddTagsToStream" => add_tags_to_stream::run(kinesis, call).await,
        "CreateStream" => create_stream::run(kinesis, call).await,
        "DecreaseStreamRetentionPeriod" => {
            decrease_stream_retention_period::run(kinesis, call).await
        }
        "DeleteResourcePolicy" => delete_resource_policy::run(kinesis, call).await,
        "DeleteStream" => delete_stream::run(kinesis, call).await,
        "DeregisterStreamConsumer" => deregister_stream_consumer::run(kinesis, call).await,
        "DescribeAccountSettings" => describe_account_settings::run(kinesis, call).await,
        "DescribeLimits" => describe_limits::run(kinesis, call),
        "DescribeStream" => describe_stream::run(kinesis, call),
        "DescribeStreamConsumer" => describe_stream_consumer::run(kinesis, call),
        "DescribeStreamSummary" => describe_stream_summary::run(kinesis, call),
        "DisableEnhancedMonitoring" => disable_enhanced_monitoring::run(kinesis, call).await,
        "EnableEnhancedMonitoring" => enable_enhanced_monitoring::run(kinesis, call).await,
        "GetResourcePolicy" => get_resource_policy::run(kinesis, call),
        "IncreaseStreamRetentionPeriod" => {
            increase_stream_retention_period::run(kinesis, call).await
        }
        "ListShards" => list_shards::run(kinesis, call),
        "ListStreamConsumers" => list_stream_consumers::run(kinesis, call),
        "ListStreams" => list_streams::run(kinesis, call),
        "ListTagsForResource" => list_tags_for_resource::run(kinesis, call),
        "ListTagsForStream" => list_tags_for_stream::run(kinesis, call),
        "MergeShards" => merge_shards::run(kinesis, call).await,
        "PutResourcePolicy" => put_resource_policy::run(kinesis, call).await,
        "RegisterStreamConsumer" => register_stream_consumer::run(kinesis, call).await,
        "RemoveTagsFromStream" => remove_tags_from_stream::run(kinesis, call).await,
        "SplitShard" => split_shard::run(kinesis, call).await,
        "StartStreamEncryption" => start_stream_encryption::run(kinesis, call).await,
        "StopStreamEncryption" => stop_stream_encryption::run(kinesis, call).await,
        "SubscribeToShard" => return subscribe_to_shard::run(kinesis, call).await,
        "TagResource" => tag_resource::run(kinesis, call).await,
        "UntagResource" => untag_resource::run(kinesis, call).await,
        "UpdateAccountSettings" => update_account_settings::run(kinesis, call).await,
        "UpdateMaxRecordSize" => update_max_record_size::run(kinesis, call).await,
        "UpdateShardCount" => update_shard_count::run(kinesis, call).await,
        "UpdateStreamMode" => update_stream_mode::run(kinesis, call).await,
        "UpdateStreamWarmThroughput" => update_stream_warm_throughput::run(kinesis, call).await,
        "UpdateStreamRecordDistributionStrategy" => {
            update_stream_record_distribution_strategy::run(kinesis, call).await
        }
        other if UNSUPPORTED.contains(&other) => {
            Err(Error::UnsupportedOperation(format!("hydrant does not support {other}.")))
        }
        _ => Err(Error::UnknownOperation),
    };
    whole.map(Reply::from)
}

/// `StreamModeDetails` of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamModeDetails {
    stream_mode: &'static str,
}

impl From<hydrant_core::catalog::StreamMode> for StreamModeDetails {
    fn from(mode: hydrant_core::catalog::StreamMode) -> Self {
        use hydrant_core::catalog::StreamMode::{OnDemand, Provisioned};
        let stream_mode = match mode {
            Provisioned => "PROVISIONED",
            OnDemand => "ON_DEMAND",
        };
        Self { stream_mode }
    }
}
