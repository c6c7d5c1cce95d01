//! Encryption at rest: what is asked for, what the log then holds, and what is told without the key.

use hydrant_core::log::{ReadLimit, ShardUid};
use hydrant_core::sequence::RecordIndex;
use hydrant_testkit::FaultyLog;

use super::*;

const KMS: &str = "alias/aws/kinesis";

async fn start(world: &World, stream: &str, key_id: &str) -> Result<Value, (String, String)> {
    let body = json!({ "StreamName": stream, "EncryptionType": "KMS", "KeyId": key_id });
    world.call("StartStreamEncryption", body).await
}

async fn stop(world: &World, stream: &str, key_id: &str) -> Result<Value, (String, String)> {
    let body = json!({ "StreamName": stream, "EncryptionType": "KMS", "KeyId": key_id });
    world.call("StopStreamEncryption", body).await
}

/// Waits until the stream is ACTIVE again.
async fn settle(world: &World) {
    world.clock.advance(Duration::from_millis(20));
    world.kinesis.settle().await;
}

async fn summary(world: &World) -> Value {
    let reply = world.ok("DescribeStreamSummary", json!({ "StreamName": "s" })).await;
    reply["StreamDescriptionSummary"].clone()
}

async fn put_one(world: &World, data: &str) -> Value {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    let record = json!({ "PartitionKey": "k", "Data": data });
    world.ok("PutRecords", json!({ "StreamName": "s", "Records": [record] })).await
}

/// Data and `EncryptionType` of every record of the only shard.
async fn records(world: &World) -> Vec<(String, Value)> {
    let iterator = world.horizon("s", "shardId-000000000000").await;
    let reply = world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
    let records = reply["Records"].as_array().unwrap().clone();
    records.iter().map(|r| (data_of(&r["Data"]), r["EncryptionType"].clone())).collect()
}

