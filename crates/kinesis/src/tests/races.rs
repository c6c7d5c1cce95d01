//! Callers that go away, changes at once, and stores that fail at the worst moment.

use async_trait::async_trait;
use futures::future::join_all;
use hydrant_core::control::{ControlError, Entry, Write};
use hydrant_testkit::{FaultyControl, FaultyLog};

use super::*;

async fn status(world: &World, name: &str) -> Value {
    let reply = world.ok("DescribeStreamSummary", json!({ "StreamName": name })).await;
    reply["StreamDescriptionSummary"]["StreamStatus"].clone()
}

/// Has the call begin, and go away at the first moment it waits.
async fn begin(world: &World, operation: &str, body: Value) {
    let call = Box::pin(world.call(operation, body));
    assert!(futures::poll!(call).is_pending(), "{operation} did not wait");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_stream_half_made_or_half_gone() {
    let world = World::new().await;
    begin(&world, "CreateStream", json!({ "StreamName": "s", "ShardCount": 1 })).await;
    world.kinesis.settle().await;
    world.clock.advance(Duration::from_millis(20));
    assert_eq!(status(&world, "s").await, "ACTIVE");
    begin(&world, "DeleteStream", json!({ "StreamName": "s" })).await;
    world.clock.advance(Duration::from_millis(20));
    world.kinesis.settle().await;
    assert_eq!(world.kinesis.catalog.all().len(), 0, "its row and its records are gone");
}

#[tokio::test]
async fn a_creation_whose_answer_is_lost_goes_on() {
    let clock = Arc::new(ManualClock::default());
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let control = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
    let world = World::on(clock, log, control.clone()).await;
    world.create("first", 1).await;
    control.lose_answers(1);
    let body = json!({ "StreamName": "s", "ShardCount": 1 });
    assert_eq!(world.no("CreateStream", body).await.0, "InternalFailure");
    world.kinesis.settle().await;
    world.clock.advance(Duration::from_millis(20));
    assert_eq!(status(&world, "s").await, "ACTIVE");
}

#[tokio::test]
async fn a_shorter_retention_that_failed_hides_nothing() {
    let clock = Arc::new(ManualClock::default());
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let control = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
    let world = World::on(clock, log, control.clone()).await;
    world.create("s", 1).await;
    let to = |hours: u32| json!({ "StreamName": "s", "RetentionPeriodHours": hours });
    world.ok("IncreaseStreamRetentionPeriod", to(48)).await;
    world.put("s", "k", "kept").await;
    world.clock.advance(Duration::from_secs(30 * 3600));
    control.lose_commits(1);
    let failed = world.no("DecreaseStreamRetentionPeriod", to(24)).await;
    assert_eq!(failed.0, "InternalFailure");
    assert_eq!(world.read(&world.horizon("s", "0").await, 1).await.0, ["kept"]);
    world.ok("DecreaseStreamRetentionPeriod", to(24)).await;
    assert_eq!(world.read(&world.horizon("s", "0").await, 1).await.0, [""; 0]);
}

// shows: limit:shards-of-account
#[tokio::test]
async fn creations_at_once_keep_within_the_limit() {
    let world = World::new().await;
    let names: Vec<_> = (0..60).map(|n| format!("s{n}")).collect();
    let creations = names
        .iter()
        .map(|name| world.call("CreateStream", json!({ "StreamName": name, "ShardCount": 1 })));
    let done = join_all(creations).await;
    assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 50);
    let refused = done.into_iter().filter_map(Result::err);
    assert!(refused.into_iter().all(|(code, _)| code == "LimitExceededException"));
}

#[tokio::test]
async fn creations_and_deletions_at_once_end_in_a_stream_or_none() {
    let world = World::new().await;
    for round in 0..20u64 {
        let create = || world.call("CreateStream", json!({ "StreamName": "s", "ShardCount": 2 }));
        let delete = || world.call("DeleteStream", json!({ "StreamName": "s" }));
        let (made, gone) =
            tokio::join!(join_all((0..4).map(|_| create())), join_all((0..4).map(|_| delete())));
        for (code, text) in made.into_iter().chain(gone).filter_map(Result::err) {
            assert!(code.starts_with("Resource"), "round {round}: {code}: {text}");
        }
        for _ in 0..3 {
            world.kinesis.settle().await;
            world.clock.advance(Duration::from_millis(7 + round));
        }
    }
    world.clock.advance(Duration::from_millis(50));
    while world.kinesis.settle().await.is_some() {}
    for stream in world.kinesis.catalog.all() {
        assert_eq!(status(&world, "s").await, "ACTIVE");
        for shard in &stream.shards {
            world.log.tail(shard.uid).await.unwrap();
        }
    }
}

/// A store in which somebody else is always faster.
struct Crowded(Arc<dyn ControlStore>, std::sync::atomic::AtomicBool);

#[async_trait]
impl ControlStore for Crowded {
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError> {
        self.0.get(key).await
    }
    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError> {
        self.0.scan(prefix, after, limit).await
    }
    async fn commit(&self, writes: Vec<Write>) -> Result<u64, ControlError> {
        if self.1.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(ControlError::Conflict { key: "streams/".to_owned() });
        }
        self.0.commit(writes).await
    }
}

