"""Data Streams as boto3 sees them."""

import concurrent.futures
import datetime
import hashlib
import time

import pytest
from botocore.exceptions import ClientError

from hydrant import ACCOUNT, REGION, eventually, make_stream, read_shard, read_stream

HASH_KEYS = 1 << 128


def code(error):
    return error.value.response["Error"]["Code"]


def text(error):
    return error.value.response["Error"]["Message"]


def ids(records):
    return [record["Data"] for record in records]


# shows: CreateStream, DescribeStream, DescribeStreamSummary, DeleteStream
def test_a_stream_from_creation_to_deletion(kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=3)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    told = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    assert told["StreamStatus"] == "ACTIVE"
    assert told["StreamARN"] == f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}"
    assert told["RetentionPeriodHours"] == 24
    assert told["EncryptionType"] == "NONE"
    assert told["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}
    assert isinstance(told["StreamCreationTimestamp"], datetime.datetime)

    # The shards share the hash keys out between them, without a gap.
    shards = told["Shards"]
    assert [s["ShardId"] for s in shards] == [f"shardId-{n:012d}" for n in range(3)]
    ranges = [s["HashKeyRange"] for s in shards]
    starts = [int(r["StartingHashKey"]) for r in ranges]
    ends = [int(r["EndingHashKey"]) for r in ranges]
    assert starts[0] == 0 and ends[-1] == HASH_KEYS - 1
    assert starts[1:] == [end + 1 for end in ends[:-1]]

    summary = kinesis.describe_stream_summary(StreamARN=told["StreamARN"])
    assert summary["StreamDescriptionSummary"]["OpenShardCount"] == 3
    assert summary["StreamDescriptionSummary"]["ConsumerCount"] == 0

    kinesis.delete_stream(StreamName=name)
    kinesis.get_waiter("stream_not_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    with pytest.raises(ClientError) as error:
        kinesis.describe_stream(StreamName=name)
    assert code(error) == "ResourceNotFoundException"
    assert text(error) == f"Stream {name} under account {ACCOUNT} not found."


# shows: ListStreams, ListShards, DescribeStream
def test_lists_come_in_pages(kinesis, name):
    names = [f"{name}-{n}" for n in range(4)]
    for one in names:
        kinesis.create_stream(StreamName=one, ShardCount=1)
    pages = kinesis.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 2})
    pages = [page["StreamNames"] for page in pages]
    listed = [one for page in pages for one in page]
    assert [one for one in listed if one.startswith(name)] == names
    assert listed == sorted(listed) and len(pages) >= 2

    kinesis.create_stream(StreamName=name, ShardCount=5)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    # A page after the first is asked for with the token alone (so boto3's paginator, which names the
    # stream too, works no better with AWS).
    page = kinesis.list_shards(StreamName=name, MaxResults=2)
    shards = page["Shards"]
    with pytest.raises(ClientError) as error:
        kinesis.list_shards(StreamName=name, NextToken=page["NextToken"])
    assert text(error) == "NextToken and StreamName cannot be provided together."
    while "NextToken" in page:
        page = kinesis.list_shards(NextToken=page["NextToken"], MaxResults=2)
        assert 1 <= len(page["Shards"]) <= 2
        shards += page["Shards"]
    assert [s["ShardId"] for s in shards] == [f"shardId-{n:012d}" for n in range(5)]
    pages = kinesis.get_paginator("describe_stream").paginate(
        StreamName=name, PaginationConfig={"PageSize": 2}
    )
    assert sum(len(page["StreamDescription"]["Shards"]) for page in pages) == 5


# shows: PutRecord, PutRecords
def test_a_key_always_goes_to_the_shard_that_its_hash_names(kinesis, name):
    make_stream(kinesis, name, 4)
    ranges = [
        (s["ShardId"], int(s["HashKeyRange"]["StartingHashKey"]),
         int(s["HashKeyRange"]["EndingHashKey"]))
        for s in kinesis.list_shards(StreamName=name)["Shards"]
    ]

    def owner(hash_key):
        return next(shard for shard, low, high in ranges if low <= hash_key <= high)

    keys = ["a", "key-42", "ключ", "鍵", "x" * 256]
    entries = [{"Data": key.encode(), "PartitionKey": key} for key in keys]
    put = kinesis.put_records(StreamName=name, Records=entries)
    assert put["FailedRecordCount"] == 0
    for key, result in zip(keys, put["Records"], strict=True):
        digest = int.from_bytes(hashlib.md5(key.encode()).digest(), "big")
        assert result["ShardId"] == owner(digest), key

    chosen = kinesis.put_record(
        StreamName=name, Data=b"x", PartitionKey="a", ExplicitHashKey=str(HASH_KEYS - 1)
    )
    assert chosen["ShardId"] == ranges[-1][0]


