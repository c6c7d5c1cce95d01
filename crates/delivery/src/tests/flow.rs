//! From a put to an object.

use hydrant_core::control::scan_all;
use hydrant_core::sequence::RecordIndex;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_interval_makes_exactly_one_object() {
    let world = World::new().await;
    let delivery = world.start().await;
    delivery.create("orders", 5, 60, json!({})).await;
    for n in 0..3 {
        delivery.put("orders", &format!("{{\"n\":{n}}}")).await.unwrap();
        sleep(10 * SECOND).await;
    }
    sleep(25 * SECOND).await;
    assert!(world.bodies().is_empty(), "55 s after the first record");
    sleep(10 * SECOND).await;
    assert_eq!(world.bodies(), ["{\"n\":0}{\"n\":1}{\"n\":2}"]);
    sleep(600 * SECOND).await;
    assert_eq!(world.batches.lock().len(), 1);
    let objects = world.objects("lake");
    let key = objects.keys().next().unwrap();
    assert!(key.starts_with("orders-1-2023-11-14T22:13:20.500Z-"), "{key}");
}

#[tokio::test(start_paused = true)]
async fn the_size_does_not_wait_for_the_interval() {
    let world = World::new().await;
    let delivery = world.start().await;
    delivery.create("orders", 1, 900, json!({})).await;
    let data = "x".repeat(500 << 10);
    for _ in 0..7 {
        delivery.put("orders", &data).await.unwrap();
    }
    sleep(SECOND).await;
    let sizes: Vec<usize> = world.bodies().iter().map(String::len).collect();
    assert_eq!(sizes, [3 * data.len(), 3 * data.len()]);
    sleep(900 * SECOND).await;
    assert_eq!(world.bodies().iter().map(String::len).sum::<usize>(), 7 * data.len());
}

