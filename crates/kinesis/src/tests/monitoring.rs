//! Enhanced monitoring, and the metrics of streams and shards.

use super::*;

const ALL: [&str; 7] = [
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
];

async fn set(world: &World, operation: &str, metrics: &[&str]) -> Value {
    let body = json!({ "StreamName": "s", "ShardLevelMetrics": metrics });
    let reply = world.ok(operation, body).await;
    world.clock.advance(Duration::from_millis(20));
    reply
}

fn metrics(world: &World) -> String {
    let mut out = String::new();
    world.kinesis.write_metrics(&mut out);
    out
}

/// The value of a metric of the stream, of a shard of it if one is named.
fn value(world: &World, metric: &str, shard: Option<&str>) -> Option<u64> {
    let shard = shard.map_or(String::new(), |shard| format!(",shard=\"{shard}\""));
    let labels = format!("account=\"000000000000\",region=\"us-east-1\",stream=\"s\"{shard}");
    let head = format!("hydrant_kinesis_{metric}{{{labels}}} ");
    let text = metrics(world);
    let found = text.lines().find_map(|line| line.strip_prefix(&head));
    found.map(|value| value.parse().unwrap())
}

// shows: EnableEnhancedMonitoring, DisableEnhancedMonitoring
#[tokio::test]
async fn metrics_are_enabled_shown_and_disabled() {
    let world = World::new().await;
    world.create("s", 1).await;
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    assert_eq!(
        set(&world, "EnableEnhancedMonitoring", &["OutgoingBytes", "IncomingBytes"]).await,
        json!({
            "StreamName": "s",
            "CurrentShardLevelMetrics": [],
            "DesiredShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"],
            "StreamARN": arn,
        })
    );
    let reply = set(&world, "EnableEnhancedMonitoring", &["ALL"]).await;
    assert_eq!(reply["CurrentShardLevelMetrics"], json!(["IncomingBytes", "OutgoingBytes"]));
    assert_eq!(reply["DesiredShardLevelMetrics"], json!(ALL));
    let world = world.restart().await;
    for (operation, whole) in [
        ("DescribeStream", "StreamDescription"),
        ("DescribeStreamSummary", "StreamDescriptionSummary"),
    ] {
        let shown = world.ok(operation, json!({ "StreamName": "s" })).await;
        assert_eq!(shown[whole]["EnhancedMonitoring"], json!([{ "ShardLevelMetrics": ALL }]));
    }
    let reply = set(&world, "DisableEnhancedMonitoring", &["IncomingBytes"]).await;
    assert_eq!(reply["DesiredShardLevelMetrics"], json!(ALL[1..]));
    let reply = set(&world, "DisableEnhancedMonitoring", &["ALL"]).await;
    assert_eq!(reply["DesiredShardLevelMetrics"], json!([]));
}

#[tokio::test]
async fn a_change_is_updating_and_no_change_is_none() {
    let world = World::new().await;
    world.create("s", 1).await;
    let body = json!({ "StreamName": "s", "ShardLevelMetrics": ["ALL"] });
    world.ok("EnableEnhancedMonitoring", body.clone()).await;
    assert_eq!(
        world.no("DisableEnhancedMonitoring", body.clone()).await,
        error(
            "ResourceInUseException",
            "Stream s under account 000000000000 not ACTIVE, instead in state UPDATING"
        )
    );
    world.clock.advance(Duration::from_millis(20));
    for _ in 0..2 {
        world.ok("EnableEnhancedMonitoring", body.clone()).await;
    }
}

