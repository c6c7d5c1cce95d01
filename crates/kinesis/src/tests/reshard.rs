//! Splits, merges and uniform scaling: states, refusals, readers, writers, and stops anywhere.

use futures::FutureExt;
use hydrant_core::catalog::Held;
use hydrant_core::log::LogError;
use hydrant_core::sequence::SequenceNumber;
use hydrant_testkit::FaultyControl;

use super::*;

const HALF: &str = "170141183460469231731687303715884105728";

async fn status(world: &World) -> Value {
    let reply = world.ok("DescribeStreamSummary", json!({ "StreamName": "s" })).await;
    reply["StreamDescriptionSummary"]["StreamStatus"].clone()
}

async fn settle(world: &World) {
    world.clock.advance(Duration::from_millis(20));
    world.kinesis.settle().await;
    world.kinesis.settle().await;
}

fn held(world: &World) -> Held {
    world.kinesis.catalog.get(&world.scope, &"s".parse().unwrap()).unwrap()
}

fn split(shard: &str, key: &str) -> Value {
    json!({ "StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": key })
}

fn merge(first: &str, second: &str) -> Value {
    json!({ "StreamName": "s", "ShardToMerge": first, "AdjacentShardToMerge": second })
}

fn scale(to: u32) -> Value {
    json!({ "StreamName": "s", "TargetShardCount": to, "ScalingType": "UNIFORM_SCALING" })
}

