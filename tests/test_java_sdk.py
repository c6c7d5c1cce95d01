"""The AWS SDK for Java 2: CBOR, over HTTP/1.1 and over HTTP/2 without a handshake."""

import json
import subprocess

import pytest
from hydrant import environment, java

RECORDS = [f"record {n}" for n in range(10)]
MISSING = {
    "class": "ResourceNotFoundException", "code": "ResourceNotFoundException",
    "message": "Stream nowhere under account 000000000000 not found.", "status": 400,
    "request": True,
}


@pytest.mark.needs("java sdk")
def test_the_clients_as_they_come(server, name):
    done = subprocess.run(
        [*java("sdk", "Everyday"), server.aws, name], env=environment({}), timeout=100,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    one, two = told["sync"], told["async"]

    cbor = "application/x-amz-cbor-1.1"
    assert one["spoken"] == [cbor, f"reply: {cbor}"]
    assert cbor in two["spoken"] and f"reply: {cbor}" in two["spoken"]

    assert one["createdSecondsAgo"] < 60 and one["arrivedSecondsAgo"] < 60
    assert one["shards"] == 2 and one["failed"] == 0
    assert one["records"] == RECORDS
    assert one["bytesCameBack"] and one["sequenceCameBack"]
    assert one["afterTheThird"] == 8
    assert one["fromAnHourAgo"] == 11
    assert one["fromTheLastArrival"] and one["afterTheLastArrival"] == 0
    assert one["tags"] == ["owner=ü"] and one["listed"]
    missing, used, iterator, empty = one["errors"]
    assert missing == MISSING
    assert used["class"] == "ResourceInUseException" and name in used["message"]
    assert iterator["class"] == "InvalidArgumentException"
    # The SDK has no class for this one.
    assert empty["code"] == "ValidationException" and "shardIterator" in empty["message"]

    assert two["error"] == MISSING
    assert two["records"] == [*RECORDS, "pushed"]
    assert two["places"]
    assert two["children"] == ["shardId-000000000001", "shardId-000000000002"]
