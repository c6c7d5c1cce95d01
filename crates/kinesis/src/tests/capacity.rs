//! Capacity modes, warm throughput, and on-demand streams that scale by what they take.

use hydrant_core::catalog::Held;

use super::*;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";

fn held(world: &World) -> Held {
    world.kinesis.catalog.get(&world.scope, &"s".parse().unwrap()).unwrap()
}

async fn settle(world: &World) {
    world.clock.advance(Duration::from_millis(20));
    world.kinesis.settle().await;
    world.kinesis.settle().await;
}

async fn on_demand(world: &World) {
    let details = json!({ "StreamMode": "ON_DEMAND" });
    world.ok("CreateStream", json!({ "StreamName": "s", "StreamModeDetails": details })).await;
    world.kinesis.settle().await;
    settle(world).await;
}

fn switch(to: &str) -> Value {
    json!({ "StreamARN": ARN, "StreamModeDetails": { "StreamMode": to } })
}

fn warm(mibps: u32) -> Value {
    json!({ "StreamARN": ARN, "WarmThroughputMiBps": mibps })
}

async fn commit(world: &World) {
    let on = json!({ "Status": "ENABLED" });
    let body = json!({ "MinimumThroughputBillingCommitment": on });
    world.ok("UpdateAccountSettings", body).await;
}

async fn summary(world: &World) -> Value {
    let reply = world.ok("DescribeStreamSummary", json!({ "StreamName": "s" })).await;
    reply["StreamDescriptionSummary"].clone()
}

