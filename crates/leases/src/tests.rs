//! Operations on tables in memory, with the clock moved by hand.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::control::ControlStore;
use hydrant_core::names::Scope;
use hydrant_core::sequence::{RecordIndex, SequenceNumber};
use hydrant_core::{Clock, Random, Timestamp};
use hydrant_testkit::{FaultyControl, ManualClock, MemoryControl};
use hydrant_wire::{Call, JsonService, Reply};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Leases, Options};

struct World {
    leases: Arc<Leases>,
    control: Arc<dyn ControlStore>,
    faults: Arc<FaultyControl>,
    clock: Arc<ManualClock>,
}

fn scope() -> Scope {
    Scope { account: "000000000000".parse().unwrap(), region: "us-east-1".parse().unwrap() }
}

impl World {
    fn new(options: Options) -> Self {
        let faults = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
        let control: Arc<dyn ControlStore> = faults.clone();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_767_009_600_000)));
        let random = Arc::new(Random::from_seed(5));
        let leases = Leases::new(Arc::clone(&control), clock.clone(), random, options);
        Self { leases: Arc::new(leases), control, faults, clock }
    }

    /// A world with KCL's lease table in it.
    async fn with_leases() -> Self {
        let world = Self::new(Options::default());
        world.ok("CreateTable", lease_table("app")).await;
        world.clock.advance(Duration::from_secs(1));
        world
    }

    async fn call(&self, operation: &str, body: Value) -> Result<Value, Value> {
        let call = Call::for_tests(scope(), operation, body.to_string());
        let read = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
        match self.leases.call(call).await.unwrap() {
            Reply::Refused { body, .. } => Err(read(&body)),
            reply => Ok(read(&reply.whole().unwrap())),
        }
    }

    async fn ok(&self, operation: &str, body: Value) -> Value {
        self.call(operation, body).await.unwrap_or_else(|e| panic!("{operation}: {e}"))
    }

    async fn refused(&self, operation: &str, body: Value) -> (String, String) {
        let error = self.call(operation, body).await.expect_err(operation);
        let kind = error["__type"].as_str().unwrap().rsplit('#').next().unwrap().to_owned();
        let text = error.get("message").or(error.get("Message"));
        (kind, text.and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    async fn put(&self, key: &str, counter: u32, owner: &str) {
        self.ok("PutItem", json!({"TableName": "app", "Item": lease(key, counter, owner)})).await;
    }

    async fn settle(&self) {
        let mut sweep = self.clock.now();
        self.leases.settle(&mut sweep).await.unwrap();
    }
}

fn lease_table(name: &str) -> Value {
    json!({
        "TableName": name,
        "AttributeDefinitions": [{"AttributeName": "leaseKey", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    })
}

fn lease(key: &str, counter: u32, owner: &str) -> Value {
    json!({
        "leaseKey": {"S": key},
        "leaseCounter": {"N": counter.to_string()},
        "leaseOwner": {"S": owner},
    })
}

fn renewal(key: &str, counter: u32) -> Value {
    json!({
        "TableName": "app",
        "Key": {"leaseKey": {"S": key}},
        "Expected": {
            "leaseCounter": {"Value": {"N": counter.to_string()}},
            "checkpointOwner": {"Exists": false},
        },
        "AttributeUpdates": {
            "leaseCounter": {"Value": {"N": (counter + 1).to_string()}, "Action": "PUT"},
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    })
}

#[tokio::test]
async fn a_table_lives_through_its_states() {
    let world = World::new(Options::default());
    let status = async || {
        let shown = world.ok("DescribeTable", json!({"TableName": "app"})).await;
        shown["Table"]["TableStatus"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        world.refused("DescribeTable", json!({"TableName": "app"})).await,
        (
            "ResourceNotFoundException".to_owned(),
            "Requested resource not found: Table: app not found".to_owned()
        )
    );
    let made = world.ok("CreateTable", lease_table("app")).await;
    assert_eq!(made["TableDescription"]["TableStatus"], "CREATING");
    let get = json!({"TableName": "app", "Key": {"leaseKey": {"S": "a"}}});
    assert_eq!(world.refused("GetItem", get.clone()).await.1, "Requested resource not found");
    assert_eq!(world.refused("CreateTable", lease_table("app")).await.0, "ResourceInUseException");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(status().await, "ACTIVE");
    world.put("a", 1, "w").await;
    world.ok("DeleteTable", json!({"TableName": "app"})).await;
    assert_eq!(status().await, "DELETING");
    assert_eq!(world.refused("GetItem", get.clone()).await.0, "ResourceNotFoundException");
    world.clock.advance(Duration::from_secs(1));
    world.settle().await;
    assert_eq!(world.control.scan("leases/", None, 10).await.unwrap(), []);
    world.ok("CreateTable", lease_table("app")).await;
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.ok("GetItem", get).await, json!({}));
}

#[tokio::test]
async fn a_lease_is_renewed_once_a_counter() {
    let world = World::with_leases().await;
    world.put("shard-0", 7, "w1").await;
    world.ok("UpdateItem", renewal("shard-0", 7)).await;
    let error = world.call("UpdateItem", renewal("shard-0", 7)).await.unwrap_err();
    assert_eq!(error["__type"], "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException");
    assert_eq!(error["message"], "The conditional request failed");
    assert_eq!(error["Item"]["leaseCounter"], json!({"N": "8"}));
}

#[tokio::test]
async fn of_many_who_take_a_lease_one_gets_it() {
    let world = World::with_leases().await;
    world.put("shard-0", 0, "nobody").await;
    let tries = (0..50).map(|_| {
        let leases = Arc::clone(&world.leases);
        tokio::spawn(async move {
            let call = Call::for_tests(scope(), "UpdateItem", renewal("shard-0", 0).to_string());
            matches!(leases.call(call).await.unwrap(), Reply::Whole(_))
        })
    });
    let mut won = 0;
    for one in tries.collect::<Vec<_>>() {
        won += usize::from(one.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_changes_nothing_twice() {
    let world = World::with_leases().await;
    world.put("shard-0", 0, "w").await;
    world.faults.lose_answers(1);
    let (kind, text) = world.refused("UpdateItem", renewal("shard-0", 0)).await;
    assert_eq!((kind.as_str(), text.as_str()), ("InternalServerError", "Internal server error"));
    let (kind, _) = world.refused("UpdateItem", renewal("shard-0", 0)).await;
    assert_eq!(kind, "ConditionalCheckFailedException");
}

#[tokio::test]
async fn the_index_of_owners_is_made_and_read() {
    let world = World::with_leases().await;
    for n in 0..5 {
        world.put(&format!("shard-{n}"), 0, if n % 2 == 0 { "even" } else { "odd" }).await;
    }
    let create = json!({
        "TableName": "app",
        "AttributeDefinitions": [
            {"AttributeName": "leaseOwner", "AttributeType": "S"},
            {"AttributeName": "leaseKey", "AttributeType": "S"},
        ],
        "GlobalSecondaryIndexUpdates": [{"Create": {
            "IndexName": "LeaseOwnerToLeaseKeyIndex",
            "KeySchema": [
                {"AttributeName": "leaseOwner", "KeyType": "HASH"},
                {"AttributeName": "leaseKey", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }}],
    });
    let shown = world.ok("UpdateTable", create).await;
    let index = &shown["TableDescription"]["GlobalSecondaryIndexes"][0];
    assert_eq!((&index["IndexStatus"], &index["Backfilling"]), (&json!("CREATING"), &json!(true)));
    let mut query = json!({
        "TableName": "app",
        "IndexName": "LeaseOwnerToLeaseKeyIndex",
        "KeyConditionExpression": "leaseOwner = :leaseOwner",
        "ExpressionAttributeValues": {":leaseOwner": {"S": "even"}},
        "Limit": 2,
    });
    assert_eq!(world.refused("Query", query.clone()).await.0, "ValidationException");
    world.clock.advance(Duration::from_secs(1));
    let first = world.ok("Query", query.clone()).await;
    assert_eq!(
        first["Items"],
        json!([
            {"leaseKey": {"S": "shard-0"}, "leaseOwner": {"S": "even"}},
            {"leaseKey": {"S": "shard-2"}, "leaseOwner": {"S": "even"}},
        ])
    );
    query["ExclusiveStartKey"] = first["LastEvaluatedKey"].clone();
    let second = world.ok("Query", query).await;
    assert_eq!((second["Count"].as_u64(), second.get("LastEvaluatedKey")), (Some(1), None));
}

#[tokio::test]
async fn a_scan_in_parts_sees_each_item_once() {
    let world = World::with_leases().await;
    for n in 0..60 {
        world.put(&format!("shard-{n}"), n, "w").await;
    }
    let mut seen = Vec::new();
    for segment in 0..7 {
        let mut start = Value::Null;
        loop {
            let mut scan =
                json!({"TableName": "app", "Limit": 4, "Segment": segment, "TotalSegments": 7});
            if !start.is_null() {
                scan["ExclusiveStartKey"] = start;
            }
            let page = world.ok("Scan", scan).await;
            for item in page["Items"].as_array().unwrap() {
                seen.push(item["leaseKey"]["S"].as_str().unwrap().to_owned());
            }
            match page.get("LastEvaluatedKey") {
                Some(key) => start = key.clone(),
                None => break,
            }
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 60);
}

#[tokio::test]
async fn a_transaction_is_whole_and_made_once_for_its_token() {
    let world = World::with_leases().await;
    world.put("a", 1, "w").await;
    let both = |counter: &str| {
        json!({
            "ClientRequestToken": "token",
            "TransactItems": [
                {"Update": {
                    "TableName": "app", "Key": {"leaseKey": {"S": "a"}},
                    "UpdateExpression": "SET leaseCounter = leaseCounter + :one",
                    "ConditionExpression": "leaseCounter = :seen",
                    "ExpressionAttributeValues": {":one": {"N": "1"}, ":seen": {"N": counter}},
                }},
                {"Put": {"TableName": "app", "Item": lease("b", 1, "w")}},
            ],
        })
    };
    let error = world.call("TransactWriteItems", both("9")).await.unwrap_err();
    assert_eq!(error["CancellationReasons"][0]["Code"], "ConditionalCheckFailed");
    assert_eq!(error["CancellationReasons"][1]["Code"], "None");
    assert!(error["Message"].as_str().unwrap().ends_with("[ConditionalCheckFailed, None]"));
    let get = |key: &str| json!({"TableName": "app", "Key": {"leaseKey": {"S": key}}});
    assert_eq!(world.ok("GetItem", get("b")).await, json!({}));
    world.ok("TransactWriteItems", both("1")).await;
    world.ok("TransactWriteItems", both("1")).await;
    let a = world.ok("GetItem", get("a")).await;
    assert_eq!(a["Item"]["leaseCounter"], json!({"N": "2"}));
    let (kind, _) = world.refused("TransactWriteItems", both("2")).await;
    assert_eq!(kind, "IdempotentParameterMismatchException");
    world.clock.advance(Duration::from_secs(700));
    world.settle().await;
    world.ok("TransactWriteItems", both("2")).await;
}

#[tokio::test]
async fn limits_and_settings_hold() {
    let world = World::new(Options { tables_max: 1, items_max: 2, ..Options::default() });
    let mut table = lease_table("app");
    table["DeletionProtectionEnabled"] = json!(true);
    world.ok("CreateTable", table).await;
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.refused("CreateTable", lease_table("two")).await.0, "LimitExceededException");
    world.put("a", 1, "w").await;
    world.put("b", 1, "w").await;
    world.put("b", 2, "w").await;
    let third = json!({"TableName": "app", "Item": lease("c", 1, "w")});
    assert_eq!(world.refused("PutItem", third.clone()).await.0, "LimitExceededException");
    let gone = json!({"TableName": "app", "Key": {"leaseKey": {"S": "a"}}});
    world.ok("DeleteItem", gone).await;
    world.ok("PutItem", third).await;
    let shown = world.ok("DescribeTable", json!({"TableName": "app"})).await;
    assert_eq!(shown["Table"]["ItemCount"], 2);
    let (_, text) = world.refused("DeleteTable", json!({"TableName": "app"})).await;
    assert!(text.starts_with("Resource cannot be deleted"), "{text}");
    for (operation, body) in [
        ("BatchGetItem", json!({"RequestItems": {}})),
        (
            "UpdateContinuousBackups",
            json!({"TableName": "app",
                   "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": true}}),
        ),
        (
            "UpdateTable",
            json!({"TableName": "app", "StreamSpecification": {"StreamEnabled": true}}),
        ),
    ] {
        let (_, text) = world.refused(operation, body).await;
        assert!(text.contains("hydrant"), "{operation}: {text}");
    }
}

#[tokio::test]
async fn items_expire() {
    let world = World::with_leases().await;
    let ttl = json!({"TableName": "app",
        "TimeToLiveSpecification": {"Enabled": true, "AttributeName": "until"}});
    world.ok("UpdateTimeToLive", ttl).await;
    let at = world.clock.now().as_secs() + 60;
    let mut item = lease("a", 1, "w");
    item["until"] = json!({"N": at.to_string()});
    world.ok("PutItem", json!({"TableName": "app", "Item": item})).await;
    world.put("b", 1, "w").await;
    world.settle().await;
    let count = async || world.ok("Scan", json!({"TableName": "app"})).await["Count"].clone();
    assert_eq!(count().await, 2);
    world.clock.advance(Duration::from_secs(120));
    world.settle().await;
    assert_eq!(count().await, 1);
}

#[tokio::test]
async fn keys_are_checked_in_awss_words() {
    let world = World::with_leases().await;
    for (operation, body, wanted) in [
        (
            "PutItem",
            json!({"TableName": "app", "Item": {}}),
            "Missing the key leaseKey in the item",
        ),
        (
            "PutItem",
            json!({"TableName": "app", "Item": {"leaseKey": {"N": "1"}}}),
            "Type mismatch for key leaseKey expected: S actual: N",
        ),
        (
            "GetItem",
            json!({"TableName": "app", "Key": {"other": {"S": "1"}}}),
            "The provided key element does not match the schema",
        ),
        (
            "GetItem",
            json!({"TableName": "app", "Key": {"leaseKey": {"S": ""}}}),
            "cannot contain an empty string value. Key: leaseKey",
        ),
        ("GetItem", json!({"TableName": "x!y", "Key": {}}), "[a-zA-Z0-9_.-]+"),
        (
            "UpdateItem",
            json!({"TableName": "app", "Key": {"leaseKey": {"S": "a"}},
                   "UpdateExpression": "SET leaseKey = :a",
                   "ExpressionAttributeValues": {":a": {"S": "b"}}}),
            "Cannot update attribute leaseKey. This attribute is part of the key",
        ),
        (
            "UpdateItem",
            json!({"TableName": "app", "Key": {"leaseKey": {"S": "a"}}, "Expected": {},
                   "UpdateExpression": "SET x = :a",
                   "ExpressionAttributeValues": {":a": {"S": "b"}}}),
            "Non-expression parameters: {Expected} Expression parameters: {UpdateExpression}",
        ),
    ] {
        let (kind, text) = world.refused(operation, body).await;
        assert_eq!(kind, "ValidationException");
        assert!(text.contains(wanted), "{operation}: {text}");
    }
}

#[tokio::test]
async fn lag_is_that_of_the_checkpoint() {
    let world = World::with_leases().await;
    let arrived = world.clock.now();
    let number = SequenceNumber::of(1, arrived, RecordIndex::at(arrived).plus(3)).to_string();
    for (key, checkpoint) in [
        ("shardId-000000000001", number.as_str()),
        ("000000000000:tweets:1:shardId-000000000002", number.as_str()),
        ("shardId-000000000003", "TRIM_HORIZON"),
        ("shardId-000000000004", "SHARD_END"),
    ] {
        let mut item = lease(key, 1, "w");
        item["checkpoint"] = json!({"S": checkpoint});
        world.ok("PutItem", json!({"TableName": "app", "Item": item})).await;
    }
    world.clock.advance(Duration::from_millis(1_500));
    let text = world.leases.exposition().await.unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        text.contains("application=\"app\",shard=\"shardId-000000000001\",owner=\"w\"} 1500"),
        "{text}"
    );
    assert!(text.contains("stream=\"000000000000:tweets:1\"} 1500"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of changes, a table holds what a map of them holds.
    #[test]
    fn a_table_is_a_map(changes in proptest::collection::vec((0..6u8, 0..4u8, 0..20u32), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::with_leases().await;
            let mut model = std::collections::BTreeMap::<String, u32>::new();
            for (key, action, n) in changes {
                let name = format!("k{key}");
                let key = json!({"leaseKey": {"S": name}});
                match action {
                    0 => {
                        world.put(&name, n, "w").await;
                        model.insert(name, n);
                    }
                    1 => {
                        world.ok("DeleteItem", json!({"TableName": "app", "Key": key})).await;
                        model.remove(&name);
                    }
                    2 => {
                        let body = json!({"TableName": "app", "Key": key,
                            "UpdateExpression": "ADD leaseCounter :n",
                            "ExpressionAttributeValues": {":n": {"N": n.to_string()}}});
                        world.ok("UpdateItem", body).await;
                        *model.entry(name).or_default() += n;
                    }
                    _ => {
                        let made = world.call("UpdateItem", renewal(&name, n)).await.is_ok();
                        assert_eq!(made, model.get(&name) == Some(&n));
                        model.entry(name).and_modify(|seen| *seen += u32::from(made));
                    }
                }
            }
            let scan = world.ok("Scan", json!({"TableName": "app", "ConsistentRead": true})).await;
            let found: std::collections::BTreeMap<String, u32> = scan["Items"].as_array().unwrap()
                .iter()
                .map(|item| {
                    let n = item["leaseCounter"]["N"].as_str().unwrap().parse().unwrap();
                    (item["leaseKey"]["S"].as_str().unwrap().to_owned(), n)
                })
                .collect();
            assert_eq!(found, model);
            let shown = world.ok("DescribeTable", json!({"TableName": "app"})).await;
            assert_eq!(shown["Table"]["ItemCount"], found.len());
        });
    }
}
