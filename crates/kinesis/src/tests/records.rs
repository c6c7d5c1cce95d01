//! Records in, records out: places, order, limits, failures.

use hydrant_core::Timestamp;
use hydrant_core::log::{LogError, ShardUid};
use hydrant_core::sequence::SequenceNumber;
use hydrant_testkit::FaultyLog;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn each_type_of_iterator_starts_where_it_says() {
    let world = World::new().await;
    world.create("s", 1).await;
    let (_, first) = world.put("s", "k", "one").await;
    world.clock.advance(Duration::from_secs(10));
    let between = world.now_ms() as f64 / 1000.0;
    let (_, second) = world.put("s", "k", "two").await;
    let at = async |more: Value| {
        let iterator = world.iterator("s", "shardId-000000000000", more).await;
        world.read(&iterator, 10).await.0
    };
    let kind =
        |kind: &str, name: &str, value: Value| json!({ "ShardIteratorType": kind, name: value });
    assert_eq!(at(json!({ "ShardIteratorType": "TRIM_HORIZON" })).await, ["one", "two"]);
    assert_eq!(at(json!({ "ShardIteratorType": "LATEST" })).await, [""; 0]);
    let number = "StartingSequenceNumber";
    assert_eq!(at(kind("AT_SEQUENCE_NUMBER", number, json!(second))).await, ["two"]);
    assert_eq!(at(kind("AFTER_SEQUENCE_NUMBER", number, json!(first))).await, ["two"]);
    assert_eq!(at(kind("AFTER_SEQUENCE_NUMBER", number, json!(second))).await, [""; 0]);
    assert_eq!(at(kind("AT_TIMESTAMP", "Timestamp", json!(between))).await, ["two"]);
    assert_eq!(at(kind("AT_TIMESTAMP", "Timestamp", json!(0))).await, ["one", "two"]);
    assert_eq!(at(kind("AT_TIMESTAMP", "Timestamp", json!(-5))).await, ["one", "two"]);
}

#[tokio::test]
async fn latest_is_fixed_when_it_is_given_out() {
    let world = World::new().await;
    world.create("s", 1).await;
    for round in ["before", "after"] {
        let latest = world.iterator("s", "0", json!({ "ShardIteratorType": "LATEST" })).await;
        world.put("s", "k", round).await;
        world.put("s", "k", "more").await;
        assert_eq!(world.read(&latest, 10).await.0, [round, "more"]);
        assert_eq!(world.read(&latest, 10).await.0, [round, "more"], "read again");
    }
}

// shows: limit:iterator-life
#[tokio::test]
async fn an_iterator_lives_five_minutes_over_a_restart_and_in_quotes() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.put("s", "k", "kept").await;
    let iterator = world.horizon("s", "0").await;
    let world = world.restart().await;
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(world.read(&iterator, 1).await.0, ["kept"]);
    assert_eq!(world.read(&format!("\"{iterator}\""), 1).await.0, ["kept"]);
    world.clock.set(Timestamp::from_millis(1_763_000_000_020));
    let iterator = world.horizon("s", "0").await;
    world.clock.advance(Duration::from_millis(300_001));
    assert_eq!(
        world.no("GetRecords", json!({ "ShardIterator": iterator })).await,
        error(
            "ExpiredIteratorException",
            "Iterator expired. The iterator was created at time Thu Nov 13 02:13:20 UTC 2025 while \
             right now it is Thu Nov 13 02:18:20 UTC 2025 which is further in the future than the \
             tolerated delay of 300000 milliseconds."
        )
    );
}

// shows: limit:iterator-length
#[tokio::test]
async fn iterators_are_as_long_as_those_of_aws() {
    use base64::Engine as _;
    let world = World::new().await;
    for (name, bytes) in [("a".repeat(13), 152), ("b".repeat(14), 168), ("c".repeat(128), 280)] {
        world.create(&name, 1).await;
        let iterator = world.horizon(&name, "0").await;
        let decoded = base64::engine::general_purpose::STANDARD.decode(iterator).unwrap();
        assert_eq!((decoded.len(), &decoded[..8]), (bytes, &[0, 0, 0, 0, 0, 0, 0, 1][..]));
    }
}

