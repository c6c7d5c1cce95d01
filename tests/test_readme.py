"""The README's own commands, taken from its text."""

import re
import sys
from pathlib import Path

import pytest

from hydrant import sh

README = Path(__file__).parent.parent / "README.md"


def blocks(language=""):
    """The README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.M | re.S)


@pytest.mark.needs("aws", "psql", "snowflake")
def test_five_minutes_by_hand(start):
    server = start()
    aws, sql = server.aws_address[1], server.sql_address[1]

    def here(text):
        # Our ports, and the CLI's version 1, which has no such option.
        text = text.replace("127.0.0.1:4566", f"127.0.0.1:{aws}").replace("-p 5439", f"-p {sql}")
        text = text.replace("port=4566", f"port={aws}")
        return text.replace("--cli-binary-format raw-in-base64-out", "")

    session, = [text for text in blocks() if text.startswith("export AWS_ENDPOINT_URL=")]
    # What takes no waiting for a person takes some for a script.
    session = session.replace(
        "--shard-count 2\n", "--shard-count 2\naws kinesis wait stream-exists --stream-name tweets\n"
    )
    out = sh(here(session), server.shell(), timeout=90)
    assert '"hi"' in out or "eyJpZCI6MSwidGV4dCI6ImhpIn0=" in out, out
    assert re.search(r"2 \| hello", out), out
    python, = [text for text in blocks("python") if "snowflake.connector" in text]
    out = sh(f"'{sys.executable}' -W ignore - <<'PYTHON'\n{here(python)}\nPYTHON", server.shell())
    assert "hello" in out
