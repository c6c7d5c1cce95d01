"""`hydrant bench`: a load on a running server, told as text and as JSON."""

import json
import subprocess

import pytest

import hydrant

SECONDS_MAX = 120
SMALL = ["--seconds", "1", "--connections", "2", "--shards", "2", "--record-bytes", "100"]


def bench(*arguments):
    return subprocess.run(
        [hydrant.BINARY, "bench", *arguments], capture_output=True, text=True, timeout=SECONDS_MAX,
        env=hydrant.environment({}), check=False,
    )


def measured(server, *arguments):
    done = bench(*arguments, "--data-dir", str(server.data), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("batch", [1, 20])
def test_puts(server, batch):
    told = measured(server, "put", *SMALL, "--batch", str(batch))
    assert told["records"] == told["requests"] * batch > 0
    assert (told["bytes"], told["refused"]) == (told["records"] * 100, 0)
    times = told["milliseconds"]
    assert 0 < times["p50"] <= times["p99"] <= times["p999"] <= times["max"]
    assert told["server"]["peak_mib"] > 1 and told["client"]["peak_mib"] > 1


def test_reads_go_through_every_record(server):
    told = measured(server, "get", *SMALL, "--records", "1000", "--batch", "100")
    assert told["records"] >= 100
    assert told["bytes"] == told["records"] * 100


def test_fan_out_reaches_every_consumer(server):
    told = measured(server, "fan-out", *SMALL, "--consumers", "7", "--rate", "200", "--batch", "5")
    assert told["missing"] == 0
    assert told["records"] == told["requests"] * 5 * 7 > 0


def test_a_low_rate_is_put_in_small_requests(server):
    told = measured(server, "fan-out", "--seconds", "1", "--connections", "2", "--rate", "100")
    assert told["missing"] == 0
    assert told["records"] == told["requests"] > 0


def test_idle_streams_stay(server):
    told = measured(server, "streams", "--count", "5", "--prefix", "bench-idle-",
                    "--connections", "3")
    assert (told["requests"], told["records"]) == (5, 0)
    kinesis = server.client("kinesis")
    made = [name for name in kinesis.list_streams()["StreamNames"] if name.startswith("bench-idle-")]
    assert made == [f"bench-idle-{n}" for n in range(5)]
    for name in made:
        kinesis.get_waiter("stream_exists").wait(
            StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        kinesis.delete_stream(StreamName=name)


def test_the_text_and_the_stream_that_is_gone_afterwards(server):
    done = bench("put", *SMALL, "--stream", "bench-gone", "--endpoint", server.endpoints["aws"],
                 "--server-pid", str(server.process.pid))
    assert done.returncode == 0, done.stderr
    assert "records/s" in done.stdout and "server: " in done.stdout
    kinesis = server.client("kinesis")
    assert "bench-gone" not in kinesis.list_streams()["StreamNames"]


def test_what_cannot_be_measured_is_said(server, tmp_path):
    server.client("kinesis").create_stream(StreamName="bench-mine", ShardCount=1)
    for arguments, said in [
        (["--data-dir", str(tmp_path)], "Start one with `hydrant serve`"),
        (["--endpoint", "https://127.0.0.1:1"], "only http://HOST:PORT"),
        (["--endpoint", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (["--data-dir", str(server.data), "--stream", "bench-mine"], "is there already"),
        (["--data-dir", str(server.data), "--record-bytes", "1000000"], "make --batch"),
        (["--data-dir", str(server.data), "--access-key", "x"], "ID:SECRET"),
    ]:
        done = bench("put", *SMALL, *arguments) if "--record-bytes" not in arguments else bench(
            "put", *arguments)
        assert done.returncode == 1, arguments
        assert said in done.stderr, done.stderr
    server.client("kinesis").delete_stream(StreamName="bench-mine")
