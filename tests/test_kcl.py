"""The Kinesis Client Library 3 with hydrant as its only server: records, leases and metrics. A stream
is split and merged under it, and one of its two workers is killed."""

import collections
import concurrent.futures
import contextlib
import json
import re
import subprocess
import threading
import time

import pytest
from hydrant import Server, environment, eventually, java, make_stream

KEYS = [f"key-{n}" for n in range(16)]
# How long a library that polls, assigns leases every few seconds and elects a leader may take.
PATIENCE = 90
pytestmark = [pytest.mark.needs("java kcl"), pytest.mark.timeout(400)]


class Application:
    """An application's workers, and what they have said."""

    def __init__(self, server, stream, mode, name, folder):
        self.arguments = [server.aws, name, stream]
        self.mode, self.folder = mode, folder
        self.workers, self.threads, self.said = {}, [], []

    def work(self, worker):
        """Starts a worker."""
        log = open(self.folder / f"{worker}.log", "wb")
        options = ["-Dorg.slf4j.simpleLogger.showDateTime=true"]
        process = subprocess.Popen(
            [*java("kcl", "Consumer", *options), *self.arguments, worker, self.mode],
            env=environment({"AWS_EC2_METADATA_DISABLED": "true"}), stdout=subprocess.PIPE,
            stderr=log, stdin=subprocess.DEVNULL,
        )
        self.workers[worker] = process

        def listen():
            with log:
                for line in process.stdout:
                    # A worker that is killed may end within a line.
                    with contextlib.suppress(json.JSONDecodeError):
                        self.said.append(json.loads(line))

        self.threads.append(threading.Thread(target=listen))
        self.threads[-1].start()

    def kill(self, worker):
        """As kill -9 does."""
        self.workers[worker].kill()

    def stop(self):
        for process in self.workers.values():
            process.kill()
            process.wait()
        for thread in self.threads:
            thread.join()

    def lines(self, what):
        return [line for line in list(self.said) if line["what"] == what]

    def records(self):
        """The numbers of each key's records in the order in which they were first given."""
        given = collections.defaultdict(dict)
        # Each worker's lines come through a pipe of its own: the clock that they share orders them.
        for line in sorted(self.lines("record"), key=lambda line: line["at"]):
            given[line["key"]].setdefault(int(line["data"]))
        return {key: list(numbers) for key, numbers in given.items()}

    def log(self, characters=3000):
        logs = sorted(self.folder.glob("*.log"))
        return "".join(f"\n{log}:\n{log.read_text()[-characters:]}" for log in logs)


class Writer:
    """Puts numbered records under all keys until it is stopped."""

    def __init__(self, kinesis, stream):
        self.kinesis, self.stream, self.rounds = kinesis, stream, 0
        self.stopping = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.stopping.wait(0.05):
                entries = [{"Data": b"%d" % self.rounds, "PartitionKey": key} for key in KEYS]
                put = self.kinesis.put_records(StreamName=self.stream, Records=entries)
                assert put["FailedRecordCount"] == 0, put
                self.rounds += 1
        except Exception as error:
            self.failure = error

    def stop(self):
        self.stopping.set()
        self.thread.join()
        if self.failure:
            raise self.failure


def life(server, mode, name, folder):
    """A stream and its applications from the first record to the last; what was measured."""
    kinesis = server.client("kinesis")
    make_stream(kinesis, name, 4)
    writer = Writer(server.client("kinesis"), name)
    first = Application(server, name, mode, f"{name}-first", folder)
    fresh = Application(server, name, mode, f"{name}-fresh", folder)
    marks = {"begin": time.monotonic()}
    try:
        first.work("one")
        # Of two workers that begin a new application at the same moment, the library lets one give up.
        seen(first, "the first worker has begun", lambda: first.lines("begin"))
        first.work("two")
        seen(first, "all shards have begun", lambda: len(holders(first)) == 4)
        marks["begun"] = time.monotonic()
        reshard(kinesis, name, lambda: kinesis.split_shard(
            StreamName=name, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 125)))
        reshard(kinesis, name, lambda: kinesis.merge_shards(
            StreamName=name, ShardToMerge="shardId-000000000002",
            AdjacentShardToMerge="shardId-000000000003"))
        children = {f"shardId-{n:012d}" for n in (4, 5, 6)}
        seen(first, "the children have begun",
             lambda: children <= {line["shard"] for line in first.lines("begin")})
        marks["children"] = time.monotonic()
        # How the library shares shards out between workers of one machine is its own affair: the one
        # that has the most is killed.
        held = collections.Counter(holders(first).values())
        victim, _ = held.most_common(1)[0]
        survivor = {"one": "two", "two": "one"}[victim]
        first.kill(victim)
        seen(first, "the other worker has all shards",
             lambda: set(holders(first).values()) == {survivor} and len(holders(first)) == 4)
        marks["moved"] = time.monotonic()
        writer.stop()
        want = {key: list(range(writer.rounds)) for key in KEYS}
        seen(first, "every record was read", lambda: first.records() == want)
        lag = re.findall(r"^hydrant_kcl_checkpoint_age_milliseconds\{(.*)\} \d+$",
                         server.get("/metrics")[1], re.M)
        first.stop()
        marks["read"] = time.monotonic()
        # One that begins now finds closed shards, whose children it may not read before them.
        fresh.work("three")
        seen(fresh, "every record was read by the fresh application",
             lambda: fresh.records() == want)
        marks["fresh"] = time.monotonic()
    finally:
        writer.stopping.set()
        first.stop()
        fresh.stop()
    mine = [labels for labels in lag if f'application="{name}-first"' in labels]
    assert any(f'owner="{survivor}"' in labels for labels in mine), lag
    return {**marks, "held": dict(held)}


def seen(application, what, check):
    def checked():
        ended = [name for name, process in application.workers.items() if process.poll() == 1]
        assert not ended, f"{ended} ended{application.log()}"
        return check()

    checked.__doc__ = what
    try:
        eventually(checked, PATIENCE)
    except AssertionError as error:
        told = {key: len(numbers) for key, numbers in application.records().items()}
        raise AssertionError(
            f"{error}\nheld: {holders(application)}\nread: {told}{application.log()}") from None


def reshard(kinesis, name, change):
    change()
    kinesis.get_waiter("stream_exists").wait(
        StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def holders(application):
    """The worker that has each shard that is being read."""
    held = {}
    for line in sorted(list(application.said), key=lambda line: line["at"]):
        if line["what"] == "begin":
            held[line["shard"]] = line["worker"]
        elif line["what"] in ("end", "lost") and held.get(line.get("shard")) == line["worker"]:
            del held[line["shard"]]
    return held


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """Both ways of reading, each with a server of its own, at the same time: they mostly wait."""
    folder = tmp_path_factory.mktemp("kcl")
    servers = {mode: Server(folder / f"data-{mode}") for mode in ("POLLING", "FANOUT")}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = {}
        for mode, server in servers.items():
            (folder / mode).mkdir()
            running[mode] = pool.submit(
                life, server.start(), mode, mode.lower(), folder / mode)
        yield running
    for server in servers.values():
        server.kill()
        Server.every.remove(server)


def test_polling_reads_every_record_in_order(lives):
    print(lives["POLLING"].result())


def test_fan_out_reads_every_record_in_order(lives):
    print(lives["FANOUT"].result())
