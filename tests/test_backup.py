"""A data directory that is lost, and made again from the archive or from a backup: what was acknowledged
before the point is there, at its sequence number and with its bytes; what comes after is numbered above
everything that the lost one gave out.
"""

import contextlib
import json
import re
import shutil
import socket
import threading
import time

import botocore.exceptions
import pytest

import hydrant
from capture import Source, number
from hydrant import KEY, body, eventually, make_stream, read_stream, refuses, serve, sh

pytestmark = pytest.mark.timeout(600)

RECORD_BYTES = 900_000
COMMAND_SECONDS = 240
UPLOADED = "hydrant_archive_uploaded_segments_total"


def run(*arguments, fails=False):
    """Runs the binary; what it said."""
    status, said = hydrant.run(*arguments, timeout=COMMAND_SECONDS)
    assert (status != 0) == fails, said
    return said


def gauge(server, name):
    found = re.search(rf"^{name} (\S+)$", server.get("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else None


def archived(server, store):
    """Waits until the archive in the other server has all that was acknowledged before the call."""
    asked_ms = time.time() * 1000
    s3, there = server.client("s3"), store.client("s3")

    def has():
        """a point was begun after the call"""
        # A point that was begun before may have everything, and then there is no other.
        s3.put_object(Bucket="marks", Key="mark", Body=b"")
        points = hydrant.keys(there, "archive", "of/a/points/")
        if not points:
            return False
        manifest, _, _ = body(there, "archive", points[-1]).rpartition(b"\n")
        return json.loads(manifest)["at_ms"] > asked_ms

    eventually(has, seconds=180, every=0.5)


def put(kinesis, count, size=RECORD_BYTES, stream="s"):
    """Puts records of this size; each with its shard and number."""
    told = {}
    for n in range(count):
        data = f"{stream} {n} ".encode() + bytes([n % 251]) * size
        done = kinesis.put_record(StreamName=stream, Data=data, PartitionKey=str(n))
        told[done["ShardId"], done["SequenceNumber"]] = data
    return told


def stored(kinesis, stream="s"):
    found = {}
    for shard, records in read_stream(kinesis, stream).items():
        numbers = [int(record["SequenceNumber"]) for record in records]
        assert numbers == sorted(set(numbers))
        found |= {(shard, record["SequenceNumber"]): record["Data"] for record in records}
    return found


def psql(server, script):
    host, port = server.sql_address
    return sh(f"psql -h {host} -p {port} -U hydrant -d hydrant -Atq <<'EOF'\n{script}\nEOF",
              server.shell({"PGPASSWORD": "any"})).strip()


@pytest.mark.needs("psql")
def test_a_lost_disk_is_made_again_from_the_archive(start, tmp_path):
    store = start(data=tmp_path / "store")
    store.client("s3").create_bucket(Bucket="archive")
    reach = ["--archive-endpoint", store.aws, "--archive-access-key", ":".join(KEY)]
    archive = ["--archive-url", "s3://archive/of/a", "--archive-interval-seconds", "1", *reach]
    server = start("--segment-mib", "16", *archive, data=tmp_path / "a")
    kinesis, s3 = server.client("kinesis"), server.client("s3")
    arn = make_stream(kinesis, "s", shards=2)
    kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")
    kinesis.add_tags_to_stream(StreamName="s", Tags={"kept": "yes"})
    s3.create_bucket(Bucket="lake")
    s3.create_bucket(Bucket="marks")
    psql(server, "CREATE DATABASE d; CREATE TABLE d.public.t (n INT);"
                 "INSERT INTO d.public.t VALUES (1), (2), (3);")
    told = put(kinesis, 50)
    for n in range(20):
        s3.put_object(Bucket="lake", Key=f"k{n % 15}", Body=f"object {n}".encode() * 100)
    eventually(lambda: (gauge(server, UPLOADED) or 0) >= 2, seconds=180)
    archived(server, store)
    assert gauge(server, "hydrant_archive_behind_segments") == 0
    assert gauge(server, "hydrant_archive_behind_seconds") is not None
    # These may be lost: their numbers must not be given again.
    late = put(kinesis, 3, size=10)
    server.kill()
    shutil.rmtree(server.data)

    said = run("restore", "--from", "s3://archive/of/a", "--data-dir", tmp_path / "b", *reach)
    assert "everything acknowledged before" in said and "secrets.key is not in it" in said
    again = start("--segment-mib", "16", *archive, data=tmp_path / "b")
    kinesis = again.client("kinesis")
    found = stored(kinesis)
    assert {place: found.get(place) for place in told} == told
    assert set(found) <= set(told) | set(late)
    summary = kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["ConsumerCount"]) == (2, 1)
    assert kinesis.list_tags_for_stream(StreamName="s")["Tags"] == [{"Key": "kept", "Value": "yes"}]
    objects = {key: body(again.client("s3"), "lake", key)
               for key in hydrant.keys(again.client("s3"), "lake")}
    last = {f"k{n % 15}": f"object {n}".encode() * 100 for n in range(20)}
    assert objects == last
    assert psql(again, "SELECT COUNT(*), SUM(n) FROM d.public.t") == "3|6"
    new = put(kinesis, 3, size=10)
    given = max(int(number) for _, number in [*told, *late])
    assert min(int(number) for _, number in new) > given
    # A stream that comes now has none of the records that an earlier one had.
    make_stream(kinesis, "other")
    assert stored(kinesis, "other") == {}
    # It goes on with the archive.
    archived(again, store)
    assert again.stop() == 0
    said = run("restore", "--from", "s3://archive/of/a", "--data-dir", tmp_path / "b", *reach,
               fails=True)
    assert "is not empty" in said
    run("restore", "--from", "s3://archive/of/a", "--data-dir", tmp_path / "c", *reach)
    third = start(data=tmp_path / "c")
    assert stored(third.client("kinesis")) == found | new


def test_a_backup_while_a_load_runs(start, tmp_path):
    server = start("--segment-mib", "16")
    kinesis = server.client("kinesis")
    make_stream(kinesis, "s", shards=3)
    server.client("s3").create_bucket(Bucket="lake")
    told, objects, stop = {}, {}, threading.Event()

    def load(name):
        kinesis, s3, n = server.client("kinesis"), server.client("s3"), 0
        while not stop.is_set():
            data = f"{name} {n} ".encode() * 4_000
            done = kinesis.put_record(StreamName="s", Data=data, PartitionKey=f"{name}{n}")
            told[done["ShardId"], done["SequenceNumber"]] = data
            s3.put_object(Bucket="lake", Key=f"{name}/{n}", Body=data[:1000])
            objects[f"{name}/{n}"] = data[:1000]
            n += 1

    threads = [threading.Thread(target=load, args=[name]) for name in "xyz"]
    for thread in threads:
        thread.start()
    try:
        backup = ["backup", "--data-dir", server.data, "--to", tmp_path / "backup"]
        for turn in range(3):
            wanted = 30 * (turn + 1)
            eventually(lambda wanted=wanted: len(told) >= wanted, seconds=180)
            before, there = dict(told), dict(objects)
            run(*backup)
            place = tmp_path / f"restored{turn}"
            run("restore", "--from", f"file://{tmp_path / 'backup'}", "--data-dir", place)
            again = start(data=place)
            found = stored(again.client("kinesis"))
            assert {at: found.get(at) for at in before} == before
            s3 = again.client("s3")
            listed = hydrant.keys(s3, "lake")
            assert set(there) <= set(listed)
            for key in listed:
                assert there.get(key) in (None, body(s3, "lake", key))
            again.kill()
            shutil.rmtree(place)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert server.stop() == 0
    # The same of a directory that nobody uses; then there is nothing new.
    assert "backed up" in run(*backup)
    assert "nothing was written since" in run(*backup)
    run("restore", "--from", tmp_path / "backup", "--data-dir", tmp_path / "last")
    again = start(data=tmp_path / "last")
    assert stored(again.client("kinesis")) == told
    assert "would be lost with it" in run(
        "backup", "--data-dir", server.data, "--to", server.data / "copy", fails=True)


def test_a_directory_restored_by_half_is_not_served(start, tmp_path):
    server = start()
    server.client("s3").create_bucket(Bucket="lake")
    server.client("s3").put_object(Bucket="lake", Key="k", Body=b"as it was" * 1000)
    run("backup", "--data-dir", server.data, "--to", tmp_path / "backup")
    [held] = [file for file in (tmp_path / "backup" / "data").rglob("*")
              if file.is_file() and file.read_bytes().startswith(b"as it was")]
    kept = held.read_bytes()
    held.write_bytes(b"as it was not" + kept[13:])
    restore = ["restore", "--from", tmp_path / "backup", "--data-dir", tmp_path / "b"]
    assert "not as it was put" in run(*restore, fails=True)
    assert "restored by half" in refuses(*serve(tmp_path / "b"))
    held.write_bytes(kept)
    run(*restore)
    again = start(data=tmp_path / "b")
    assert body(again.client("s3"), "lake", "k") == b"as it was" * 1000


@pytest.mark.needs("psycopg", "psql", "postgres")
def test_a_source_whose_slot_went_on_says_what_is_lost(start, start_postgres, tmp_path):
    server, pg = start(), start_postgres(fresh=True)
    pg.psql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t;")
    with Source(server, pg, "restored") as source:
        source.begin()
        pg.execute("INSERT INTO t VALUES (1, 'before')")
        source.caught_up()
        run("backup", "--data-dir", server.data, "--to", tmp_path / "backup", "--secrets")
        slot, stored_at = source.report()["slot"], number(source.report()["confirmed_lsn"])
        pg.execute("INSERT INTO t VALUES (2, 'after')")
        source.caught_up()
        eventually(lambda: number(pg.slot(slot)["confirmed_flush_lsn"]) > stored_at)
    server.kill()
    run("restore", "--from", tmp_path / "backup", "--data-dir", tmp_path / "b")
    again = start(data=tmp_path / "b")
    with Source(again, pg, "restored") as source:
        assert "has confirmed" in source.until("failed(position-skipped)")["reason"]
        # What is in the copy is in the stream, and the way on begins anew.
        assert [row["after"]["v"] for row in source.changes()] == ["before"]
        source.sql("ALTER SOURCE restored RESNAPSHOT")
        source.until("streaming")
        source.caught_up()
        assert "after" in {row["after"]["v"] for row in source.changes()}


class Door:
    """The way to a server, which can be shut: then nobody is let in, and those inside are put out."""

    def __init__(self, address):
        self.address, self.is_open, self.inside = address, True, set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:{}".format(self.listener.getsockname()[1])
        threading.Thread(target=self.keep, daemon=True).start()

    def keep(self):
        while True:
            try:
                here, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                if not self.is_open:
                    here.close()
                    continue
                there = socket.create_connection(self.address)
                self.inside |= {here, there}
                for one, other in [(here, there), (there, here)]:
                    threading.Thread(target=self.pass_on, args=[one, other], daemon=True).start()

    def pass_on(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self.inside.discard(end)

    def shut(self):
        self.is_open = False
        for end in list(self.inside):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.shut()
        self.listener.close()


def segments(server):
    """Bytes of the segments on the disk that are complete or written, and how many were fetched."""
    files = list((server.data / "log").iterdir())
    numbered = [file for file in files if re.fullmatch(r"\d+\.seg|\d+-\d+\.cold", file.name)]
    return len(numbered), sum(file.name.endswith(".fetched") for file in files)


def first(kinesis, shard, **start):
    """The first record that a shard has from there on."""
    place = kinesis.get_shard_iterator(StreamName="s", ShardId=shard, **start)["ShardIterator"]
    while True:
        page = kinesis.get_records(ShardIterator=place, Limit=10)
        if page["Records"]:
            return page["Records"][0]
        place = page["NextShardIterator"]


def test_old_segments_are_read_from_the_archive(start, tmp_path):
    store = start(data=tmp_path / "store")
    store.client("s3").create_bucket(Bucket="archive")
    door = Door(store.aws_address)
    try:
        reads_from_the_archive(start, tmp_path, door)
    finally:
        door.close()


def reads_from_the_archive(start, tmp_path, door):
    reach = ["--archive-endpoint", door.url, "--archive-access-key", ":".join(KEY)]
    url = ["--archive-url", "s3://archive/a"]
    archive = [*url, "--archive-interval-seconds", "1", *reach]
    server = start("--segment-mib", "16", "--tail-cache-mib", "1", *archive, "--local-retention", "1s",
                   "--archive-cache-mib", "32", data=tmp_path / "a")
    kinesis = server.client("kinesis")
    arn = make_stream(kinesis, "s", shards=2)
    told = put(kinesis, 100)

    def archived():
        """segments are in the archive only"""
        return (gauge(server, "hydrant_log_archived_segments") or 0) >= 3

    eventually(archived, seconds=240)
    assert segments(server)[0] <= 4
    assert stored(kinesis) == told
    assert gauge(server, "hydrant_log_fetched_segments_total") >= 3
    assert gauge(server, "hydrant_log_fetched_bytes_total") > 3 << 23
    assert segments(server)[1] <= 2

    server.kill()
    server.start()
    kinesis = server.client("kinesis")
    assert archived()
    assert stored(kinesis) == told
    shard, wanted = next((shard, number) for shard, number in list(told)[10:])
    record = first(kinesis, shard, ShardIteratorType="AT_SEQUENCE_NUMBER",
                   StartingSequenceNumber=wanted)
    assert record["Data"] == told[shard, wanted]
    arrived = record["ApproximateArrivalTimestamp"]
    record = first(kinesis, shard, ShardIteratorType="AT_TIMESTAMP", Timestamp=arrived)
    assert record["ApproximateArrivalTimestamp"] == arrived
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"]

    def pushed():
        """a consumer is pushed what is in the archive"""
        with contextlib.suppress(kinesis.exceptions.ResourceInUseException):
            reply = kinesis.subscribe_to_shard(
                ConsumerARN=consumer["ConsumerARN"], ShardId=shard,
                StartingPosition={"Type": "TRIM_HORIZON"})
            for event in reply["EventStream"]:
                if records := event["SubscribeToShardEvent"]["Records"]:
                    reply["EventStream"].close()
                    return records[0]["Data"]

    assert eventually(pushed, seconds=60) in told.values()

    # Without the bucket only what is in it cannot be read.
    server.kill()
    door.shut()
    server.start()
    kinesis = server.client("kinesis")
    with pytest.raises(botocore.exceptions.ClientError) as failed:
        first(kinesis, shard, ShardIteratorType="TRIM_HORIZON")
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "an archived segment cannot be read" in server.said()
    new = put(kinesis, 4, size=10)
    for (of, number), data in new.items():
        record = first(kinesis, of, ShardIteratorType="AT_SEQUENCE_NUMBER",
                       StartingSequenceNumber=number)
        assert record["Data"] == data
    door.is_open = True
    assert stored(kinesis) == told | new

    # The tools know, and a copy has everything.
    assert "segments are in the archive only" in run("log", "verify", "--data-dir", server.data)
    backup = ["backup", "--data-dir", server.data, "--to", tmp_path / "backup"]
    assert "name that with --archive-url" in run(*backup, fails=True)
    run(*backup, *url, *reach)
    server.kill()
    anywhere = [part for flag in ("--listen", "--pg-listen", "--admin-listen")
                for part in (flag, "127.0.0.1:0")]
    said = run("serve", "--data-dir", server.data, *anywhere, fails=True)
    assert "name it with --archive-url" in said
    said = run("serve", "--data-dir", server.data, *anywhere, "--local-retention", "1d", fails=True)
    assert "--local-retention needs --archive-url" in said
    run("restore", "--from", tmp_path / "backup", "--data-dir", tmp_path / "b")
    again = start(data=tmp_path / "b")
    assert stored(again.client("kinesis")) == told | new
    again.kill()
    server.start()
    assert server.stop() == 0
    run("restore", "--from", "s3://archive/a", "--data-dir", tmp_path / "c", *reach)
    again = start(data=tmp_path / "c")
    assert stored(again.client("kinesis")) == told | new
