//! Subscriptions on the ports in memory, with the clock stopped.

mod property;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use hydrant_core::Clock;
use hydrant_core::catalog::ShardId;
use hydrant_testkit::{FaultyLog, ManualClock, MemoryControl, MemoryLog};
use hydrant_wire::{Call, Format, JsonService, Reply, cbor, event_stream};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::tests::{World, data_of, error};

const FIRST: &str = "shardId-000000000000";

/// What a client sees.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    First,
    Event(Value),
    Exception(String, String),
}

impl Seen {
    fn event(&self) -> &Value {
        match self {
            Self::Event(event) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    fn data(&self) -> Vec<String> {
        self.event()["Records"].as_array().unwrap().iter().map(|r| data_of(&r["Data"])).collect()
    }
}

fn read(frame: &Bytes) -> Seen {
    let (frame, rest) = event_stream::decode(frame).unwrap().unwrap();
    assert!(rest.is_empty());
    assert_eq!(frame.header(":content-type"), Some("application/x-amz-json-1.1"));
    let payload: Value = serde_json::from_slice(frame.payload).unwrap();
    match (frame.header(":event-type"), frame.header(":exception-type")) {
        (Some("initial-response"), None) => {
            assert_eq!(payload, json!({}));
            Seen::First
        }
        (Some("SubscribeToShardEvent"), None) => Seen::Event(payload),
        (None, Some(name)) => {
            Seen::Exception(name.to_owned(), payload["message"].as_str().unwrap().to_owned())
        }
        other => panic!("{other:?}"),
    }
}

/// One subscription as its client has it.
struct Client(BoxStream<'static, Bytes>);

impl Client {
    async fn next(&mut self) -> Option<Seen> {
        self.0.next().await.map(|frame| read(&frame))
    }

    async fn event(&mut self) -> Seen {
        let seen = self.next().await.unwrap();
        seen.event();
        seen
    }

    /// The next event, if there is one without waiting.
    async fn ready(&mut self) -> Option<Seen> {
        timeout(Duration::from_millis(1), self.next()).await.ok().flatten()
    }
}

impl World {
    /// A stream of one shard with active consumers of these names; their ARNs.
    async fn with_consumers(&self, names: &[&str]) -> Vec<String> {
        self.create("s", 1).await;
        let mut arns = Vec::new();
        for name in names {
            let stream = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
            let body = json!({ "StreamARN": stream, "ConsumerName": name });
            let reply = self.ok("RegisterStreamConsumer", body).await;
            arns.push(reply["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned());
            self.clock.advance(Duration::from_millis(20));
        }
        arns
    }

    async fn try_subscribe(
        &self,
        consumer: &str,
        shard: &str,
        position: Value,
    ) -> Result<Client, (String, String)> {
        let body =
            json!({ "ConsumerARN": consumer, "ShardId": shard, "StartingPosition": position });
        let call = Call::for_tests(self.scope.clone(), "SubscribeToShard", body.to_string());
        match self.kinesis.call(call).await {
            Ok(Reply::Stream(frames)) => Ok(Client(frames)),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err((e.code.to_owned(), e.message)),
        }
    }

    /// A subscription whose first frame has come.
    async fn subscribe(&self, consumer: &str, shard: &str, position: Value) -> Client {
        let mut client = self.try_subscribe(consumer, shard, position).await.unwrap();
        assert_eq!(client.next().await, Some(Seen::First));
        client
    }

    async fn latest(&self, consumer: &str) -> Client {
        let mut client = self.subscribe(consumer, FIRST, json!({ "Type": "LATEST" })).await;
        assert_eq!(client.event().await.data(), [""; 0]);
        client
    }

    /// Splits a shard in the middle; its children.
    async fn split(&self, shard: &str) -> Vec<String> {
        let shards = self.ok("ListShards", json!({ "StreamName": "s" })).await["Shards"].clone();
        let shards = shards.as_array().unwrap();
        let parent = shards.iter().find(|s| s["ShardId"] == shard).unwrap();
        let key = |name: &str| -> u128 {
            parent["HashKeyRange"][name].as_str().unwrap().parse().unwrap()
        };
        let middle = key("StartingHashKey") / 2 + key("EndingHashKey") / 2 + 1;
        let body = json!({ "StreamName": "s", "ShardToSplit": shard,
                           "NewStartingHashKey": middle.to_string() });
        self.ok("SplitShard", body).await;
        while let Some(due) = self.kinesis.settle().await {
            self.clock.set(due.max(self.clock.now()));
        }
        self.clock.advance(Duration::from_millis(20));
        (0..2).map(|n| ShardId((shards.len() + n) as u32).to_string()).collect()
    }

    /// Whether anything is remembered of subscriptions.
    fn remembered(&self) -> (usize, usize) {
        (self.kinesis.fanout.hubs.len(), self.kinesis.fanout.active.len())
    }
}

fn horizon() -> Value {
    json!({ "Type": "TRIM_HORIZON" })
}

fn in_use(consumer: &str) -> (String, String) {
    error(
        "ResourceInUseException",
        &format!(
            "Another active subscription exists for this consumer: \
             000000000000:s:shardId-000000000000:{consumer}"
        ),
    )
}

// shows: SubscribeToShard
#[tokio::test(start_paused = true)]
async fn records_are_pushed_as_get_records_shows_them() {
    let world = World::new().await;
    let [arn] = &world.with_consumers(&["c"]).await[..] else { panic!() };
    let (_, number) = world.put("s", "k", "before").await;
    let began = Instant::now();
    let mut client = world.subscribe(arn, FIRST, horizon()).await;
    let event = client.event().await;
    let iterator = world.horizon("s", FIRST).await;
    let page = world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
    assert_eq!(
        event.event(),
        &json!({ "Records": page["Records"], "ContinuationSequenceNumber": number,
                 "MillisBehindLatest": 0 })
    );
    for data in ["one", "two"] {
        world.clock.advance(Duration::from_millis(3));
        let (_, number) = world.put("s", "k", data).await;
        let event = client.event().await;
        assert_eq!(event.data(), [data]);
        assert_eq!(event.event()["ContinuationSequenceNumber"], json!(number));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

// shows: limit:subscription-life
#[tokio::test(start_paused = true)]
async fn a_caller_in_cbor_gets_events_in_cbor() {
    let world = World::new().await;
    let arns = world.with_consumers(&["c", "d"]).await;
    world.put("s", "k", "one").await;
    let arrived = world.now_ms();
    let position = cbor::to_bytes(&json!({
        "ConsumerARN": arns[0], "ShardId": FIRST, "StartingPosition": { "Type": "TRIM_HORIZON" },
    }));
    let call = Call::for_tests(world.scope.clone(), "SubscribeToShard", position.unwrap());
    let call = Call { format: Format::Cbor, ..call };
    let Ok(Reply::Stream(mut frames)) = world.kinesis.call(call).await else { panic!() };
    let mut json = world.latest(&arns[1]).await;
    let mut payloads = Vec::new();
    for name in ["initial-response", "SubscribeToShardEvent"] {
        let bytes = frames.next().await.unwrap();
        let (frame, _) = event_stream::decode(&bytes).unwrap().unwrap();
        assert_eq!(frame.header(":event-type"), Some(name));
        assert_eq!(frame.header(":content-type"), Some("application/x-amz-cbor-1.1"));
        payloads.push(frame.payload.to_vec());
    }
    assert_eq!(payloads[0], [0xa0]);
    // As `GetRecords` writes it: raw bytes, and a moment in whole milliseconds.
    let has = |part: &[u8]| payloads[1].windows(part.len()).any(|w| w == part);
    assert!(has(b"dData\x43one"), "{:?}", payloads[1]);
    assert!(has(&arrived.to_be_bytes()), "{:?}", payloads[1]);
    assert!(has(b"ContinuationSequenceNumber"));
    // At the end of the shard each gets the hub's event in its own format.
    assert!(timeout(Duration::from_secs(1), frames.next()).await.is_err());
    world.put("s", "k", "two").await;
    let bytes = frames.next().await.unwrap();
    let (frame, _) = event_stream::decode(&bytes).unwrap().unwrap();
    assert!(frame.payload.windows(9).any(|w| w == b"dData\x43two"));
    assert_eq!(json.event().await.data(), ["two"]);
    world.ok("DeregisterStreamConsumer", json!({ "ConsumerARN": arns[0] })).await;
    let bytes = frames.next().await.unwrap();
    let (frame, _) = event_stream::decode(&bytes).unwrap().unwrap();
    assert_eq!(frame.header(":exception-type"), Some("ResourceNotFoundException"));
    assert_eq!(frame.header(":content-type"), Some("application/x-amz-cbor-1.1"));
}

#[tokio::test(start_paused = true)]
async fn an_idle_subscription_speaks_every_five_seconds_and_ends_after_five_minutes() {
    let world = World::new().await;
    let [arn] = &world.with_consumers(&["c"]).await[..] else { panic!() };
    let began = Instant::now();
    let mut client = world.latest(arn).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let mut events = 0;
    while let Some(seen) = client.next().await {
        assert_eq!(seen.data(), [""; 0]);
        assert_eq!(seen.event()["MillisBehindLatest"], json!(0));
        events += 1;
        assert_eq!(began.elapsed(), Duration::from_secs(5 * events), "{events}");
    }
    assert_eq!((events, began.elapsed()), (59, Duration::from_secs(300)));
    assert_eq!(client.next().await, None);
    drop(client);
    tokio::task::yield_now().await;
    assert_eq!(world.remembered(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_continuation_number_loses_and_repeats_nothing() {
    let world = World::new().await;
    let [arn] = &world.with_consumers(&["c"]).await[..] else { panic!() };
    let mut client = world.latest(arn).await;
    let mut number = Value::Null;
    let mut seen = Vec::new();
    for n in 0..6 {
        if n % 2 == 1 {
            world.put("s", "k", &format!("{n} a")).await;
            let event = client.event().await;
            number = event.event()["ContinuationSequenceNumber"].clone();
            seen.extend(event.data());
            // Not read any more by this client.
            world.put("s", "k", &format!("{n} b")).await;
        } else {
            // Of an event without records, at the start of the shard too.
            let event = client.event().await;
            number = event.event()["ContinuationSequenceNumber"].clone();
            seen.extend(event.data());
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        let position = json!({ "Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number });
        client = world.subscribe(arn, FIRST, position).await;
    }
    let want = ["1 a", "1 b", "3 a", "3 b", "5 a"];
    assert_eq!(seen, want, "{number}");
}

#[tokio::test(start_paused = true)]
async fn every_position_is_that_of_get_shard_iterator() {
    let world = World::new().await;
    let [arn] = &world.with_consumers(&["c"]).await[..] else { panic!() };
    world.put("s", "k", "one").await;
    world.clock.advance(Duration::from_secs(2));
    let at = world.now_ms() as f64 / 1_000.0;
    let (_, number) = world.put("s", "k", "two").await;
    world.put("s", "k", "three").await;
    let far = world.now_ms() as f64 / 1_000.0 + 1.0;
    for (kind, number, time) in [
        ("TRIM_HORIZON", None, None),
        ("LATEST", None, None),
        ("AT_SEQUENCE_NUMBER", Some(number.as_str()), None),
        ("AFTER_SEQUENCE_NUMBER", Some(number.as_str()), None),
        ("AT_TIMESTAMP", None, Some(at)),
        ("AT_SEQUENCE_NUMBER", None, None),
        ("TRIM_HORIZON", Some(number.as_str()), None),
        ("AT_TIMESTAMP", None, None),
        ("AT_TIMESTAMP", None, Some(far)),
        ("AT_SEQUENCE_NUMBER", Some("123"), None),
    ] {
        let mut body = json!({ "StreamName": "s", "ShardId": FIRST, "ShardIteratorType": kind });
        let mut position = json!({ "Type": kind });
        if let Some(number) = number {
            body["StartingSequenceNumber"] = json!(number);
            position["SequenceNumber"] = json!(number);
        }
        if let Some(time) = time {
            body["Timestamp"] = json!(time);
            position["Timestamp"] = json!(time);
        }
        let iterator = world.call("GetShardIterator", body).await;
        match (iterator, world.try_subscribe(arn, FIRST, position).await) {
            (Ok(reply), Ok(mut client)) => {
                let iterator = reply["ShardIterator"].as_str().unwrap();
                assert_eq!(client.next().await, Some(Seen::First));
                assert_eq!(client.event().await.data(), world.read(iterator, 10).await.0, "{kind}");
                tokio::time::advance(Duration::from_secs(5)).await;
            }
            (Err((code, text)), Err(refusal)) => {
                let text = text.replace("GetShardIterator", "SubscribeToShard");
                assert_eq!(refusal, (code, text), "{kind}");
            }
            (one, other) => panic!("{kind}: {one:?}, {:?}", other.err()),
        }
    }
}

// shows: limit:subscription-take-over
#[tokio::test(start_paused = true)]
async fn a_second_subscription_is_refused_for_five_seconds_then_takes_over() {
    let world = World::new().await;
    let arns = world.with_consumers(&["c", "d"]).await;
    let mut old = world.latest(&arns[0]).await;
    let again = async || world.try_subscribe(&arns[0], FIRST, horizon()).await.err();
    assert_eq!(again().await, Some(in_use("c")));
    // Another consumer is another matter.
    let _other = world.latest(&arns[1]).await;
    tokio::time::advance(Duration::from_millis(4_999)).await;
    assert_eq!(again().await, Some(in_use("c")));
    tokio::time::advance(Duration::from_millis(1)).await;
    let mut new = world.latest(&arns[0]).await;
    let (code, text) = in_use("c");
    let Some(Seen::Exception(seen_code, seen_text)) = old.next().await else { panic!() };
    assert_eq!((seen_code, seen_text), (code, text));
    assert_eq!(old.next().await, None);
    world.put("s", "k", "one").await;
    assert_eq!(new.event().await.data(), ["one"]);
    drop(old);
    // The five seconds are those since the call, whether or not it goes on.
    drop(new);
    assert_eq!(again().await, Some(in_use("c")));
    tokio::time::advance(Duration::from_secs(5)).await;
    world.latest(&arns[0]).await;
    // What was refused for another reason was no call that succeeded.
    tokio::time::advance(Duration::from_secs(5)).await;
    let wrong = json!({ "Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": "123" });
    assert!(world.try_subscribe(&arns[0], FIRST, wrong).await.is_err());
    world.latest(&arns[0]).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused() {
    let world = World::new().await;
    let arns = world.with_consumers(&["c"]).await;
    let arn = &arns[0];
    let stream = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let body = json!({ "StreamARN": stream, "ConsumerName": "new" });
    let new = world.ok("RegisterStreamConsumer", body).await["Consumer"]["ConsumerARN"].clone();
    let seconds = world.now_ms() / 1_000;
    let refusal = async |consumer: &str, shard: &str, position: Value| {
        world.try_subscribe(consumer, shard, position).await.err().unwrap()
    };
    assert_eq!(
        refusal(new.as_str().unwrap(), FIRST, horizon()).await,
        error(
            "ResourceInUseException",
            &format!(
                "Consumer new with creation timestamp {seconds} under stream: s, account \
                 000000000000 is not in ACTIVE status."
            )
        )
    );
    assert_eq!(refusal(&format!("{arn}0"), FIRST, horizon()).await.0, "ResourceNotFoundException");
    assert_eq!(
        refusal(arn, "shardId-000000000007", horizon()).await,
        error(
            "ResourceNotFoundException",
            "Shard shardId-000000000007 in stream s under account 000000000000 does not exist"
        )
    );
    assert_eq!(
        refusal(arn, FIRST, json!({ "Type": "NOW", "SequenceNumber": "x" })).await,
        error(
            "ValidationException",
            "2 validation errors detected: Value 'NOW' at 'startingPosition.type' failed to satisfy \
             constraint: Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, \
             AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]; Value 'x' at \
             'startingPosition.sequenceNumber' failed to satisfy constraint: Member must satisfy \
             regular expression pattern: 0|([1-9]\\d{0,128})"
        )
    );
    assert_eq!(
        world.no("SubscribeToShard", json!({})).await,
        error(
            "ValidationException",
            "3 validation errors detected: Value null at 'consumerARN' failed to satisfy \
             constraint: Member must not be null; Value null at 'shardId' failed to satisfy \
             constraint: Member must not be null; Value null at 'startingPosition' failed to \
             satisfy constraint: Member must not be null"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_its_consumer() {
    let world = World::new().await;
    let arns = world.with_consumers(&["c", "d"]).await;
    let mut client = world.latest(&arns[0]).await;
    let mut other = world.latest(&arns[1]).await;
    world.ok("DeregisterStreamConsumer", json!({ "ConsumerARN": arns[0] })).await;
    let Some(Seen::Exception(code, text)) = client.next().await else { panic!() };
    assert_eq!(code, "ResourceNotFoundException");
    assert!(text.starts_with("Consumer c with creation timestamp "), "{text}");
    assert!(text.ends_with(" under stream: s, account 000000000000 not found."), "{text}");
    assert_eq!(client.next().await, None);
    world.put("s", "k", "one").await;
    assert_eq!(other.event().await.data(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_its_stream() {
    let world = World::new().await;
    let arns = world.with_consumers(&["c", "d"]).await;
    let mut waiting = world.latest(&arns[0]).await;
    world.put("s", "k", "one").await;
    assert_eq!(waiting.event().await.data(), ["one"]);
    let mut behind = world.subscribe(&arns[1], FIRST, horizon()).await;
    let body = json!({ "StreamName": "s", "EnforceConsumerDeletion": true });
    world.ok("DeleteStream", body).await;
    let gone = Seen::Exception(
        "ResourceNotFoundException".to_owned(),
        "Stream s under account 000000000000 not found.".to_owned(),
    );
    for client in [&mut waiting, &mut behind] {
        assert_eq!(client.next().await, Some(gone.clone()));
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_ends_with_its_children() {
    let world = World::new().await;
    let arns = world.with_consumers(&["c", "d", "e"]).await;
    let mut waiting = world.latest(&arns[0]).await;
    world.put("s", "k", "one").await;
    let mut behind = world.subscribe(&arns[1], FIRST, horizon()).await;
    world.split(FIRST).await;
    let mut late = world.subscribe(&arns[2], FIRST, horizon()).await;
    for client in [&mut waiting, &mut behind, &mut late] {
        let last = client.event().await;
        assert_eq!(last.data(), ["one"]);
        assert!(last.event().get("ChildShards").is_none());
        let half = u128::MAX / 2;
        let children = json!([
            { "ShardId": "shardId-000000000001", "ParentShards": [FIRST],
              "HashKeyRange": { "StartingHashKey": "0", "EndingHashKey": half.to_string() } },
            { "ShardId": "shardId-000000000002", "ParentShards": [FIRST],
              "HashKeyRange": { "StartingHashKey": (half + 1).to_string(),
                                "EndingHashKey": u128::MAX.to_string() } },
        ]);
        assert_eq!(
            client.event().await.event(),
            &json!({ "Records": [], "MillisBehindLatest": 0, "ChildShards": children })
        );
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_ends_its_subscriptions() {
    let world = World::new().await;
    let arns = world.with_consumers(&["c", "d"]).await;
    let mut client = world.latest(&arns[0]).await;
    world.kinesis.end_subscriptions();
    assert_eq!(client.next().await, None);
    let mut late = world.subscribe(&arns[1], FIRST, horizon()).await;
    assert_eq!(late.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn many_consumers_cost_one_read() {
    let clock = Arc::new(ManualClock::default());
    let inner = Arc::new(MemoryLog::new(clock.clone()));
    let log = Arc::new(FaultyLog::new(inner));
    let world = World::on(clock, log.clone(), Arc::new(MemoryControl::new())).await;
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let arns = world.with_consumers(&names).await;
    let mut clients = Vec::new();
    for arn in &arns {
        clients.push(world.latest(arn).await);
    }
    // A hub has begun: everyone looks once more.
    for client in &mut clients {
        assert_eq!(client.ready().await, None);
    }
    assert_eq!(world.remembered(), (1, 20));
    let before = log.reads();
    let mut bytes: Vec<Bytes> = Vec::new();
    for n in 0..10 {
        world.put("s", "k", &format!("{n}")).await;
        let mut frames = Vec::new();
        for client in &mut clients {
            frames.push(client.0.next().await.unwrap());
        }
        assert_eq!(read(&frames[0]).data(), [format!("{n}")]);
        // The same bytes, not only equal ones.
        assert!(frames.iter().all(|f| f.as_ptr() == frames[0].as_ptr()));
        bytes.push(frames.swap_remove(0));
    }
    assert_eq!(log.reads() - before, 10);
    drop(clients);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.remembered(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let world = World::new().await;
    let arns = world.with_consumers(&["slow", "fast"]).await;
    let mut slow = world.latest(&arns[0]).await;
    let mut fast = world.latest(&arns[1]).await;
    let large = "x".repeat(100_000);
    let mut want = Vec::new();
    for n in 0..300 {
        let data = format!("{n} {large}");
        world.put("s", "k", &data).await;
        want.push(data);
        assert_eq!(fast.event().await.data(), want[n..], "{n}");
    }
    let mut seen = Vec::new();
    let mut events = 0;
    while seen.len() < want.len() {
        let data = slow.event().await.data();
        assert!(data.iter().map(String::len).sum::<usize>() <= 1 << 20);
        seen.extend(data);
        events += 1;
    }
    assert!(seen == want);
    // By itself, and so in larger pieces.
    assert!(events < 100, "{events}");
    world.put("s", "k", "last").await;
    assert_eq!(slow.event().await.data(), ["last"]);
}

#[tokio::test(start_paused = true)]
async fn a_position_ahead_of_the_end_skips_what_is_below_it() {
    let world = World::new().await;
    let arns = world.with_consumers(&["ahead", "here"]).await;
    let (_, one) = world.put("s", "k", "one").await;
    let mut ahead = {
        // Two numbers ahead: the next record is below it.
        let number: hydrant_core::sequence::SequenceNumber = one.parse().unwrap();
        let later =
            hydrant_core::sequence::SequenceNumber { index: number.index.plus(2), ..number };
        let position = json!({ "Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": later.to_string() });
        world.subscribe(&arns[0], FIRST, position).await
    };
    assert_eq!(ahead.event().await.data(), [""; 0]);
    let mut here = world.latest(&arns[1]).await;
    world.put("s", "k", "two").await;
    world.put("s", "k", "three").await;
    let mut seen = here.event().await.data();
    if seen.len() == 1 {
        seen.extend(here.event().await.data());
    }
    assert_eq!(seen, ["two", "three"]);
    assert_eq!(ahead.event().await.data(), ["three"]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_gets_two_mebibytes_a_second_of_a_shard_where_rates_hold() {
    let world = World::under_aws_limits().await;
    let arns = world.with_consumers(&["c", "d"]).await;
    let large = "x".repeat((1 << 20) - 100);
    for _ in 0..6 {
        world.put("s", "k", &large).await;
        world.clock.advance(Duration::from_secs(2));
    }
    let mut client = world.subscribe(&arns[0], FIRST, horizon()).await;
    let mut events = 0;
    while let Some(seen) = client.ready().await {
        assert_eq!(seen.data().len(), 1);
        events += 1;
    }
    assert!((2..=3).contains(&events), "{events}");
    // Another consumer has its own two.
    let mut other = world.subscribe(&arns[1], FIRST, horizon()).await;
    assert!(other.ready().await.is_some());
    world.clock.advance(Duration::from_millis(1_600));
    tokio::time::advance(Duration::from_millis(1_600)).await;
    while let Some(seen) = client.ready().await {
        assert_eq!(seen.data().len(), 1);
        events += 1;
    }
    assert!((4..=6).contains(&events), "{events}");
}
