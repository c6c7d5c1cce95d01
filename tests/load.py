"""Writers and readers over everything that must survive, and the check of what did."""

import base64
import datetime
import http.client
import json
import random
import socket
import threading
import time

import hydrant
from journal import BUCKET, STREAM, TABLE, Lost, content

SHARDS = 4
RECORD_WRITERS = 6
SDK_WRITERS = 3
KEYS_OF_A_WRITER = 3
BATCH_MAX = 40
OBJECTS = 12
STREAMS_MAX = 6
TIMEOUT_SECONDS = 60
SETTLED_SECONDS = 60
REFUSED_SECONDS = 0.01
GONE = (OSError, http.client.HTTPException)


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status, told):
        super().__init__(f"{status} {told}")
        self.told = told


class Raw:
    """The JSON protocol and S3 over one connection, without the cost of an SDK: signatures are well
    formed, and a server without keys takes each."""

    def __init__(self, server):
        host, port = server.aws_address
        self.connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        now = datetime.datetime.now(datetime.UTC)
        self.date = now.strftime("%Y%m%dT%H%M%SZ")

    def call(self, method, path, body, service, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers["x-amz-date"] = self.date
        names = ";".join(sorted(["host", *headers]))
        scope = f"test/{self.date[:8]}/{hydrant.REGION}/{service}/aws4_request"
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={'0' * 64}"
        )
        if service == "kinesis":
            headers["content-type"] = "application/x-amz-json-1.1"
        self.connection.request(method, path, body, headers)
        reply = self.connection.getresponse()
        told = reply.read()
        if reply.status >= 300 and reply.status != 404:
            raise Refused(reply.status, told.decode(errors="replace"))
        return reply.status, told

    def kinesis(self, operation, **members):
        body = json.dumps(members, default=lambda data: base64.b64encode(data).decode())
        target = f"Kinesis_20131202.{operation}"
        _, told = self.call("POST", "/", body, "kinesis", x_amz_target=target)
        told = json.loads(told) if told else {}
        for record in told.get("Records", []):
            if "Data" in record:
                record["Data"] = base64.b64decode(record["Data"])
        return told

    def put_object(self, name, body):
        self.s3("PUT", name, body)

    def delete_object(self, name):
        self.s3("DELETE", name)

    def get_object(self, name):
        """Its bytes, or None."""
        status, body = self.s3("GET", name)
        return body if status == 200 else None

    def s3(self, method, name="", body=b""):
        path = f"/{BUCKET}/{name}".rstrip("/")
        return self.call(method, path, body, "s3", x_amz_content_sha256="UNSIGNED-PAYLOAD")


class Sdk:
    """The same through boto3, with its signatures and checksums."""

    def __init__(self, server):
        self.streams = server.client("kinesis")
        self.s3 = server.client("s3")

    def kinesis(self, operation, **members):
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in operation).removeprefix("_")
        return self.attempt(getattr(self.streams, name), members)

    def put_object(self, name, body):
        self.attempt(self.s3.put_object, {"Bucket": BUCKET, "Key": name, "Body": body})

    def delete_object(self, name):
        self.attempt(self.s3.delete_object, {"Bucket": BUCKET, "Key": name})

    @staticmethod
    def attempt(call, members):
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call(**members)
        except ClientError as error:
            raise Refused(error.response["Error"]["Code"], str(error)) from None
        except BotoCoreError as error:
            raise ConnectionError(str(error)) from None


def sql(server):
    import psycopg

    host, port = server.sql_address
    return psycopg.connect(
        host=host, port=port, user="hydrant", dbname="db", autocommit=True, sslmode="disable",
        connect_timeout=TIMEOUT_SECONDS,
    )


def prepare(server):
    """Makes what the load writes to."""
    client = Raw(server)
    client.kinesis("CreateStream", StreamName=STREAM, ShardCount=SHARDS)
    client.s3("PUT")
    with sql(server) as connection:
        connection.execute("create database if not exists db")
        connection.execute(f"create table {TABLE} (n int)")
    hydrant.eventually(lambda: shards(client, STREAM, "ACTIVE"), SETTLED_SECONDS, 0.01)


