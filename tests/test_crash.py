"""`kill -9` at random moments, twenty times over one data directory: what was acknowledged is in
the stream in order, in one object, and in the table once; what was refused is nowhere.

The seed is printed; HYDRANT_SEED replays its moments and batches (threads still race). That killing
a process says nothing about power is known: what a power cut leaves is simulated below the log, in
the storage crate.
"""

import collections
import json
import os
import random
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import hydrant
from hydrant import body, eventually, keys, make_delivery, make_stream, read_stream

ROUNDS = 20
SHARDS = 3
PRODUCERS = 3
BATCH_MAX = 20
DRAIN_SECONDS = 90
# What stays the same on a second look after this long has come to rest.
SETTLE_SECONDS = 3


class Producer:
    """Puts numbered records, one request after the other, and keeps a journal of the answers."""

    def __init__(self, name, seed):
        self.name = name
        self.random = random.Random(seed)
        self.next = 0
        self.acknowledged = {}
        self.refused = set()
        self.unknown = set()

    def run(self, server, stop):
        """Puts until told to stop or until the server is gone."""
        client = server.client(self.service, read_timeout=10)
        while not stop.is_set():
            count = self.random.randint(1, BATCH_MAX)
            numbers = range(self.next, self.next + count)
            self.next += count
            fill = "x" * self.random.randint(0, 2000)
            records = [json.dumps({"who": self.name, "n": n, "fill": fill}) for n in numbers]
            try:
                outcome = self.put(client, [(r + "\n").encode() for r in records])
            except (BotoCoreError, ClientError):
                # It may have been taken: never put under the same number again.
                self.unknown.update(numbers)
                continue
            for n, result in zip(numbers, outcome, strict=True):
                if result is None:
                    self.refused.add(n)
                else:
                    self.acknowledged[n] = result
            time.sleep(0.01)


class StreamProducer(Producer):
    """Puts to the stream, always under its own key: its records are in order in one shard."""

    service = "kinesis"

    def put(self, client, records):
        if len(records) == 1:
            one = client.put_record(StreamName="s", Data=records[0], PartitionKey=self.name)
            return [(one["ShardId"], one["SequenceNumber"])]
        entries = [{"Data": r, "PartitionKey": self.name} for r in records]
        told = client.put_records(StreamName="s", Records=entries)["Records"]
        return [None if "ErrorCode" in r else (r["ShardId"], r["SequenceNumber"]) for r in told]


class DirectProducer(Producer):
    """Puts to a delivery stream."""

    service = "firehose"

    def put(self, client, records):
        entries = [{"Data": r} for r in records]
        told = client.put_record_batch(DeliveryStreamName="direct", Records=entries)
        return [None if "ErrorCode" in r else r["RecordId"] for r in told["RequestResponses"]]


def one_round(server, producers, dice):
    """Starts it, lets everything run, and kills it at a moment that the dice say."""
    if dice.random() < 0.2:
        # While it recovers, before it is ready.
        server.spawn()
        time.sleep(dice.uniform(0, 0.4))
        server.kill()
        return
    server.start()
    stop = threading.Event()
    threads = [threading.Thread(target=p.run, args=(server, stop)) for p in producers]
    for thread in threads:
        thread.start()
    time.sleep(dice.uniform(0.05, 1.8))
    server.kill()
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a put hangs on a server that is gone"


def identities(texts):
    """(producer, number) of each record, in order."""
    told = [json.loads(text) for text in texts]
    return [(record["who"], record["n"]) for record in told]


@pytest.mark.needs("snowflake")
@pytest.mark.timeout(400)
def test_twenty_kills(tmp_path, capsys):
    seed = int(os.environ.get("HYDRANT_SEED") or random.SystemRandom().randrange(1 << 32))
    with capsys.disabled():
        print(f"\nHYDRANT_SEED={seed}")
    dice = random.Random(seed)
    # Each start begins a new segment of the log.
    server = hydrant.Server(tmp_path / "data", "--segment-mib", "16")
    try:
        torture(server, dice, capsys)
    finally:
        server.kill()


