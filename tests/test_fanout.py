"""Enhanced fan-out: consumers, and SubscribeToShard over HTTP/1.1 (boto3) and HTTP/2 (JavaScript)."""

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EventStreamError

import hydrant

FIRST = "shardId-000000000000"
HORIZON = {"Type": "TRIM_HORIZON"}


def consumer_of(kinesis, arn, name):
    """Registers a consumer and waits until it is there; its ARN."""
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName=name)["Consumer"]
    assert consumer["ConsumerStatus"] == "CREATING"

    def active():
        """the consumer is ACTIVE"""
        seen = kinesis.describe_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
        return seen["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE"

    hydrant.eventually(active)
    return consumer["ConsumerARN"]


def subscribe(kinesis, consumer, shard=FIRST, position=HORIZON):
    """The events of a subscription, one by one."""
    reply = kinesis.subscribe_to_shard(
        ConsumerARN=consumer, ShardId=shard, StartingPosition=position
    )
    return (event["SubscribeToShardEvent"] for event in reply["EventStream"])


def data(events, count):
    """The data of the first `count` records."""
    found = []
    while len(found) < count:
        found += [record["Data"].decode() for record in next(events)["Records"]]
    return found


def put(kinesis, name, *texts):
    for text in texts:
        kinesis.put_record(StreamName=name, Data=text, PartitionKey="k")


def test_records_are_pushed_when_they_are_durable(kinesis, name):
    arn = hydrant.make_stream(kinesis, name)
    consumer = consumer_of(kinesis, arn, "c")
    assert consumer.startswith(f"{arn}/consumer/c:")
    put(kinesis, name, "before")
    events = subscribe(kinesis, consumer)
    assert data(events, 1) == ["before"]
    for n in range(5):
        began = time.monotonic()
        put(kinesis, name, f"{n}")
        assert data(events, 1) == [f"{n}"]
        assert time.monotonic() - began < 2
    # As GetRecords shows them, and with a number to go on behind.
    record = hydrant.read_shard(kinesis, name, FIRST)[-1]
    put(kinesis, name, "last")
    after = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": record["SequenceNumber"]}
    other = subscribe(kinesis, consumer_of(kinesis, arn, "d"), position=after)
    event = next(other)
    assert event["Records"] == hydrant.read_shard(kinesis, name, FIRST)[-1:]
    assert event["ContinuationSequenceNumber"] == event["Records"][0]["SequenceNumber"]
    assert event["MillisBehindLatest"] == 0
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["ConsumerCount"] == 2
    with pytest.raises(ClientError, match="because there are consumers associated"):
        kinesis.delete_stream(StreamName=name)
    listed = kinesis.get_paginator("list_stream_consumers").paginate(
        StreamARN=arn, PaginationConfig={"PageSize": 1}
    )
    assert [c["ConsumerName"] for page in listed for c in page["Consumers"]] == ["c", "d"]


def test_a_second_subscription_takes_over_after_five_seconds(kinesis, name):
    consumer = consumer_of(kinesis, hydrant.make_stream(kinesis, name), "c")
    old = subscribe(kinesis, consumer)
    next(old)
    with pytest.raises(kinesis.exceptions.ResourceInUseException) as refused:
        subscribe(kinesis, consumer)
    told = f"Another active subscription exists for this consumer: {hydrant.ACCOUNT}:{name}:{FIRST}:c"
    assert refused.value.response["Error"]["Message"] == told
    time.sleep(5.1)
    new = subscribe(kinesis, consumer)
    with pytest.raises(EventStreamError) as ended:
        list(old)
    assert ended.value.response["Error"] == {"Code": "ResourceInUseException", "Message": told}
    put(kinesis, name, "one")
    assert data(new, 1) == ["one"]


def test_a_split_shard_ends_with_its_children(kinesis, name):
    consumer = consumer_of(kinesis, hydrant.make_stream(kinesis, name), "c")
    events = subscribe(kinesis, consumer)
    put(kinesis, name, "one")
    assert data(events, 1) == ["one"]
    kinesis.split_shard(StreamName=name, ShardToSplit=FIRST, NewStartingHashKey=str(1 << 127))
    *_, last = events
    assert "ContinuationSequenceNumber" not in last
    children = last["ChildShards"]
    assert [child["ParentShards"] for child in children] == [[FIRST], [FIRST]]
    kinesis.put_record(StreamName=name, Data="two", PartitionKey="k", ExplicitHashKey="0")
    assert data(subscribe(kinesis, consumer, children[0]["ShardId"]), 1) == ["two"]


def test_a_subscription_ends_with_what_it_is_to(kinesis, name):
    arn = hydrant.make_stream(kinesis, name)
    consumers = [consumer_of(kinesis, arn, n) for n in ("c", "d")]
    first, second = [subscribe(kinesis, consumer) for consumer in consumers]
    next(first), next(second)
    kinesis.deregister_stream_consumer(ConsumerARN=consumers[0])
    with pytest.raises(EventStreamError) as ended:
        list(first)
    assert ended.value.response["Error"]["Code"] == "ResourceNotFoundException"
    kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
    with pytest.raises(EventStreamError) as ended:
        list(second)
    assert ended.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_nothing_is_lost_or_repeated_when_subscriptions_are_renewed(start, name):
    # At least the five seconds for which a subscription cannot be repeated.
    server = start("--subscription-seconds", "5")
    kinesis = server.client("kinesis")
    consumer = consumer_of(kinesis, hydrant.make_stream(kinesis, name), "c")
    want = [f"{n}" for n in range(600)]

    def write():
        client = server.client("kinesis")
        for text in want:
            put(client, name, text)
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    seen, renewals, position = [], 0, HORIZON
    while len(seen) < len(want):
        try:
            events = subscribe(kinesis, consumer, position=position)
        except kinesis.exceptions.ResourceInUseException:
            time.sleep(0.1)
            continue
        renewals += 1
        for event in events:
            seen += [record["Data"].decode() for record in event["Records"]]
            number = event["ContinuationSequenceNumber"]
            position = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number}
            if len(seen) >= len(want):
                break
    writer.join()
    assert seen == want
    assert renewals >= 3, renewals


def test_a_server_that_stops_ends_its_subscriptions(start, name):
    server = start()
    kinesis = server.client("kinesis")
    consumer = consumer_of(kinesis, hydrant.make_stream(kinesis, name), "c")
    events = subscribe(kinesis, consumer)
    next(events)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10
    assert list(events) == []


@pytest.mark.needs("node")
def test_the_javascript_sdk_subscribes_over_http_2(server, name, tmp_path):
    modules = Path(os.environ["HYDRANT_TEST_NODE"]) / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    shutil.copy(Path(__file__).parent / "js" / "fanout.mjs", tmp_path)
    done = subprocess.run(
        ["node", "fanout.mjs", server.aws, name], cwd=tmp_path, env=server.shell(), timeout=90,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["protocol"] == "h2", told
    assert told["data"] == ["before", "one", "two", "three"]
    assert told["children"] == [f"shardId-{n:012}" for n in (1, 2)]
    assert told["continuationAtEnd"] is None
    assert told["deleted"] == "ResourceNotFoundException"