async fn list(world: &World, more: Value) -> Vec<Value> {
    let mut body = json!({ "StreamName": "s" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.ok("ListShards", body).await["Shards"].as_array().unwrap().clone()
}

/// Numbers of the shards that a filter shows.
async fn shown(world: &World, filter: Value) -> Vec<u32> {
    let shards = list(world, json!({ "ShardFilter": filter })).await;
    shards.iter().map(|s| s["ShardId"].as_str().unwrap()[8..].parse().unwrap()).collect()
}

fn number(shard: &Value, which: &str) -> SequenceNumber {
    shard["SequenceNumberRange"][which].as_str().unwrap().parse().unwrap()
}

// shows: SplitShard
#[tokio::test]
async fn a_split_is_updating_then_the_parent_is_closed_and_the_children_take_its_records() {
    let world = World::new().await;
    world.create("s", 1).await;
    let at = world.horizon("s", "0").await;
    assert_eq!(world.ok("SplitShard", split("shardId-000000000000", HALF)).await, Value::Null);
    assert_eq!(status(&world).await, "UPDATING");
    assert_eq!(list(&world, json!({})).await.len(), 1);
    let in_use = "Stream s under account 000000000000 not ACTIVE, instead in state UPDATING";
    for (operation, body) in [("SplitShard", split("0", "2")), ("UpdateShardCount", scale(2))] {
        assert_eq!(world.no(operation, body).await, error("ResourceInUseException", in_use));
    }
    // The parent takes records until it is closed, however long that is.
    world.clock.advance(Duration::from_secs(60));
    let (shard, parents) = world.put("s", "a", "to the parent").await;
    assert_eq!((shard.as_str(), status(&world).await), ("shardId-000000000000", json!("UPDATING")));
    settle(&world).await;
    assert_eq!(status(&world).await, "ACTIVE");

    let shards = list(&world, json!({})).await;
    assert_eq!(shards.len(), 3);
    assert_eq!(shards[1]["ParentShardId"], "shardId-000000000000");
    assert_eq!(shards[1].get("AdjacentParentShardId"), None);
    assert_eq!(shards[1]["HashKeyRange"]["StartingHashKey"], "0");
    assert_eq!(shards[2]["HashKeyRange"]["StartingHashKey"], HALF);
    let end = number(&shards[0], "EndingSequenceNumber");
    assert_eq!(end.index.0, 0x7fff_ffff_ffff_ffff);
    assert_eq!(end.record_s, world.clock.now().as_secs());
    let start = number(&shards[1], "StartingSequenceNumber");
    assert_eq!(start.shard_created_s, end.record_s + 1);
    assert_eq!(shards[1]["SequenceNumberRange"].get("EndingSequenceNumber"), None);
    let (shard, childs) = world.put("s", "a", "to a child").await;
    assert_eq!(shard, "shardId-000000000001");
    assert!(parents < childs, "{parents} {childs}");

    // The parent is read to its end, and says who follows.
    let reply = world.ok("GetRecords", json!({ "ShardIterator": at, "Limit": 1 })).await;
    assert_eq!(data_of(&reply["Records"][0]["Data"]), "to the parent");
    assert_eq!(reply.get("NextShardIterator"), None);
    let child = |n: usize, range: &Value| {
        json!({ "ShardId": format!("shardId-{n:012}"), "ParentShards": ["shardId-000000000000"],
                "HashKeyRange": range })
    };
    let ranges = [&shards[1]["HashKeyRange"], &shards[2]["HashKeyRange"]];
    assert_eq!(reply["ChildShards"], json!([child(1, ranges[0]), child(2, ranges[1])]));
    let at = world.horizon("s", "1").await;
    assert_eq!(world.read(&at, 10).await.0, ["to a child"]);
}

// shows: MergeShards
#[tokio::test]
async fn a_merge_has_two_parents() {
    let world = World::new().await;
    world.create("s", 3).await;
    world.ok("MergeShards", merge("shard-1", "2")).await;
    settle(&world).await;
    let shards = list(&world, json!({})).await;
    assert_eq!(shards[3]["ParentShardId"], "shardId-000000000001");
    assert_eq!(shards[3]["AdjacentParentShardId"], "shardId-000000000002");
    assert_eq!(
        shards[3]["HashKeyRange"]["StartingHashKey"],
        shards[1]["HashKeyRange"]["StartingHashKey"]
    );
    assert_eq!(
        shards[3]["HashKeyRange"]["EndingHashKey"],
        shards[2]["HashKeyRange"]["EndingHashKey"]
    );
    assert_eq!(held(&world).open_shards(), 2);
    for shard in ["1", "2"] {
        let at = world.horizon("s", shard).await;
        let reply = world.ok("GetRecords", json!({ "ShardIterator": at })).await;
        let parents = json!(["shardId-000000000001", "shardId-000000000002"]);
        assert_eq!(reply["ChildShards"][0]["ParentShards"], parents);
    }
}

// shows: SplitShard, MergeShards
#[tokio::test]
async fn what_cannot_be_split_or_merged_is_refused_in_awss_words() {
    let world = World::new().await;
    world.create("s", 3).await;
    let missing = |shard: &str, stream: &str| {
        let text =
            format!("Could not find shard {shard} in stream {stream} under account 000000000000.");
        error("ResourceNotFoundException", &text)
    };
    assert_eq!(
        world.no("SplitShard", split("shardId-5", "2")).await,
        missing("shardId-000000000005", "s")
    );
    assert_eq!(world.no("SplitShard", split("x", "2")).await, missing("x", "s"));
    assert_eq!(world.no("MergeShards", merge("0", "2147483648")).await, missing("2147483648", "s"));
    let body = json!({ "StreamName": "t", "ShardToSplit": "0", "NewStartingHashKey": "2" });
    let gone = error("ResourceNotFoundException", "Stream t under account 000000000000 not found.");
    assert_eq!(world.no("SplitShard", body).await, gone);
    let end = "113427455640312821154458202477256070484";
    for key in ["0", "1", end, "999999999999999999999999999999999999999"] {
        let text = format!(
            "NewStartingHashKey {key} used in SplitShard() on shard shardId-000000000000 in stream s \
             under account 000000000000 is not both greater than one plus the shard's StartingHashKey 0 \
             and less than the shard's EndingHashKey {end}."
        );
        assert_eq!(
            world.no("SplitShard", split("shard-0", key)).await,
            error("InvalidArgumentException", &text)
        );
    }
    for (first, second) in [("0", "2"), ("1", "0"), ("1", "1")] {
        let text = format!(
            "Shards shardId-00000000000{first} and shardId-00000000000{second} in stream s under \
             account 000000000000 are not an adjacent pair of shards eligible for merging"
        );
        assert_eq!(
            world.no("MergeShards", merge(first, second)).await,
            error("InvalidArgumentException", &text)
        );
    }
    world.ok("SplitShard", split("0", "2")).await;
    settle(&world).await;
    let text = "Shard shardId-000000000000 in stream s under account 000000000000 has already been \
                merged or split, and thus is not eligible for merging or splitting.";
    assert_eq!(
        world.no("SplitShard", split("0", "3")).await,
        error("InvalidArgumentException", text)
    );
    assert_eq!(
        world.no("MergeShards", merge("0", "1")).await,
        error("InvalidArgumentException", text)
    );
    let empty = json!({ "StreamName": "s", "ShardToSplit": "", "NewStartingHashKey": "" });
    let (code, text) = world.no("SplitShard", empty).await;
    assert_eq!(code, "ValidationException");
    assert!(
        text.starts_with("3 validation errors detected: Value '' at 'newStartingHashKey'"),
        "{text}"
    );
}

// shows: UpdateShardCount, limit:scaling-range
#[tokio::test]
async fn uniform_scaling_has_limits() {
    let world = World::new().await;
    world.create("s", 4).await;
    let limit = |text: &str, to: u32| {
        let text = format!("{text} Current open shard count: 4, Target shard count: {to}");
        error("LimitExceededException", &text)
    };
    let over = "UpdateShardCount cannot scale up over double your current open shard count.";
    assert_eq!(world.no("UpdateShardCount", scale(9)).await, limit(over, 9));
    let below = "UpdateShardCount cannot scale down below half your current open shard count.";
    assert_eq!(world.no("UpdateShardCount", scale(1)).await, limit(below, 1));
    let most = "Target shard count or number of open shards cannot be greater than 50.";
    assert_eq!(world.no("UpdateShardCount", scale(51)).await, limit(most, 51));
    // Already so: nothing to do, and it does not count.
    let same = world.ok("UpdateShardCount", scale(4)).await;
    assert_eq!(same["CurrentShardCount"], 4);
    assert_eq!(status(&world).await, "ACTIVE");
    let reply = world.ok("UpdateShardCount", scale(7)).await;
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    assert_eq!(
        reply,
        json!({ "StreamName": "s", "StreamARN": arn, "CurrentShardCount": 4, "TargetShardCount": 7 })
    );
}

// shows: limit:scaling-times
#[tokio::test]
async fn uniform_scaling_is_free_by_default_and_ten_times_a_day_by_awss_limits() {
    for (world, most) in [(World::new().await, 12), (World::under_aws_limits().await, 10)] {
        world.create("s", 4).await;
        for n in 0..most {
            let to = if n % 2 == 0 { 7 } else { 4 };
            world.ok("UpdateShardCount", scale(to)).await;
            settle(&world).await;
            assert_eq!(held(&world).open_shards() as u32, to);
        }
        if most == 10 {
            let (code, text) = world.no("UpdateShardCount", scale(5)).await;
            assert_eq!(code, "LimitExceededException");
            assert!(text.contains("at most 10 times"), "{text}");
        }
        world.clock.advance(Duration::from_secs(24 * 3600));
        world.ok("UpdateShardCount", scale(5)).await;
    }
}

#[tokio::test]
async fn what_is_decided_on_counts_as_shards_at_once() {
    let world = World::new().await;
    world.create("s", 20).await;
    world.ok("UpdateShardCount", scale(40)).await;
    let (code, text) =
        world.no("CreateStream", json!({ "StreamName": "t", "ShardCount": 11 })).await;
    assert_eq!(code, "LimitExceededException");
    assert!(text.contains("Current shard count for the account: 40. Limit: 50."), "{text}");
}

#[tokio::test]
async fn a_put_that_meets_a_sealed_shard_waits_for_the_children() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.ok("SplitShard", split("0", HALF)).await;
    world.clock.advance(Duration::from_millis(20));
    world.log.seal(held(&world).stream.shards[0].uid).await.unwrap();
    let record = |key: &str, data: &str| json!({ "Data": data, "PartitionKey": key });
    let many = json!({ "StreamName": "s", "Records": [record("a", "MQ=="), record("b", "Mg=="),
                                                      record("a", "Mw==")] });
    let one = world.put("s", "a", "waited");
    let many = world.ok("PutRecords", many);
    let (one, many, _) = tokio::join!(one, many, async {
        tokio::task::yield_now().await;
        world.kinesis.settle().await
    });
    assert_eq!(one.0, "shardId-000000000001");
    assert_eq!(many["FailedRecordCount"], 0);
    let ids: Vec<_> = many["Records"].as_array().unwrap().iter().map(|r| &r["ShardId"]).collect();
    assert_eq!(ids, ["shardId-000000000001", "shardId-000000000002", "shardId-000000000001"]);
    let at = world.horizon("s", "1").await;
    assert_eq!(world.read(&at, 10).await.0.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_put_does_not_wait_for_ever() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.log.seal(held(&world).stream.shards[0].uid).await.unwrap();
    let record = json!({ "Data": "MQ==", "PartitionKey": "a" });
    let body = json!({ "StreamName": "s", "Data": "MQ==", "PartitionKey": "a" });
    assert_eq!(world.no("PutRecord", body).await.0, "InternalFailure");
    let many = world.ok("PutRecords", json!({ "StreamName": "s", "Records": [record] })).await;
    assert_eq!(many["Records"][0]["ErrorCode"], "InternalFailure");
}

#[tokio::test]
async fn readers_of_a_sealed_shard_without_children_come_back() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.put("s", "a", "1").await;
    let at = world.horizon("s", "0").await;
    world.log.seal(held(&world).stream.shards[0].uid).await.unwrap();
    let (records, next) = world.read(&at, 10).await;
    assert_eq!(records, ["1"]);
    assert!(next.is_some());
}

#[tokio::test]
async fn a_reshard_is_gone_on_with_wherever_it_stopped() {
    // Steps of the change that were taken before the stop: shards made, shards sealed.
    for (made, sealed) in [(0, 0), (1, 0), (3, 0), (3, 1), (3, 2)] {
        let world = World::new().await;
        world.create("s", 2).await;
        world.put("s", "a", "before").await;
        world.ok("UpdateShardCount", scale(3)).await;
        let then = held(&world).stream;
        let planned = then.capacity.reshard.clone().unwrap().children;
        for child in &planned[..made] {
            world.log.create(child.uid, then.retention()).await.unwrap();
        }
        for parent in &then.shards[..sealed] {
            world.log.seal(parent.uid).await.unwrap();
        }
        let world = world.restart().await;
        assert_eq!(status(&world).await, "UPDATING");
        settle(&world).await;
        assert_eq!(status(&world).await, "ACTIVE");
        assert_eq!(held(&world).open_shards(), 3);
        for shard in &held(&world).stream.shards {
            assert_eq!(world.log.tail(shard.uid).await.unwrap().sealed, !shard.is_open());
        }
        let mut read = Vec::new();
        world.put("s", "a", "after").await;
        for n in 0..7 {
            let at = world.horizon("s", &n.to_string()).await;
            read.extend(world.read(&at, 10).await.0);
        }
        assert_eq!(read, ["before", "after"]);
    }
}

#[tokio::test]
async fn a_failure_of_the_store_delays_a_reshard_and_doubles_nothing() {
    let clock = Arc::new(ManualClock::default());
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let control = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
    let world = World::on(clock, log, control.clone()).await;
    world.create("s", 1).await;
    world.ok("SplitShard", split("0", HALF)).await;
    world.clock.advance(Duration::from_millis(20));
    control.lose_commits(1);
    world.kinesis.settle().await;
    assert_eq!(status(&world).await, "UPDATING");
    control.lose_answers(1);
    world.kinesis.settle().await;
    world.kinesis.settle().await;
    assert_eq!(status(&world).await, "ACTIVE");
    assert_eq!(held(&world).stream.shards.len(), 3);
}

#[tokio::test]
async fn a_stream_that_is_deleted_while_it_is_resharded_leaves_nothing() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.ok("SplitShard", split("0", HALF)).await;
    let old = held(&world);
    let planned = old.stream.capacity.reshard.clone().unwrap().children;
    world.ok("DeleteStream", json!({ "StreamName": "s" })).await;
    settle(&world).await;
    assert!(world.kinesis.catalog.all().is_empty());
    // One that was under way with the row as it had been.
    world.kinesis.finish_reshard(&old).await.unwrap();
    for uid in planned.iter().map(|c| c.uid).chain([old.stream.shards[0].uid]) {
        assert_eq!(world.log.tail(uid).await, Err(LogError::NotFound));
    }
}

