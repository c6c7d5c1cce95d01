//! Streams that other services ask for.

use std::time::Duration;

use hydrant_core::capture::{CaptureError, MakeStream};
use serde_json::json;

use super::{World, scope};

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_asked_for_is_ready_on_return_and_made_once() {
    let world = World::new().await;
    let (scope, name) = (scope("us-east-1"), "changes".parse().unwrap());
    let make = world.kinesis.make(&scope, &name, 2);
    let states = async {
        loop {
            world.kinesis.settle().await;
            world.clock.advance(Duration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! { made = make => made.unwrap(), () = states => {} }
    let told = world.ok("DescribeStreamSummary", json!({ "StreamName": "changes" })).await;
    assert_eq!(told["StreamDescriptionSummary"]["OpenShardCount"], 2);
    world.kinesis.make(&scope, &name, 5).await.unwrap();
    let told = world.ok("DescribeStreamSummary", json!({ "StreamName": "changes" })).await;
    assert_eq!(told["StreamDescriptionSummary"]["OpenShardCount"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_going_is_not_ready() {
    let world = World::new().await;
    world.ok("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 })).await;
    world.kinesis.settle().await;
    world.clock.advance(Duration::from_millis(20));
    world.ok("DeleteStream", json!({ "StreamName": "s" })).await;
    let made = world.kinesis.make(&scope("us-east-1"), &"s".parse().unwrap(), 1).await;
    assert!(matches!(made, Err(CaptureError::Unavailable(text)) if text.contains("deleted")));
}
