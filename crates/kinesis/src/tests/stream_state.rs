//! Streams coming into being, changing and going.

use hydrant_core::catalog::StreamCatalog;
use hydrant_core::log::LogError;
use hydrant_testkit::FaultyControl;

use super::*;

async fn status(world: &World, name: &str) -> String {
    let reply = world.ok("DescribeStreamSummary", json!({ "StreamName": name })).await;
    reply["StreamDescriptionSummary"]["StreamStatus"].as_str().unwrap().to_owned()
}

// shows: CreateStream, DeleteStream
#[tokio::test]
async fn a_stream_is_creating_then_active_then_deleting_then_gone() {
    let world = World::new().await;
    let body = json!({ "StreamName": "s", "ShardCount": 2 });
    assert_eq!(world.ok("CreateStream", body.clone()).await, Value::Null);
    assert_eq!(status(&world, "s").await, "CREATING");
    let described = world.ok("DescribeStream", json!({ "StreamName": "s" })).await;
    assert_eq!(described["StreamDescription"]["Shards"], json!([]));
    let in_use =
        error("ResourceInUseException", "Stream s under account 000000000000 already exists.");
    assert_eq!(world.no("CreateStream", body.clone()).await, in_use);
    let not_found =
        error("ResourceNotFoundException", "Stream s under account 000000000000 not found.");
    let put = json!({ "StreamName": "s", "PartitionKey": "a", "Data": "" });
    assert_eq!(world.no("PutRecord", put.clone()).await, not_found);
    assert_eq!(
        world.no("DeleteStream", json!({ "StreamName": "s" })).await,
        error(
            "ResourceInUseException",
            "Stream s under account 000000000000 not ACTIVE, instead in state CREATING"
        )
    );
    // Time alone does not make it active: its shards have to be in the log first.
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(status(&world, "s").await, "CREATING");
    assert_eq!(world.kinesis.settle().await, None);
    assert_eq!(status(&world, "s").await, "CREATING");
    world.clock.advance(Duration::from_millis(20));
    assert_eq!(status(&world, "s").await, "ACTIVE");
    world.ok("PutRecord", put.clone()).await;

    let iterator = world.horizon("s", "shardId-000000000000").await;
    world.ok("DeleteStream", json!({ "StreamName": "s" })).await;
    world.ok("DeleteStream", json!({ "StreamName": "s" })).await;
    assert_eq!(status(&world, "s").await, "DELETING");
    assert_eq!(world.no("PutRecord", put).await, not_found);
    assert!(world.kinesis.settle().await.is_some());
    world.clock.advance(Duration::from_millis(20));
    assert_eq!(world.no("DescribeStream", json!({ "StreamName": "s" })).await, not_found);
    assert_eq!(world.kinesis.settle().await, None);
    assert_eq!(world.ok("ListStreams", json!({})).await["StreamNames"], json!([]));

    // A later stream of the name is another one.
    world.create("s", 2).await;
    assert_eq!(
        world.no("GetRecords", json!({ "ShardIterator": iterator })).await,
        error(
            "ResourceNotFoundException",
            "Shard shardId-000000000000 in stream s under account 000000000000 does not exist"
        )
    );
}

#[tokio::test]
async fn a_name_is_free_once_the_deletion_is_due_even_if_nobody_did_it() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.ok("DeleteStream", json!({ "StreamName": "s" })).await;
    world.clock.advance(Duration::from_millis(20));
    world.create("s", 1).await;
    assert_eq!(status(&world, "s").await, "ACTIVE");
    assert_eq!(world.kinesis.settle().await, None);
    assert_eq!(status(&world, "s").await, "ACTIVE");
}

