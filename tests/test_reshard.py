"""Streams whose shards are split, merged and scaled while they are written and read."""

import json
import threading
import time
from collections import defaultdict

import hydrant
import pytest

HALF = 1 << 127
KEYS = [f"key-{n}" for n in range(40)]


class Writer(threading.Thread):
    """Puts numbered records under every key, each once, until it is told to stop."""

    def __init__(self, client, stream, keys, many):
        super().__init__(daemon=True)
        self.client, self.stream, self.keys, self.many = client, stream, keys, many
        self.acknowledged = defaultdict(list)
        self.refused = []
        self.ending = threading.Event()

    def run(self):
        kinesis = self.client()
        number = 0
        while not self.ending.is_set():
            number += 1
            try:
                self.put(kinesis, number)
            except Exception as error:  # noqa: BLE001 - the test looks at all of them
                self.refused.append(error)

    def put(self, kinesis, number):
        records = [{"Data": f"{key} {number}".encode(), "PartitionKey": key} for key in self.keys]
        if self.many:
            reply = kinesis.put_records(StreamName=self.stream, Records=records)
            self.refused += [r for r in reply["Records"] if "ErrorCode" in r]
            told = reply["Records"]
        else:
            told = [kinesis.put_record(StreamName=self.stream, **record) for record in records]
        for key, told_of_one in zip(self.keys, told):
            if "SequenceNumber" in told_of_one:
                self.acknowledged[key].append((number, int(told_of_one["SequenceNumber"])))

    def end(self):
        self.ending.set()
        self.join(60)
        assert not self.is_alive()


def settled(kinesis, stream):
    """Waits until the stream is ACTIVE."""

    def active():
        """the stream is ACTIVE"""
        summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        return summary["StreamStatus"] == "ACTIVE"

    hydrant.eventually(active, every=0.02)


def listed(kinesis, stream, filter_type=None):
    more = {"ShardFilter": {"Type": filter_type}} if filter_type else {}
    return kinesis.list_shards(StreamName=stream, **more)["Shards"]


def span(shard):
    return int(shard["HashKeyRange"]["StartingHashKey"]), int(shard["HashKeyRange"]["EndingHashKey"])


def open_shards(kinesis, stream):
    """The open shards by hash key; they share out all keys."""
    shards = sorted(listed(kinesis, stream, "AT_LATEST"), key=span)
    assert span(shards[0])[0] == 0 and span(shards[-1])[1] == 2**128 - 1
    for one, other in zip(shards, shards[1:]):
        assert span(one)[1] + 1 == span(other)[0]
    return shards


