//! Consumers coming into being and going, alone and with their stream.

use super::*;

const STREAM: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";

async fn register(world: &World, name: &str) -> String {
    let body = json!({ "StreamARN": STREAM, "ConsumerName": name });
    let reply = world.ok("RegisterStreamConsumer", body).await;
    reply["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned()
}

async fn status(world: &World, arn: &str) -> String {
    let reply = world.ok("DescribeStreamConsumer", json!({ "ConsumerARN": arn })).await;
    reply["ConsumerDescription"]["ConsumerStatus"].as_str().unwrap().to_owned()
}

async fn count(world: &World) -> Value {
    let reply = world.ok("DescribeStreamSummary", json!({ "StreamName": "s" })).await;
    reply["StreamDescriptionSummary"]["ConsumerCount"].clone()
}

fn pass(world: &World) {
    world.clock.advance(Duration::from_millis(20));
}

// shows: RegisterStreamConsumer, DescribeStreamConsumer, DeregisterStreamConsumer
#[tokio::test]
async fn a_consumer_is_creating_then_active_then_deleting_then_gone() {
    let world = World::new().await;
    world.create("s", 1).await;
    let body = json!({ "StreamARN": STREAM, "ConsumerName": "c", "Tags": { "a": "1" } });
    let seconds = world.now_ms() / 1_000;
    let arn = format!("{STREAM}/consumer/c:{seconds}");
    let reply = world.ok("RegisterStreamConsumer", body.clone()).await;
    let created = world.now_ms() as f64 / 1_000.0;
    assert_eq!(
        reply,
        json!({ "Consumer": {
            "ConsumerName": "c", "ConsumerARN": arn, "ConsumerStatus": "CREATING",
            "ConsumerCreationTimestamp": created,
        } })
    );
    assert_eq!(
        world.no("RegisterStreamConsumer", body.clone()).await,
        error(
            "ResourceInUseException",
            "Consumer c under stream s already exists for account 000000000000."
        )
    );
    pass(&world);
    let world = world.restart().await;
    for by in [
        json!({ "ConsumerARN": arn }),
        json!({ "StreamARN": STREAM, "ConsumerName": "c" }),
        json!({ "StreamARN": STREAM, "ConsumerName": "c", "ConsumerARN": arn }),
    ] {
        assert_eq!(
            world.ok("DescribeStreamConsumer", by).await,
            json!({ "ConsumerDescription": {
                "ConsumerName": "c", "ConsumerARN": arn, "ConsumerStatus": "ACTIVE",
                "ConsumerCreationTimestamp": created, "StreamARN": STREAM,
            } })
        );
    }
    assert_eq!(count(&world).await, json!(1));
    world.ok("DeregisterStreamConsumer", json!({ "ConsumerARN": arn })).await;
    world.ok("DeregisterStreamConsumer", json!({ "ConsumerARN": arn })).await;
    assert_eq!(status(&world, &arn).await, "DELETING");
    assert_eq!(world.no("RegisterStreamConsumer", body).await.0, "ResourceInUseException");
    pass(&world);
    assert_eq!(
        world.no("DescribeStreamConsumer", json!({ "ConsumerARN": arn })).await,
        error(
            "ResourceNotFoundException",
            &format!(
                "Consumer c with creation timestamp {seconds} under stream: s, account \
                 000000000000 not found."
            )
        )
    );
    assert_eq!(
        world.no("DeregisterStreamConsumer", json!({ "ConsumerARN": arn })).await.0,
        "ResourceNotFoundException"
    );
    assert_eq!(count(&world).await, json!(0));
    // A later one of the name has another ARN, even in the same second.
    let later = register(&world, "c").await;
    assert_ne!(later, arn);
    assert_eq!(status(&world, &later).await, "CREATING");
}

#[tokio::test]
async fn consumers_go_with_their_stream() {
    let world = World::new().await;
    world.create("s", 1).await;
    let arn = register(&world, "c").await;
    assert_eq!(
        world.no("DeleteStream", json!({ "StreamName": "s" })).await,
        error(
            "ResourceInUseException",
            "DeleteStream can't delete 000000000000:s because there are consumers associated with \
             this data stream. To delete s anyway, set the EnforceConsumerDeletion parameter to \
             true to force the deletion of all the consumers that are associated with it."
        )
    );
    let body = json!({ "StreamName": "s", "EnforceConsumerDeletion": true });
    world.ok("DeleteStream", body).await;
    assert_eq!(status(&world, &arn).await, "DELETING");
    let world = world.restart().await;
    pass(&world);
    world.create("s", 1).await;
    assert_eq!(count(&world).await, json!(0));
    assert_eq!(
        world.no("DescribeStreamConsumer", json!({ "ConsumerARN": arn })).await.0,
        "ResourceNotFoundException"
    );
    world.ok("DeleteStream", json!({ "StreamName": "s" })).await;
}

// shows: limit:consumers
#[tokio::test]
async fn consumers_are_limited() {
    let world = World::new().await;
    world.create("s", 1).await;
    for n in 0..5 {
        register(&world, &format!("c{n}")).await;
    }
    let sixth = json!({ "StreamARN": STREAM, "ConsumerName": "c5" });
    let (code, text) = world.no("RegisterStreamConsumer", sixth).await;
    assert_eq!(code, "LimitExceededException");
    assert!(text.contains("5 consumers in CREATING status"), "{text}");
    for n in 5..20 {
        pass(&world);
        register(&world, &format!("c{n}")).await;
    }
    pass(&world);
    let more = json!({ "StreamARN": STREAM, "ConsumerName": "more" });
    let (code, text) = world.no("RegisterStreamConsumer", more.clone()).await;
    assert_eq!(code, "LimitExceededException");
    assert!(text.contains("limit of 20 consumers"), "{text}");
    let first = json!({ "StreamARN": STREAM, "ConsumerName": "c0" });
    world.ok("DeregisterStreamConsumer", first).await;
    pass(&world);
    world.ok("RegisterStreamConsumer", more).await;
}

// shows: ListStreamConsumers, limit:token-life
#[tokio::test]
async fn an_on_demand_stream_of_an_account_that_committed_has_up_to_fifty() {
    let world = World::new().await;
    let mode = json!({ "StreamName": "s", "StreamModeDetails": { "StreamMode": "ON_DEMAND" } });
    world.ok("CreateStream", mode).await;
    world.kinesis.settle().await;
    pass(&world);
    let commit = json!({ "MinimumThroughputBillingCommitment": { "Status": "ENABLED" } });
    world.ok("UpdateAccountSettings", commit).await;
    for n in 0..50 {
        register(&world, &format!("c{n}")).await;
        pass(&world);
    }
    let more = json!({ "StreamARN": STREAM, "ConsumerName": "more" });
    let (code, text) = world.no("RegisterStreamConsumer", more).await;
    assert_eq!(code, "LimitExceededException");
    assert!(text.contains("limit of 50 consumers"), "{text}");
}

#[tokio::test]
async fn consumers_are_listed_in_pages_whose_tokens_end() {
    let world = World::new().await;
    world.create("s", 1).await;
    for name in ["b", "c", "a"] {
        register(&world, name).await;
    }
    let names = |reply: &Value| {
        let consumers = reply["Consumers"].as_array().unwrap().iter();
        consumers.map(|c| c["ConsumerName"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = world.ok("ListStreamConsumers", json!({ "StreamARN": STREAM })).await;
    assert_eq!(
        (names(&all), all.get("NextToken")),
        (vec!["a".into(), "b".into(), "c".into()], None)
    );
    let body = json!({ "StreamARN": STREAM, "MaxResults": 2 });
    let page = world.ok("ListStreamConsumers", body).await;
    assert_eq!(names(&page), ["a", "b"]);
    let next = json!({ "StreamARN": STREAM, "NextToken": page["NextToken"] });
    let page = world.ok("ListStreamConsumers", next.clone()).await;
    assert_eq!((names(&page), page.get("NextToken")), (vec!["c".to_owned()], None));

    let mut both = next.clone();
    both["StreamCreationTimestamp"] = json!(1);
    assert_eq!(
        world.no("ListStreamConsumers", both).await,
        error(
            "InvalidArgumentException",
            "NextToken and StreamCreationTimestamp cannot be provided together."
        )
    );
    let body = json!({ "StreamARN": STREAM, "StreamCreationTimestamp": 1 });
    assert_eq!(world.no("ListStreamConsumers", body).await.0, "ResourceNotFoundException");
    let body = json!({ "StreamARN": STREAM, "NextToken": "x" });
    assert_eq!(
        world.no("ListStreamConsumers", body).await,
        error("InvalidArgumentException", "Invalid NextToken.")
    );
    world.clock.advance(Duration::from_millis(300_001));
    assert_eq!(world.no("ListStreamConsumers", next).await.0, "ExpiredNextTokenException");
}

#[tokio::test]
async fn a_consumer_is_named_so_that_all_agrees() {
    let world = World::new().await;
    world.create("s", 1).await;
    let arn = register(&world, "c").await;
    for (body, code) in [
        (json!({}), "InvalidArgumentException"),
        (json!({ "StreamARN": STREAM }), "InvalidArgumentException"),
        (json!({ "ConsumerName": "c" }), "InvalidArgumentException"),
        (json!({ "ConsumerARN": arn, "ConsumerName": "d" }), "InvalidArgumentException"),
        (json!({ "ConsumerARN": format!("{arn}0") }), "ResourceNotFoundException"),
        (json!({ "ConsumerARN": STREAM }), "ValidationException"),
        (
            json!({ "ConsumerARN": "arn:aws:kinesis:::stream/s/consumer/c:1" }),
            "ValidationException",
        ),
        (json!({ "StreamARN": STREAM, "ConsumerName": "no" }), "ResourceNotFoundException"),
        (json!({ "StreamARN": STREAM, "ConsumerName": "n o" }), "ValidationException"),
        (
            json!({ "ConsumerARN": arn.replace("us-east-1", "eu-west-1") }),
            "ResourceNotFoundException",
        ),
        (
            json!({ "ConsumerARN": arn.replace("000000000000", "111111111111") }),
            "AccessDeniedException",
        ),
    ] {
        let (seen, text) = world.no("DescribeStreamConsumer", body.clone()).await;
        assert_eq!(seen, code, "{body}: {text}");
    }
    let unborn = json!({ "StreamName": "t", "ShardCount": 1 });
    world.ok("CreateStream", unborn).await;
    let body = json!({ "StreamARN": STREAM.replace("/s", "/t"), "ConsumerName": "c" });
    assert_eq!(world.no("RegisterStreamConsumer", body).await.0, "ResourceInUseException");
}
