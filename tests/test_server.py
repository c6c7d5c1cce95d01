"""The process: how it starts, refuses to start, tells its state, stops and comes back."""

import json
import os
import re
import subprocess

import pytest
from botocore.exceptions import ClientError

from hydrant import (BINARY, eventually, keys, make_delivery, make_stream, read_stream, refuses,
                     serve)


def test_help_is_for_people():
    for words in [["--help"], ["serve", "--help"], ["demo", "--help"]]:
        done = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=10)
        assert done.returncode == 0 and "Usage: hydrant" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 100
    serve_help = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True,
                                timeout=10).stdout
    for flag in ["--data-dir", "--listen", "--pg-listen", "--admin-listen", "--access-key",
                 "--sql-user", "HYDRANT_DATA_DIR", "127.0.0.1:4566"]:
        assert flag in serve_help, flag
    assert "--lisen" in refuses("serve", "--lisen", "x")


def test_health_and_metrics(server, kinesis, name):
    assert server.get("/healthz")[0] == 200
    assert server.get("/readyz")[0] == 200
    assert server.get("/nothing")[0] == 404
    make_stream(kinesis, name)
    kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    status, text = server.get("/metrics")
    assert status == 200
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples
    for line in samples:
        assert re.match(r'^[a-zA-Z_:][\w:]*(\{.*\})? [-+.\deEinfNa]+$', line), line
    assert all(line.startswith("hydrant_") for line in samples), samples


def test_settings_come_from_flags_then_environment_then_file(start, tmp_path):
    (tmp_path / "hydrant.toml").write_text('account-id = "111111111111"\n')
    file = {"HYDRANT_CONFIG": str(tmp_path / "hydrant.toml")}

    def account(*arguments, env):
        server = start(*arguments, data=tmp_path / "data", env=file | env)
        # One directory: a stream of another account of the same name is another stream.
        seen = make_stream(server.client("kinesis"), "s").split(":")[4]
        assert server.stop() == 0
        return seen

    assert account(env={}) == "111111111111"
    from_env = {"HYDRANT_ACCOUNT_ID": "222222222222"}
    assert account(env=from_env) == "222222222222"
    assert account("--account-id", "333333333333", env=from_env) == "333333333333"


def test_a_directory_that_cannot_be_written(tmp_path):
    """Root may write everywhere, so: a file where the directory would be, and a file system that
    takes no files."""
    (tmp_path / "file").write_text("in the way")
    said = refuses(*serve(tmp_path / "file"))
    assert str(tmp_path / "file") in said
    said = refuses(*serve(tmp_path / "file" / "below"))
    assert str(tmp_path / "file") in said
    said = refuses(*serve("/proc/hydrant"))
    assert "/proc/hydrant" in said
    if os.geteuid():
        (tmp_path / "sealed").mkdir(mode=0o500)
        assert "sealed" in refuses(*serve(tmp_path / "sealed" / "data"))


def test_a_port_in_use(server, tmp_path):
    for flag, address in [
        ("listen", "%s:%d" % server.aws_address),
        ("pg_listen", "%s:%d" % server.sql_address),
        ("admin_listen", server.endpoints["admin"].removeprefix("http://")),
    ]:
        said = refuses(*serve(tmp_path / flag, **{flag: address}))
        assert address in said and "in use" in said.lower(), said


def test_a_directory_in_use(start, tmp_path):
    server = start()
    said = refuses(*serve(server.data))
    assert str(server.data) in said, said
    assert server.ready()


def test_open_to_other_machines_needs_credentials(tmp_path):
    for flag in ["listen", "pg_listen"]:
        said = refuses(*serve(tmp_path / "data", **{flag: "0.0.0.0:0"}))
        assert "--access-key" in said or "--sql-user" in said, said


def test_a_restart_keeps_everything(start, tmp_path):
    server = start()
    kinesis, firehose, s3 = (server.client(s) for s in ("kinesis", "firehose", "s3"))
    arn = make_stream(kinesis, "s", 2)
    s3.create_bucket(Bucket="lake")
    s3.put_object(Bucket="lake", Key="kept/a", Body=b"object")
    make_delivery(firehose, "d", "lake", arn, Prefix="tap/")
    records = [{"Data": b"%d\n" % n, "PartitionKey": str(n)} for n in range(100)]
    assert kinesis.put_records(StreamName="s", Records=records)["FailedRecordCount"] == 0
    eventually(lambda: sum(
        s3.get_object(Bucket="lake", Key=key)["Body"].read().count(b"\n")
        for key in keys(s3, "lake", "tap/")) == 100)
    with server.snowflake("db", "public") as sql:
        for statement in ["create database db", "create table t (n int)",
                          "insert into t values (1), (2)"]:
            sql.cursor().execute(statement)
    before = read_stream(kinesis, "s")
    listed = keys(s3, "lake")
    assert server.stop() == 0

    server = start()
    kinesis, firehose, s3 = (server.client(s) for s in ("kinesis", "firehose", "s3"))
    assert read_stream(kinesis, "s") == before
    assert s3.get_object(Bucket="lake", Key="kept/a")["Body"].read() == b"object"
    assert firehose.list_delivery_streams()["DeliveryStreamNames"] == ["d"]
    with server.snowflake("db", "public") as sql:
        assert sql.cursor().execute("select sum(n) from t").fetchall() == [(3,)]
    # The tap goes on where it was.
    kinesis.put_record(StreamName="s", Data=b"after\n", PartitionKey="k")

    def delivered():
        """the record after the restart is in an object, and no other came again"""
        new = sorted(set(keys(s3, "lake", "tap/")) - set(listed))
        return [s3.get_object(Bucket="lake", Key=key)["Body"].read() for key in new]

    assert eventually(delivered) == [b"after\n"]


