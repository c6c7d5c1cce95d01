//! What replies and refusals look like, to the letter.

use hydrant_wire::cbor::{self, Writer};
use hydrant_wire::shape::{Blob, Integer, List, Structure, Text};
use hydrant_wire::{ApiError, Format};
use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn descriptions_are_as_aws_gives_them() {
    let world = World::new().await;
    world.create("tweets", 2).await;
    let name = json!({ "StreamName": "tweets" });
    insta::assert_json_snapshot!(world.ok("DescribeStream", name.clone()).await);
    insta::assert_json_snapshot!(world.ok("DescribeStreamSummary", name.clone()).await);
    insta::assert_json_snapshot!(world.ok("ListStreams", json!({})).await);
    insta::assert_json_snapshot!(world.ok("ListShards", name).await);
}

#[tokio::test]
async fn puts_and_gets_are_as_aws_gives_them() {
    let world = World::new().await;
    world.create("tweets", 2).await;
    let records = json!([
        { "Data": "YQ==", "PartitionKey": "a" },
        { "Data": "Yg==", "PartitionKey": "b", "ExplicitHashKey": "0" },
        { "Data": "", "PartitionKey": "quote \" and \u{fc}", "ExplicitHashKey": "0" },
    ]);
    let body = json!({ "StreamName": "tweets", "Records": records });
    insta::assert_json_snapshot!(world.ok("PutRecords", body).await);
    world.clock.advance(Duration::from_millis(1_234));
    let body = json!({ "StreamName": "tweets", "PartitionKey": "b", "Data": "Yw==" });
    insta::assert_json_snapshot!(world.ok("PutRecord", body).await);
    let iterator = world.horizon("tweets", "shardId-000000000000").await;
    let body = json!({ "ShardIterator": iterator, "Limit": 2 });
    insta::assert_json_snapshot!(world.ok("GetRecords", body).await);
}

#[tokio::test]
async fn constraints_are_refused_in_the_words_of_aws() {
    let world = World::new().await;
    let long = "a".repeat(129);
    let validation = |text: &str| error("ValidationException", text);
    assert_eq!(
        world.no("DescribeStream", json!({ "StreamName": long })).await,
        validation(&format!(
            "1 validation error detected: Value '{long}' at 'streamName' failed to satisfy \
             constraint: Member must have length less than or equal to 128"
        ))
    );
    assert_eq!(
        world.no("DescribeStream", json!({})).await,
        validation(
            "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: \
             Member must not be null"
        )
    );
    let body = json!({ "StreamName": "", "ShardIteratorType": "", "ShardId": "",
                       "StartingSequenceNumber": "" });
    assert_eq!(
        world.no("GetShardIterator", body).await,
        validation(
            "6 validation errors detected: Value '' at 'shardId' failed to satisfy constraint: \
             Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '' at 'shardId' \
             failed to satisfy constraint: Member must have length greater than or equal to 1; Value \
             '' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value \
             set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]; \
             Value '' at 'startingSequenceNumber' failed to satisfy constraint: Member must satisfy \
             regular expression pattern: 0|([1-9]\\d{0,128}); Value '' at 'streamName' failed to \
             satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; \
             Value '' at 'streamName' failed to satisfy constraint: Member must have length greater \
             than or equal to 1"
        )
    );
    assert_eq!(
        world.no("CreateStream", json!({ "StreamName": "s", "ShardCount": 0 })).await,
        validation(
            "1 validation error detected: Value '0' at 'shardCount' failed to satisfy constraint: \
             Member must have value greater than or equal to 1"
        )
    );
    assert_eq!(
        world.no("CreateStream", json!({ "StreamName": "s" })).await,
        validation(
            "1 validation error detected: Value null at 'shardCount' failed to satisfy constraint: \
             Member must not be null"
        )
    );
    assert_eq!(
        world.no("GetRecords", json!({ "ShardIterator": "x", "Limit": 10_001 })).await,
        validation(
            "1 validation error detected: Value '10001' at 'limit' failed to satisfy constraint: \
             Member must have value less than or equal to 10000"
        )
    );
}

#[tokio::test]
async fn what_hydrant_has_not_is_refused_by_name() {
    let world = World::new().await;
    assert_eq!(
        world.no("CreateQueue", json!({})).await,
        error("UnsupportedOperationException", "hydrant does not support CreateQueue.")
    );
    assert_eq!(world.no("MakeCoffee", json!({})).await.0, "UnknownOperationException");
}

#[tokio::test]
async fn requests_of_another_shape_are_refused() {
    let world = World::new().await;
    let serialization = |text: &str| Err(error("SerializationException", text));
    for (body, text) in [
        ("{", ""),
        ("", ""),
        ("{\"StreamName\":", ""),
        ("{\"StreamName\":1}", "class java.math.BigDecimal can not be converted to an String"),
        ("{\"Records\":\"\"}", "Expected list or null"),
        ("{\"Records\":[1]}", "Expected null"),
        (
            "{\"Records\":[{\"Data\":1}]}",
            "class java.math.BigDecimal can not be converted to a Blob",
        ),
    ] {
        assert_eq!(world.raw("PutRecords", body).await, serialization(text), "{body}");
    }
}

fn operation() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "CreateStream",
        "DeleteStream",
        "DescribeStream",
        "DescribeStreamSummary",
        "ListStreams",
        "ListShards",
        "PutRecord",
        "PutRecords",
        "GetShardIterator",
        "GetRecords",
        "AddTagsToStream",
        "ListTagsForStream",
        "IncreaseStreamRetentionPeriod",
    ])
}