#[tokio::test]
async fn requests_are_checked() {
    let world = World::new().await;
    world.create("s", 1).await;
    let text = async |metrics: Value| {
        let body = json!({ "StreamName": "s", "ShardLevelMetrics": metrics });
        world.no("EnableEnhancedMonitoring", body).await
    };
    let expected = |what: &str| {
        let text = format!("1 validation error detected: Value {what}");
        ("ValidationException".to_owned(), text)
    };
    let at = "at 'shardLevelMetrics' failed to satisfy constraint: Member must";
    assert_eq!(text(Value::Null).await, expected(&format!("null {at} not be null")));
    assert_eq!(
        text(json!([])).await,
        expected(&format!("'[]' {at} have length greater than or equal to 1"))
    );
    let all = ALL.join(", ");
    assert_eq!(
        text(json!(["IncomingBytes", "Latency"])).await,
        expected(&format!(
            "'[IncomingBytes, Latency]' {at} satisfy constraint: [Member must satisfy enum value \
             set: [{all}, ALL]]"
        ))
    );
    let (code, text) = text(json!(vec!["ALL"; 8])).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("Member must have length less than or equal to 7"), "{text}");
}

#[tokio::test]
async fn traffic_is_counted_by_stream_and_by_shard_where_that_is_on() {
    let world = World::new().await;
    world.create("s", 2).await;
    world.create("idle", 1).await;
    assert_eq!(metrics(&world), "", "nothing of streams that nobody used");
    world.put("s", "a", "four").await;
    assert_eq!(value(&world, "incoming_records_total", None), Some(1));
    assert_eq!(value(&world, "incoming_bytes_total", None), Some(5));
    assert!(!metrics(&world).contains("shard="), "not without enhanced monitoring");
    set(&world, "EnableEnhancedMonitoring", &["IncomingRecords", "OutgoingBytes"]).await;
    let (first, second) = ("shardId-000000000000", "shardId-000000000001");
    let records = json!([
        { "Data": "YQ==", "PartitionKey": "k", "ExplicitHashKey": "0" },
        { "Data": "YQ==", "PartitionKey": "k", "ExplicitHashKey": "0" },
        { "Data": "YQ==", "PartitionKey": "k", "ExplicitHashKey": u128::MAX.to_string() },
    ]);
    world.ok("PutRecords", json!({ "StreamName": "s", "Records": records })).await;
    assert_eq!(value(&world, "shard_incoming_records_total", Some(first)), Some(2));
    assert_eq!(value(&world, "shard_incoming_records_total", Some(second)), Some(1));
    assert_eq!(value(&world, "shard_incoming_bytes_total", Some(first)), None, "not enabled");
    assert_eq!(value(&world, "incoming_records_total", None), Some(4));
    assert_eq!(value(&world, "put_records_total_records_total", None), Some(3));
    assert_eq!(value(&world, "put_records_failed_records_total", None), Some(0));

    world.clock.advance(Duration::from_millis(700));
    let iterator = world.horizon("s", second).await;
    let (data, next) = world.read(&iterator, 10).await;
    let bytes = data.len() as u64 * 2;
    let age = value(&world, "get_records_iterator_age_milliseconds", None).unwrap();
    assert!((700..800).contains(&age), "{age}");
    assert_eq!(value(&world, "shard_outgoing_bytes_total", Some(second)), Some(bytes));
    world.read(&next.unwrap(), 10).await;
    assert_eq!(value(&world, "get_records_iterator_age_milliseconds", None), Some(0));
    assert_eq!(value(&world, "get_records_success_total", None), Some(2));

    let text = metrics(&world);
    assert!(!text.contains("idle"), "{text}");
    let types: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    let distinct: std::collections::HashSet<&&str> = types.iter().collect();
    assert_eq!(types.len(), distinct.len(), "each type is told once: {text}");

    set(&world, "DisableEnhancedMonitoring", &["ALL"]).await;
    assert!(!metrics(&world).contains("shard="));
}

#[tokio::test]
async fn metrics_go_when_their_stream_goes() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.put("s", "a", "x").await;
    world.ok("DeleteStream", json!({ "StreamName": "s" })).await;
    world.clock.advance(Duration::from_millis(20));
    world.kinesis.settle().await;
    assert_eq!(metrics(&world), "");
    world.create("s", 1).await;
    assert_eq!(metrics(&world), "", "a new stream of the name begins at nothing");
}
