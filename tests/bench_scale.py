"""How hydrant does with 10,000 shards in a stream and 10,000 streams: times, and memory per idle one.

    HYDRANT_BINARY=target/release/hydrant python tests/bench_scale.py [shards] [streams]

Starts a server of its own in a temporary directory, makes the streams and the shards through the API,
lists them page by page, starts the server again, and prints what it took.
"""

import concurrent.futures
import sys
import tempfile
import time
from pathlib import Path

import hydrant

WORKERS = 8
COUNT_MAX = 20_000


def resident_bytes(server):
    """What the server's process has in memory."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


def timed(what, call):
    began = time.monotonic()
    value = call()
    print(f"{what:42} {time.monotonic() - began:8.2f} s", flush=True)
    return value


def active(kinesis, name, seconds=300):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "ACTIVE":
            return summary
        time.sleep(0.05)
    raise TimeoutError(f"{name} is not active after {seconds} s")


def shards_of(kinesis, name):
    ids, token = [], None
    while True:
        page = kinesis.list_shards(**({"NextToken": token} if token else {"StreamName": name}))
        ids += [shard["ShardId"] for shard in page["Shards"]]
        token = page.get("NextToken")
        if not token:
            return ids


def streams_of(kinesis):
    pages = kinesis.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 1_000})
    summaries = [summary for page in pages for summary in page["StreamSummaries"]]
    return [(summary["StreamName"], summary["StreamStatus"]) for summary in summaries]


def make_streams(kinesis, names):
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda name: kinesis.create_stream(StreamName=name, ShardCount=1), names))
    while any(status != "ACTIVE" for _, status in streams_of(kinesis)):
        time.sleep(0.05)


def per_one(before, after, count):
    return f"{(after - before) / count:,.0f} bytes each ({before >> 20} MiB -> {after >> 20} MiB)"


def main(shards, streams):
    limit = ["--shard-limit", str(shards + streams + 1)]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        server = hydrant.Server(data, *limit).start()
        try:
            kinesis = server.client("kinesis")
            kinesis.create_stream(StreamName="warm", ShardCount=1)
            active(kinesis, "warm")
            empty = resident_bytes(server)
            names = [f"s{n:05}" for n in range(streams)]
            timed(f"{streams:,} streams made, {WORKERS} at a time",
                  lambda: make_streams(kinesis, names))
            many = resident_bytes(server)
            listed = timed("ListStreams, 1,000 a page", lambda: streams_of(kinesis))
            assert [name for name, _ in listed] == [*names, "warm"]
            before = resident_bytes(server)
            kinesis.create_stream(StreamName="wide", ShardCount=shards)
            timed(f"{shards:,} shards of a stream made", lambda: active(kinesis, "wide"))
            wide = resident_bytes(server)
            ids = timed("ListShards, page by page", lambda: shards_of(kinesis, "wide"))
            assert ids == [f"shardId-{n:012}" for n in range(shards)]
            timed("PutRecord into the wide stream", lambda: kinesis.put_record(
                StreamName="wide", Data=b"x", PartitionKey="k"))
            timed("stop", server.stop)
            server = timed("start again", lambda: hydrant.Server(data, *limit).start())
            again = resident_bytes(server)
            kinesis = server.client("kinesis")
            assert shards_of(kinesis, "wide") == ids and len(streams_of(kinesis)) == streams + 2
        finally:
            server.kill()
    print(f"memory of an idle shard   {per_one(before, wide, shards)}")
    print(f"memory of an idle stream  {per_one(empty, many, streams)}")
    print(f"memory after the restart  {again >> 20} MiB")


if __name__ == "__main__":
    counts = [int(text) for text in sys.argv[1:]]
    shards, streams = (counts + [10_000] * 2)[:2]
    if not (1 <= shards <= COUNT_MAX and 1 <= streams <= COUNT_MAX):
        sys.exit(f"counts from 1 to {COUNT_MAX:,}")
    main(shards, streams)
