//! What `limits = "aws"` bounds, and that nothing is bounded without it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{World, error};
use crate::streams::StreamKey;

const RATE: &str =
    "Rate exceeded for shard shardId-000000000000 in stream s under account 000000000000.";

fn second() -> Duration {
    Duration::from_secs(1)
}

fn entry(key: &str, bytes: usize) -> Value {
    json!({ "PartitionKey": key, "Data": STANDARD.encode(vec![b'x'; bytes]) })
}

async fn put(world: &World, entries: Vec<Value>) -> Value {
    world.ok("PutRecords", json!({ "StreamName": "s", "Records": entries })).await
}

/// Places of the records that were not put.
fn refused(reply: &Value) -> Vec<usize> {
    let records = reply["Records"].as_array().unwrap();
    for record in records.iter().filter(|r| !r["ErrorCode"].is_null()) {
        let exact = json!({
            "ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": RATE,
        });
        assert_eq!(*record, exact);
    }
    let refused = |r: &Value| r["SequenceNumber"].is_null();
    let places: Vec<_> =
        records.iter().enumerate().filter(|(_, r)| refused(r)).map(|(n, _)| n).collect();
    assert_eq!(reply["FailedRecordCount"], json!(places.len()));
    places
}

// shows: limit:shard-records-in
#[tokio::test]
async fn a_shard_takes_a_thousand_records_a_second() {
    let world = World::under_aws_limits().await;
    world.create("s", 1).await;
    for _ in 0..2 {
        let reply = put(&world, (0..500).map(|n| entry(&n.to_string(), 1)).collect()).await;
        assert_eq!(refused(&reply), [0usize; 0]);
    }
    let one = json!({ "StreamName": "s", "PartitionKey": "k", "Data": "eA==" });
    let no = world.no("PutRecord", one.clone()).await;
    assert_eq!(no, error("ProvisionedThroughputExceededException", RATE));
    world.clock.advance(Duration::from_millis(10));
    let reply = put(&world, (0..15).map(|n| entry(&n.to_string(), 1)).collect()).await;
    assert_eq!(refused(&reply), [10, 11, 12, 13, 14]);
    world.clock.advance(second());
    world.ok("PutRecord", one).await;
}

// shows: limit:shard-bytes-in
#[tokio::test]
async fn a_shard_takes_a_mebibyte_a_second_with_its_keys() {
    let world = World::under_aws_limits().await;
    world.create("s", 1).await;
    let kib_400 = 400 << 10;
    let entries =
        vec![entry("a", kib_400), entry("b", kib_400), entry("c", kib_400), entry("d", 9)];
    assert_eq!(refused(&put(&world, entries).await), [2], "the last one still fits");
    world.clock.advance(second());
    // Two keys of 256 bytes are 512 bytes of the mebibyte.
    let (key, half) = ("k".repeat(256), (1 << 19) - 256);
    let reply = put(&world, vec![entry(&key, half), entry(&key, half), entry("k", 0)]).await;
    assert_eq!(refused(&reply), [2]);
}

#[tokio::test]
async fn one_slow_shard_holds_up_no_other() {
    let world = World::under_aws_limits().await;
    world.create("s", 2).await;
    let mut entries = vec![entry("k", 1 << 19); 3];
    for (n, entry) in entries.iter_mut().enumerate() {
        entry["ExplicitHashKey"] =
            json!(if n < 2 { "0" } else { "340282366920938463463374607431768211455" });
    }
    entries.push(json!({ "PartitionKey": "k", "ExplicitHashKey": "0", "Data": "eA==" }));
    let reply = put(&world, entries.clone()).await;
    assert_eq!(refused(&reply), [1]);
    assert_eq!(reply["Records"][2]["ShardId"], "shardId-000000000001");
}

// shows: limit:shard-calls-out
#[tokio::test]
async fn a_shard_is_read_five_times_a_second_by_all_its_readers() {
    let world = World::under_aws_limits().await;
    world.create("s", 2).await;
    let (mine, yours) = (world.horizon("s", "0").await, world.horizon("s", "0").await);
    let other = world.horizon("s", "1").await;
    for n in 0..5 {
        world.read(if n % 2 == 0 { &mine } else { &yours }, 1).await;
    }
    let no = world.no("GetRecords", json!({ "ShardIterator": yours })).await;
    assert_eq!(no, error("ProvisionedThroughputExceededException", RATE));
    world.read(&other, 1).await;
    world.clock.advance(Duration::from_millis(200));
    world.read(&mine, 1).await;
}