def follow(kinesis, stream):
    """Reads as a consumer library does: the shards of the horizon first, then the children that the
    end of a shard tells of, each when all its parents are read. What each key got, in that order."""
    shards = {s["ShardId"]: [] for s in listed(kinesis, stream, "AT_TRIM_HORIZON")}
    waiting, done, got = dict(shards), set(), defaultdict(list)
    while waiting:
        ready = [s for s, parents in waiting.items() if all(p in done for p in parents)]
        assert ready, "a shard waits for parents that nobody told of"
        for shard in ready:
            del waiting[shard]
            iterator = kinesis.get_shard_iterator(
                StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while True:
                page = kinesis.get_records(ShardIterator=iterator)
                for record in page["Records"]:
                    key, number = record["Data"].decode().split()
                    got[key].append((int(number), int(record["SequenceNumber"])))
                iterator = page.get("NextShardIterator")
                assert (iterator is None) == ("ChildShards" in page)
                if iterator is None:
                    for child in page["ChildShards"]:
                        if child["ShardId"] not in done:
                            waiting[child["ShardId"]] = child["ParentShards"]
                    break
                if not page["Records"] and page["MillisBehindLatest"] == 0:
                    break
            done.add(shard)
    return got


def reshard_all_over(kinesis, stream):
    """Splits, merges and scales, with the stream settled in between."""
    first = open_shards(kinesis, stream)[0]
    low, high = span(first)
    kinesis.split_shard(
        StreamName=stream, ShardToSplit=first["ShardId"],
        NewStartingHashKey=str((low + high) // 2),
    )
    settled(kinesis, stream)
    two, three = open_shards(kinesis, stream)[1:3]
    kinesis.merge_shards(
        StreamName=stream, ShardToMerge=two["ShardId"], AdjacentShardToMerge=three["ShardId"]
    )
    settled(kinesis, stream)
    for count in (4, 7, 5, 10, 6, 3):
        kinesis.update_shard_count(
            StreamName=stream, TargetShardCount=count, ScalingType="UNIFORM_SCALING"
        )
        settled(kinesis, stream)
        shards = open_shards(kinesis, stream)
        assert len(shards) == count
        widths = {high - low for low, high in map(span, shards)}
        # But for what comes of rounding.
        assert max(widths) - min(widths) < 2**33
        time.sleep(0.1)


# shows: SplitShard, MergeShards, UpdateShardCount
@pytest.mark.parametrize("many", [True, False], ids=["PutRecords", "PutRecord"])
def test_records_flow_while_the_shards_change(start, many):
    server = start()
    kinesis = server.client("kinesis")
    hydrant.make_stream(kinesis, "s", 2)
    own = [KEYS[0::2], KEYS[1::2]]
    writers = [Writer(lambda: server.client("kinesis"), "s", keys, many) for keys in own]
    for writer in writers:
        writer.start()
    time.sleep(0.3)
    reshard_all_over(kinesis, "s")
    for writer in writers:
        writer.end()
        assert writer.refused == []
    got = follow(kinesis, "s")
    for writer in writers:
        for key, acknowledged in writer.acknowledged.items():
            # Each once, in order, under the number that was acknowledged; and numbers only grow.
            assert got[key] == acknowledged
            numbers = [sequence for _, sequence in acknowledged]
            assert numbers == sorted(set(numbers))
    assert set(got) == set(KEYS)


def test_a_kill_while_the_shards_change_loses_and_doubles_nothing(start):
    server = start("--stream-state-delay-ms", "40")
    kinesis = server.client("kinesis")
    hydrant.make_stream(kinesis, "s", 3)
    count = 3
    acknowledged = defaultdict(list)
    for pause in (0.0, 0.01, 0.03, 0.045, 0.06, 0.1):
        writer = Writer(lambda: server.client("kinesis"), "s", KEYS, True)
        writer.start()
        time.sleep(0.2)
        count = 5 if count == 3 else 3
        kinesis.update_shard_count(
            StreamName="s", TargetShardCount=count, ScalingType="UNIFORM_SCALING"
        )
        time.sleep(pause)
        server.kill()
        writer.ending.set()
        writer.join(60)
        server.start()
        kinesis = server.client("kinesis")
        settled(kinesis, "s")
        assert len(open_shards(kinesis, "s")) == count
        for key, told in writer.acknowledged.items():
            acknowledged[key] += [sequence for _, sequence in told]
    got = follow(kinesis, "s")
    for key, sequences in acknowledged.items():
        read = [sequence for _, sequence in got[key]]
        assert read == sorted(set(read))
        # What the kill left without an answer may be there too.
        assert [s for s in read if s in set(sequences)] == sequences


def test_the_parents_take_records_while_the_stream_is_updating(start):
    server = start("--stream-state-delay-ms", "1500")
    kinesis = server.client("kinesis")
    hydrant.make_stream(kinesis, "s", 1)
    kinesis.split_shard(
        StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HALF)
    )
    summary = kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
    assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("UPDATING", 1)
    with pytest.raises(kinesis.exceptions.ResourceInUseException):
        kinesis.split_shard(
            StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey="2"
        )
    told = kinesis.put_record(StreamName="s", Data=b"1", PartitionKey="a")
    assert told["ShardId"] == "shardId-000000000000"
    settled(kinesis, "s")
    told = kinesis.put_record(StreamName="s", Data=b"2", PartitionKey="a")
    assert told["ShardId"] != "shardId-000000000000"


def test_a_delivery_stream_follows_its_source_through_a_reshard(start):
    server = start()
    kinesis, firehose, s3 = map(server.client, ("kinesis", "firehose", "s3"))
    arn = hydrant.make_stream(kinesis, "s", 2)
    s3.create_bucket(Bucket="lake")
    hydrant.make_delivery(firehose, "d", "lake", arn)
    writer = Writer(lambda: server.client("kinesis"), "s", KEYS, True)
    writer.start()
    time.sleep(0.3)
    reshard_all_over(kinesis, "s")
    writer.end()
    server.kill()
    server.start()
    s3 = server.client("s3")
    put = {f"{key} {n}" for key, told in writer.acknowledged.items() for n, _ in told}

    def delivered():
        """every acknowledged record is in an object"""
        text = b"".join(hydrant.body(s3, "lake", key) for key in hydrant.keys(s3, "lake"))
        # Records stand side by side: each begins with its key.
        found = ["key" + part for part in text.decode().split("key")[1:]]
        assert len(found) == len(set(found)), "a record was delivered twice"
        return put <= set(found)

    hydrant.eventually(delivered, seconds=30, every=0.5)


def test_json_of_a_shard_leaves_out_what_it_has_not(start):
    server = start()
    kinesis = server.client("kinesis")
    hydrant.make_stream(kinesis, "s", 1)
    kinesis.split_shard(
        StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HALF)
    )
    settled(kinesis, "s")
    parent, low, high = listed(kinesis, "s")
    assert "ParentShardId" not in parent and "EndingSequenceNumber" in parent["SequenceNumberRange"]
    for child in (low, high):
        assert child["ParentShardId"] == parent["ShardId"]
        assert "AdjacentParentShardId" not in child
        assert "EndingSequenceNumber" not in child["SequenceNumberRange"]
    assert json.loads(json.dumps(low["HashKeyRange"])) == {
        "StartingHashKey": "0", "EndingHashKey": str(HALF - 1)
    }


def test_an_on_demand_stream_gets_shards_for_what_it_takes(start):
    server = start()
    kinesis = server.client("kinesis")
    kinesis.create_stream(StreamName="s", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    settled(kinesis, "s")
    assert len(open_shards(kinesis, "s")) == 4
    records = [{"Data": b"x" * 20_000, "PartitionKey": f"key-{n}"} for n in range(100)]

    def scaled():
        """the stream has more shards than at the start"""
        # Some 2 MB a call, as fast as it goes: a shard is good for 1 MiB a second.
        told = kinesis.put_records(StreamName="s", Records=records)
        assert told["FailedRecordCount"] == 0
        return len(open_shards(kinesis, "s")) > 4

    hydrant.eventually(scaled, seconds=60, every=0)
