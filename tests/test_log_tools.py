"""`hydrant log`: what is on the disk, whether it is whole, and the way on from a damaged segment."""

import base64
import json
import subprocess

from hydrant import BINARY, environment, make_stream, read_stream, refuses, run, serve

MARK = b"hydrant-damage-mark"
WHOLE, DAMAGED, UNREADABLE = 0, 1, 2


def log(tool, data, *arguments):
    """The exit status of a tool, and what it printed."""
    return run("log", tool, "--data-dir", data, *arguments)


def log_json(tool, data, *arguments):
    status, said = log(tool, data, "--json", *arguments)
    return status, [json.loads(line) for line in said.splitlines()]


def holding(data, text):
    """The segment that holds a text, and where."""
    (found,) = [(path, at) for path in (data / "log").glob("*.seg")
                for at in [path.open("rb").read(8 << 20).find(text)] if at >= 0]
    return found


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def content(data):
    return {str(path): path.read_bytes()[:8 << 20] for path in sorted((data / "log").rglob("*"))
            if path.is_file()}


def fill(server, name="s"):
    """Twenty records, the mark, and twenty behind it, each put by itself."""
    kinesis = server.client("kinesis")
    make_stream(kinesis, name)
    put = lambda data: kinesis.put_record(StreamName=name, Data=data, PartitionKey="k")
    for n in range(20):
        put(b"before %d" % n)
    marked = put(MARK)["SequenceNumber"]
    for n in range(20):
        put(b"after %d" % n)
    return marked


def test_a_damaged_segment_and_the_way_on(start):
    server = start("--segment-mib", "16")
    marked = fill(server)
    # Also while the server runs.
    status, said = log("verify", server.data)
    assert status == WHOLE and "41 records" in said, said
    status, said = log("salvage", server.data)
    assert status == UNREADABLE and "in use by another hydrant" in said, said
    server.kill()
    assert log("verify", server.data)[0] == WHOLE
    path, at = holding(server.data, MARK)
    flip(path, at)

    said = refuses(*serve(server.data))
    assert path.name in said and "hydrant log salvage" in said, said
    status, said = log("verify", server.data)
    assert status == DAMAGED and path.name in said and marked in said, said
    status, (told,) = log_json("verify", server.data)
    (damage,) = told["damages"]
    assert status == DAMAGED and not told["whole"]
    assert damage["file"] == f"log/{path.name}" and damage["at"] <= at < damage["end"], damage
    (lost,) = damage["lost"]
    assert lost["first_sequence_number"] == lost["last_sequence_number"] == marked
    assert (lost["records"], lost["stream"]) == (1, "s") and lost["from"] == lost["to"]

    # Without the flag it is only said what would be lost.
    before = content(server.data)
    status, said = log("salvage", server.data)
    assert status == DAMAGED and "nothing was changed" in said and marked in said, said
    assert content(server.data) == before

    status, said = log("salvage", server.data, "--accept-loss")
    assert status == WHOLE and "log/damaged/" in said, said
    kept = server.data / "log" / "damaged" / (path.name + ".1")
    assert kept.read_bytes()[:8 << 20] == before[str(path)]
    status, said = log("salvage", server.data, "--accept-loss")
    assert status == WHOLE and "nothing to do" in said, said

    for _ in range(2):
        again = start(data=server.data)
        records, = read_stream(again.client("kinesis"), "s").values()
        found = [r["Data"] for r in records]
        want = [b"before %d" % n for n in range(20)] + [b"after %d" % n for n in range(20)]
        assert found[:40] == want
        again.client("kinesis").put_record(StreamName="s", Data=b"on", PartitionKey="k")
        assert again.stop() == 0
        assert log("verify", server.data)[0] == WHOLE


def test_readers_pass_over_the_end_of_a_shard_that_is_lost(start):
    """The shard is closed, and its last record gone: a reader comes to its end all the same."""
    server = start("--segment-mib", "16")
    kinesis = server.client("kinesis")
    make_stream(kinesis, "s")
    for data in [b"kept", MARK]:
        kinesis.put_record(StreamName="s", Data=data, PartitionKey="k")
    kinesis.split_shard(StreamName="s", ShardToSplit="shardId-000000000000",
                        NewStartingHashKey=str(1 << 127))
    kinesis.get_waiter("stream_exists").wait(StreamName="s", WaiterConfig={"Delay": 1})
    kinesis.put_record(StreamName="s", Data=b"child", PartitionKey="k")
    server.kill()
    path, at = holding(server.data, MARK)
    flip(path, at)
    assert log("salvage", server.data, "--accept-loss")[0] == WHOLE
    assert log("verify", server.data)[0] == WHOLE
    kinesis = start(data=server.data).client("kinesis")
    iterator = kinesis.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON",
    )["ShardIterator"]
    found = []
    for _ in range(10):
        page = kinesis.get_records(ShardIterator=iterator)
        found += [r["Data"] for r in page["Records"]]
        iterator = page.get("NextShardIterator")
        if iterator is None:
            break
    assert iterator is None and found == [b"kept"]


