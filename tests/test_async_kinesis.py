"""async-kinesis, producer and consumer, across a split."""

import json

import pytest
from hydrant import aio, make_stream

RECORDS = 400
HALF_OF_ALL_HASH_KEYS = str(1 << 127)


@pytest.mark.needs("aio")
def test_a_consumer_follows_a_split(server, kinesis, name):
    make_stream(kinesis, name)
    with aio("tail.py", server.aws, name, str(RECORDS)) as program:
        assert program.stdout.readline() == "half\n"
        kinesis.split_shard(
            StreamName=name, ShardToSplit="shardId-000000000000",
            NewStartingHashKey=HALF_OF_ALL_HASH_KEYS)
        kinesis.get_waiter("stream_exists").wait(
            StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        program.stdin.write("go on\n")
        program.stdin.flush()
        seen = json.loads(program.stdout.readline())
    by_key = {}
    for text in seen:
        key, n = text.split(":")
        by_key.setdefault(key, []).append(int(n))
    assert sorted(n for key in by_key.values() for n in key) == list(range(RECORDS))
    assert all(numbers == sorted(numbers) for numbers in by_key.values()), by_key
