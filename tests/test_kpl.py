"""The Kinesis Producer Library with its native part, which speaks only TLS, across a reshard."""

import json
import subprocess

import pytest
from hydrant import environment, eventually, java, make_stream, read_stream, user_records

PART = 1000


@pytest.mark.needs("java kpl", "aggregation")
def test_every_record_arrives_across_an_update_of_the_shard_count(tls, name, tmp_path):
    kinesis = tls.client("kinesis")
    make_stream(kinesis, name, 2)
    host, port = tls.aws_address
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [*java("kpl", "Producer"), host, str(port), name, str(tls.authority), str(tmp_path)],
            env=environment({}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            text=True,
        )
        try:
            told = [put(process, n * PART) for n in range(2)]
            kinesis.update_shard_count(
                StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
            # Not waited for: the library meets the new shards while it puts.
            told.append(put(process, 2 * PART))

            def updated():
                """the stream is ACTIVE with four open shards"""
                seen = kinesis.describe_stream_summary(StreamName=name)
                seen = seen["StreamDescriptionSummary"]
                return seen["StreamStatus"] == "ACTIVE" and seen["OpenShardCount"] == 4

            eventually(updated)
            told.append(put(process, 3 * PART))
            process.stdin.close()
            assert process.wait(20) == 0, (tmp_path / "log").read_text()[-3000:]
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    assert [one["acknowledged"] for one in told] == [PART] * 4, told
    assert told[0]["errors"] == told[1]["errors"] == {}, told
    # The library puts a record again when it lands on a shard that it does not know yet, and there
    # is no other reason to.
    assert all("Wrong Shard" in error for one in told for error in one["errors"]), told
    assert set(told[3]["shards"]) - set(told[0]["shards"]), told

    records = [one for shard in read_stream(kinesis, name).values() for one in shard]
    assert len(records) < 4 * PART, "nothing was aggregated"
    seen = [int(data) for _, data in user_records(records)]
    assert set(seen) == set(range(4 * PART))
    log = (tmp_path / "log").read_text()
    assert "Metrics upload failed" not in log, log[-3000:]


def put(process, first):
    """Puts records and waits for them; what the library told of them."""
    process.stdin.write(f"{first} {PART}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "the producer ended"
    return json.loads(line)