def test_a_segment_that_is_missing(start):
    server = start("--segment-mib", "16")
    fill(server)
    server.kill()
    # The next start ends the segment of the last, and makes its index.
    again = start("--segment-mib", "16", data=server.data)
    again.client("kinesis").put_record(StreamName="s", Data=b"later", PartitionKey="k")
    assert again.stop() == 0
    path, _ = holding(server.data, MARK)
    path.unlink()
    status, said = log("verify", server.data)
    assert status == DAMAGED and path.name in said and "41 records" in said, said
    assert log("salvage", server.data, "--accept-loss")[0] == WHOLE
    assert log("verify", server.data)[0] == WHOLE
    again = start(data=server.data)
    records, = read_stream(again.client("kinesis"), "s").values()
    assert [r["Data"] for r in records] == [b"later"]


def test_dump_shows_frames_and_records(start, tmp_path):
    (tmp_path / "key").write_text(base64.b64encode(bytes(range(32))).decode())
    server = start("--master-key-file", str(tmp_path / "key"))
    kinesis = server.client("kinesis")
    make_stream(kinesis, "s")
    make_stream(kinesis, "other")
    records = [("text é".encode(), "k1"), (bytes([0, 255]), "k2"), (b"third", "k3")]
    numbers = [kinesis.put_record(StreamName="s", Data=data, PartitionKey=key)["SequenceNumber"]
               for data, key in records]
    kinesis.put_record(StreamName="other", Data=b"elsewhere", PartitionKey="k")
    kinesis.start_stream_encryption(StreamName="s", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    kinesis.get_waiter("stream_exists").wait(StreamName="s", WaiterConfig={"Delay": 1})
    hidden = kinesis.put_record(StreamName="s", Data=b"hidden", PartitionKey="k4")["SequenceNumber"]

    status, told = log_json("dump", server.data, "--stream", "s", "--records")
    assert status == WHOLE
    frames = [one for one in told if one["type"] == "frame"]
    found = [one for one in told if one["type"] == "record"]
    assert len(frames) == 4 and all(one["stream"] == "s" for one in frames)
    assert [one["sequence_number"] for one in found] == [*numbers, hidden]
    assert [one["partition_key"] for one in found] == ["k1", "k2", "k3", "k4"]
    assert found[0]["text"] == "text é" and found[1]["base64"] == "AP8="
    assert "text" not in found[3] and found[3]["encrypted_bytes"] > 0
    status, said = log("dump", server.data, "--records")
    assert status == WHOLE and "elsewhere" in said and "encrypted" in said and "hidden" not in said

    one = lambda *where: [one["sequence_number"] for one in log_json(
        "dump", server.data, "--stream", "s", "--records", *where)[1] if one["type"] == "record"]
    assert one("--from", numbers[1], "--to", numbers[2]) == numbers[1:3]
    assert one("--from", "2100-01-01T00:00:00Z") == []
    assert one("--to", "2100-01-01T00:00:00Z") == [*numbers, hidden]
    shard = frames[0]["shard"]
    assert log_json("dump", server.data, "--shard", shard)[1] == frames
    assert log("dump", server.data, "--segment", "1")[0] == WHOLE
    assert log("dump", server.data, "--segment", "99")[0] == UNREADABLE
    assert log("dump", server.data, "--stream", "none")[0] == UNREADABLE
    assert log("dump", server.data, "--from", "yesterday")[0] == UNREADABLE

    # Whoever reads only the beginning is not told of an error.
    for _ in range(3):
        entries = [{"Data": b"x" * 1000, "PartitionKey": "k"} for _ in range(500)]
        assert kinesis.put_records(StreamName="other", Records=entries)["FailedRecordCount"] == 0
    words = [BINARY, "log", "dump", "--data-dir", str(server.data), "--records"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment({})) as dump:
        dump.stdout.readline()
        dump.stdout.close()
        assert (dump.stderr.read(), dump.wait(60)) == (b"", 0)


def test_what_is_no_log(tmp_path):
    for tool in ["verify", "dump", "salvage"]:
        status, said = log(tool, tmp_path / "nothing")
        assert status == UNREADABLE and str(tmp_path / "nothing") in said, said
        assert not (tmp_path / "nothing").exists()
