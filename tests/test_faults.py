"""A server on a machine that misbehaves: its fsync fails, its disk is full, its clock is set, it is
stopped for a while.

What a disk does wrong is done by faults.py, in a process with mounts of its own.
"""

import collections
import glob
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import hydrant
import volume
from hydrant import eventually, make_stream, read_shard, read_stream

DAY = 86_400
YEAR = 365 * DAY
STOPPED_SECONDS = float(os.environ.get("HYDRANT_TEST_STOPPED_SECONDS", "15"))
RECORDS = 20


def fault(*arguments):
    if reason := volume.why_not("ext4"):
        pytest.skip(f"ext4: {reason}")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("faults.py")), *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280,
        env=hydrant.environment({"HYDRANT_BINARY": hydrant.BINARY}),
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


@pytest.mark.needs("psycopg")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["put_records", "change_streams", "put_objects", "insert_rows"])
def test_a_failed_fsync_ends_the_server_and_nothing_is_lost(part):
    assert f"{part} ended the server" in fault("fsync", part)


@pytest.mark.needs("psycopg")
@pytest.mark.timeout(300)
def test_a_full_disk_refuses_serves_reads_and_recovers():
    fault("full")


class Wall:
    """A wall clock that one server sees; what it measures durations with stays the machine's."""

    def __init__(self, folder):
        found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        if not found:
            pytest.skip("there is no libfaketime, which sets the clock of one process")
        self.file = folder / "faketime"
        self.set(0)
        self.env = {
            "LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds):
        """Moves the clock that far from the machine's."""
        whole = self.file.with_suffix(".new")
        whole.write_text(f"{seconds:+}s\n")
        whole.replace(self.file)


class Writer:
    """Puts numbered records to one shard, and holds the server to them."""

    def __init__(self):
        self.numbers = []
        self.next = 0

    def put(self, kinesis):
        for _ in range(RECORDS):
            told = kinesis.put_record(
                StreamName="s", PartitionKey="k", Data=b"%d" % self.next,
            )
            self.numbers.append(told["SequenceNumber"])
            self.next += 1

    def check(self, kinesis, since=0):
        """Everything from the given record on is there, once, in order."""
        assert self.numbers == sorted(set(self.numbers), key=int)
        found = read_shard(
            kinesis, "s", "shardId-000000000000", "AT_SEQUENCE_NUMBER",
            StartingSequenceNumber=self.numbers[since],
        )
        assert [r["SequenceNumber"] for r in found] == self.numbers[since:]
        assert [r["Data"] for r in found] == [b"%d" % n for n in range(since, self.next)]


@pytest.mark.skipif(
    not os.environ.get("HYDRANT_TEST_FAULTS"), reason="a part of cargo xtask torture"
)
@pytest.mark.timeout(300)
def test_a_clock_that_is_set_back_and_ahead_poisons_no_stream(start, tmp_path):
    wall = Wall(tmp_path)
    server = start(env=wall.env)
    kinesis = server.client("kinesis")
    make_stream(kinesis, "s")
    writer = Writer()
    writer.put(kinesis)
    for seconds in [-DAY, YEAR, 0]:
        since = writer.next
        wall.set(seconds)
        writer.put(kinesis)
        writer.check(kinesis, since)
        # The records of before are a year old while the clock is ahead.
        if seconds <= 0:
            writer.check(kinesis)
        server.kill()
        server.start()
        kinesis = server.client("kinesis")
        if seconds > 0:
            # A server believes the clock that it starts with, and so they have expired.
            since = writer.next
        writer.put(kinesis)
        writer.check(kinesis, since)
    # The clock is right again: everything is read, and a new reader at the tip sees what comes.
    writer.check(kinesis)
    told = kinesis.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="LATEST"
    )
    since = writer.next
    writer.put(kinesis)
    page = kinesis.get_records(ShardIterator=told["ShardIterator"])
    assert [r["SequenceNumber"] for r in page["Records"]] == writer.numbers[since:]
    for name in ["other", "third"]:
        make_stream(kinesis, name)


@pytest.mark.timeout(300)
def test_a_server_that_stood_still_goes_on(start):
    """SIGSTOP under load: what was under way is answered, or can be repeated, and nothing is lost."""
    server = start()
    # A connection that stood idle may be closed meanwhile; an SDK then sends again.
    kinesis = server.client(
        "kinesis", read_timeout=STOPPED_SECONDS + 60, retries={"total_max_attempts": 5}
    )
    make_stream(kinesis, "s", 2)
    acknowledged, over, failed = {}, threading.Event(), []

    def put(writer):
        n = 0
        while not over.is_set():
            name = f"{writer} {n}"
            try:
                told = kinesis.put_record(
                    StreamName="s", PartitionKey=name, Data=name.encode()
                )
            except Exception as error:
                failed.append(error)
                return
            acknowledged[name] = told["SequenceNumber"]
            n += 1

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) > 100, 60)
    server.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(STOPPED_SECONDS)
        before = len(acknowledged)
    finally:
        server.process.send_signal(signal.SIGCONT)
    eventually(lambda: len(acknowledged) > before + 100, 60)
    over.set()
    for thread in threads:
        thread.join(60)
    assert not failed, failed
    found = collections.defaultdict(list)
    for records in read_stream(kinesis, "s").values():
        for record in records:
            found[record["Data"].decode()].append(record["SequenceNumber"])
    assert found.keys() == acknowledged.keys()
    missing = [name for name, number in acknowledged.items() if number not in found[name]]
    assert not missing, missing[:5]
    # What was sent again may be there again: at most what was under way when it stood still.
    assert sum(len(numbers) for numbers in found.values()) <= len(acknowledged) + len(threads)
