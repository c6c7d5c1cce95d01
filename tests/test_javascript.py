"""The AWS SDK for JavaScript v3 with its default handlers: HTTP/2 without a handshake for Kinesis,
and HTTP/2 as TLS negotiates it."""

import json

import pytest
from hydrant import node

pytestmark = pytest.mark.needs("node")


def pipeline(endpoint, name, folder, env=None):
    told = json.loads(node("pipeline.mjs", endpoint, name, folder=folder, env=env))
    assert told["httpVersion"] == "2.0", told
    assert told["records"] == ["first", "second"]
    assert told["missing"] == {
        "name": "ResourceNotFoundException",
        "message": "Stream nowhere under account 000000000000 not found.",
    }
    assert told["object"] == "one\ntwo\n"
    assert told["roundTrip"] is True


def subscription(endpoint, name, folder, env=None):
    told = json.loads(node("subscribe.mjs", endpoint, name, folder=folder, env=env))
    assert told["records"] == ["first", "second", "pushed"]
    assert told["children"] == ["shardId-000000000001", "shardId-000000000002"]
    assert told["places"] >= 2


def test_the_sdk_from_stream_to_object(server, name, tmp_path):
    pipeline(server.aws, name, tmp_path)


def test_a_subscription_to_the_end_of_its_shard(server, name, tmp_path):
    subscription(server.aws, name, tmp_path)


def test_the_sdk_over_tls(tls, name, tmp_path):
    pipeline(tls.aws, name, tmp_path, tls.trusting)


def test_a_subscription_over_tls(tls, name, tmp_path):
    subscription(tls.aws, name, tmp_path, tls.trusting)