// shows: ListShards
#[tokio::test]
async fn filters_show_each_key_once_and_expired_shards_go() {
    let world = World::new().await;
    world.create("s", 2).await;
    let kind = |text: &str| json!({ "Type": text });
    let at = |text: &str, ms: u64| json!({ "Type": text, "Timestamp": ms as f64 / 1e3 });
    let created = world.now_ms();
    world.clock.advance(Duration::from_secs(3600));
    world.ok("SplitShard", split("0", "1000")).await;
    settle(&world).await;
    let splitted = world.now_ms();
    world.clock.advance(Duration::from_secs(3600));
    world.ok("MergeShards", merge("3", "1")).await;
    settle(&world).await;
    let merged = world.now_ms();
    world.clock.advance(Duration::from_secs(3600));

    assert_eq!(shown(&world, kind("AT_LATEST")).await, [2, 4]);
    assert_eq!(shown(&world, kind("AT_TRIM_HORIZON")).await, [0, 1]);
    assert_eq!(shown(&world, kind("FROM_TRIM_HORIZON")).await, [0, 1, 2, 3, 4]);
    assert_eq!(shown(&world, at("AT_TIMESTAMP", created)).await, [0, 1]);
    assert_eq!(shown(&world, at("AT_TIMESTAMP", splitted - 1)).await, [0, 1]);
    assert_eq!(shown(&world, at("AT_TIMESTAMP", splitted)).await, [1, 2, 3]);
    assert_eq!(shown(&world, at("AT_TIMESTAMP", merged - 1)).await, [1, 2, 3]);
    assert_eq!(shown(&world, at("AT_TIMESTAMP", merged)).await, [2, 4]);
    assert_eq!(shown(&world, at("FROM_TIMESTAMP", splitted)).await, [0, 1, 2, 3, 4]);
    assert_eq!(shown(&world, at("FROM_TIMESTAMP", splitted + 1)).await, [1, 2, 3, 4]);
    let after = json!({ "Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000001" });
    assert_eq!(shown(&world, after).await, [2, 3, 4]);

    // A day after the split its parent is gone; its children still name it.
    let parent = held(&world).stream.shards[0].uid;
    let day = Duration::from_secs(24 * 3600);
    let until = splitted + day.as_millis() as u64 - world.now_ms();
    world.clock.advance(Duration::from_millis(until - 1));
    world.kinesis.settle().await;
    assert_eq!(list(&world, json!({})).await.len(), 5);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(list(&world, json!({})).await.len(), 4, "hidden at once");
    assert_eq!(shown(&world, kind("AT_TRIM_HORIZON")).await, [1, 2, 3]);
    let world = world.restart().await;
    assert!(world.kinesis.settle().await.is_some());
    let world = world.restart().await;
    world.kinesis.settle().await;
    assert_eq!(world.log.tail(parent).await, Err(LogError::NotFound));
    let shards = list(&world, json!({})).await;
    assert_eq!(shards[1]["ParentShardId"], "shardId-000000000000");
    assert_eq!(shown(&world, kind("AT_TRIM_HORIZON")).await, [1, 2, 3]);
    assert!(held(&world).stream.capacity.expired.is_empty());
    // A longer retention does not bring it back, and leaves no hole where it was.
    let body = json!({ "StreamName": "s", "RetentionPeriodHours": 48 });
    world.ok("IncreaseStreamRetentionPeriod", body).await;
    world.clock.advance(Duration::from_millis(20));
    assert_eq!(shown(&world, at("AT_TIMESTAMP", created)).await, [1, 2, 3]);
    world.clock.advance(day);
    while let Some(due) = world.kinesis.settle().await {
        if due > world.clock.now() {
            break;
        }
    }
    world.clock.advance(day);
    while world.kinesis.settle().await.is_some() {}
    assert_eq!(list(&world, json!({})).await.len(), 2);
    world.put("s", "a", "still").await;
}

#[tokio::test]
async fn the_plan_never_shows_before_its_time() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.ok("SplitShard", split("0", HALF)).await;
    let settled = world.kinesis.settle().now_or_never().flatten();
    assert_eq!(settled, held(&world).stream.capacity.reshard.as_ref().map(|r| r.due));
    assert_eq!(list(&world, json!({})).await.len(), 1);
    assert_eq!(held(&world).open_shards(), 1);
}
