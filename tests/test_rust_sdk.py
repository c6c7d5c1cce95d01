"""The AWS SDK for Rust, as a program of its own, over HTTP and over TLS."""

import json
import os
import subprocess

import pytest
from hydrant import environment

pytestmark = pytest.mark.needs("rust sdk")


def everyday(*arguments):
    done = subprocess.run(
        [os.environ["HYDRANT_TEST_RUST_SDK"], *arguments], env=environment({}), timeout=100,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told == {
        "failed": 0,
        "records": [f"record {n}" for n in range(10)],
        "bytesCameBack": True,
        "listed": True,
        "missing": {
            "typed": True,
            "message": "Stream nowhere under account 000000000000 not found.",
            "request": True,
        },
        "iterator": {"typed": True},
        "subscription": {
            "records": 12, "children": ["shardId-000000000001", "shardId-000000000002"],
        },
    }


def test_an_everyday_program(server, name):
    everyday(server.aws, name)


def test_an_everyday_program_over_tls(tls, name):
    everyday(tls.aws, name, str(tls.authority))