#[tokio::test]
async fn bad_places_are_refused_in_the_words_of_aws() {
    let world = World::new().await;
    world.create("s", 2).await;
    let (shard, number) = world.put("s", "k", "x").await;
    let other = if shard.ends_with('0') { 1 } else { 0 };
    let ask = async |shard: &str, kind: &str, number: Option<&str>| {
        let mut body = json!({ "StreamName": "s", "ShardId": shard, "ShardIteratorType": kind });
        if let Some(number) = number {
            body["StartingSequenceNumber"] = json!(number);
        }
        world.no("GetShardIterator", body).await
    };
    let invalid = |text: String| ("InvalidArgumentException".to_owned(), text);
    // A moment within the present millisecond is not ahead; one in the next is.
    for (ahead, good) in [(0.0006, true), (0.0016, false)] {
        let at = world.now_ms() as f64 / 1000.0 + ahead;
        let body = json!({ "StreamName": "s", "ShardId": "0", "Timestamp": at,
                           "ShardIteratorType": "AT_TIMESTAMP" });
        assert_eq!(world.call("GetShardIterator", body).await.is_ok(), good, "{ahead}");
    }
    let either = "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and \
                  StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no \
                  StartingSequenceNumber.";
    assert_eq!(
        ask("0", "AT_SEQUENCE_NUMBER", None).await,
        invalid(format!(
            "{either} Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber."
        ))
    );
    assert_eq!(
        ask("0", "LATEST", Some("5")).await,
        invalid(format!("{either} Request specified LATEST and also a StartingSequenceNumber."))
    );
    assert_eq!(
        ask("0", "AT_SEQUENCE_NUMBER", Some("5")).await,
        invalid(
            "Invalid StartingSequenceNumber. It encodes shardId-000000000005, while it was used in \
             a call to a shard with shardId-000000000000"
                .to_owned()
        )
    );
    assert_eq!(
        ask(&format!("shardId-{other}"), "AT_SEQUENCE_NUMBER", Some(&number)).await,
        invalid(format!(
            "Invalid StartingSequenceNumber. It encodes {shard}, while it was used in a call to a \
             shard with shardId-00000000000{other}"
        ))
    );
    world.clock.advance(Duration::from_secs(5));
    world.create("t", 2).await;
    let body = json!({ "StreamName": "t", "ShardId": shard, "StartingSequenceNumber": number,
                       "ShardIteratorType": "AT_SEQUENCE_NUMBER" });
    let (_, text) = world.no("GetShardIterator", body).await;
    assert!(text.ends_with("is invalid because it did not come from this stream."), "{text}");
    let body = json!({ "StreamName": "s", "ShardId": "0", "ShardIteratorType": "AT_TIMESTAMP" });
    let (_, text) = world.no("GetShardIterator", body).await;
    assert!(text.starts_with("Must specify timestampInMillis parameter"), "{text}");
    let body = json!({ "StreamName": "s", "ShardId": "0", "ShardIteratorType": "AT_TIMESTAMP",
                       "Timestamp": 9e12 });
    let (_, text) = world.no("GetShardIterator", body).await;
    assert!(text.contains("cannot be greater than the currentTimestampInMillis"), "{text}");
    for (stream, shard, text) in [
        (
            "s",
            "shardId-5",
            "Shard shardId-000000000005 in stream s under account 000000000000 does not exist",
        ),
        ("s", "nope", "Could not find shard nope in stream s under account 000000000000."),
        (
            "s",
            "2147483648",
            "Could not find shard 2147483648 in stream s under account 000000000000.",
        ),
        (
            "u",
            "a-00002147483647",
            "Shard shardId-002147483647 in stream u under account 000000000000 does not exist",
        ),
    ] {
        let body = json!({ "StreamName": stream, "ShardId": shard, "ShardIteratorType": "LATEST" });
        let got = world.no("GetShardIterator", body).await;
        assert_eq!(got, error("ResourceNotFoundException", text));
    }
}

