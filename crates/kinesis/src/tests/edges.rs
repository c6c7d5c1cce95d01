//! Readers at every edge of a shard, against a model that is a list of records.

use std::time::Duration;

use hydrant_core::Clock;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{World, data_of, error};

const HOUR_MS: u64 = 3_600_000;

/// A record as the model knows it: when it arrived, its data and its number.
type Known = (u64, String, String);

#[derive(Clone, Debug)]
enum Step {
    Put,
    /// Milliseconds.
    Pass(u64),
    /// Hours.
    Retain(u64),
    Read(Kind),
}

#[derive(Clone, Debug)]
enum Kind {
    Horizon,
    Latest,
    /// At the moment of the record of this place, and so many milliseconds more or less.
    Time(usize, i64),
    At(usize),
    After(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let nearby = prop::sample::select(vec![-(HOUR_MS as i64), -1, 0, 1, HOUR_MS as i64]);
    let kind = prop_oneof![
        Just(Kind::Horizon),
        Just(Kind::Latest),
        (0usize..20, nearby).prop_map(|(n, by)| Kind::Time(n, by)),
        (0usize..20).prop_map(Kind::At),
        (0usize..20).prop_map(Kind::After),
    ];
    let pass = prop::sample::select(vec![0, 1, 500, HOUR_MS, 12 * HOUR_MS, 24 * HOUR_MS]);
    prop_oneof![
        3 => Just(Step::Put),
        2 => pass.prop_map(Step::Pass),
        1 => prop::sample::select(vec![24u64, 25, 48, 168]).prop_map(Step::Retain),
        3 => kind.prop_map(Step::Read),
    ]
}

async fn retain(world: &World, now: &mut u64, hours: u64) {
    let which = if hours < *now {
        "DecreaseStreamRetentionPeriod"
    } else {
        "IncreaseStreamRetentionPeriod"
    };
    world.ok(which, json!({ "StreamName": "s", "RetentionPeriodHours": hours })).await;
    world.clock.advance(Duration::from_millis(20));
    *now = hours;
}

/// Whether a record is wanted.
type Wanted = Box<dyn Fn(&(usize, &Known)) -> bool>;

/// What `GetShardIterator` is asked for, and which records it then leads to.
fn wanted(kind: &Kind, known: &[Known], now_ms: u64) -> Option<(Value, Wanted)> {
    let of = |n: &usize| known.get(n % known.len().max(1)).map(|k| (n % known.len(), k.clone()));
    Some(match kind {
        Kind::Horizon => (json!({ "ShardIteratorType": "TRIM_HORIZON" }), Box::new(|_| true)),
        Kind::Latest => (json!({ "ShardIteratorType": "LATEST" }), Box::new(|_| false)),
        Kind::Time(n, by) => {
            let at =
                of(n).map_or(now_ms, |(_, (ms, ..))| ms).saturating_add_signed(*by).min(now_ms);
            let body = json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": at as f64 / 1e3 });
            (body, Box::new(move |(_, (ms, ..))| *ms >= at))
        }
        Kind::At(n) => {
            let (place, (_, _, number)) = of(n)?;
            let kind = "AT_SEQUENCE_NUMBER";
            let body = json!({ "ShardIteratorType": kind, "StartingSequenceNumber": number });
            (body, Box::new(move |(n, _)| *n >= place))
        }
        Kind::After(n) => {
            let (place, (_, _, number)) = of(n)?;
            let kind = "AFTER_SEQUENCE_NUMBER";
            let body = json!({ "ShardIteratorType": kind, "StartingSequenceNumber": number });
            (body, Box::new(move |(n, _)| *n > place))
        }
    })
}

async fn run(steps: Vec<Step>) {
    let world = World::new().await;
    world.create("s", 1).await;
    let (mut known, mut hours) = (Vec::<Known>::new(), 24);
    for step in steps {
        match step {
            Step::Put => {
                let data = known.len().to_string();
                let (_, number) = world.put("s", "k", &data).await;
                known.push((world.now_ms(), data, number));
            }
            Step::Pass(ms) => world.clock.advance(Duration::from_millis(ms)),
            Step::Retain(to) => retain(&world, &mut hours, to).await,
            Step::Read(kind) => {
                let now = world.now_ms();
                let Some((body, leads_to)) = wanted(&kind, &known, now) else { continue };
                let iterator = world.iterator("s", "0", body).await;
                // LATEST is fixed now: what is put before it is used is read.
                let late = known.len().to_string();
                let (_, number) = world.put("s", "k", &late).await;
                let alive = |k: &Known| k.0 + hours * HOUR_MS >= now;
                let places = known.iter().enumerate();
                let mut expected: Vec<_> = places
                    .filter(|place| leads_to(place) && alive(place.1))
                    .map(|(_, (_, data, _))| data.clone())
                    .collect();
                known.push((now, late.clone(), number));
                expected.push(late);
                let (read, next) = world.read(&iterator, 10_000).await;
                assert_eq!(read, expected, "{kind:?}, {hours} h");
                assert!(next.is_some());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn every_place_leads_to_the_records_from_it_on(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(steps));
    }
}

#[tokio::test]
async fn an_iterator_is_good_for_five_minutes() {
    let world = World::new().await;
    world.create("s", 1).await;
    let iterator = world.horizon("s", "0").await;
    world.clock.advance(Duration::from_secs(300));
    let (_, next) = world.read(&iterator, 1).await;
    world.clock.advance(Duration::from_millis(1));
    let no = world.no("GetRecords", json!({ "ShardIterator": iterator })).await;
    assert_eq!(no.0, "ExpiredIteratorException");
    assert!(no.1.ends_with("than the tolerated delay of 300000 milliseconds."), "{}", no.1);
    world.read(&next.unwrap(), 1).await;
}

#[tokio::test]
async fn every_place_in_a_closed_shard_ends() {
    let world = World::new().await;
    world.create("s", 1).await;
    let (_, number) = world.put("s", "k", "last").await;
    let before = world.iterator("s", "0", json!({ "ShardIteratorType": "LATEST" })).await;
    let half = "170141183460469231731687303715884105728";
    let body = json!({ "StreamName": "s", "ShardToSplit": "0", "NewStartingHashKey": half });
    world.ok("SplitShard", body).await;
    for _ in 0..5 {
        world.kinesis.settle().await;
        world.clock.advance(Duration::from_secs(2));
    }
    let shards = world.ok("ListShards", json!({ "StreamName": "s" })).await;
    let end = shards["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"].clone();
    let numbered = |kind: &str, number: &Value| json!({ "ShardIteratorType": kind, "StartingSequenceNumber": number });
    let now = world.now_ms() as f64 / 1e3;
    for (place, records) in [
        (json!({ "ShardIteratorType": "TRIM_HORIZON" }), 1),
        (json!({ "ShardIteratorType": "LATEST" }), 0),
        (json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": now }), 0),
        (json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 0 }), 1),
        (numbered("AT_SEQUENCE_NUMBER", &json!(number)), 1),
        (numbered("AFTER_SEQUENCE_NUMBER", &json!(number)), 0),
        (numbered("AT_SEQUENCE_NUMBER", &end), 0),
    ] {
        let iterator = world.iterator("s", "0", place.clone()).await;
        let reply = world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
        let data: Vec<_> =
            reply["Records"].as_array().unwrap().iter().map(|r| data_of(&r["Data"])).collect();
        assert_eq!(data, vec!["last"; records], "{place}");
        assert!(reply.get("NextShardIterator").is_none(), "{place}");
        assert_eq!(reply["ChildShards"].as_array().unwrap().len(), 2, "{place}");
        assert_eq!(reply["MillisBehindLatest"], 0, "{place}");
    }
    let (read, next) = world.read(&before, 10).await;
    assert_eq!((read.len(), next), (0, None), "one from before the split");
    let mut body = json!({ "StreamName": "s", "ShardId": "0" });
    let place = numbered("AFTER_SEQUENCE_NUMBER", &end);
    body.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
    let text = format!(
        "StartingSequenceNumber {} used in GetShardIterator on shard shardId-000000000000 in stream \
         s under account 000000000000 is invalid.",
        end.as_str().unwrap()
    );
    let no = world.no("GetShardIterator", body).await;
    assert_eq!(no, error("InvalidArgumentException", &text), "nothing is after the end");
}

#[tokio::test]
async fn a_number_from_the_future_waits_for_its_record() {
    let world = World::new().await;
    world.create("s", 1).await;
    let now = world.clock.now();
    world.clock.advance(Duration::from_secs(60));
    let (_, later) = world.put("s", "k", "later").await;
    world.clock.set(now);
    let place = json!({
        "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": later,
    });
    let iterator = world.iterator("s", "0", place).await;
    let (read, next) = world.read(&iterator, 10).await;
    assert_eq!(read.len(), 0);
    world.put("s", "k", "last").await;
    assert_eq!(world.read(&next.unwrap(), 10).await.0, ["last"]);
}

#[tokio::test]
async fn numbers_of_earlier_layouts_are_not_of_this_stream() {
    let world = World::new().await;
    world.create("s", 1).await;
    let ask = |number: &str| {
        json!({ "StreamName": "s", "ShardId": "0", "ShardIteratorType": "AT_SEQUENCE_NUMBER",
                "StartingSequenceNumber": number })
    };
    let text = |shown: &str, why: &str| {
        let text = format!(
            "StartingSequenceNumber {shown} used in GetShardIterator on shard shardId-000000000000 \
             in stream s under account 000000000000 is invalid{why}."
        );
        error("InvalidArgumentException", &text)
    };
    let foreign = " because it did not come from this stream";
    let zero = world.no("GetShardIterator", ask("0")).await;
    assert_eq!(zero, text("21267647932558653966460912964485513216", foreign));
    let large_date = "26227199374822427428162556223570313216";
    assert_eq!(world.no("GetShardIterator", ask(large_date)).await, text(large_date, ""));
    // What a put is ordered after need not be of this stream.
    let body = json!({ "StreamName": "s", "PartitionKey": "k", "Data": "",
                       "SequenceNumberForOrdering": "0" });
    world.ok("PutRecord", body).await;
}

#[tokio::test]
async fn a_retention_of_the_same_length_is_accepted() {
    let world = World::new().await;
    world.create("s", 1).await;
    let same = json!({ "StreamName": "s", "RetentionPeriodHours": 24 });
    for operation in ["IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod"] {
        world.ok(operation, same.clone()).await;
    }
    let reply = world.ok("DescribeStreamSummary", json!({ "StreamName": "s" })).await;
    assert_eq!(reply["StreamDescriptionSummary"]["StreamStatus"], "ACTIVE");
}
