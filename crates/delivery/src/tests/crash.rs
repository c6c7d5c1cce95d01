//! A process that dies anywhere leaves every record in exactly one object.

use hydrant_testkit::FaultyControl;
use proptest::prelude::*;

use super::*;

async fn dies_in(mode: Mode) {
    let world = World::new().await;
    let delivery = world.start().await;
    delivery
        .create(
            "orders",
            5,
            10,
            json!({
                "ExtendedS3DestinationConfiguration": {
                    "RoleARN": ROLE,
                    "BucketARN": "arn:aws:s3:::lake",
                    "CompressionFormat": "GZIP",
                    "BufferingHints": { "SizeInMBs": 5, "IntervalInSeconds": 10 },
                },
            }),
        )
        .await;
    world.set(mode);
    delivery.put("orders", "one ").await.unwrap();
    delivery.put("orders", "two ").await.unwrap();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(world.batches.lock().len(), 1, "the delivery is under way");
    let before = world.objects("lake");
    delivery.put("orders", "three ").await.unwrap();
    drop(delivery);
    world.set(Mode::Pass);
    let _delivery = world.start().await;
    sleep(Duration::from_secs(1)).await;
    let after = world.objects("lake");
    assert_eq!(after.values().collect::<Vec<_>>(), ["one two "]);
    assert!(before.is_empty() || before == after, "the same key and the same bytes");
    let ids = world.batches.lock().clone();
    assert_eq!((ids.len(), ids[0]), (2, ids[1]), "the same batch again");
    sleep(Duration::from_secs(11)).await;
    let mut bodies = world.bodies();
    bodies.sort();
    assert_eq!(bodies, ["one two ", "three "]);
}

#[tokio::test(start_paused = true)]
async fn between_intent_and_delivery() {
    dies_in(Mode::HangBefore).await;
}

#[tokio::test(start_paused = true)]
async fn between_delivery_and_checkpoint() {
    dies_in(Mode::HangAfter).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_cut_off_is_finished_after_the_next_start() {
    let world = World::new().await;
    let delivery = world.start().await;
    delivery.create("orders", 5, 60, json!({})).await;
    delivery.put("orders", "x").await.unwrap();
    delivery.api("DeleteDeliveryStream", json!({ "DeliveryStreamName": "orders" })).await.unwrap();
    drop(delivery);
    let delivery = world.start().await;
    sleep(Duration::from_secs(1)).await;
    let listed = delivery.api("ListDeliveryStreams", json!({})).await.unwrap();
    assert_eq!(listed["DeliveryStreamNames"], json!([]));
    assert!(scan_rows(&world).await.is_empty(), "no row is left behind");
    sleep(Duration::from_secs(120)).await;
    assert!(world.bodies().is_empty());
}

async fn scan_rows(world: &World) -> Vec<String> {
    let rows = hydrant_core::control::scan_all(world.control.as_ref(), "delivery/").await.unwrap();
    rows.into_iter().map(|(key, _)| key).collect()
}

/// One step of a run.
#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Sleep(u16),
    Mode(u8),
    Die,
    LoseCommits,
    LoseAnswers,
    /// A shard is closed, and another one takes its keys.
    Reshard(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1u8..20).prop_map(Step::Put),
        4 => (0u16..15_000).prop_map(Step::Sleep),
        2 => (0u8..4).prop_map(Step::Mode),
        1 => Just(Step::Die),
        1 => Just(Step::LoseCommits),
        1 => Just(Step::LoseAnswers),
        2 => (0u8..2).prop_map(Step::Reshard),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]
    #[test]
    fn whatever_happens_each_record_is_in_one_object_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let control = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
    let world = World::over(control.clone()).await;
    let mut stream = world.stream("tweets", 2).await;
    let mut delivery = world.start().await;
    delivery.create("lake", 1, 5, from_stream("tweets")).await;
    let mut put = [0u32; 2];
    // The shards that take the keys of the first two.
    let mut open = [0, 1];
    for step in steps {
        match step {
            Step::Put(count) => {
                for n in 0..count {
                    let shard = usize::from(n % 2);
                    let text = format!("{shard}.{};", put[shard]);
                    put[shard] += 1;
                    world.append(stream.shards[open[shard]].uid, &text).await;
                }
            }
            Step::Sleep(ms) => sleep(Duration::from_millis(ms.into())).await,
            Step::Mode(n) => {
                let modes = [Mode::Pass, Mode::HangBefore, Mode::HangAfter, Mode::Retry];
                world.set(modes[usize::from(n)]);
            }
            Step::Die => {
                drop(delivery);
                delivery = world.start().await;
            }
            Step::LoseCommits => control.lose_commits(1),
            Step::LoseAnswers => control.lose_answers(1),
            Step::Reshard(lane) => {
                let parent = &mut open[usize::from(lane)];
                stream = world.follow(&stream.name, *parent).await;
                *parent = stream.shards.len() - 1;
            }
        }
    }
    drop(delivery);
    world.set(Mode::Pass);
    let _delivery = world.start().await;
    sleep(Duration::from_secs(60)).await;
    let mut got = [Vec::new(), Vec::new()];
    let mut bodies = world.bodies();
    // Objects hold runs of records; put them in order by the first of each shard.
    bodies.sort();
    for record in bodies.iter().flat_map(|body| body.split_terminator(';')) {
        let (shard, n) = record.split_once('.').unwrap();
        got[shard.parse::<usize>().unwrap()].push(n.parse::<u32>().unwrap());
    }
    for (shard, got) in got.iter_mut().enumerate() {
        got.sort_unstable();
        assert_eq!(*got, (0..put[shard]).collect::<Vec<_>>(), "shard {shard}: each record once");
    }
    for body in &bodies {
        for shard in ["0.", "1."] {
            let run: Vec<u32> = body
                .split_terminator(';')
                .filter_map(|r| r.strip_prefix(shard)?.parse().ok())
                .collect();
            assert!(run.windows(2).all(|w| w[0] + 1 == w[1]), "in order within an object: {body}");
        }
    }
}
