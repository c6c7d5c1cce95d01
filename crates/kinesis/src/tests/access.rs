//! Resource policies, and calls from other accounts; tags of consumers.

use super::*;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
const OTHER: &str = "111111111111";

impl World {
    /// Calls from another account.
    fn as_account(&self, account: &str) -> Self {
        let scope = Scope { account: account.parse().unwrap(), region: self.scope.region.clone() };
        let (clock, log, control) = (self.clock.clone(), self.log.clone(), self.control.clone());
        Self { clock, log, control, kinesis: self.kinesis.clone(), scope }
    }
}

fn policy(effect: &str, account: &str, actions: &[&str], resource: &str) -> String {
    let statement = json!({
        "Effect": effect,
        "Principal": { "AWS": account },
        "Action": actions,
        "Resource": resource,
    });
    json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}

async fn set(world: &World, arn: &str, policy: &str) {
    world.ok("PutResourcePolicy", json!({ "ResourceARN": arn, "Policy": policy })).await;
}

fn refusal(account: &str, operation: &str, arn: &str, why: &str) -> (String, String) {
    let text = format!(
        "User: arn:aws:iam::{account}:root is not authorized to perform: kinesis:{operation} on \
         resource: {arn} {why}"
    );
    ("AccessDeniedException".to_owned(), text)
}

fn not_allowed(operation: &str, arn: &str) -> (String, String) {
    let why = format!("because no resource-based policy allows the kinesis:{operation} action");
    refusal(OTHER, operation, arn, &why)
}