// shows: limit:records-per-get
#[tokio::test]
async fn reading_goes_on_where_the_page_ended_and_says_how_far_behind() {
    let world = World::new().await;
    world.create("s", 1).await;
    for n in 0..5 {
        world.put("s", "k", &n.to_string()).await;
        world.clock.advance(Duration::from_secs(1));
    }
    let (mut iterator, mut seen) = (world.horizon("s", "0").await, Vec::new());
    for behind in [4_000, 2_000, 0, 0] {
        let body = json!({ "ShardIterator": iterator, "Limit": 2 });
        let reply = world.ok("GetRecords", body).await;
        assert_eq!(reply["MillisBehindLatest"], json!(behind));
        seen.extend(reply["Records"].as_array().unwrap().iter().map(|r| data_of(&r["Data"])));
        iterator = reply["NextShardIterator"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn the_end_of_a_closed_shard_names_its_children() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.put("s", "k", "last").await;
    let name = "s".parse().unwrap();
    let held = world.kinesis.catalog.get(&world.scope, &name).unwrap();
    let mut stream = held.stream.as_ref().clone();
    world.log.seal(stream.shards[0].uid).await.unwrap();
    let now = world.clock.now();
    stream.shards[0].closed = Some(now);
    let uids = world.kinesis.catalog.allocate_shards(2).await.unwrap();
    for (n, (range, uid)) in
        hydrant_core::hash::HashRange::split_evenly(2).into_iter().zip(uids).enumerate()
    {
        world.log.create(uid, stream.retention()).await.unwrap();
        let parent = stream.shards[0].clone();
        let id = hydrant_core::catalog::ShardId(n as u32 + 1);
        stream.shards.push(hydrant_core::catalog::Shard {
            id,
            uid,
            range,
            created: now,
            parent: Some(parent.id),
            closed: None,
            ..parent
        });
    }
    world.kinesis.catalog.put(stream, Some(held.version)).await.unwrap();
    let iterator = world.horizon("s", "0").await;
    let reply = world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
    assert_eq!(reply.get("NextShardIterator"), None);
    let children = reply["ChildShards"].as_array().unwrap();
    assert_eq!(children.len(), 2);
    assert_eq!(children[1]["ShardId"], json!("shardId-000000000002"));
    assert_eq!(children[1]["ParentShards"], json!(["shardId-000000000000"]));
    assert_ne!(world.put("s", "k", "to a child").await.0, "shardId-000000000000");
    let filtered = async |filter: Value| {
        let body = json!({ "StreamName": "s", "ShardFilter": filter });
        world.ok("ListShards", body).await["Shards"].as_array().unwrap().len()
    };
    assert_eq!(filtered(json!({ "Type": "AT_LATEST" })).await, 2);
    assert_eq!(filtered(json!({ "Type": "AT_TRIM_HORIZON" })).await, 1);
    assert_eq!(filtered(json!({ "Type": "FROM_TRIM_HORIZON" })).await, 3);
    let after = json!({ "Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000001" });
    assert_eq!(filtered(after).await, 1);
    let ending = world.ok("ListShards", json!({ "StreamName": "s" })).await;
    let ending = &ending["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"];
    let body = json!({ "StreamName": "s", "ShardId": "0", "StartingSequenceNumber": ending,
                       "ShardIteratorType": "AFTER_SEQUENCE_NUMBER" });
    assert_eq!(world.no("GetShardIterator", body).await.0, "InvalidArgumentException");
}

// shows: limit:records-per-put, limit:bytes-per-put
#[tokio::test]
async fn limits_of_puts_hold_and_nothing_is_put_of_a_refused_call() {
    use base64::Engine as _;
    let world = World::new().await;
    world.create("s", 1).await;
    let blob = |bytes: usize| base64::engine::general_purpose::STANDARD.encode(vec![b'x'; bytes]);
    let put = |data: &str| json!({ "StreamName": "s", "PartitionKey": "k", "Data": data });
    // Data and partition key.
    world.ok("PutRecord", put(&blob((1 << 20) - 1))).await;
    assert_eq!(
        world.no("PutRecord", put(&blob(1 << 20))).await,
        error(
            "ValidationException",
            "1 validation error detected: Value at 'data' failed to satisfy constraint: Member must \
             have length less than or equal to 1048576"
        )
    );
    let entries = |n: usize, data: &str| {
        let entry = json!({ "PartitionKey": "k", "Data": data });
        json!({ "StreamName": "s", "Records": vec![entry; n] })
    };
    let (code, text) = world.no("PutRecords", entries(501, "")).await;
    assert_eq!(code, "ValidationException");
    assert!(text.ends_with("at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"), "{text}");
    assert_eq!(
        world.no("PutRecords", entries(11, &blob((1 << 20) - 1))).await,
        error("InvalidArgumentException", "Records size exceeds 10 MB limit")
    );
    assert_eq!(world.no("PutRecords", entries(0, "")).await.0, "ValidationException");
    let mut mixed = entries(3, "");
    mixed["Records"][1] = json!({ "Data": "" });
    assert_eq!(
        world.no("PutRecords", mixed).await,
        error(
            "ValidationException",
            "1 validation error detected: Value null at 'records.2.member.partitionKey' failed to \
             satisfy constraint: Member must not be null"
        )
    );
    let mut mixed = entries(3, "");
    mixed["Records"][2]["Data"] = json!("!");
    assert_eq!(world.no("PutRecords", mixed.clone()).await.0, "SerializationException");
    // Reading comes before checking, and both before looking for the stream.
    mixed["Records"][0]["PartitionKey"] = json!("");
    mixed["StreamName"] = json!("no such name");
    assert_eq!(world.no("PutRecords", mixed).await.0, "SerializationException");
    let mut unread = put("!");
    unread["StreamName"] = json!("no such name");
    unread["ExplicitHashKey"] = json!("x");
    assert_eq!(world.no("PutRecord", unread).await.0, "SerializationException");
    let mut mixed = entries(3, "");
    let hash = "340282366920938463463374607431768211456";
    mixed["Records"][2]["ExplicitHashKey"] = json!(hash);
    assert_eq!(
        world.no("PutRecords", mixed).await,
        error(
            "InvalidArgumentException",
            &format!(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. \
                 Specified value was {hash}"
            )
        )
    );
    let keys = ["\u{fc}".repeat(256), "\u{fc}".repeat(257)];
    let key = |key: &str| json!({ "StreamName": "s", "PartitionKey": key, "Data": "" });
    assert_eq!(world.no("PutRecord", key(&keys[1])).await.0, "ValidationException");
    world.ok("PutRecord", key(&keys[0])).await;
    let at = world.horizon("s", "0").await;
    assert_eq!(world.read(&at, 10_000).await.0.len(), 2);
}

#[tokio::test]
async fn a_number_for_ordering_has_to_be_one() {
    let world = World::new().await;
    world.create("s", 1).await;
    let large_date = "26227199374822427428162556223570313216";
    let (_, number) = world.put("s", "k", "x").await;
    let put = |number: &str| json!({ "StreamName": "s", "PartitionKey": "k", "Data": "", "SequenceNumberForOrdering": number });
    let next = world.ok("PutRecord", put(&number)).await;
    assert!(next["SequenceNumber"].as_str().unwrap() > number.as_str());
    assert_eq!(
        world.no("PutRecord", put(large_date)).await,
        error(
            "InvalidArgumentException",
            "ExclusiveMinimumSequenceNumber 26227199374822427428162556223570313216 used in \
             PutRecord on stream s under account 000000000000 is invalid."
        )
    );
}

#[tokio::test]
async fn a_number_for_ordering_is_good_after_the_clock_was_set_back() {
    let world = World::new().await;
    world.create("s", 1).await;
    world.clock.advance(Duration::from_secs(7_200));
    let (_, number) = world.put("s", "k", "x").await;
    world.clock.set(world.clock.now().minus(Duration::from_secs(3_000)));
    let put = |number: &str| json!({ "StreamName": "s", "PartitionKey": "k", "Data": "", "SequenceNumberForOrdering": number });
    let next = world.ok("PutRecord", put(&number)).await["SequenceNumber"].clone();
    let next: SequenceNumber = next.as_str().unwrap().parse().unwrap();
    assert!(next > number.parse().unwrap());
    for odd in [
        SequenceNumber { index: next.index.next(), ..next },
        SequenceNumber { shard_created_s: next.shard_created_s + 1, ..next },
        SequenceNumber { shard: 1, ..next },
    ] {
        let refused = world.no("PutRecord", put(&odd.to_string())).await;
        assert_eq!(refused.0, "InvalidArgumentException", "{odd:?}");
    }
}

#[tokio::test]
async fn a_shard_that_takes_nothing_fails_its_own_records_only() {
    let clock = Arc::new(ManualClock::default());
    let inner = Arc::new(MemoryLog::new(clock.clone()));
    let refuse: Arc<Mutex<Vec<(ShardUid, LogError)>>> = Arc::default();
    let refused = Arc::clone(&refuse);
    let log = Arc::new(FaultyLog::appending(inner, move |inner, shard, batch| {
        let error = refused.lock().iter().find(|(s, _)| *s == shard).map(|(_, e)| e.clone());
        Box::pin(async move {
            match error {
                Some(error) => Err(error),
                None => inner.append(shard, batch).await,
            }
        })
    }));
    let world = World::on(clock, log.clone(), Arc::new(MemoryControl::new())).await;
    world.create("s", 3).await;
    let name = "s".parse().unwrap();
    let held = world.kinesis.catalog.get(&world.scope, &name).unwrap();
    let shards = &held.stream.shards;
    *refuse.lock() = vec![
        (shards[1].uid, LogError::Full),
        (shards[2].uid, LogError::Unavailable("secret path".to_owned())),
    ];
    let entry = |n: usize| json!({ "Data": "", "PartitionKey": "k", "ExplicitHashKey": shards[n].range.start });
    let body = json!({ "StreamName": "s", "Records": [entry(2), entry(0), entry(1), entry(0)] });
    let reply = world.ok("PutRecords", body).await;
    assert_eq!(reply["FailedRecordCount"], json!(3 - 1));
    let records = reply["Records"].as_array().unwrap();
    assert_eq!(
        records[0],
        json!({ "ErrorCode": "InternalFailure", "ErrorMessage": "Internal service failure." })
    );
    assert_eq!(
        records[2],
        json!({
            "ErrorCode": "ProvisionedThroughputExceededException",
            "ErrorMessage": "Rate exceeded for shard shardId-000000000001 in stream s under account \
                             000000000000.",
        })
    );
    assert!(records[1]["SequenceNumber"].as_str() < records[3]["SequenceNumber"].as_str());
    let put = |n: usize| {
        json!({ "StreamName": "s", "Data": "", "PartitionKey": "k",
                "ExplicitHashKey": shards[n].range.start })
    };
    let full = world.no("PutRecord", put(1)).await;
    assert_eq!(full.0, "ProvisionedThroughputExceededException");
    assert_eq!(world.no("PutRecord", put(2)).await.0, "InternalFailure");
}

#[tokio::test]
async fn producers_at_once_keep_their_own_order() {
    let world = Arc::new(World::new().await);
    world.create("s", 3).await;
    let producers: Vec<_> = (0..8)
        .map(|p| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for batch in 0..10 {
                    let entry = |n: u32| {
                        use base64::Engine as _;
                        let data = format!("{p} {:04}", batch * 7 + n);
                        let data = base64::engine::general_purpose::STANDARD.encode(data);
                        json!({ "Data": data, "PartitionKey": format!("producer {p}") })
                    };
                    let records: Vec<_> = (0..7).map(entry).collect();
                    let body = json!({ "StreamName": "s", "Records": records });
                    let reply = world.ok("PutRecords", body).await;
                    assert_eq!(reply["FailedRecordCount"], json!(0));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    let mut all = Vec::new();
    for shard in 0..3 {
        let at = world.horizon("s", &shard.to_string()).await;
        let (records, _) = world.read(&at, 10_000).await;
        for p in 0..8 {
            let own: Vec<_> = records.iter().filter(|r| r.starts_with(&format!("{p} "))).collect();
            assert!(own.is_sorted(), "{own:?}");
        }
        all.extend(records);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8 * 70);
}

proptest! {
    #[test]
    fn any_text_is_an_iterator_or_an_error(text in "\\PC{0,600}", at: usize, bit in 0u8..8) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            world.create("s", 1).await;
            let refused = world.no("GetRecords", json!({ "ShardIterator": text })).await;
            assert!(["InvalidArgumentException", "ValidationException"].contains(&&*refused.0));
            // A good one with one bit flipped is none.
            use base64::Engine as _;
            let engine = base64::engine::general_purpose::STANDARD;
            let mut bytes = engine.decode(world.horizon("s", "0").await).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let flipped = json!({ "ShardIterator": engine.encode(bytes) });
            let invalid = error("InvalidArgumentException", "Invalid ShardIterator.");
            assert_eq!(world.no("GetRecords", flipped).await, invalid);
        });
    }
}