#[tokio::test]
async fn a_stop_anywhere_is_gone_on_with() {
    let world = World::new().await;
    world.ok("CreateStream", json!({ "StreamName": "new", "ShardCount": 1 })).await;
    let world = world.restart().await;
    assert_eq!(status(&world, "new").await, "CREATING");
    world.kinesis.settle().await;
    world.clock.advance(Duration::from_millis(20));
    world.put("new", "a", "kept").await;

    world.ok("DeleteStream", json!({ "StreamName": "new" })).await;
    let catalog = StreamCatalog::open(world.control.clone()).await.unwrap();
    let uid = catalog.all()[0].shards[0].uid;
    let world = world.restart().await;
    assert_eq!(status(&world, "new").await, "DELETING");
    world.clock.advance(Duration::from_millis(20));
    assert_eq!(world.kinesis.settle().await, None);
    assert_eq!(world.log.tail(uid).await, Err(LogError::NotFound));
    let catalog = StreamCatalog::open(world.control.clone()).await.unwrap();
    assert_eq!(catalog.all().len(), 0);
}

#[tokio::test]
async fn a_failure_of_the_store_delays_and_loses_nothing() {
    let clock = Arc::new(ManualClock::default());
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let control = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
    let world = World::on(clock, log, control.clone()).await;
    world.ok("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 })).await;
    control.lose_commits(1);
    assert!(world.kinesis.settle().await.is_some());
    assert_eq!(status(&world, "s").await, "CREATING");
    assert_eq!(world.kinesis.settle().await, None);
    world.clock.advance(Duration::from_millis(20));
    assert_eq!(status(&world, "s").await, "ACTIVE");
    control.lose_commits(1);
    let body = json!({ "StreamName": "s" });
    assert_eq!(world.no("DeleteStream", body).await.0, "InternalFailure");
    assert_eq!(status(&world, "s").await, "ACTIVE");
}

#[tokio::test(start_paused = true)]
async fn the_task_moves_streams_by_itself() {
    let world = World::new().await;
    let kinesis = world.kinesis.clone();
    let task = tokio::spawn(async move { kinesis.run().await });
    world.ok("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 })).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.clock.advance(Duration::from_millis(20));
    assert_eq!(status(&world, "s").await, "ACTIVE");
    world.ok("DeleteStream", json!({ "StreamName": "s" })).await;
    world.clock.advance(Duration::from_millis(20));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let catalog = StreamCatalog::open(world.control.clone()).await.unwrap();
    assert_eq!(catalog.all().len(), 0);
    task.abort();
}

#[tokio::test]
async fn accounts_and_regions_do_not_see_each_other() {
    let mut world = World::new().await;
    world.create("s", 1).await;
    let iterator = world.horizon("s", "0").await;
    world.scope = scope("eu-west-1");
    assert_eq!(world.ok("ListStreams", json!({})).await["StreamNames"], json!([]));
    let body = json!({ "StreamName": "s" });
    assert_eq!(world.no("DescribeStream", body).await.0, "ResourceNotFoundException");
    assert_eq!(
        world.no("GetRecords", json!({ "ShardIterator": iterator })).await,
        error("InvalidArgumentException", "Invalid ShardIterator.")
    );
    for (arn, code) in [
        ("arn:aws:kinesis:us-east-1:000000000000:stream/s", "ResourceNotFoundException"),
        ("arn:aws:kinesis:eu-west-1:111111111111:stream/s", "AccessDeniedException"),
        ("arn:aws:firehose:eu-west-1:000000000000:stream/s", "ValidationException"),
    ] {
        assert_eq!(world.no("DescribeStream", json!({ "StreamARN": arn })).await.0, code, "{arn}");
    }
}

#[tokio::test]
async fn a_stream_is_named_by_name_or_arn_and_both_must_agree() {
    let world = World::new().await;
    world.create("s", 1).await;
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    for body in [json!({ "StreamARN": arn }), json!({ "StreamARN": arn, "StreamName": "s" })] {
        world.ok("DescribeStream", body).await;
    }
    let body = json!({ "StreamARN": arn, "StreamName": "t" });
    assert_eq!(world.no("DescribeStream", body).await.0, "InvalidArgumentException");
}

// shows: limit:shards-of-account
#[tokio::test]
async fn shards_are_limited_and_counted() {
    let world = World::new().await;
    world.create("a", 30).await;
    let (code, text) =
        world.no("CreateStream", json!({ "StreamName": "b", "ShardCount": 21 })).await;
    assert_eq!(code, "LimitExceededException");
    assert!(text.contains("Current shard count for the account: 30. Limit: 50."), "{text}");
    let body = json!({ "StreamName": "c", "StreamModeDetails": { "StreamMode": "ON_DEMAND" } });
    world.ok("CreateStream", body).await;
    let limits = world.ok("DescribeLimits", json!({})).await;
    assert_eq!(
        limits,
        json!({ "ShardLimit": 50, "OpenShardCount": 34, "OnDemandStreamCount": 1,
                "OnDemandStreamCountLimit": 12, "ChannelCount": 0, "ChannelCountLimit": 0 })
    );
}

// shows: IncreaseStreamRetentionPeriod, DecreaseStreamRetentionPeriod, limit:retention
#[tokio::test]
async fn retention_goes_up_and_down_within_its_limits() {
    let world = World::new().await;
    world.create("s", 1).await;
    let ask = |hours: u32| json!({ "StreamName": "s", "RetentionPeriodHours": hours });
    let (up, down) = ("IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod");
    let invalid = |text: &str| error("InvalidArgumentException", text);
    assert_eq!(
        world.no(up, ask(23)).await,
        invalid(
            "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is \
             too short."
        )
    );
    assert_eq!(
        world.no(up, ask(8761)).await,
        invalid(
            "Maximum allowed retention period is 8760 hours. Requested retention period (8761 \
             hours) is too long."
        )
    );
    world.put("s", "a", "old").await;
    world.ok(up, ask(48)).await;
    assert_eq!(status(&world, "s").await, "UPDATING");
    assert_eq!(world.no(up, ask(72)).await.0, "ResourceInUseException");
    world.clock.advance(Duration::from_secs(30 * 3600));
    let at = world.horizon("s", "0").await;
    assert_eq!(world.read(&at, 10).await.0, ["old"]);
    assert_eq!(
        world.no(down, ask(72)).await,
        invalid(
            "Requested retention period (72 hours) for stream s can not be longer than existing \
             retention period (48 hours). Use IncreaseRetentionPeriod API."
        )
    );
    world.ok(down, ask(24)).await;
    assert_eq!(world.read(&at, 10).await.0, [""; 0]);
}

// shows: AddTagsToStream, RemoveTagsFromStream, ListTagsForStream, TagResource, UntagResource
// shows: ListTagsForResource, limit:tags
#[tokio::test]
async fn tags_are_added_listed_and_removed() {
    let world = World::new().await;
    world.create("s", 1).await;
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let body = json!({ "StreamName": "s", "Tags": { "b": "2", "a": "1" } });
    world.ok("AddTagsToStream", body).await;
    world.ok("TagResource", json!({ "ResourceARN": arn, "Tags": { "c": "" } })).await;
    let listed = world.ok("ListTagsForStream", json!({ "StreamName": "s", "Limit": 2 })).await;
    let (a, b, c) = (
        json!({ "Key": "a", "Value": "1" }),
        json!({ "Key": "b", "Value": "2" }),
        json!({ "Key": "c", "Value": "" }),
    );
    assert_eq!(listed, json!({ "Tags": [a, b], "HasMoreTags": true }));
    let body = json!({ "StreamName": "s", "ExclusiveStartTagKey": "b" });
    let listed = world.ok("ListTagsForStream", body).await;
    assert_eq!(listed, json!({ "Tags": [c], "HasMoreTags": false }));
    world.ok("RemoveTagsFromStream", json!({ "StreamName": "s", "TagKeys": ["a", "x"] })).await;
    world.ok("UntagResource", json!({ "ResourceARN": arn, "TagKeys": ["c"] })).await;
    let listed = world.ok("ListTagsForResource", json!({ "ResourceARN": arn })).await;
    assert_eq!(listed, json!({ "Tags": [b] }));
    let many: serde_json::Map<_, _> = (0..50).map(|n| (format!("t{n}"), json!("v"))).collect();
    let (code, text) =
        world.no("AddTagsToStream", json!({ "StreamName": "s", "Tags": many })).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(text.contains("cannot have more than 50 tags"), "{text}");
    let body = json!({ "StreamName": "s", "Tags": { "aws:x": "" } });
    assert_eq!(world.no("AddTagsToStream", body).await.0, "InvalidArgumentException");
}

// shows: limit:token-life
#[tokio::test]
async fn lists_come_in_pages_whose_tokens_end() {
    let world = World::new().await;
    for name in ["c", "a", "b"] {
        world.create(name, 3).await;
    }
    let first = world.ok("ListStreams", json!({ "Limit": 2 })).await;
    assert_eq!(first["StreamNames"], json!(["a", "b"]));
    assert_eq!(first["HasMoreStreams"], json!(true));
    let second = world.ok("ListStreams", json!({ "NextToken": first["NextToken"] })).await;
    assert_eq!((&second["StreamNames"], second.get("NextToken")), (&json!(["c"]), None));
    let after = world.ok("ListStreams", json!({ "ExclusiveStartStreamName": "a" })).await;
    assert_eq!(after["StreamNames"], json!(["b", "c"]));

    let shards = |reply: &Value| {
        let shards = reply["Shards"].as_array().unwrap().iter();
        shards.map(|s| s["ShardId"].as_str().unwrap()[18..].to_owned()).collect::<Vec<_>>()
    };
    let page = world.ok("ListShards", json!({ "StreamName": "a", "MaxResults": 2 })).await;
    assert_eq!(shards(&page), ["00", "01"]);
    let token = &page["NextToken"];
    let page = world.ok("ListShards", json!({ "NextToken": token })).await;
    assert_eq!((shards(&page), page.get("NextToken")), (vec!["02".to_owned()], None));
    assert_eq!(
        world.no("ListShards", json!({ "NextToken": token, "StreamName": "a" })).await,
        error("InvalidArgumentException", "NextToken and StreamName cannot be provided together.")
    );
    let body = json!({ "StreamName": "a", "ExclusiveStartShardId": "shardId-000000000001" });
    assert_eq!(shards(&world.ok("ListShards", body).await), ["02"]);
    let body = json!({ "StreamName": "a", "Limit": 1, "ExclusiveStartShardId": "0" });
    let page = &world.ok("DescribeStream", body).await["StreamDescription"];
    assert_eq!((shards(page), &page["HasMoreShards"]), (vec!["01".to_owned()], &json!(true)));

    world.clock.advance(Duration::from_millis(300_001));
    assert_eq!(
        world.no("ListShards", json!({ "NextToken": token })).await.0,
        "ExpiredNextTokenException"
    );
    assert_eq!(
        world.no("ListStreams", json!({ "NextToken": first["NextToken"] })).await.0,
        "ExpiredNextTokenException"
    );
    assert_eq!(
        world.no("ListStreams", json!({ "NextToken": token })).await,
        error("InvalidArgumentException", "Invalid NextToken.")
    );
}

// shows: limit:tag-characters
#[tokio::test]
async fn tags_have_the_characters_that_aws_takes() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.ok("AddTagsToStream", json!({ "StreamName": "s", "Tags": { "ü0 _.": "/=+-@:" } })).await;
    let listed = "Some tags contain invalid characters. Valid characters: Unicode letters, digits, \
                  white space, _ . / = + - % @ :.";
    for text in ["a;b", "a\tb", "a\nb", "a,b"] {
        for tags in [json!({ text: "v" }), json!({ "k": text })] {
            let told =
                world.no("AddTagsToStream", json!({ "StreamName": "s", "Tags": tags })).await;
            assert_eq!(told, error("InvalidArgumentException", listed));
        }
        let keys = json!({ "StreamName": "s", "TagKeys": [text] });
        let told = world.no("RemoveTagsFromStream", keys).await;
        assert_eq!(told, error("InvalidArgumentException", listed));
    }
    let (_, text) =
        world.no("AddTagsToStream", json!({ "StreamName": "s", "Tags": { "a%": "" } })).await;
    assert_eq!(
        text,
        "Failed to add tags to stream s under account 000000000000 because some tags contained \
         illegal characters. The allowed characters are Unicode letters, white-spaces, \
         '_',',','/','=','+','-','@',':'."
    );
    let keys = json!({ "StreamName": "s", "TagKeys": ["a%"] });
    let (code, text) = world.no("RemoveTagsFromStream", keys).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(text.starts_with("Failed to remove tags from stream s under account"), "{text}");
}