def shards(client, stream, status=None):
    """The names of a stream's shards, closed ones included; with a status, only once it has it."""
    summary = client.kinesis("DescribeStreamSummary", StreamName=stream)
    if status and summary["StreamDescriptionSummary"]["StreamStatus"] != status:
        return []
    listed = client.kinesis("ListShards", StreamName=stream)
    return [shard["ShardId"] for shard in listed["Shards"]]


class Load:
    """Writers and a reader, each a thread, until the server is gone; or one kind of them."""

    def __init__(self, server, journal, seed, sdk=False, only=None):
        self.server = server
        self.process = server.process
        self.journal = journal
        client = Sdk(server) if sdk else None
        make = (lambda: client) if sdk else (lambda: Raw(server))
        writers = SDK_WRITERS if sdk else RECORD_WRITERS
        tasks = [(self.put_records, make, str(n)) for n in range(writers)]
        tasks += [(self.put_objects, make, "o"), (self.change_streams, make, "c")]
        tasks += [(self.read_records, lambda: Raw(server), "r"), (self.insert_rows, None, "t")]
        self.threads = [
            threading.Thread(target=self.run, args=(task, make, name, f"{seed} {name}"))
            for task, make, name in tasks if only in (None, task.__name__)
        ]
        for thread in self.threads:
            thread.start()

    def join(self, seconds):
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(end - time.monotonic())
            assert not thread.is_alive(), "a request hangs on a server that is gone"

    def run(self, task, make, name, seed):
        dice = random.Random(seed)
        while self.process.poll() is None:
            try:
                client = make and make()
                while True:
                    try:
                        task(client, name, dice)
                    except Refused:
                        # Nothing was acknowledged. A disk that is gone refuses on and on.
                        self.journal.counts["refusals"] += 1
                        time.sleep(REFUSED_SECONDS)
            except GONE:
                # A server that ends closes its connections a little earlier.
                time.sleep(REFUSED_SECONDS)

    def put_records(self, client, name, dice):
        journal = self.journal
        batch = []
        for _ in range(1 if dice.random() < 0.3 else dice.randint(2, BATCH_MAX)):
            key = f"w{name}.{dice.randrange(KEYS_OF_A_WRITER)}"
            batch.append((key, journal.issue(key)))
        if len(batch) == 1:
            key, n = batch[0]
            told = client.kinesis(
                "PutRecord", StreamName=STREAM, PartitionKey=key, Data=content(key, n)
            )
            journal.acknowledge(key, n, told["ShardId"], told["SequenceNumber"])
            return
        entries = [{"PartitionKey": key, "Data": content(key, n)} for key, n in batch]
        told = client.kinesis("PutRecords", StreamName=STREAM, Records=entries)
        for (key, n), one in zip(batch, told["Records"], strict=True):
            if "ErrorCode" not in one:
                journal.acknowledge(key, n, one["ShardId"], one["SequenceNumber"])

    def put_objects(self, client, _, dice):
        name = f"{dice.randrange(OBJECTS)}/o"
        if dice.random() < 0.2:
            self.journal.try_object(name, None)
            client.delete_object(name)
            self.journal.acknowledge_object(name, None)
            return
        version = self.journal.issue(f"object {name}")
        self.journal.try_object(name, version)
        client.put_object(name, content(name, version))
        self.journal.acknowledge_object(name, version)

    def change_streams(self, client, _, dice):
        journal = self.journal
        mine = [name for name, state in journal.streams.items() if not state.get("doomed")]
        if len(mine) < STREAMS_MAX and dice.random() < 0.4 or not mine:
            name = f"c{journal.issue('streams')}"
            client.kinesis("CreateStream", StreamName=name, ShardCount=1)
            journal.acknowledge_stream(name)
            return
        name = dice.choice(mine)
        what = dice.choice(["tag", "retention", "split", "delete", "put"])
        if what == "tag":
            tags = {f"t{journal.issue('tags') % 40}": "x"}
            client.kinesis("AddTagsToStream", StreamName=name, Tags=tags)
            journal.acknowledge_stream(name, tags=tags)
        elif what == "retention":
            hours = journal.streams[name]["hours"] + 1
            client.kinesis(
                "IncreaseStreamRetentionPeriod", StreamName=name, RetentionPeriodHours=hours
            )
            journal.acknowledge_stream(name, hours=hours)
        elif what == "split" and journal.streams[name]["shards"] == 1:
            client.kinesis(
                "SplitShard", StreamName=name, ShardToSplit="shardId-000000000000",
                NewStartingHashKey=str(1 << 127),
            )
            journal.acknowledge_stream(name, more_shards=2)
        elif what == "delete":
            journal.try_deletion(name)
            client.kinesis("DeleteStream", StreamName=name)
            journal.acknowledge_stream(name, deleted=True)
        else:
            client.kinesis("PutRecord", StreamName=name, PartitionKey="k", Data=b"x")
        time.sleep(dice.uniform(0, 0.03))

    def read_records(self, client, _, dice):
        """Reads a shard from about its tail on, for a while."""
        shard = dice.choice(shards(client, STREAM))
        kind = dice.choice(["LATEST", "TRIM_HORIZON"])
        iterator = client.kinesis(
            "GetShardIterator", StreamName=STREAM, ShardId=shard, ShardIteratorType=kind
        )["ShardIterator"]
        for _ in range(dice.randint(1, 10)):
            page = client.kinesis("GetRecords", ShardIterator=iterator, Limit=200)
            self.journal.saw(shard, page["Records"])
            iterator = page["NextShardIterator"]

    def insert_rows(self, _, name, dice):
        import psycopg

        try:
            with sql(self.server) as connection:
                while True:
                    numbers = [self.journal.issue("rows") for _ in range(dice.randint(1, 3))]
                    values = ", ".join(f"({n})" for n in numbers)
                    connection.execute(f"insert into {TABLE} values {values}")
                    self.journal.acknowledge_rows(numbers)
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError):
                raise ConnectionError(str(error)) from None
            raise Refused("sql", str(error)) from None