#[tokio::test(start_paused = true)]
async fn an_interval_of_zero_delivers_at_once() {
    let world = World::new().await;
    let delivery = world.start().await;
    delivery.create("orders", 1, 0, json!({})).await;
    for n in 0..3 {
        delivery.put("orders", &n.to_string()).await.unwrap();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(world.bodies().len(), n + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_read_from_when_its_shards_are_in_the_log() {
    let world = World::new().await;
    let stream = world.begin_stream("tweets", 2).await;
    let delivery = world.start().await;
    delivery.create("lake", 5, 1, from_stream("tweets")).await;
    sleep(SECOND).await;
    world.finish_stream(&stream).await;
    world.append(stream.shards[0].uid, "a").await;
    world.append(stream.shards[1].uid, "b").await;
    sleep(2 * SECOND).await;
    assert_eq!(world.bodies().concat().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_a_stream_share_an_object() {
    let world = World::new().await;
    let stream = world.stream("tweets", 2).await;
    world.append(stream.shards[0].uid, "before the delivery stream ").await;
    sleep(SECOND).await;
    let delivery = world.start().await;
    delivery.create("lake", 5, 60, from_stream("tweets")).await;
    for text in ["a", "b", "c"] {
        world.append(stream.shards[0].uid, text).await;
        world.append(stream.shards[1].uid, &text.to_uppercase()).await;
    }
    sleep(61 * SECOND).await;
    let bodies = world.bodies();
    assert_eq!(bodies.len(), 1);
    assert!(["abcABC", "ABCabc"].contains(&bodies[0].as_str()), "{bodies:?}");
    let refused = delivery.put("lake", "x").await.unwrap_err();
    assert_eq!(refused.code, "InvalidArgumentException");
    let words = "This operation is not permitted on KinesisStreamAsSource delivery stream type.";
    assert_eq!(refused.message, words);
}

#[tokio::test(start_paused = true)]
async fn children_come_behind_their_parents() {
    let world = World::new().await;
    let mut stream = world.stream("tweets", 1).await;
    let delivery = world.start().await;
    delivery.create("lake", 5, 60, from_stream("tweets")).await;
    let parent = stream.shards[0].clone();
    world.append(parent.uid, "1").await;
    // The child is known, and has records, before its parent is read to its end.
    let uid = world.streams.allocate_shards(1).await.unwrap()[0];
    world.log.create(uid, DAY).await.unwrap();
    let child = shard(1, uid, parent.range, world.clock.now(), Some(parent.id));
    stream.shards.push(child);
    let seen = world.streams.get(&stream.scope, &stream.name).unwrap().version;
    world.append(uid, "3").await;
    world.streams.put(stream.clone(), Some(seen)).await.unwrap();
    sleep(SECOND).await;
    world.append(parent.uid, "2").await;
    world.log.seal(parent.uid).await.unwrap();
    sleep(61 * SECOND).await;
    world.append(uid, "4").await;
    sleep(61 * SECOND).await;
    let mut bodies = world.bodies();
    bodies.sort();
    assert_eq!(bodies, ["123", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_stream_begins_with_the_records_of_a_child_that_came_after_it() {
    let world = World::new().await;
    let stream = world.stream("tweets", 1).await;
    world.append(stream.shards[0].uid, "1").await;
    let stream = world.follow(&stream.name, 0).await;
    world.append(stream.shards[1].uid, "2").await;
    // The child counts as created a second after it took its first record.
    sleep(Duration::from_millis(10)).await;
    let delivery = world.start().await;
    delivery.create("lake", 5, 60, from_stream("tweets")).await;
    world.append(stream.shards[1].uid, "3").await;
    let stream = world.follow(&stream.name, 1).await;
    world.append(stream.shards[2].uid, "4").await;
    sleep(61 * SECOND).await;
    assert_eq!(world.bodies(), ["34"]);
}

#[tokio::test(start_paused = true)]
async fn expired_shards_leave_no_checkpoint_and_hold_nobody_up() {
    let world = World::new().await;
    let stream = world.stream("tweets", 1).await;
    let delivery = world.start().await;
    delivery.create("lake", 5, 0, from_stream("tweets")).await;
    world.append(stream.shards[0].uid, "1").await;
    sleep(SECOND).await;
    let stream = world.follow(&stream.name, 0).await;
    world.append(stream.shards[1].uid, "2").await;
    sleep(SECOND).await;
    let checkpoints = || async {
        let rows = scan_all(world.control.as_ref(), "delivery/checkpoints/").await.unwrap();
        rows.len()
    };
    assert_eq!(checkpoints().await, 2);
    let held = world.streams.get(&world.scope, &stream.name).unwrap();
    let mut rest = stream.clone();
    rest.shards.remove(0);
    world.streams.put(rest, Some(held.version)).await.unwrap();
    world.log.drop_shard(stream.shards[0].uid).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(checkpoints().await, 1);
    world.append(stream.shards[1].uid, "3").await;
    sleep(SECOND).await;
    drop(delivery);
    let _delivery = world.start().await;
    world.append(stream.shards[1].uid, "4").await;
    sleep(SECOND).await;
    let mut bodies = world.bodies();
    bodies.sort();
    assert_eq!(bodies, ["1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_destination_is_tried_until_it_works() {
    let world = World::new().await;
    let delivery = world.start().await;
    world.set(Mode::Retry);
    delivery.create("orders", 5, 0, json!({})).await;
    delivery.put("orders", "x").await.unwrap();
    sleep(3600 * SECOND).await;
    let tries = world.batches.lock().clone();
    assert!((60..140).contains(&tries.len()), "{} tries in an hour", tries.len());
    assert!(tries.iter().all(|id| *id == tries[0]));
    world.set(Mode::Pass);
    sleep(60 * SECOND).await;
    assert_eq!(world.bodies(), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_destination_takes_over_what_the_old_one_refuses() {
    let world = World::new().await;
    let delivery = world.start().await;
    world.set(Mode::Misconfigured);
    delivery.create("orders", 5, 0, json!({})).await;
    delivery.put("orders", "x").await.unwrap();
    sleep(5 * SECOND).await;
    let update = json!({
        "DeliveryStreamName": "orders",
        "CurrentDeliveryStreamVersionId": "1",
        "DestinationId": "destinationId-000000000001",
        "ExtendedS3DestinationUpdate": { "BucketARN": "arn:aws:s3:::other", "Prefix": "p/" },
    });
    delivery.api("UpdateDestination", update.clone()).await.unwrap();
    let again = delivery.api("UpdateDestination", update).await.unwrap_err();
    assert_eq!(again.code, "ConcurrentModificationException");
    world.set(Mode::Pass);
    sleep(61 * SECOND).await;
    assert!(world.objects("lake").is_empty());
    let other = world.objects("other");
    let (key, body) = other.iter().next().unwrap();
    assert!(key.starts_with("p/orders-2-") && body == "x", "{key}");
    delivery.put("orders", "y").await.unwrap();
    sleep(SECOND).await;
    assert_eq!(world.objects("other").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn records_that_expire_first_are_lost_and_hold_nobody_up() {
    let world = World::new().await;
    let delivery = world.start().await;
    world.set(Mode::Retry);
    delivery.create("orders", 5, 0, json!({})).await;
    delivery.put("orders", "old").await.unwrap();
    sleep(25 * 3600 * SECOND).await;
    world.set(Mode::Pass);
    delivery.put("orders", "new").await.unwrap();
    sleep(120 * SECOND).await;
    assert_eq!(world.bodies(), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_trim_takes_is_not_delivered_and_the_rest_is() {
    let world = World::new().await;
    let stream = world.stream("tweets", 1).await;
    let delivery = world.start().await;
    delivery.create("lake", 5, 60, from_stream("tweets")).await;
    let uid = stream.shards[0].uid;
    world.append(uid, "gone").await;
    sleep(SECOND).await;
    let before = world.log.tail(uid).await.unwrap().end;
    world.append(uid, "kept").await;
    sleep(SECOND).await;
    world.log.trim(uid, before).await.unwrap();
    assert!(before > RecordIndex::MIN);
    sleep(61 * SECOND).await;
    assert_eq!(world.bodies(), ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_finishes_a_delivery_and_keeps_what_is_buffered() {
    let world = World::new().await;
    let delivery = world.start().await;
    delivery.create("orders", 1, 300, json!({})).await;
    let data = "x".repeat(900 << 10);
    for _ in 0..2 {
        delivery.put("orders", &data).await.unwrap();
    }
    tokio::task::yield_now().await;
    delivery.put("orders", "rest").await.unwrap();
    while world.batches.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    delivery.shutdown().await;
    assert_eq!(world.bodies().len(), 1);
    assert!(scan_all(world.control.as_ref(), "delivery/intents/").await.unwrap().is_empty());
    drop(delivery);
    let _delivery = world.start().await;
    sleep(301 * SECOND).await;
    let total: usize = world.bodies().iter().map(String::len).sum();
    assert_eq!((world.bodies().len(), total), (2, 2 * data.len() + 4));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_deleted_is_delivered_at_once() {
    let world = World::new().await;
    let mut stream = world.stream("tweets", 1).await;
    let delivery = world.start().await;
    delivery.create("lake", 5, 900, from_stream("tweets")).await;
    world.append(stream.shards[0].uid, "last words").await;
    sleep(SECOND).await;
    assert!(world.bodies().is_empty());
    let seen = world.streams.get(&stream.scope, &stream.name).unwrap().version;
    stream.state = StreamState::Deleting(world.clock.now().plus(SECOND));
    let held = world.streams.put(stream.clone(), Some(seen)).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(world.bodies(), ["last words"]);
    world.streams.remove(&stream, held.version).await.unwrap();
    world.log.drop_shard(stream.shards[0].uid).await.unwrap();
    sleep(SECOND).await;
    // A new stream of the same name is the source from its first record on.
    let again = world.stream("tweets", 1).await;
    world.append(again.shards[0].uid, "first words").await;
    sleep(901 * SECOND).await;
    assert_eq!(world.bodies().len(), 2);
    assert_eq!(world.batches.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn batches_beyond_the_memory_bound_wait_their_turn() {
    let world = World::new().await;
    let ports = world.ports();
    let options = Options { bytes_in_flight_max: 1 << 20, ..Options::default() };
    let delivery = Delivery::start(ports, options).await.unwrap();
    for name in ["a", "b", "c"] {
        delivery.create(name, 5, 0, json!({})).await;
    }
    world.set(Mode::HangBefore);
    for name in ["a", "b", "c"] {
        delivery.put(name, "x").await.unwrap();
    }
    sleep(60 * SECOND).await;
    assert_eq!(world.batches.lock().len(), 1, "one MiB is taken by the delivery that hangs");
    world.set(Mode::Pass);
    // The one that hangs is given up after ten minutes, and tried again.
    sleep(700 * SECOND).await;
    assert_eq!(world.bodies(), ["x"; 3]);
}
