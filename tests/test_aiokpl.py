"""aiokpl, a producer library in Python that predicts shards and aggregates, across a reshard."""

import json

import pytest
from hydrant import aio, eventually, make_stream, read_stream, user_records

USERS = 3000
PART = USERS // 3


@pytest.mark.needs("aio", "aggregation")
def test_an_update_of_the_shard_count_loses_and_copies_nothing(start, name):
    # The update takes as long as the second part needs, as it does with AWS. aiokpl 0.2.0 asks for
    # the shards once: what it puts after the update it would send again and again, because it does
    # not know the shard that the reply names. So the last part is put by a fresh producer.
    server = start("--stream-state-delay-ms", "6000")
    kinesis = server.client("kinesis")
    make_stream(kinesis, name, 2)
    with aio("produce.py", server.aws, name, str(USERS)) as producer:
        first = json.loads(producer.stdout.readline())
        assert first["acknowledged"] == PART, first
        kinesis.update_shard_count(
            StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
        producer.stdin.write("go on\n")
        producer.stdin.flush()
        second = json.loads(producer.stdout.readline())
        assert second["acknowledged"] == PART, second
        assert summary(kinesis, name)["StreamStatus"] == "UPDATING"

        def updated():
            """the stream is ACTIVE with four open shards"""
            seen = summary(kinesis, name)
            return seen["StreamStatus"] == "ACTIVE" and seen["OpenShardCount"] == 4

        eventually(updated)
        producer.stdin.write("go on\n")
        producer.stdin.flush()
        third = json.loads(producer.stdout.readline())
        assert third["acknowledged"] == PART, third
        assert producer.wait(20) == 0
    assert len(first["shards"]) == 2 and first["shards"] == second["shards"]
    assert len(third["shards"]) == 4 and not set(third["shards"]) & set(first["shards"])
    assert first["errors"] == second["errors"] == third["errors"] == []

    records = [one for shard in read_stream(kinesis, name).values() for one in shard]
    assert len(records) < USERS, "nothing was aggregated"
    seen = [int(data) for _, data in user_records(records)]
    assert len(seen) == USERS and sorted(seen) == list(range(USERS))


def summary(kinesis, name):
    told = kinesis.describe_stream_summary(StreamName=name)
    return told["StreamDescriptionSummary"]