def records(client, stream, shard, after=None):
    """The records of a shard behind a sequence number, or all of them."""
    start = {"ShardIteratorType": "TRIM_HORIZON"} if after is None else {
        "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(after),
    }
    told = client.kinesis("GetShardIterator", StreamName=stream, ShardId=shard, **start)
    iterator = told["ShardIterator"]
    while True:
        page = client.kinesis("GetRecords", ShardIterator=iterator)
        yield from page["Records"]
        iterator = page["NextShardIterator"]
        if not page["Records"] and page["MillisBehindLatest"] == 0:
            return


def check(server, journal, whole):
    """Compares the server with the journal; with `whole`, also what earlier checks have found."""
    try:
        compare(server, journal, whole)
    except Refused as refused:
        raise Lost(f"the server does not know what it should: {refused}") from refused
    journal.counts["checks"] += 1


def compare(server, journal, whole):
    client = Raw(server)

    def read_from(shard, after):
        return records(client, STREAM, shard, after)

    def settled(name):
        """a stream is ACTIVE or DELETING"""
        summary = client.kinesis("DescribeStreamSummary", StreamName=name)
        summary = summary["StreamDescriptionSummary"]
        # A reshard that was acknowledged is finished after the next start.
        return summary if summary["StreamStatus"] in ("ACTIVE", "DELETING") else None

    def describe(name):
        try:
            summary = hydrant.eventually(lambda: settled(name), SETTLED_SECONDS, 0.01)
            if summary["StreamStatus"] == "DELETING":
                return None
            tags = client.kinesis("ListTagsForStream", StreamName=name)["Tags"]
            return {
                "tags": {tag["Key"]: tag["Value"] for tag in tags},
                "shards": len(shards(client, name)),
                "hours": summary["RetentionPeriodHours"],
            }
        except Refused as refused:
            if "ResourceNotFoundException" in refused.told:
                return None
            raise

    journal.check_records(read_from, shards(client, STREAM), whole)
    journal.check_objects(client.get_object, whole)
    journal.check_streams(describe, whole)
    if whole or journal.rows:
        journal.check_rows(rows(server))


def rows(server):
    """The rows of the table."""
    import psycopg

    try:
        with sql(server) as connection:
            return [n for n, in connection.execute(f"select n from {TABLE}")]
    except psycopg.Error as error:
        raise Lost(f"the table cannot be read: {error}") from error