def test_a_stop_finishes_what_it_has_taken(start):
    server = start()
    firehose, s3 = server.client("firehose"), server.client("s3")
    s3.create_bucket(Bucket="lake")
    make_delivery(firehose, "d", "lake", seconds=900)
    firehose.put_record(DeliveryStreamName="d", Record={"Data": b"taken"})
    assert server.stop() == 0
    server = start()
    # Still waiting for its time, or delivered by the stop: taken once either way.
    firehose, s3 = server.client("firehose"), server.client("s3")
    firehose.put_record(DeliveryStreamName="d", Record={"Data": b"!" * (1 << 19)})
    firehose.put_record(DeliveryStreamName="d", Record={"Data": b"!" * (1 << 19)})

    def found():
        """the record that was taken before the stop"""
        bodies = [s3.get_object(Bucket="lake", Key=key)["Body"].read()
                  for key in keys(s3, "lake")]
        return [text for text in bodies if b"taken" in text]

    assert len(eventually(found)) == 1


MARK = b"hydrant-corruption-mark"


def holding(server, text):
    """The file of the data directory that holds a text, and where; its segments are larger than
    what a test writes, so only their beginning is read."""
    (found,) = [
        (path, at) for path in server.data.rglob("*") if path.is_file()
        for at in [path.open("rb").read(8 << 20).find(text)] if at >= 0
    ]
    return found


def overwrite(path, at, text):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(text)


def fill(server):
    """Puts a record with the mark and twenty behind it."""
    kinesis = server.client("kinesis")
    make_stream(kinesis, "s")
    kinesis.put_record(StreamName="s", Data=MARK, PartitionKey="k")
    for n in range(20):
        kinesis.put_record(StreamName="s", Data=b"later %d" % n, PartitionKey="k")


def test_a_corrupt_segment(start):
    """Bytes that were acknowledged and are now others, with good ones behind them: the server says
    where, and does not start."""
    server = start("--segment-mib", "16")
    fill(server)
    server.kill()
    path, at = holding(server, MARK)
    overwrite(path, at, bytes([MARK[0] ^ 1]))
    said = refuses(*serve(server.data))
    assert path.name in said, said
    # Whole again, it starts and has everything.
    overwrite(path, at, MARK)
    again = start(data=server.data)
    records, = read_stream(again.client("kinesis"), "s").values()
    assert len(records) == 21 and records[0]["Data"] == MARK


def test_a_corrupt_segment_that_was_ended(start):
    """An older segment is not read at the start. Whoever reads the place gets an error, never other
    bytes, and the log says where; the rest is as it was."""
    server = start("--segment-mib", "16")
    fill(server)
    assert server.stop() == 0
    # The next start ends the segment of the last.
    assert start("--segment-mib", "16", data=server.data).stop() == 0
    path, at = holding(server, MARK)
    overwrite(path, at, bytes([MARK[0] ^ 1]))
    again = start("--segment-mib", "16", data=server.data)
    kinesis = again.client("kinesis")
    with pytest.raises(ClientError) as error:
        read_stream(kinesis, "s")
    assert error.value.response["Error"]["Code"] == "InternalFailure"
    assert path.name in again.said()
    iterator = kinesis.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="LATEST"
    )["ShardIterator"]
    kinesis.put_record(StreamName="s", Data=b"new", PartitionKey="k")
    record, = kinesis.get_records(ShardIterator=iterator)["Records"]
    assert record["Data"] == b"new"


def test_a_torn_tail_is_cut(start):
    """Half a frame at the end is what a power cut leaves of a write that nobody was told of."""
    server = start()
    kinesis = server.client("kinesis")
    make_stream(kinesis, "s")
    for n in range(5):
        kinesis.put_record(StreamName="s", Data=b"kept %d" % n, PartitionKey="k")
    kinesis.put_record(StreamName="s", Data=b"x" * 3000 + b"the last of all", PartitionKey="k")
    server.kill()
    path, at = holding(server, b"the last of all")
    overwrite(path, at, bytes(64))
    again = start(data=server.data)
    records, = read_stream(again.client("kinesis"), "s").values()
    assert [r["Data"] for r in records] == [b"kept %d" % n for n in range(5)]
    put = again.client("kinesis").put_record(StreamName="s", Data=b"on", PartitionKey="k")
    assert put["SequenceNumber"] > records[-1]["SequenceNumber"]


def test_logs_are_one_json_object_a_line_when_nobody_watches(start):
    server = start()
    make_stream(server.client("kinesis"), "s")
    assert server.stop() == 0
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert lines
    for line in lines:
        told = json.loads(line)
        assert {"timestamp", "level"} <= told.keys(), told


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="reads /proc")
def test_idle_streams_cost_no_descriptor(start):
    server = start()
    kinesis = server.client("kinesis")
    descriptors = lambda: len(os.listdir(f"/proc/{server.process.pid}/fd"))
    make_stream(kinesis, "first")
    before = descriptors()
    for n in range(30):
        kinesis.create_stream(StreamName=f"s{n}", ShardCount=3)
    # A few may be connections and threads of the control store; ninety shards have none.
    assert descriptors() <= before + 10
