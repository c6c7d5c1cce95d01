"""Records that hold many: the aggregated format of producers, as both aws-kinesis-agg libraries write
and read it."""

import json

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from hydrant import make_stream, node, read_stream, user_records

USERS = 500


def written_by_python(kinesis, name):
    """Puts user records in as few records as the library makes of them; how many."""
    aggregator = RecordAggregator(max_size=2000)
    whole = [aggregator.add_user_record(f"key-{n % 7}", b"py %d" % n) for n in range(USERS)]
    whole.append(aggregator.clear_and_get())
    whole = [one.get_contents() for one in whole if one]
    for key, hash_key, data in whole:
        more = {"ExplicitHashKey": hash_key} if hash_key else {}
        kinesis.put_record(StreamName=name, PartitionKey=key, Data=data, **more)
    return len(whole)


@pytest.mark.needs("aggregation")
def test_python_reads_what_python_aggregated(kinesis, name):
    make_stream(kinesis, name, 2)
    wholes = written_by_python(kinesis, name)
    records = [one for shard in read_stream(kinesis, name).values() for one in shard]
    assert 1 < len(records) == wholes < USERS
    assert sorted(user_records(records)) == sorted(
        (f"key-{n % 7}", b"py %d" % n) for n in range(USERS))


@pytest.mark.needs("aggregation", "node")
def test_javascript_reads_what_python_aggregated(server, kinesis, name, tmp_path):
    make_stream(kinesis, name, 2)
    written_by_python(kinesis, name)
    seen = json.loads(node("aggregate.mjs", server.aws, name, "read", folder=tmp_path))
    assert sorted(seen) == sorted([f"key-{n % 7}", f"py {n}"] for n in range(USERS))


@pytest.mark.needs("aggregation", "node")
def test_python_reads_what_javascript_aggregated(server, kinesis, name, tmp_path):
    make_stream(kinesis, name, 2)
    node("aggregate.mjs", server.aws, name, "write", str(USERS), folder=tmp_path)
    records = [one for shard in read_stream(kinesis, name).values() for one in shard]
    assert len(records) < USERS
    assert sorted(user_records(records)) == sorted(
        (f"key-{n % 7}", b"js %d" % n) for n in range(USERS))