async fn consumer(world: &World, name: &str) -> String {
    let body = json!({ "StreamARN": ARN, "ConsumerName": name });
    let reply = world.ok("RegisterStreamConsumer", body).await;
    world.clock.advance(Duration::from_millis(20));
    reply["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned()
}

// shows: PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy
#[tokio::test]
async fn a_policy_is_kept_shown_replaced_and_taken_away() {
    let world = World::new().await;
    world.create("s", 1).await;
    let consumer = consumer(&world, "c").await;
    for (arn, action) in [(ARN, "kinesis:PutRecord"), (&consumer, "kinesis:SubscribeToShard")] {
        let named = json!({ "ResourceARN": arn });
        assert_eq!(world.ok("GetResourcePolicy", named.clone()).await, json!({}));
        assert_eq!(
            world.no("DeleteResourcePolicy", named.clone()).await,
            error(
                "ResourceNotFoundException",
                &format!("No resource policy found for resource ARN {arn}")
            )
        );
        set(&world, arn, &policy("Allow", "222222222222", &[action], arn)).await;
        let text = policy("Allow", OTHER, &[action], arn);
        set(&world, arn, &text).await;
        let other = world.restart().await;
        let shown = other.ok("GetResourcePolicy", named.clone()).await;
        assert_eq!(shown, json!({ "Policy": text }), "to the letter");
        world.ok("DeleteResourcePolicy", named.clone()).await;
        assert_eq!(world.ok("GetResourcePolicy", named).await, json!({}));
    }
}

#[tokio::test]
async fn another_account_may_do_what_a_policy_allows_it_and_nothing_else() {
    let world = World::new().await;
    world.create("s", 3).await;
    let other = world.as_account(OTHER);
    let put = json!({ "StreamARN": ARN, "PartitionKey": "k", "Data": "YQ==" });
    assert_eq!(other.no("PutRecord", put.clone()).await, not_allowed("PutRecord", ARN));
    set(&world, ARN, &policy("Allow", OTHER, &["kinesis:Put*", "kinesis:ListShards"], ARN)).await;
    let shard = other.ok("PutRecord", put.clone()).await["ShardId"].as_str().unwrap().to_owned();
    // All pages, by token.
    let mut body = json!({ "StreamARN": ARN, "MaxResults": 2 });
    let page = other.ok("ListShards", body).await;
    assert_eq!(page["Shards"].as_array().unwrap().len(), 2);
    body = json!({ "NextToken": page["NextToken"] });
    assert_eq!(other.ok("ListShards", body.clone()).await["Shards"].as_array().unwrap().len(), 1);
    let at = json!({ "StreamARN": ARN, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
    assert_eq!(
        other.no("GetShardIterator", at.clone()).await,
        not_allowed("GetShardIterator", ARN)
    );
    // By name, it is the caller's own stream that is meant.
    let own = json!({ "StreamName": "s", "PartitionKey": "k", "Data": "YQ==" });
    assert_eq!(other.no("PutRecord", own).await.0, "ResourceNotFoundException");
    assert_eq!(
        world.as_account("222222222222").no("PutRecord", put.clone()).await.0,
        "AccessDeniedException"
    );

    let read = ["kinesis:GetShardIterator", "kinesis:GetRecords"];
    set(&world, ARN, &policy("Allow", OTHER, &read, ARN)).await;
    assert_eq!(other.no("ListShards", body).await, not_allowed("ListShards", ARN));
    let iterator = other.ok("GetShardIterator", at).await["ShardIterator"].clone();
    let body = json!({ "ShardIterator": iterator });
    let page = other.ok("GetRecords", body.clone()).await;
    assert_eq!(page["Records"].as_array().unwrap().len(), 1);
    // An iterator is no right of its own.
    world.ok("DeleteResourcePolicy", json!({ "ResourceARN": ARN })).await;
    assert_eq!(other.no("GetRecords", body).await, not_allowed("GetRecords", ARN));
    // Nor can anybody else be let in to change things.
    set(&world, ARN, &policy("Allow", "*", &["kinesis:*"], ARN)).await;
    for operation in ["DeleteStream", "PutResourcePolicy", "GetResourcePolicy", "TagResource"] {
        let body = json!({ "StreamARN": ARN, "ResourceARN": ARN, "Policy": "{}",
                           "Tags": { "a": "b" } });
        assert_eq!(other.no(operation, body).await, not_allowed(operation, ARN));
    }
    let missing = "arn:aws:kinesis:us-east-1:000000000000:stream/none";
    let body = json!({ "StreamARN": missing });
    assert_eq!(
        other.no("DescribeStream", body).await,
        not_allowed("DescribeStream", missing),
        "whether a stream is there is nobody else's affair"
    );
}

#[tokio::test]
async fn a_denial_holds_for_the_own_account_too() {
    let world = World::new().await;
    world.create("s", 1).await;
    let iterator = world.horizon("s", "shardId-000000000000").await;
    let denied = ["kinesis:PutRecord", "kinesis:GetRecords"];
    set(&world, ARN, &policy("Deny", "000000000000", &denied, ARN)).await;
    for world in [&world, &world.restart().await] {
        let put = json!({ "StreamName": "s", "PartitionKey": "k", "Data": "YQ==" });
        let refused = world.no("PutRecord", put).await;
        let why = "with an explicit deny in a resource-based policy";
        assert_eq!(refused, refusal("000000000000", "PutRecord", ARN, why));
        let body = json!({ "ShardIterator": iterator });
        assert_eq!(world.no("GetRecords", body).await.0, "AccessDeniedException");
        world.ok("DescribeStream", json!({ "StreamName": "s" })).await;
    }
    // Whoever denies everything does not lock himself out.
    set(&world, ARN, &policy("Deny", "*", &["kinesis:*"], ARN)).await;
    assert_eq!(
        world.no("ListShards", json!({ "StreamName": "s" })).await.0,
        "AccessDeniedException"
    );
    world.ok("DeleteResourcePolicy", json!({ "ResourceARN": ARN })).await;
    world.put("s", "k", "again").await;
}

#[tokio::test]
async fn a_consumer_has_a_policy_of_its_own() {
    let world = World::new().await;
    world.create("s", 1).await;
    let arn = consumer(&world, "c").await;
    let other = world.as_account(OTHER);
    let body = json!({ "ConsumerARN": arn });
    assert_eq!(
        other.no("DescribeStreamConsumer", body.clone()).await,
        not_allowed("DescribeStreamConsumer", &arn)
    );
    set(&world, &arn, &policy("Allow", OTHER, &["kinesis:*"], &arn)).await;
    let shown = other.ok("DescribeStreamConsumer", body.clone()).await;
    assert_eq!(shown["ConsumerDescription"]["ConsumerName"], "c");
    assert_eq!(
        other.no("DeregisterStreamConsumer", body.clone()).await.0,
        "AccessDeniedException",
        "no policy can allow it"
    );
    set(&world, &arn, &policy("Deny", "*", &["kinesis:DescribeStreamConsumer"], &arn)).await;
    let by_name = json!({ "StreamARN": ARN, "ConsumerName": "c" });
    for body in [body, by_name] {
        let why = "with an explicit deny in a resource-based policy";
        assert_eq!(
            world.no("DescribeStreamConsumer", body).await,
            refusal("000000000000", "DescribeStreamConsumer", &arn, why)
        );
    }
}

#[tokio::test]
async fn bad_policies_and_resources_are_refused() {
    let world = World::new().await;
    world.create("s", 1).await;
    let no = async |arn: &str, policy: &str| {
        world.no("PutResourcePolicy", json!({ "ResourceARN": arn, "Policy": policy })).await
    };
    for (policy, why) in [
        ("", "not a policy document"),
        ("{}", "not a policy document"),
        (&policy("Allow", OTHER, &["kinesis:DeleteStream"], ARN), "kinesis:DeleteStream"),
        (&policy("Allow", OTHER, &["kinesis:PutRecord"], "*"), "Resource *"),
        (&policy("Allow", OTHER, &["s3:PutObject"], ARN), "s3:PutObject"),
        (&policy("Maybe", OTHER, &["kinesis:PutRecord"], ARN), "Effect Maybe"),
    ] {
        let (code, text) = no(ARN, policy).await;
        assert_eq!(code, "InvalidArgumentException");
        assert!(text.contains(why), "{text}");
    }
    let good = policy("Allow", OTHER, &["kinesis:PutRecord"], ARN);
    for absent in [
        "arn:aws:kinesis:us-east-1:000000000000:stream/none",
        "arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/none:1",
        "arn:aws:kinesis:us-east-1:000000000000:queue/q",
    ] {
        assert_eq!(no(absent, &good).await.0, "ResourceNotFoundException", "{absent}");
    }
    assert_eq!(
        world.no("PutResourcePolicy", json!({ "ResourceARN": "s" })).await,
        error(
            "ValidationException",
            "2 validation errors detected: Value 's' at 'resourceARN' failed to satisfy \
             constraint: Member must satisfy regular expression pattern: \
             arn:aws.*:kinesis:.*:\\d{12}:.*(stream|channel|queue)/\\S+; Value null at 'policy' \
             failed to satisfy constraint: Member must not be null"
        )
    );
    let monitoring = json!({ "StreamName": "s", "ShardLevelMetrics": ["ALL"] });
    world.ok("EnableEnhancedMonitoring", monitoring).await;
    assert_eq!(no(ARN, &good).await.0, "ResourceInUseException");
}

// shows: TagResource, UntagResource, ListTagsForResource
#[tokio::test]
async fn consumers_have_tags_of_their_own() {
    let world = World::new().await;
    world.create("s", 1).await;
    let arn = consumer(&world, "c").await;
    let tags = async |arn: &str| {
        world.ok("ListTagsForResource", json!({ "ResourceARN": arn })).await["Tags"].clone()
    };
    let body = json!({ "ResourceARN": arn, "Tags": { "a": "1", "b": "2" } });
    world.ok("TagResource", body).await;
    let b = json!({ "Key": "b", "Value": "2" });
    assert_eq!(tags(&arn).await, json!([{ "Key": "a", "Value": "1" }, b]));
    assert_eq!(tags(ARN).await, json!([]));
    world.ok("UntagResource", json!({ "ResourceARN": arn, "TagKeys": ["a", "c"] })).await;
    assert_eq!(tags(&arn).await, json!([b]));
    let many: serde_json::Map<String, Value> =
        (0..50).map(|n| (format!("k{n}"), json!("v"))).collect();
    let (code, text) = world.no("TagResource", json!({ "ResourceARN": arn, "Tags": many })).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(text.contains("more than 50 tags"), "{text}");
    let gone = arn.replace("/c:", "/d:");
    let body = json!({ "ResourceARN": gone, "TagKeys": ["a"] });
    assert_eq!(world.no("UntagResource", body).await.0, "ResourceNotFoundException");
}
