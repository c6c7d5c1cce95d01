"""The first command of the README."""

import re
import subprocess

import pytest

from hydrant import BINARY, environment


@pytest.mark.timeout(180)
def test_every_earthquake_is_in_the_table_once(tmp_path):
    anywhere = "127.0.0.1:0"
    done = subprocess.run(
        [BINARY, "demo", "--exit", "--data-dir", str(tmp_path / "data"), "--listen", anywhere,
         "--pg-listen", anywhere, "--admin-listen", anywhere],
        env=environment({}), cwd=tmp_path, capture_output=True, text=True, timeout=170,
        stdin=subprocess.DEVNULL,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "1,707" in done.stdout, said
    # The strongest of that week, from SQL over the nested fields.
    assert re.search(r"6\.4\b.*Taiwan", done.stdout), said
    assert "export AWS_ENDPOINT_URL=" in done.stdout
