//! What a stream asks of its records: sizes, partition keys; and requests that only ask.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{World, error};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
const MIB: usize = 1 << 20;

async fn create(world: &World, more: Value) {
    let mut body = json!({ "StreamName": "s" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.ok("CreateStream", body).await;
    settle(world).await;
}

async fn settle(world: &World) {
    world.kinesis.settle().await;
    world.clock.advance(Duration::from_millis(20));
}

async fn on_demand(world: &World, strategy: &str) {
    let mode = json!({ "StreamMode": "ON_DEMAND" });
    let more = json!({ "StreamModeDetails": mode, "RecordDistributionStrategy": strategy });
    create(world, more).await;
}

fn record(bytes: usize) -> Value {
    json!({ "StreamName": "s", "PartitionKey": "k", "Data": STANDARD.encode(vec![b'x'; bytes]) })
}

fn too_long(place: &str, max: usize) -> (String, String) {
    let text = format!(
        "1 validation error detected: Value at '{place}' failed to satisfy constraint: Member must \
         have length less than or equal to {max}"
    );
    error("ValidationException", &text)
}

async fn summary(world: &World) -> Value {
    let reply = world.ok("DescribeStreamSummary", json!({ "StreamName": "s" })).await;
    reply["StreamDescriptionSummary"].clone()
}

// shows: UpdateMaxRecordSize, limit:record-bytes
#[tokio::test]
async fn a_record_is_as_large_as_its_stream_lets_it_be() {
    let world = World::new().await;
    create(&world, json!({ "ShardCount": 1 })).await;
    world.ok("PutRecord", record(MIB - 1)).await;
    assert_eq!(world.no("PutRecord", record(MIB)).await, too_long("data", MIB), "with its key");
    let update = |kib: u32| json!({ "StreamARN": ARN, "MaxRecordSizeInKiB": kib });
    world.ok("UpdateMaxRecordSize", update(2_048)).await;
    assert_eq!(summary(&world).await["StreamStatus"], "UPDATING");
    assert_eq!(world.no("UpdateMaxRecordSize", update(1_024)).await.0, "ResourceInUseException");
    settle(&world).await;
    assert_eq!(summary(&world).await["MaxRecordSizeInKiB"], 2_048);
    world.ok("PutRecord", record(2 * MIB - 1)).await;
    assert_eq!(world.no("PutRecord", record(2 * MIB)).await, too_long("data", 2 * MIB));
    world.ok("UpdateMaxRecordSize", update(1_024)).await;
    settle(&world).await;
    // What is there stays.
    let iterator = world.horizon("s", "0").await;
    let reply = world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
    let sizes: Vec<_> = reply["Records"].as_array().unwrap().iter().map(size).collect();
    assert_eq!(sizes, [MIB - 1, 2 * MIB - 1]);
}

fn size(record: &Value) -> usize {
    STANDARD.decode(record["Data"].as_str().unwrap()).unwrap().len()
}

// shows: limit:record-bytes, limit:records-per-get
#[tokio::test]
async fn ten_mebibytes_go_in_and_come_out() {
    let world = World::new().await;
    create(&world, json!({ "ShardCount": 1, "MaxRecordSizeInKiB": 10_240 })).await;
    let largest = 10 * MIB - 1;
    world.ok("PutRecord", record(largest)).await;
    assert_eq!(world.no("PutRecord", record(10 * MIB)).await, too_long("data", 10 * MIB));
    assert_eq!(world.no("PutRecord", record(10 * MIB + 1)).await, too_long("data", 10 * MIB));
    let mut entry = record(largest);
    entry.as_object_mut().unwrap().remove("StreamName");
    world.ok("PutRecords", json!({ "StreamName": "s", "Records": [entry] })).await;
    let two = json!({ "StreamName": "s", "Records": [entry, { "PartitionKey": "k", "Data": "" }] });
    let no = error("InvalidArgumentException", "Records size exceeds 10 MB limit");
    assert_eq!(world.no("PutRecords", two).await, no);
    // One such record is a page.
    let mut iterator = Some(world.horizon("s", "0").await);
    for _ in 0..2 {
        let reply = world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
        let records = reply["Records"].as_array().unwrap();
        assert_eq!(records.iter().map(size).collect::<Vec<_>>(), [largest]);
        iterator = reply["NextShardIterator"].as_str().map(str::to_owned);
    }
}

#[tokio::test]
async fn sizes_have_the_bounds_of_the_model() {
    let world = World::new().await;
    create(&world, json!({ "ShardCount": 1 })).await;
    let place = "maxRecordSizeInKiB";
    for (kib, what) in
        [(1_023, "greater than or equal to 1024"), (10_241, "less than or equal to 10240")]
    {
        let text = format!(
            "1 validation error detected: Value '{kib}' at '{place}' failed to satisfy constraint: \
             Member must have value {what}"
        );
        let update = json!({ "StreamARN": ARN, "MaxRecordSizeInKiB": kib });
        assert_eq!(
            world.no("UpdateMaxRecordSize", update).await,
            error("ValidationException", &text)
        );
        let new = json!({ "StreamName": "t", "ShardCount": 1, "MaxRecordSizeInKiB": kib });
        assert_eq!(world.no("CreateStream", new).await, error("ValidationException", &text));
    }
}

// shows: limit:record-bursts
#[tokio::test]
async fn a_large_record_is_a_burst_that_is_made_up_for() {
    let world = World::under_aws_limits().await;
    create(&world, json!({ "ShardCount": 1, "MaxRecordSizeInKiB": 10_240 })).await;
    world.ok("PutRecord", record(10 * MIB - 1)).await;
    let code = "ProvisionedThroughputExceededException";
    assert_eq!(world.no("PutRecord", record(100)).await.0, code);
    world.clock.advance(Duration::from_secs(1));
    world.ok("PutRecord", record(MIB - 1)).await;
    assert_eq!(world.no("PutRecord", record(MIB - 1)).await.0, code);
    world.clock.advance(Duration::from_secs(9));
    assert_eq!(
        world.no("PutRecord", record(10 * MIB - 1)).await.0,
        code,
        "nine mebibytes are back"
    );
    world.clock.advance(Duration::from_secs(1));
    world.ok("PutRecord", record(10 * MIB - 1)).await;
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_does_nothing() {
    let world = World::new().await;
    create(&world, json!({ "ShardCount": 1 })).await;
    let ok = error(
        "DryRunOperationException",
        "The request was rejected because the DryRun parameter was specified.",
    );
    let iterator = world.horizon("s", "0").await;
    let latest = json!({ "StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST" });
    let entry = json!({ "PartitionKey": "k", "Data": "eA==" });
    for (operation, body, wrong) in [
        ("PutRecord", record(3), json!({ "Data": "!" })),
        ("PutRecord", record(3), json!({ "StreamName": "t" })),
        ("PutRecord", record(3), json!({ "PartitionKey": "" })),
        ("PutRecords", json!({ "StreamName": "s", "Records": [entry] }), json!({ "Records": [] })),
        (
            "PutRecords",
            json!({ "StreamName": "s", "Records": [entry] }),
            json!({ "StreamName": "t" }),
        ),
        ("GetShardIterator", latest.clone(), json!({ "ShardId": "1" })),
        ("GetShardIterator", latest, json!({ "ShardIteratorType": "AT_TIMESTAMP" })),
        ("GetRecords", json!({ "ShardIterator": iterator }), json!({ "ShardIterator": "AAAA" })),
    ] {
        let with = |more: &Value| {
            let mut body = body.clone();
            body.as_object_mut().unwrap().insert("DryRun".to_owned(), json!(true));
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        assert_eq!(world.no(operation, with(&json!({}))).await, ok, "{operation}");
        assert_ne!(world.no(operation, with(&wrong)).await.0, ok.0, "{operation} {wrong}");
    }
    assert_eq!(world.read(&iterator, 10).await.0, Vec::<String>::new());
    let mut real = record(3);
    real["DryRun"] = json!(false);
    world.ok("PutRecord", real).await;
}

#[tokio::test]
async fn a_stream_that_spreads_its_records_needs_no_keys() {
    let world = World::new().await;
    on_demand(&world, "AUTO").await;
    assert_eq!(summary(&world).await["RecordDistributionStrategy"], "AUTO");
    let bare = json!({ "Data": "eA==" });
    let keyed = json!({ "Data": "eA==", "PartitionKey": "k", "ExplicitHashKey": "0" });
    let entries: Vec<_> = (0..80).map(|n| if n % 2 == 0 { &bare } else { &keyed }).collect();
    let reply = world.ok("PutRecords", json!({ "StreamName": "s", "Records": entries })).await;
    let mut counts = [0; 4];
    for record in reply["Records"].as_array().unwrap() {
        let id = record["ShardId"].as_str().unwrap();
        counts[id[8..].parse::<usize>().unwrap()] += 1;
    }
    assert_eq!(counts, [20; 4]);
    let put = world.ok("PutRecord", json!({ "StreamName": "s", "Data": "eA==" })).await;
    assert!(put["SequenceNumber"].is_string());
    // Whoever gave a key gets it back; whoever gave none gets none.
    let iterator = world.horizon("s", "0").await;
    let reply = world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
    for record in reply["Records"].as_array().unwrap() {
        assert!(record.get("PartitionKey").is_none_or(|key| key == "k"), "{record}");
    }
    let empty = json!({ "StreamName": "s", "Data": "eA==", "PartitionKey": "" });
    assert_eq!(world.no("PutRecord", empty).await.0, "ValidationException");
}

// shows: UpdateStreamRecordDistributionStrategy
#[tokio::test]
async fn a_strategy_changes_at_once_and_both_ways() {
    let world = World::new().await;
    on_demand(&world, "USER_PARTITION_KEY").await;
    let bare = json!({ "StreamName": "s", "Data": "eA==" });
    let no = error(
        "ValidationException",
        "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: \
         Member must not be null",
    );
    assert_eq!(world.no("PutRecord", bare.clone()).await, no);
    let update = |to: &str| json!({ "StreamARN": ARN, "RecordDistributionStrategy": to });
    let operation = "UpdateStreamRecordDistributionStrategy";
    world.ok(operation, update("AUTO")).await;
    assert_eq!(summary(&world).await["StreamStatus"], "ACTIVE");
    world.ok("PutRecord", bare.clone()).await;
    world.ok(operation, update("USER_PARTITION_KEY")).await;
    assert_eq!(world.no("PutRecord", bare).await, no);
    let no = "1 validation error detected: Value 'ROUND' at 'recordDistributionStrategy' failed to \
              satisfy constraint: Member must satisfy enum value set: [AUTO, USER_PARTITION_KEY]";
    assert_eq!(world.no(operation, update("ROUND")).await, error("ValidationException", no));
    assert_eq!(
        world.restart().await.no("PutRecord", json!({ "StreamName": "s" })).await.0,
        "ValidationException"
    );
}

#[tokio::test]
async fn a_provisioned_stream_goes_by_its_keys() {
    let world = World::new().await;
    let auto = json!({ "StreamName": "t", "ShardCount": 1, "RecordDistributionStrategy": "AUTO" });
    assert_eq!(world.no("CreateStream", auto).await.0, "InvalidArgumentException");
    create(&world, json!({ "ShardCount": 1 })).await;
    assert!(summary(&world).await.get("RecordDistributionStrategy").is_none());
    let update = json!({ "StreamARN": ARN, "RecordDistributionStrategy": "AUTO" });
    let no = world.no("UpdateStreamRecordDistributionStrategy", update).await;
    assert_eq!(no.0, "InvalidArgumentException");
}

// shows: limit:streams-creating, limit:streams-on-demand
#[tokio::test]
async fn at_most_five_streams_are_being_made_and_fifty_are_on_demand() {
    let world = World::under_aws_limits().await;
    let create = |n: usize| {
        let mode = json!({ "StreamMode": "ON_DEMAND" });
        json!({ "StreamName": format!("s{n}"), "StreamModeDetails": mode })
    };
    for n in 0..50 {
        if n == 5 {
            let text = "This request would have exceed the limit on the number of streams that can \
                        simultaneously be in CREATING or DELETING for the account 000000000000. \
                        Limit: 5.";
            world.clock.advance(Duration::from_secs(1));
            assert_eq!(
                world.no("CreateStream", create(n)).await,
                error("LimitExceededException", text)
            );
        }
        if n % 5 == 0 {
            world.kinesis.settle().await;
            world.clock.advance(Duration::from_secs(2));
        }
        world.ok("CreateStream", create(n)).await;
    }
    world.kinesis.settle().await;
    world.clock.advance(Duration::from_secs(2));
    let text = "This request would exceed the limit on the number of On-Demand streams for the \
                account 000000000000 in us-east-1. Current On-Demand streams count: 50. Limit: 50.";
    assert_eq!(world.no("CreateStream", create(50)).await, error("LimitExceededException", text));
    let limits = world.ok("DescribeLimits", json!({})).await;
    let expected = json!({
        "ShardLimit": 20_000, "OpenShardCount": 200, "OnDemandStreamCount": 50,
        "OnDemandStreamCountLimit": 50, "ChannelCount": 0, "ChannelCountLimit": 0,
    });
    assert_eq!(limits, expected);
}

// shows: DescribeAccountSettings, UpdateAccountSettings, limit:commitment
#[tokio::test]
async fn a_commitment_lasts_a_day_at_least() {
    let world = World::new().await;
    let hour = Duration::from_secs(3_600);
    let name = "MinimumThroughputBillingCommitment";
    let describe = || async { world.ok("DescribeAccountSettings", json!({})).await[name].clone() };
    let set = |to: &str| {
        let body = json!({ name: { "Status": to } });
        let world = &world;
        async move { world.ok("UpdateAccountSettings", body).await[name].clone() }
    };
    let seconds = |ms: u64| json!(ms as f64 / 1_000.0);
    assert_eq!(describe().await, json!({ "Status": "DISABLED" }));
    assert_eq!(set("DISABLED").await, json!({ "Status": "DISABLED" }));
    let start = world.now_ms();
    let (started, end) = (seconds(start), seconds(start + 24 * 3_600_000));
    let on = json!({ "Status": "ENABLED", "StartedAt": started, "EarliestAllowedEndAt": end });
    assert_eq!(set("ENABLED").await, on);
    world.clock.advance(hour);
    assert_eq!(set("ENABLED").await, on, "twice is once");
    let until = json!({
        "Status": "ENABLED_UNTIL_EARLIEST_ALLOWED_END", "StartedAt": started,
        "EarliestAllowedEndAt": end,
    });
    assert_eq!(set("DISABLED").await, until);
    assert_eq!(world.restart().await.ok("DescribeAccountSettings", json!({})).await[name], until);
    assert_eq!(set("ENABLED").await, on, "taken back");
    set("DISABLED").await;
    assert!(world.kinesis.is_committed(&world.scope).await.unwrap());
    world.clock.advance(23 * hour);
    assert!(!world.kinesis.is_committed(&world.scope).await.unwrap());
    let off = json!({ "Status": "DISABLED", "StartedAt": started, "EndedAt": end });
    assert_eq!(describe().await, off);
    set("ENABLED").await;
    world.clock.advance(48 * hour);
    let now = seconds(world.now_ms());
    assert_eq!(set("DISABLED").await["EndedAt"], now, "past the earliest end, at once");
    let no = world.no("UpdateAccountSettings", json!({ name: { "Status": "ON" } })).await;
    let text = "1 validation error detected: Value 'ON' at \
                'minimumThroughputBillingCommitment.status' failed to satisfy constraint: Member must \
                satisfy enum value set: [ENABLED, DISABLED]";
    assert_eq!(no, error("ValidationException", text));
}