def torture(server, dice, capsys):
    server.start()
    kinesis, firehose, s3 = (server.client(s) for s in ("kinesis", "firehose", "s3"))
    s3.create_bucket(Bucket="lake")
    arn = make_stream(kinesis, "s", SHARDS)
    with server.snowflake("db", "public") as sql:
        for statement in [
            "create database db",
            "create table t (v variant)",
            "create stage lake url='s3://lake/' "
            "credentials=(AWS_KEY_ID='test' AWS_SECRET_KEY='test')",
            "create pipe p auto_ingest=true as copy into t from @lake file_format=(type='JSON')",
        ]:
            sql.cursor().execute(statement)
    make_delivery(firehose, "tap", "lake", arn, CompressionFormat="GZIP", Prefix="tap/")
    make_delivery(firehose, "direct", "lake", CompressionFormat="GZIP", Prefix="direct/")
    server.kill()

    producers = [StreamProducer(f"stream-{n}", dice.random()) for n in range(PRODUCERS)]
    producers.append(DirectProducer("direct", dice.random()))
    for _ in range(ROUNDS):
        one_round(server, producers, dice)

    server.start()
    kinesis, s3 = server.client("kinesis"), server.client("s3")
    acknowledged = {(p.name, n) for p in producers for n in p.acknowledged}
    refused = {(p.name, n) for p in producers for n in p.refused}
    unknown = {(p.name, n) for p in producers for n in p.unknown}
    assert len(acknowledged) > 1000, "too little was put for the test to mean something"

    # The stream: every acknowledged record at the place it was told, each producer's in order,
    # nothing twice, nothing that was refused.
    stream = {}
    for shard, records in read_stream(kinesis, "s").items():
        numbers = [int(r["SequenceNumber"]) for r in records]
        assert numbers == sorted(set(numbers)), shard
        for record, who in zip(records, identities(r["Data"] for r in records), strict=True):
            assert who not in stream, f"{who} is in the stream twice"
            stream[who] = (shard, record["SequenceNumber"])
        order = collections.defaultdict(list)
        for name, n in identities(r["Data"] for r in records):
            order[name].append(n)
        for name, seen in order.items():
            assert seen == sorted(seen), f"{name} is out of order in {shard}"
    for producer in producers:
        if producer.service == "kinesis":
            for n, place in producer.acknowledged.items():
                assert stream.get((producer.name, n)) == place, f"{producer.name} {n} is lost"
    assert not refused & stream.keys()

    def table():
        with server.snowflake("db", "public") as sql:
            rows = sql.cursor().execute("select v:who::string, v:n::int from t").fetchall()
        return collections.Counter(rows)

    def drained():
        """every acknowledged record, and every one in the stream, is in the table"""
        return table().keys() >= acknowledged | stream.keys()

    eventually(drained, DRAIN_SECONDS, 1)
    time.sleep(SETTLE_SECONDS)

    objects = collections.Counter()
    names = keys(s3, "lake")
    for key in names:
        objects.update(identities(body(s3, "lake", key).splitlines()))
    rows = table()
    for place, seen in [("objects", objects), ("table", rows)]:
        missing = (acknowledged | stream.keys()) - seen.keys()
        twice = [who for who, count in seen.items() if count > 1]
        strangers = seen.keys() - acknowledged - unknown
        assert not missing, f"{place}: {len(missing)} are lost, such as {sorted(missing)[:5]}"
        assert not twice, f"{place}: {len(twice)} are there again, such as {sorted(twice)[:5]}"
        assert not strangers, f"{place}: {len(strangers)} were never put or were refused"
    assert rows == objects
    with capsys.disabled():
        print(f"{ROUNDS} kills: {len(acknowledged):,} records acknowledged, {len(unknown):,} "
              f"unanswered of which {len(unknown & objects.keys()):,} were kept, {len(names)} objects")
    assert server.stop() == 0
