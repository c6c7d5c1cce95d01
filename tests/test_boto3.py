"""boto3's waiters, paginators, retries and subscriptions, and the AWS CLI, on streams."""

import json
import time

import pytest
from hydrant import eventually, make_stream, sh

HALF_OF_ALL_HASH_KEYS = str(1 << 127)
FIRST = "shardId-000000000000"


def consumer(kinesis, arn, name):
    """Registers a consumer and waits until it is there; its ARN."""
    made = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName=name)["Consumer"]

    def active():
        """the consumer is ACTIVE"""
        told = kinesis.describe_stream_consumer(ConsumerARN=made["ConsumerARN"])
        return told["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE"

    eventually(active)
    return made["ConsumerARN"]


def test_waiters_wait_for_the_beginning_and_the_end(kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=1)
    often = {"Delay": 1, "MaxAttempts": 20}
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig=often)
    told = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    assert told["StreamStatus"] == "ACTIVE"
    kinesis.delete_stream(StreamName=name)
    kinesis.get_waiter("stream_not_exists").wait(StreamName=name, WaiterConfig=often)
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
        kinesis.describe_stream(StreamName=name)


def test_every_paginator_comes_to_an_end(kinesis, name):
    arn = make_stream(kinesis, name, 5)
    consumers = {f"consumer-{n}" for n in range(5)}
    for one in consumers:
        consumer(kinesis, arn, one)
    page = {"PageSize": 2}

    def pages(operation, member, **more):
        found = kinesis.get_paginator(operation).paginate(PaginationConfig=page, **more)
        return [one for each in found for one in each[member]]

    shards = [f"shardId-{n:012d}" for n in range(5)]
    seen = kinesis.get_paginator("describe_stream").paginate(
        StreamName=name, PaginationConfig=page)
    assert [s["ShardId"] for p in seen for s in p["StreamDescription"]["Shards"]] == shards
    assert name in pages("list_streams", "StreamNames")
    listed = pages("list_stream_consumers", "Consumers", StreamARN=arn)
    assert {one["ConsumerName"] for one in listed} == consumers
    # boto3 names the stream again beside the token of the next page, and AWS does not allow that:
    # whoever has more shards than a page asks for the pages by hand.
    assert len(kinesis.get_paginator("list_shards").paginate(
        StreamName=name, PaginationConfig={"PageSize": 1000}).build_full_result()["Shards"]) == 5


def test_retries_ride_out_a_throttled_shard(start, name):
    server = start("--limits", "aws")
    hasty = server.client("kinesis")
    make_stream(hasty, name)
    # More than the 1 MiB a second that a shard takes.
    blob = bytes(400 << 10)
    with pytest.raises(hasty.exceptions.ProvisionedThroughputExceededException):
        for _ in range(8):
            hasty.put_record(StreamName=name, PartitionKey="k", Data=blob)
    patient = server.client("kinesis", retries={"mode": "standard", "total_max_attempts": 8})
    replies = [patient.put_record(StreamName=name, PartitionKey="k", Data=blob) for _ in range(4)]
    assert any(reply["ResponseMetadata"]["RetryAttempts"] for reply in replies)


def test_a_subscription_from_the_first_record_to_the_end_of_the_shard(kinesis, name):
    arn = make_stream(kinesis, name)
    mine = consumer(kinesis, arn, "mine")
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"before")
    reply = kinesis.subscribe_to_shard(
        ConsumerARN=mine, ShardId=FIRST, StartingPosition={"Type": "TRIM_HORIZON"})
    records, children, places, waited = [], [], [], 0
    for frame in reply["EventStream"]:
        some = frame["SubscribeToShardEvent"]
        records += some["Records"]
        children += some.get("ChildShards", [])
        places += [some[name] for name in ["ContinuationSequenceNumber"] if name in some]
        if some["Records"] and len(records) == 1:
            kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"pushed")
            put = time.monotonic()
        elif some["Records"]:
            waited = time.monotonic() - put
            kinesis.split_shard(
                StreamName=name, ShardToSplit=FIRST, NewStartingHashKey=HALF_OF_ALL_HASH_KEYS)
    assert [one["Data"] for one in records] == [b"before", b"pushed"]
    # Pushed when it was durable, not at somebody's next look.
    assert waited < 2
    assert int(places[-1]) >= int(records[1]["SequenceNumber"])
    assert [child["ShardId"] for child in children] == [
        "shardId-000000000001", "shardId-000000000002"]
    assert all(child["ParentShards"] == [FIRST] for child in children)


def test_the_command_line_from_creation_to_a_merge(server, name):
    """What a person types; each command fails the test if it fails."""
    told = json.loads(sh(f"""
        aws kinesis create-stream --stream-name {name} --shard-count 1
        aws kinesis wait stream-exists --stream-name {name}
        aws kinesis split-shard --stream-name {name} --shard-to-split {FIRST} \
            --new-starting-hash-key {HALF_OF_ALL_HASH_KEYS}
        aws kinesis wait stream-exists --stream-name {name}
        aws kinesis merge-shards --stream-name {name} --shard-to-merge shardId-000000000001 \
            --adjacent-shard-to-merge shardId-000000000002
        aws kinesis wait stream-exists --stream-name {name}
        aws kinesis list-shards --stream-name {name}
    """, server.shell()))
    shards = {shard["ShardId"]: shard for shard in told["Shards"]}
    assert sorted(shards) == [f"shardId-{n:012d}" for n in range(4)]
    last = shards["shardId-000000000003"]
    assert last["ParentShardId"] == "shardId-000000000001"
    assert last["AdjacentParentShardId"] == "shardId-000000000002"
    closed = [shard for shard in shards.values()
              if "EndingSequenceNumber" in shard["SequenceNumberRange"]]
    assert len(closed) == 3
