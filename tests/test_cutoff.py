"""Power cuts of real file systems, and kills under an SDK's load, hundreds of them: everything
acknowledged is there afterwards, once, in order, with its own bytes.

Each loop is a run of cutoff.py; all of them run at the same time.
"""

import glob
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hydrant
import volume

CUTS_OF_EACH = 150
KILLS = 300
# A server whose fsync does nothing survives some cuts.
CUTS_TO_CATCH = 30
LOOP_SECONDS = 1_500
# A server that synced nothing misses records, or refuses to start: without them, or, in SQLite's
# words, with a database of which a part is missing.
SIGNS_OF_LOSS = ("journal.Lost: ", "Acknowledged data may be lost",
                 "database disk image is malformed", "file is not a database", "RuntimeError: hydrant ended with")


class Loop:
    """A run of cutoff.py in a process of its own."""

    def __init__(self, kind, times, *more):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cutoff.py")), kind,
             "--times", str(times), *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=hydrant.environment({"HYDRANT_BINARY": hydrant.BINARY}),
        )

    def end(self):
        """Its exit code and what it said."""
        # Its standard input stays open: when it closes, the loop ends.
        said = self.process.stdout.read()
        return self.process.wait(), said

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def loops(request):
    """The loops of the tests that were asked for, under way."""
    wanted = {item.callspec.params["kind"]: item.callspec.params["times"]
              for item in request.session.items if "times" in getattr(item, "fixturenames", ())}
    running = {kind: Loop(kind, times) for kind, times in wanted.items() if not why_not(kind)}
    yield running
    for loop in running.values():
        loop.stop()


def why_not(kind):
    return volume.why_not(kind) if kind in volume.KINDS else None


@pytest.mark.needs("psycopg")
@pytest.mark.timeout(LOOP_SECONDS)
@pytest.mark.parametrize(
    ("kind", "times"), [("ext4", CUTS_OF_EACH), ("xfs", CUTS_OF_EACH), ("kill", KILLS)]
)
def test_everything_acknowledged_is_there(kind, times, loops, capsys):
    if reason := why_not(kind):
        pytest.skip(f"{kind}: {reason}")
    code, said = loops[kind].end()
    assert code == 0, said[-8000:]
    with capsys.disabled():
        print(f"\n{said.strip()}")
    told = json.loads(said.splitlines()[-1])
    assert told["times"] == times
    # Else the load did not load.
    assert told["records acknowledged"] > 10 * times
    for what in ["objects", "stream changes", "rows"]:
        assert told[f"{what} acknowledged"] > 0, what


@pytest.mark.needs("psycopg")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", volume.KINDS)
def test_a_server_that_syncs_nothing_is_caught(kind):
    if reason := volume.why_not(kind):
        pytest.skip(f"{kind}: {reason}")
    found = glob.glob("/usr/lib/*/libeatmydata.so*")
    if not found:
        pytest.skip("there is no libeatmydata, whose fsync does nothing")
    loop = Loop(kind, CUTS_TO_CATCH, "--preload", found[0])
    try:
        code, said = loop.end()
    finally:
        loop.stop()
    assert code == 1 and any(sign in said for sign in SIGNS_OF_LOSS), said