// shows: limit:shard-bytes-out
#[tokio::test]
async fn ten_mebibytes_read_are_five_seconds_of_refusals() {
    let world = World::under_aws_limits().await;
    world.create("s", 1).await;
    for _ in 0..11 {
        world.clock.advance(second());
        // Less a key of one byte.
        assert_eq!(refused(&put(&world, vec![entry("k", (1 << 20) - 1)]).await), [0usize; 0]);
    }
    let read = |iterator: String| {
        let world = &world;
        async move { world.call("GetRecords", json!({ "ShardIterator": iterator })).await }
    };
    let first = read(world.horizon("s", "0").await).await.unwrap();
    assert_eq!(first["Records"].as_array().unwrap().len(), 10);
    let next = || first["NextShardIterator"].as_str().unwrap().to_owned();
    for ms in [0, 1_000, 3_999] {
        world.clock.advance(Duration::from_millis(ms));
        let no = read(next()).await.unwrap_err();
        assert_eq!(no, error("ProvisionedThroughputExceededException", RATE));
    }
    world.clock.advance(Duration::from_millis(1));
    let last = read(next()).await.unwrap();
    assert_eq!(last["Records"].as_array().unwrap().len(), 1);
}

// shows: limit:iterator-rate
#[tokio::test]
async fn iterators_are_given_out_five_times_a_second() {
    let world = World::under_aws_limits().await;
    world.create("s", 1).await;
    for _ in 0..5 {
        world.horizon("s", "0").await;
    }
    let body = json!({ "StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST" });
    let no = world.no("GetShardIterator", body).await;
    assert_eq!(no, error("ProvisionedThroughputExceededException", RATE));
}

// shows: limit:call-rates
#[tokio::test]
async fn operations_are_called_as_often_as_aws_lets_them_be() {
    let world = World::under_aws_limits().await;
    world.create("s", 1).await;
    let stream = "Rate exceeded for stream s under account 000000000000.";
    let account = "Rate exceeded for account 000000000000.";
    for (operation, body, calls, text) in [
        ("DescribeLimits", json!({}), 1, account),
        ("ListStreams", json!({}), 5, account),
        ("DescribeStream", json!({ "StreamName": "s" }), 10, stream),
        ("DescribeStreamSummary", json!({ "StreamName": "s" }), 20, stream),
        ("ListTagsForStream", json!({ "StreamName": "s" }), 5, stream),
        ("ListShards", json!({ "StreamName": "s" }), 1_000, stream),
    ] {
        for _ in 0..calls {
            world.ok(operation, body.clone()).await;
        }
        let no = world.no(operation, body.clone()).await;
        assert_eq!(no, error("LimitExceededException", text), "{operation}");
        world.clock.advance(second());
        world.ok(operation, body).await;
    }
}

// shows: limit:call-rates
#[tokio::test]
async fn streams_of_one_account_share_a_rate_or_have_their_own() {
    let world = World::under_aws_limits().await;
    world.create("s", 1).await;
    world.create("t", 1).await;
    let named = |name: &str| json!({ "StreamName": name });
    for n in 0..10 {
        world.ok("DescribeStream", named(if n % 2 == 0 { "s" } else { "t" })).await;
    }
    assert_eq!(world.no("DescribeStream", named("t")).await.0, "LimitExceededException");
    for n in 0..10 {
        world.ok("ListTagsForStream", named(if n % 2 == 0 { "s" } else { "t" })).await;
    }
    assert_eq!(world.no("ListTagsForStream", named("t")).await.0, "LimitExceededException");
}

// shows: limit:fan-out-bytes
#[tokio::test]
async fn nothing_is_bounded_by_default() {
    let world = World::new().await;
    world.create("s", 1).await;
    let iterator = world.horizon("s", "0").await;
    for _ in 0..30 {
        assert_eq!(refused(&put(&world, vec![entry("k", 1 << 19); 4]).await), [0usize; 0]);
        world.ok("DescribeLimits", json!({})).await;
        world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
    }
}

// shows: limit:encryption-changes
#[tokio::test]
async fn some_changes_of_a_stream_are_counted_by_the_day() {
    let (free, world) = (World::new().await, World::under_aws_limits().await);
    let id = StreamKey { scope: world.scope.clone(), name: "s".parse().unwrap() };
    let mut times = Vec::new();
    let mut once =
        |world: &World| world.kinesis.allow_change("StartStreamEncryption", &id, &mut times, 25);
    for _ in 0..25 {
        once(&world).unwrap();
        world.clock.advance(Duration::from_secs(60));
    }
    let text = "Rate exceeded for stream s under account 000000000000. StartStreamEncryption can be \
                called at most 25 times per rolling 24-hour period per stream.";
    assert_eq!(once(&world).unwrap_err().to_string(), text);
    once(&free).unwrap();
    world.clock.advance(Duration::from_secs(24 * 3_600 - 25 * 60));
    once(&world).unwrap();
    once(&world).unwrap_err();
}