def test_many_consumers_read_the_same_records_again(server, kinesis, name):
    make_stream(kinesis, name)
    for n in range(10):
        batch = [{"Data": b"%d" % (n * 100 + m), "PartitionKey": "k"} for m in range(100)]
        eventually(lambda: put_all(kinesis, name, batch))

    def consumer(_):
        own = server.client("kinesis")
        return ids(read_shard(own, name, "shardId-000000000000"))

    want = [b"%d" % n for n in range(1000)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert all(seen == want for seen in pool.map(consumer, range(3)))
    assert consumer(0) == want


def put_all(kinesis, name, batch):
    """every record was taken"""
    put = kinesis.put_records(StreamName=name, Records=batch)
    batch[:] = [b for b, r in zip(batch, put["Records"], strict=True) if "ErrorCode" in r]
    return not batch


# shows: GetShardIterator, GetRecords
def test_the_five_kinds_of_iterator(kinesis, name):
    make_stream(kinesis, name)
    shard = "shardId-000000000000"
    old = [kinesis.put_record(StreamName=name, Data=b"%d" % n, PartitionKey="k") for n in range(3)]
    time.sleep(1.1)
    between = time.time()
    time.sleep(0.1)
    latest = kinesis.get_shard_iterator(
        StreamName=name, ShardId=shard, ShardIteratorType="LATEST"
    )["ShardIterator"]
    for n in range(3, 5):
        kinesis.put_record(StreamName=name, Data=b"%d" % n, PartitionKey="k")

    def read(kind, **more):
        return b"".join(ids(read_shard(kinesis, name, shard, kind, **more)))

    sequence = old[1]["SequenceNumber"]
    assert read("TRIM_HORIZON") == b"01234"
    assert read("AT_SEQUENCE_NUMBER", StartingSequenceNumber=sequence) == b"1234"
    assert read("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=sequence) == b"234"
    assert read("AT_TIMESTAMP", Timestamp=between) == b"34"
    assert read("AT_TIMESTAMP", Timestamp=between - 3600) == b"01234"
    assert read("LATEST") == b""
    # A LATEST iterator stands at the end as it was when the iterator was made.
    assert b"".join(ids(kinesis.get_records(ShardIterator=latest)["Records"])) == b"34"
    # An iterator may be used again.
    again = kinesis.get_records(ShardIterator=latest)
    assert b"".join(ids(again["Records"])) == b"34"


# shows: GetRecords
def test_pages_of_records(kinesis, name):
    arn = make_stream(kinesis, name)
    shard = kinesis.list_shards(StreamARN=arn)["Shards"][0]["ShardId"]
    batch = [{"Data": b"%d" % n, "PartitionKey": f"k{n}"} for n in range(5)]
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=5)
    kinesis.put_records(StreamARN=arn, Records=batch)
    iterator = kinesis.get_shard_iterator(
        StreamARN=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    seen = []
    while len(seen) < 5:
        page = kinesis.get_records(StreamARN=arn, ShardIterator=iterator, Limit=2)
        assert 1 <= len(page["Records"]) <= 2
        assert page["MillisBehindLatest"] >= 0
        seen += page["Records"]
        iterator = page["NextShardIterator"]
    assert ids(seen) == [b"%d" % n for n in range(5)]
    assert [r["PartitionKey"] for r in seen] == [f"k{n}" for n in range(5)]
    numbers = [int(r["SequenceNumber"]) for r in seen]
    assert numbers == sorted(set(numbers))
    arrivals = [r["ApproximateArrivalTimestamp"] for r in seen]
    assert arrivals == sorted(arrivals)
    assert before < arrivals[0] < before + datetime.timedelta(seconds=60)
    assert "EncryptionType" not in seen[0]


# shows: limit:record-bytes
def test_a_record_of_one_mebibyte_comes_back_whole(kinesis, name):
    make_stream(kinesis, name)
    blob = (bytes(range(256)) * 4096)[1:]
    assert len(blob + b"k") == 1 << 20
    kinesis.put_record(StreamName=name, Data=blob, PartitionKey="k")
    record, = read_shard(kinesis, name, "shardId-000000000000")
    assert record["Data"] == blob


def test_regions_are_apart(server, name):
    one, two = server.client("kinesis"), server.client("kinesis", region="eu-central-1")
    make_stream(one, name)
    with pytest.raises(ClientError) as error:
        two.describe_stream(StreamName=name)
    assert code(error) == "ResourceNotFoundException"
    assert ":eu-central-1:" in make_stream(two, name)
    one.put_record(StreamName=name, Data=b"one", PartitionKey="k")
    assert read_stream(two, name) == {"shardId-000000000000": []}


# shows: DescribeLimits
def test_limits_are_told(kinesis):
    limits = kinesis.describe_limits()
    assert limits["ShardLimit"] >= 1 and limits["OpenShardCount"] >= 0
