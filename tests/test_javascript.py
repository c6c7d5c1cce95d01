"""The AWS SDK for JavaScript v3 with its default handlers: HTTP/2 without a handshake for Kinesis."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.needs("node")
def test_the_sdk_from_stream_to_object(server, name, tmp_path):
    modules = Path(os.environ["HYDRANT_TEST_NODE"]) / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    script = Path(__file__).parent / "js" / "pipeline.mjs"
    shutil.copy(script, tmp_path)
    done = subprocess.run(
        ["node", "pipeline.mjs", server.aws, name], cwd=tmp_path, env=server.shell(), timeout=90,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["httpVersion"] == "2.0", told
    assert told["records"] == ["first", "second"]
    assert told["missing"] == {
        "name": "ResourceNotFoundException",
        "message": "Stream nowhere under account 000000000000 not found.",
    }
    assert told["object"] == "one\ntwo\n"
    assert told["roundTrip"] is True
