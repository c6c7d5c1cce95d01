"""The first command of the README."""

import re
import subprocess

import pytest

from hydrant import BINARY, environment, serve


@pytest.mark.timeout(240)
def test_every_earthquake_is_in_the_table_once(tmp_path):
    # Twice over one data directory: the second begins with what the first one left.
    for _ in range(2):
        said = demo(tmp_path)
        assert "1,707" in said
        # The strongest of that week, from SQL over the nested fields.
        assert re.search(r"6\.4\b.*Taiwan", said), said
        assert "export AWS_ENDPOINT_URL=" in said


def demo(folder):
    """Runs it to its end; what it told."""
    done = subprocess.run(
        [BINARY, *serve(folder / "data", "demo"), "--exit"],
        env=environment({}), cwd=folder, capture_output=True, text=True, timeout=110,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