async fn bytes_below(world: &World) -> Vec<u8> {
    let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
    let page = world.log.read(ShardUid(1), RecordIndex::MIN, limit).await.unwrap();
    let records = page.frames.iter().flat_map(|f| f.records());
    records.flat_map(|r| r.data.to_vec()).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

// shows: StartStreamEncryption, StopStreamEncryption
#[tokio::test]
async fn records_are_encrypted_while_it_is_on_and_readable_for_ever() {
    let world = World::new().await;
    world.create("s", 1).await;
    assert_eq!(put_one(&world, "plain one").await.get("EncryptionType"), None);
    start(&world, "s", KMS).await.unwrap();
    // As with AWS, not before the stream is ACTIVE again.
    assert_eq!(summary(&world).await["StreamStatus"], "UPDATING");
    assert_eq!(put_one(&world, "plain two").await.get("EncryptionType"), None);
    settle(&world).await;
    let shown = summary(&world).await;
    assert_eq!((&shown["EncryptionType"], &shown["KeyId"]), (&json!("KMS"), &json!(KMS)));
    assert_eq!(put_one(&world, "secret one").await["EncryptionType"], "KMS");
    let body = json!({ "StreamName": "s", "PartitionKey": "k", "Data": "c2VjcmV0IHR3bw==" });
    assert_eq!(world.ok("PutRecord", body).await["EncryptionType"], "KMS");
    // Again, under another key: a new data key, and the records of the old one stay readable.
    start(&world, "s", "alias/orders").await.unwrap();
    settle(&world).await;
    assert_eq!(summary(&world).await["KeyId"], "alias/orders");
    put_one(&world, "secret three").await;
    stop(&world, "s", "arn:aws:kms:us-east-1:000000000000:alias/orders").await.unwrap();
    assert_eq!(put_one(&world, "secret four").await["EncryptionType"], "KMS");
    settle(&world).await;
    assert_eq!(put_one(&world, "plain three").await.get("EncryptionType"), None);
    let shown = summary(&world).await;
    assert_eq!((&shown["EncryptionType"], shown.get("KeyId")), (&json!("NONE"), None));

    let below = bytes_below(&world).await;
    assert!(holds(&below, "plain two") && !holds(&below, "secret"));
    let want: Vec<(String, Value)> = [
        ("plain one", Value::Null),
        ("plain two", Value::Null),
        ("secret one", json!("KMS")),
        ("secret two", json!("KMS")),
        ("secret three", json!("KMS")),
        ("secret four", json!("KMS")),
        ("plain three", Value::Null),
    ]
    .map(|(data, kind)| (data.to_owned(), kind))
    .into();
    assert_eq!(records(&world).await, want);
    assert_eq!(records(&world.restart().await).await, want);
}

#[tokio::test]
async fn without_its_key_a_stream_answers_with_the_exceptions_of_kms() {
    let world = World::new().await;
    world.create("s", 1).await;
    put_one(&world, "plain").await;
    start(&world, "s", "alias/orders").await.unwrap();
    settle(&world).await;
    put_one(&world, "secret").await;
    let cases = [
        (None, "alias/orders", "KMSNotFoundException"),
        (Some(8), "alias/orders", "KMSAccessDeniedException"),
        (Some(7), "alias/other", "KMSNotFoundException"),
        (Some(7), "alias/orders=disabled", "KMSDisabledException"),
        (Some(7), "alias/orders=pending-deletion", "KMSInvalidStateException"),
    ];
    for (master, key, code) in cases {
        let (clock, control) = (world.clock.clone(), world.control.clone());
        let keys = vault(2, master, &[key]);
        let log = world.log.clone();
        let other = World::with_vault(clock, log, control, Options::default(), keys).await;
        let record = json!({ "PartitionKey": "k", "Data": "" });
        let put = json!({ "StreamName": "s", "Records": [record] });
        assert_eq!(other.no("PutRecords", put).await.0, code);
        let put = json!({ "StreamName": "s", "PartitionKey": "k", "Data": "" });
        assert_eq!(other.no("PutRecord", put).await.0, code);
        // What is not encrypted is read, up to what is.
        let iterator = other.horizon("s", "shardId-000000000000").await;
        let (data, next) = other.read(&iterator, 10).await;
        assert_eq!(data, ["plain"]);
        let (got, text) = other.no("GetRecords", json!({ "ShardIterator": next })).await;
        assert_eq!(got, code, "{text}");
        assert!(master.is_some() || text.contains("--master-key-file"), "{text}");
        assert_eq!(summary(&other).await["EncryptionType"], "KMS");
    }
    assert_eq!(records(&world.restart().await).await[1].0, "secret", "all is well with the key");
}

#[tokio::test]
async fn keys_that_are_not_there_are_refused() {
    let world = World::new().await;
    world.create("s", 1).await;
    for unknown in [
        "alias/none",
        "none",
        "12345678-1234-1234-1234-123456789012",
        "arn:aws:kms:eu-west-1:000000000000:alias/orders",
        "arn:aws:kms:us-east-1:111111111111:alias/orders",
    ] {
        assert_eq!(start(&world, "s", unknown).await.unwrap_err().0, "KMSNotFoundException");
    }
    let (clock, control) = (world.clock.clone(), world.control.clone());
    let keys = vault(2, None, &[]);
    let log = world.log.clone();
    let other = World::with_vault(clock, log, control, Options::default(), keys).await;
    let (code, text) = start(&other, "s", KMS).await.unwrap_err();
    assert_eq!(code, "KMSNotFoundException");
    assert!(text.contains("HYDRANT_MASTER_KEY"), "{text}");
    assert_eq!(summary(&world).await["StreamStatus"], "ACTIVE");
}

#[tokio::test]
async fn requests_are_checked() {
    let world = World::new().await;
    world.create("s", 1).await;
    for operation in ["StartStreamEncryption", "StopStreamEncryption"] {
        assert_eq!(
            world.no(operation, json!({ "StreamName": "s", "EncryptionType": "AES" })).await,
            error(
                "ValidationException",
                "2 validation errors detected: Value 'AES' at 'encryptionType' failed to satisfy \
                 constraint: Member must satisfy enum value set: [NONE, KMS]; Value null at 'keyId' \
                 failed to satisfy constraint: Member must not be null"
            )
        );
        let none = json!({ "StreamName": "s", "EncryptionType": "NONE", "KeyId": KMS });
        assert_eq!(world.no(operation, none).await.0, "InvalidArgumentException");
        let body = json!({ "StreamName": "t", "EncryptionType": "KMS", "KeyId": KMS });
        assert_eq!(world.no(operation, body).await.0, "ResourceNotFoundException");
    }
    stop(&world, "s", KMS).await.unwrap();
    assert_eq!(summary(&world).await["StreamStatus"], "ACTIVE", "nothing to stop");
    start(&world, "s", KMS).await.unwrap();
    assert_eq!(start(&world, "s", KMS).await.unwrap_err().0, "ResourceInUseException");
    settle(&world).await;
    assert_eq!(stop(&world, "s", "alias/orders").await.unwrap_err().0, "InvalidArgumentException");
}

#[tokio::test]
async fn keys_that_no_record_can_need_are_dropped() {
    let world = World::new().await;
    world.create("s", 1).await;
    let keys = async || {
        let (_, entry) =
            hydrant_core::control::scan_all(&*world.control, "streams/").await.unwrap().remove(0);
        let row: Value = serde_json::from_str(&entry.value).unwrap();
        row["settings"]["encryption"]["keys"].as_array().unwrap().len()
    };
    for _ in 0..3 {
        start(&world, "s", KMS).await.unwrap();
        settle(&world).await;
    }
    assert_eq!(keys().await, 3);
    world.clock.advance(Duration::from_secs(8_761 * 3_600));
    start(&world, "s", KMS).await.unwrap();
    // The one in use until now, and the new one.
    assert_eq!(keys().await, 2);
    settle(&world).await;
    assert_eq!(put_one(&world, "secret").await["EncryptionType"], "KMS");
    assert_eq!(records(&world).await.last().unwrap().0, "secret");
}

#[tokio::test]
async fn no_put_is_stored_plain_once_the_stream_is_shown_as_encrypted() {
    let clock = Arc::new(ManualClock::default());
    let gate = Arc::new(tokio::sync::RwLock::new(()));
    let passing = Arc::clone(&gate);
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let log = Arc::new(FaultyLog::appending(log, move |log, shard, batch| {
        let gate = Arc::clone(&passing);
        Box::pin(async move {
            let _passed = gate.read().await;
            log.append(shard, batch).await
        })
    }));
    let world = World::on(clock, log, Arc::new(MemoryControl::new())).await;
    world.create("s", 1).await;
    start(&world, "s", KMS).await.unwrap();
    // The second time it is encrypted already, under another key.
    for encrypted in [false, true] {
        let held = gate.write().await;
        let before = put_one(&world, "plain");
        let waits = async {
            tokio::task::yield_now().await;
            for _ in 0..3 {
                settle(&world).await;
                assert_eq!(summary(&world).await["StreamStatus"], "UPDATING");
            }
            let after = put_one(&world, "secret");
            let releases = async {
                tokio::task::yield_now().await;
                drop(held);
            };
            assert_eq!(tokio::join!(after, releases).0["EncryptionType"], "KMS");
        };
        let (before, ()) = tokio::join!(before, waits);
        assert_eq!(before.get("EncryptionType").is_some(), encrypted);
        settle(&world).await;
        assert_eq!(summary(&world).await["StreamStatus"], "ACTIVE");
        assert_eq!(summary(&world).await["EncryptionType"], "KMS");
        if !encrypted {
            assert!(holds(&bytes_below(&world).await, "plain"));
            start(&world, "s", "alias/orders").await.unwrap();
        }
    }
    assert!(!holds(&bytes_below(&world).await, "secret"));
}

#[tokio::test]
async fn a_start_that_a_stop_interrupts_is_finished_by_the_next_process() {
    let world = World::new().await;
    world.create("s", 1).await;
    start(&world, "s", KMS).await.unwrap();
    let world = world.restart().await;
    assert_eq!(summary(&world).await["StreamStatus"], "UPDATING");
    settle(&world).await;
    assert_eq!(summary(&world).await["StreamStatus"], "ACTIVE");
    assert_eq!(put_one(&world, "secret").await["EncryptionType"], "KMS");
    assert!(!holds(&bytes_below(&world).await, "secret"));
}

#[tokio::test]
async fn a_clock_set_back_neither_keeps_a_stream_updating_nor_its_records_plain() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.clock.advance(Duration::from_secs(86_400));
    let now = world.clock.now();
    start(&world, "s", KMS).await.unwrap();
    world.clock.set(now.minus(Duration::from_secs(3_600)));
    world.kinesis.settle().await;
    assert_eq!(summary(&world).await["StreamStatus"], "ACTIVE");
    assert_eq!(put_one(&world, "secret").await["EncryptionType"], "KMS");
    // A change that ends by time alone.
    let body = json!({ "StreamName": "s", "RetentionPeriodHours": 48 });
    world.ok("IncreaseStreamRetentionPeriod", body).await;
    world.clock.set(now.minus(Duration::from_secs(7_200)));
    world.kinesis.settle().await;
    assert_eq!(summary(&world).await["StreamStatus"], "ACTIVE");
}
