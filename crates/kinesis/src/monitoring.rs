//! Enhanced monitoring, as two operations change it: which metrics are also kept by shard.

use hydrant_core::catalog::{Stream, StreamState};
use hydrant_core::monitoring::ShardMetric;
use hydrant_wire::Call;
use hydrant_wire::shape::{List, Text};
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::error::Error;
use crate::streams::Named;
use crate::validate::Checks;

/// Most metrics of one call (the model's `MetricsNameList`).
const METRICS_MAX: usize = 7;
const ALL: &str = "ALL";

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
    shard_level_metrics: Option<List<Option<Text<'a>>>>,
}

/// What both operations answer.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Reply {
    stream_name: String,
    current_shard_level_metrics: Vec<&'static str>,
    desired_shard_level_metrics: Vec<&'static str>,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

/// `EnhancedMetrics` of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EnhancedMetrics {
    shard_level_metrics: Vec<&'static str>,
}

/// `EnhancedMonitoring` as descriptions show it.
pub(crate) fn shown(stream: &Stream) -> [EnhancedMetrics; 1] {
    [EnhancedMetrics { shard_level_metrics: names(&stream.settings.shard_metrics) }]
}

fn names(metrics: &[ShardMetric]) -> Vec<&'static str> {
    metrics.iter().map(|metric| metric.as_str()).collect()
}

/// Runs either operation: a stream whose metrics change is UPDATING for a moment, one whose metrics
/// are as asked for already is not touched.
pub(crate) async fn change(kinesis: &Kinesis, call: &Call, on: bool) -> Result<Reply, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    check(&mut checks, request.shard_level_metrics.as_ref());
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let asked: Vec<&str> = match &request.shard_level_metrics {
        Some(List(names)) => names.iter().flatten().map(|name| &**name).collect(),
        None => Vec::new(),
    };
    let is_asked = |metric: ShardMetric| asked.iter().any(|n| [ALL, metric.as_str()].contains(n));
    let decide = || {
        let held = kinesis.active(&id)?;
        let now = &held.stream.settings.shard_metrics;
        let keep = |metric: &ShardMetric| match is_asked(*metric) {
            true => on,
            false => now.contains(metric),
        };
        let next: Vec<ShardMetric> = ShardMetric::ALL.into_iter().filter(keep).collect();
        let reply = Reply {
            stream_name: id.name.to_string(),
            current_shard_level_metrics: names(now),
            desired_shard_level_metrics: names(&next),
            stream_arn: held.stream.arn().to_string(),
        };
        if next == *now {
            return Ok((reply, None));
        }
        let until = kinesis.clock.now().plus(kinesis.options.update_delay);
        let mut stream = Stream::clone(&held.stream);
        stream.state = StreamState::Updating(until);
        stream.settings.shard_metrics = next;
        Ok((reply, Some((stream, held.version))))
    };
    kinesis.change_and_tell(decide).await
}

fn check(checks: &mut Checks, list: Option<&List<Option<Text<'_>>>>) {
    let at = "shardLevelMetrics";
    checks.required(at, list);
    let Some(List(list)) = list else { return };
    let texts: Vec<&str> = list.iter().flatten().map(|name| &**name).collect();
    let value = format!("[{}]", texts.join(", "));
    if list.is_empty() {
        let constraint = "Member must have length greater than or equal to 1";
        checks.violated(at, Some(&value), constraint);
    }
    if list.len() > METRICS_MAX {
        let constraint = format!("Member must have length less than or equal to {METRICS_MAX}");
        checks.violated(at, Some(&value), &constraint);
    }
    let known = |text: &&str| *text == ALL || ShardMetric::ALL.iter().any(|m| m.as_str() == *text);
    if texts.len() < list.len() || !texts.iter().all(known) {
        let all = names(&ShardMetric::ALL).join(", ");
        let constraint = format!(
            "Member must satisfy constraint: [Member must satisfy enum value set: [{all}, {ALL}]]"
        );
        checks.violated(at, Some(&value), &constraint);
    }
}