#[tokio::test]
async fn a_change_that_never_gets_through_ends() {
    let clock = Arc::new(ManualClock::default());
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let control = Arc::new(Crowded(Arc::new(MemoryControl::new()), false.into()));
    let world = World::on(clock, log, control.clone()).await;
    world.create("s", 1).await;
    control.1.store(true, std::sync::atomic::Ordering::SeqCst);
    for (operation, more) in [
        ("DeleteStream", json!({})),
        ("AddTagsToStream", json!({ "Tags": { "a": "b" } })),
        ("IncreaseStreamRetentionPeriod", json!({ "RetentionPeriodHours": 48 })),
    ] {
        let mut body = json!({ "StreamName": "s" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let call = world.call(operation, body);
        let ended = tokio::time::timeout(Duration::from_secs(5), call).await;
        assert_eq!(ended.expect(operation).unwrap_err().0, "InternalFailure");
    }
}

#[tokio::test]
async fn a_store_that_is_crowded_from_the_start_ends_too() {
    let control: Arc<dyn ControlStore> =
        Arc::new(Crowded(Arc::new(MemoryControl::new()), true.into()));
    let catalog = Arc::new(StreamCatalog::open(control.clone()).await.unwrap());
    let soon = Duration::from_secs(5);
    let claimed = tokio::time::timeout(soon, catalog.allocate_shards(1)).await;
    assert!(matches!(claimed.unwrap(), Err(ControlError::Unavailable(_))));
    let clock = Arc::new(ManualClock::default());
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let random = Arc::new(Random::from_seed(1));
    let options = Options::default();
    let keys = vault(1, None, &[]);
    let opened = Kinesis::open(log, control, catalog, clock, random, keys, options);
    let opened = tokio::time::timeout(soon, opened).await;
    assert!(matches!(opened.unwrap(), Err(ControlError::Unavailable(_))));
}

#[tokio::test]
async fn what_is_deleted_under_way_is_not_found() {
    let world = World::new().await;
    world.create("s", 1).await;
    let name = "s".parse().unwrap();
    let held = world.kinesis.catalog.get(&world.scope, &name).unwrap();
    world.log.drop_shard(held.stream.shards[0].uid).await.unwrap();
    for more in [
        json!({ "ShardIteratorType": "LATEST" }),
        json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1 }),
    ] {
        let mut body = json!({ "StreamName": "s", "ShardId": "0" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(world.no("GetShardIterator", body).await.0, "ResourceNotFoundException");
    }
    let body = json!({ "StreamName": "s", "RetentionPeriodHours": 48 });
    let gone = world.no("IncreaseStreamRetentionPeriod", body).await;
    assert_eq!(gone.0, "ResourceNotFoundException");
}

#[tokio::test]
async fn every_key_goes_to_the_open_shard_whose_range_holds_it() {
    use hydrant_core::hash::HashKey;
    let world = World::new().await;
    world.create("s", 7).await;
    let name = "s".parse().unwrap();
    let held = world.kinesis.catalog.get(&world.scope, &name).unwrap();
    // As after a merge: the middle one is closed, its keys are a later shard's.
    let mut stream = Stream::clone(&held.stream);
    let mut child = stream.shards[3].clone();
    stream.shards[3].closed = Some(world.clock.now());
    child.id = hydrant_core::catalog::ShardId(7);
    stream.shards.push(child);
    let held = world.kinesis.catalog.put(stream, Some(held.version)).await.unwrap();
    assert_eq!(held.open_shards(), 7);
    for shard in held.stream.shards.iter().filter(|s| s.is_open()) {
        for key in [shard.range.start, shard.range.end, HashKey(shard.range.start.0 + 1)] {
            let place = held.route(key).unwrap();
            assert_eq!(held.open_shard(place), Some(shard));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_what_is_here_does_not_wait_for_who_reads_an_archive() {
    let clock = Arc::new(ManualClock::default());
    let log = Arc::new(FaultyLog::new(Arc::new(MemoryLog::new(clock.clone()))));
    let world = Arc::new(World::on(clock, log.clone(), Arc::new(MemoryControl::new())).await);
    for name in ["archived", "here"] {
        world.create(name, 1).await;
        world.put(name, "k", "data").await;
    }
    let name = "archived".parse().unwrap();
    let held = world.kinesis.catalog.get(&world.scope, &name).unwrap();
    log.hold_fetches(held.stream.shards[0].uid);
    let archived = world.horizon("archived", "shardId-000000000000").await;
    // More than there is room for replies.
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let (world, archived) = (world.clone(), archived.clone());
            tokio::spawn(async move { world.read(&archived, 10).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let here = world.horizon("here", "shardId-000000000000").await;
    assert_eq!(world.read(&here, 10).await.0, ["data"]);
    assert!(waiting.iter().all(|reader| !reader.is_finished()));
    waiting.iter().for_each(|reader| reader.abort());
}