// shows: UpdateStreamMode
#[tokio::test]
async fn a_mode_is_switched_and_the_shards_stay() {
    let world = World::new().await;
    world.create("s", 3).await;
    assert_eq!(world.ok("UpdateStreamMode", switch("PROVISIONED")).await, Value::Null);
    assert_eq!(summary(&world).await["StreamStatus"], "ACTIVE", "it is so already");
    world.ok("UpdateStreamMode", switch("ON_DEMAND")).await;
    let seen = summary(&world).await;
    assert_eq!(seen["StreamStatus"], "UPDATING");
    assert_eq!(seen["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
    assert_eq!(seen["OpenShardCount"], 3);
    assert_eq!(
        world.no("UpdateStreamMode", switch("PROVISIONED")).await,
        error(
            "ResourceInUseException",
            "Stream s under account 000000000000 not ACTIVE, instead in state UPDATING"
        )
    );
    settle(&world).await;
    let refused = error(
        "ValidationException",
        "Request is invalid. Stream s under account 000000000000 is in On-Demand mode.",
    );
    let split = json!({ "StreamName": "s", "ShardToSplit": "0", "NewStartingHashKey": "2" });
    let merge = json!({ "StreamName": "s", "ShardToMerge": "0", "AdjacentShardToMerge": "1" });
    let scale =
        json!({ "StreamName": "s", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING" });
    for (operation, body) in
        [("SplitShard", split), ("MergeShards", merge), ("UpdateShardCount", scale)]
    {
        assert_eq!(world.no(operation, body).await, refused);
    }
    world.ok("UpdateStreamMode", switch("PROVISIONED")).await;
    settle(&world).await;
    assert_eq!(summary(&world).await["OpenShardCount"], 3);
    let (code, text) = world.no("UpdateStreamMode", json!({})).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("'streamModeDetails'") && text.contains("'streamARN'"), "{text}");
    let (code, text) = world.no("UpdateStreamMode", switch("FAST")).await;
    assert_eq!(code, "ValidationException");
    assert!(
        text.ends_with("Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]"),
        "{text}"
    );
}

// shows: limit:mode-switches
#[tokio::test]
async fn by_awss_limits_a_mode_is_switched_twice_a_day() {
    let world = World::under_aws_limits().await;
    world.create("s", 1).await;
    for to in ["ON_DEMAND", "PROVISIONED"] {
        world.ok("UpdateStreamMode", switch(to)).await;
        settle(&world).await;
    }
    let (code, text) = world.no("UpdateStreamMode", switch("ON_DEMAND")).await;
    assert_eq!(code, "LimitExceededException");
    assert!(text.contains("at most 2 times"), "{text}");
    world.clock.advance(Duration::from_secs(24 * 3600));
    world.ok("UpdateStreamMode", switch("ON_DEMAND")).await;
}

// shows: UpdateStreamWarmThroughput, limit:warm-throughput
#[tokio::test]
async fn an_on_demand_stream_is_warmed_and_let_cool() {
    let world = World::new().await;
    on_demand(&world).await;
    assert_eq!(summary(&world).await.get("WarmThroughput"), None);
    let (code, text) = world.no("UpdateStreamWarmThroughput", warm(10)).await;
    assert_eq!(code, "ValidationException");
    assert!(text.starts_with("Account 000000000000 is not enabled for minimum"), "{text}");
    commit(&world).await;
    let reply = world.ok("UpdateStreamWarmThroughput", warm(10)).await;
    let shown =
        |target: u32, current: u32| json!({ "TargetMiBps": target, "CurrentMiBps": current });
    assert_eq!(
        reply,
        json!({ "StreamARN": ARN, "StreamName": "s", "WarmThroughput": shown(10, 4) })
    );
    assert_eq!(summary(&world).await["StreamStatus"], "UPDATING");
    settle(&world).await;
    assert_eq!(summary(&world).await["WarmThroughput"], shown(10, 10));
    world.ok("UpdateStreamWarmThroughput", warm(1)).await;
    settle(&world).await;
    assert_eq!(summary(&world).await["WarmThroughput"], shown(1, 4));
    assert_eq!(
        world.no("UpdateStreamWarmThroughput", warm(10_241)).await.0,
        "LimitExceededException"
    );
    assert_eq!(world.no("UpdateStreamWarmThroughput", warm(51)).await.0, "LimitExceededException");
    world.ok("UpdateStreamMode", switch("PROVISIONED")).await;
    settle(&world).await;
    assert_eq!(summary(&world).await.get("WarmThroughput"), None);
    assert_eq!(
        world.no("UpdateStreamWarmThroughput", warm(5)).await,
        error(
            "ValidationException",
            "Request is invalid. Stream s under account 000000000000 is in Provisioned mode."
        )
    );
    let mut both = switch("ON_DEMAND");
    both["WarmThroughputMiBps"] = json!(6);
    world.ok("UpdateStreamMode", both).await;
    settle(&world).await;
    assert_eq!(summary(&world).await["WarmThroughput"], shown(6, 6));
}

// shows: limit:on-demand-start
#[tokio::test]
async fn a_stream_is_warm_from_the_start() {
    let world = World::new().await;
    let details = json!({ "StreamMode": "ON_DEMAND" });
    let body = json!({ "StreamName": "s", "StreamModeDetails": details, "WarmThroughputMiBps": 7 });
    assert_eq!(world.no("CreateStream", body.clone()).await.0, "ValidationException");
    commit(&world).await;
    world.ok("CreateStream", body).await;
    world.kinesis.settle().await;
    settle(&world).await;
    let shown = json!({ "TargetMiBps": 7, "CurrentMiBps": 7 });
    assert_eq!(summary(&world).await["WarmThroughput"], shown);
    let body = json!({ "StreamName": "t", "ShardCount": 1, "WarmThroughputMiBps": 7 });
    let text = "WarmThroughputMiBps must not be specified for a stream in PROVISIONED mode.";
    assert_eq!(world.no("CreateStream", body).await, error("ValidationException", text));
}

#[tokio::test]
async fn an_on_demand_stream_gets_shards_for_what_it_takes() {
    let world = World::new().await;
    on_demand(&world).await;
    assert_eq!(world.kinesis.scale().await, None, "nothing to measure");
    let stream = held(&world).stream;
    // Ten seconds of 3,000 records a second, all but a few into one shard.
    world.kinesis.count_load(&stream, &stream.shards[1], 29_000, 0);
    world.kinesis.count_load(&stream, &stream.shards[2], 1_000, 0);
    let end = world.clock.now().plus(Duration::from_secs(10));
    assert_eq!(world.kinesis.scale().await, Some(end));
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.kinesis.scale().await, None);
    assert_eq!(summary(&world).await["StreamStatus"], "UPDATING");
    settle(&world).await;
    let held = held(&world);
    assert_eq!(held.open_shards(), 6, "twice what 3,000 records a second need");
    let closed: Vec<_> = held.stream.shards.iter().filter(|s| !s.is_open()).collect();
    assert_eq!(closed[0].id.0, 1, "the one that took them");
    assert!(closed.iter().all(|s| s.id.0 == 1 || s.id.0 > 3));
    // A provisioned stream is not measured, and a quiet one keeps what it has.
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.kinesis.scale().await, None);
    world.create("t", 1).await;
    world.put("t", "a", "1").await;
    assert_eq!(world.kinesis.scale().await, None);
    world.put("s", "a", "1").await;
    assert!(world.kinesis.scale().await.is_some());
}

#[tokio::test]
async fn a_stream_is_not_scaled_beyond_what_its_account_may_have() {
    let world = World::new().await;
    on_demand(&world).await;
    let stream = held(&world).stream;
    world.kinesis.count_load(&stream, &stream.shards[0], 10_000_000, 0);
    world.clock.advance(Duration::from_secs(10));
    world.kinesis.scale().await;
    settle(&world).await;
    assert_eq!(held(&world).open_shards(), 50);
}
