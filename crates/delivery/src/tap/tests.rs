//! What the tap takes for lost.

use std::time::Duration;

use super::*;
use crate::stream::{Destination, State};
use crate::tests::World;

const DAY: Duration = Duration::from_secs(86_400);
const HINTS: Hints = Hints { size_mbs: 5, interval_seconds: 60 };

/// A tap that has found the one shard of a stream empty.
async fn tap_on_empty_shard(world: &World) -> (Tap, ShardUid) {
    let source = world.stream("tweets", 1).await;
    let stream = Arc::new(DeliveryStream {
        scope: world.scope.clone(),
        name: "lake".parse().unwrap(),
        uid: ShardUid(99),
        created: world.clock.now(),
        updated: None,
        state: State::Creating(world.clock.now()),
        source: Source::Kinesis {
            stream: "tweets".parse().unwrap(),
            role_arn: String::new(),
            start: world.clock.now(),
        },
        version: 1,
        destination: Destination {
            settings: world.settings(),
            hints: HINTS,
            role_arn: String::new(),
            bucket_arn: String::new(),
            shown: BTreeMap::new(),
        },
        tags: BTreeMap::new(),
    });
    let mut tap = Tap::new(world.log.clone(), world.clock.clone(), stream, HashMap::new());
    tap.refresh(&world.streams).await.unwrap();
    tap.fill(&mut Buffer::default(), HINTS).await.unwrap();
    assert!(!tap.is_ready());
    (tap, source.shards[0].uid)
}

async fn may_miss(world: &World, tap: &Tap, shard: ShardUid) -> bool {
    tap.reading[&shard].may_miss(&world.log.tail(shard).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_record_after_a_long_silence_is_no_gap() {
    let world = World::new().await;
    let (mut tap, shard) = tap_on_empty_shard(&world).await;
    let put = async {
        tokio::time::sleep(DAY + DAY / 2).await;
        world.append(shard, "first").await;
    };
    let (woken, ()) = tokio::join!(tap.wait(), put);
    woken.unwrap();
    assert!(!may_miss(&world, &tap, shard).await);
}

#[tokio::test(start_paused = true)]
async fn the_first_records_of_a_child_are_no_gap() {
    let world = World::new().await;
    let (mut tap, parent) = tap_on_empty_shard(&world).await;
    let stream = world.follow(&"tweets".parse().unwrap(), 0).await;
    let child = stream.shards[1].uid;
    world.append(child, "first").await;
    tap.wait().await.unwrap();
    assert!(tap.fill(&mut Buffer::default(), HINTS).await.unwrap(), "{parent:?} ended");
    tap.refresh(&world.streams).await.unwrap();
    assert!(!may_miss(&world, &tap, child).await);
}

#[tokio::test(start_paused = true)]
async fn records_that_expired_while_nobody_looked_are_a_gap() {
    let world = World::new().await;
    let (mut tap, shard) = tap_on_empty_shard(&world).await;
    world.append(shard, "expires").await;
    tokio::time::sleep(DAY + DAY / 2).await;
    world.append(shard, "stays").await;
    tap.wait().await.unwrap();
    assert!(may_miss(&world, &tap, shard).await);
}