fn member() -> impl Strategy<Value = (String, Value)> {
    let names = prop::sample::select(vec![
        "StreamName",
        "StreamARN",
        "ShardId",
        "ShardCount",
        "ShardIteratorType",
        "ShardIterator",
        "StartingSequenceNumber",
        "Timestamp",
        "Limit",
        "MaxResults",
        "NextToken",
        "ShardFilter",
        "Records",
        "Data",
        "PartitionKey",
        "ExplicitHashKey",
        "Tags",
        "RetentionPeriodHours",
    ]);
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["s", "0", "shardId-1", "AT_TIMESTAMP", "YQ==", "AAAA", "5"])
            .prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        Just(json!([{ "Data": "YQ==", "PartitionKey": "k" }, null])),
        Just(json!({ "Type": "AT_TIMESTAMP", "Timestamp": -1e300 })),
    ];
    (names.prop_map(str::to_owned), value)
}

proptest! {
    #[test]
    fn any_request_gets_a_reply_or_an_exception_of_the_caller(
        calls in prop::collection::vec((operation(), prop::collection::vec(member(), 0..6)), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            world.create("s", 2).await;
            for (operation, members) in calls {
                let body = Value::Object(members.into_iter().collect());
                if let Err((code, text)) = world.call(operation, body).await {
                    assert_ne!(code, "InternalFailure", "{text}");
                }
                world.kinesis.settle().await;
            }
        });
    }
}

/// The reply to a call in CBOR.
async fn in_cbor(world: &World, operation: &str, body: Vec<u8>) -> Result<Bytes, ApiError> {
    let call = Call::for_tests(world.scope.clone(), operation, body);
    let reply = world.kinesis.call(Call { format: Format::Cbor, ..call }).await;
    reply.map(|reply| reply.whole().unwrap())
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Put<'a> {
    failed_record_count: Integer,
    #[serde(borrow)]
    records: List<Structure<PutEntry<'a>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEntry<'a> {
    #[serde(borrow)]
    sequence_number: Text<'a>,
    #[serde(borrow)]
    shard_id: Text<'a>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Got<'a> {
    #[serde(borrow)]
    records: List<Structure<GotRecord<'a>>>,
    #[serde(borrow)]
    next_shard_iterator: Text<'a>,
    millis_behind_latest: Integer,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GotRecord<'a> {
    #[serde(borrow)]
    sequence_number: Text<'a>,
    #[serde(borrow)]
    data: Blob<'a>,
    #[serde(borrow)]
    partition_key: Text<'a>,
    approximate_arrival_timestamp: Integer,
}

#[tokio::test]
async fn the_same_operations_speak_cbor() {
    let world = World::new().await;
    world.create("tweets", 1).await;
    let mut body = Writer::with_capacity(0);
    body.map(2).text("StreamName").text("tweets").text("Records").list(2);
    for data in [&b""[..], &[0, 0xff]] {
        body.map(2).text("Data").blob(data).text("PartitionKey").text("\"ü");
    }
    let put = in_cbor(&world, "PutRecords", body.into_bytes().to_vec()).await.unwrap();
    let put: Put<'_> = cbor::parse(&put).unwrap();
    assert_eq!((put.failed_record_count.0, put.records.0.len()), (0, 2));
    assert_eq!(&*put.records.0[1].0.shard_id, "shardId-000000000000");

    let created = world.now_ms();
    let mut body = Writer::with_capacity(0);
    body.map(4).text("StreamName").text("tweets").text("ShardId").text("0");
    body.text("ShardIteratorType").text("AT_TIMESTAMP").text("Timestamp").number(created - 20);
    let got = in_cbor(&world, "GetShardIterator", body.into_bytes().to_vec()).await.unwrap();
    let iterator: std::collections::BTreeMap<String, String> = cbor::parse(&got).unwrap();
    let mut body = Writer::with_capacity(0);
    body.map(1).text("ShardIterator").text(&iterator["ShardIterator"]);
    let got = in_cbor(&world, "GetRecords", body.into_bytes().to_vec()).await.unwrap();
    let got: Got<'_> = cbor::parse(&got).unwrap();
    assert_eq!((got.millis_behind_latest.0, got.records.0.len()), (0, 2));
    assert!(!got.next_shard_iterator.is_empty());
    let second = &got.records.0[1].0;
    assert_eq!(second.data, Blob::Raw((&[0, 0xff][..]).into()));
    assert_eq!(&*second.partition_key, "\"ü");
    assert_eq!(second.sequence_number, put.records.0[1].0.sequence_number);
    assert_eq!(second.approximate_arrival_timestamp.0 as u64, created);

    let mut body = Writer::with_capacity(0);
    body.map(1).text("StreamName").text("tweets");
    let summary = in_cbor(&world, "DescribeStreamSummary", body.into_bytes().to_vec()).await;
    // The moment is a whole number of 8 bytes.
    let summary = summary.unwrap();
    let name = b"StreamCreationTimestamp\x1b";
    assert!(summary.windows(name.len()).any(|part| part == name));
    let refused = in_cbor(&world, "PutRecord", vec![0xa0]).await.unwrap_err();
    assert_eq!(refused.code, "ValidationException");
    assert_eq!(in_cbor(&world, "PutRecord", vec![1]).await.unwrap_err().message, "Expected null");
}
