"""Cuts a server off under load, again and again, and holds it to what it acknowledged.

    python3 cutoff.py ext4 --times 150          a power cut of a loop-mounted ext4 (as root)
    python3 cutoff.py xfs --times 150           the same on XFS
    python3 cutoff.py kill --times 300          kill -9, with an SDK's puts under way

HYDRANT_BINARY names the server. The last line is a JSON object with what was counted. The seed is
printed; --seed repeats its moments and records (threads still race). With --preload a library is
put before the server's own, such as one whose fsync does nothing.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import hydrant
import load
import volume
from journal import Journal, Lost

# A data directory grows with each round, and a new one is empty again.
ROUNDS_OF_A_LIFE = 30
WHOLE_CHECK_EVERY = 10
JOIN_SECONDS = 60
# Of rounds, those that cut a server off which has not finished its start; and those that wait for
# the server to notice by itself that its disk is gone.
SHARE_AT_START = 0.1
SHARE_NOTICED = 0.1
NOTICE_SECONDS = 60


class Life:
    """One data directory from its first start to its last check."""

    def __init__(self, kind, dice, counts, folder, preload):
        self.dice = dice
        self.journal = Journal()
        self.journal.counts = counts
        self.disk = volume.Volume(kind, folder) if kind in volume.KINDS else None
        data = self.disk.path / "data" if self.disk else folder / "data"
        env = {"LD_PRELOAD": preload} if preload else {}
        self.server = hydrant.Server(data, "--segment-mib", "16", env=env)
        self.server.log = folder / "server.log"

    def run(self, rounds):
        try:
            self.server.start()
            load.prepare(self.server)
            for number in range(rounds):
                at_start = self.dice.random() < SHARE_AT_START
                if at_start:
                    self.cut_at_start()
                else:
                    self.cut_under_load()
                self.server.start()
                last = number == rounds - 1
                load.check(self.server, self.journal, last or number % WHOLE_CHECK_EVERY == 0)
        except Exception:
            print(self.server.said(4000), file=sys.stderr)
            raise
        finally:
            self.server.kill()
            if self.disk:
                self.disk.remove()

    def cut_under_load(self):
        writers = load.Load(self.server, self.journal, self.dice.random(), sdk=not self.disk)
        time.sleep(self.dice.uniform(0.02, 0.3))
        self.cut(self.dice.random() < SHARE_NOTICED)
        writers.join(JOIN_SECONDS)
        self.back()

    def cut_at_start(self):
        self.server.kill()
        self.server.spawn()
        time.sleep(self.dice.uniform(0, 0.15))
        self.cut(False)
        self.back()

    def cut(self, wait_for_notice):
        if not self.disk:
            self.server.kill()
            return
        # What is acknowledged from here on may not be on the disk.
        self.journal.freeze()
        self.disk.cut(flush_log=self.dice.random() < 0.25)
        if wait_for_notice:
            code = self.server.process.wait(NOTICE_SECONDS)
            if code != -6:
                raise Lost(f"the server went on, or ended with {code}, on a disk that is gone")
        self.server.kill()

    def back(self):
        if self.disk:
            self.disk.remount()
            self.journal.thaw()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=[*volume.KINDS, "kill"])
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--preload")
    wanted = parser.parse_args()
    if wanted.kind in volume.KINDS:
        volume.enter_namespace()
    end_with_parent()
    print(f"{wanted.kind}: seed {wanted.seed}", flush=True)
    counts = collections.Counter()
    dice = random.Random(wanted.seed)
    begun = time.monotonic()
    done = 0
    with tempfile.TemporaryDirectory(prefix="cutoff-", dir=volume.roomy()) as folder:
        while done < wanted.times:
            rounds = min(ROUNDS_OF_A_LIFE, wanted.times - done)
            below = Path(folder, str(done))
            below.mkdir()
            Life(wanted.kind, dice, counts, below, wanted.preload).run(rounds)
            shutil.rmtree(below)
            done += rounds
    told = {"kind": wanted.kind, "seed": wanted.seed, "times": done,
            "seconds": round(time.monotonic() - begun, 1), **counts}
    print(json.dumps(told), flush=True)


def end_with_parent():
    """Ends this process, and its server, when whoever started it is gone: its pipe then closes."""
    if sys.stdin.isatty():
        return

    def watch():
        with contextlib.suppress(OSError):
            while os.read(sys.stdin.fileno(), 1024):
                pass
        for server in hydrant.Server.every:
            server.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
