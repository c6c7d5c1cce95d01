"""A current-state table measured: random updates of single rows.

    HYDRANT_BINARY=target/release/hydrant python tests/bench_state.py [rows] [seconds] [updates a second]

Starts a PostgreSQL and a hydrant of its own. A table of `rows` rows (by default a million) is followed,
then random rows of it are updated one by one for `seconds` (60), at most as often as said (1,000).
Every ten seconds: updates a second, and how far the current-state table is behind, which is how long
ago the newest row it has was written. Then how long it takes to be the same.
"""

import datetime
import random
import sys
import tempfile
import time
from pathlib import Path

import hydrant
import postgres
from bench_postgres import cpu_seconds, resident
from capture import Source
from hydrant import eventually

SECONDS_MAX = 900
REPORT_SECONDS = 10
TABLE = """
CREATE TABLE chat (id int PRIMARY KEY, login text, message text, bits int, at timestamptz);
CREATE PUBLICATION chat FOR TABLE chat;
"""
FILL = """
INSERT INTO chat SELECT n, 'login' || n % 5000, 'a line of chat, as long as they are ' || n, n % 1000,
  clock_timestamp() FROM generate_series(1, %s) n
"""


def one(source, query):
    """The only value that a query answers with."""
    ((value,),) = (row.values() for row in source.sql(query))
    return value


def updates(pg, source, rows, seconds, rate):
    dice = random.Random(1)
    began, done, counted, behind = time.monotonic(), 0, 0, []
    report = began + REPORT_SECONDS
    with pg.connect() as connection:
        connection.execute("SET synchronous_commit = off")
        while (now := time.monotonic()) < began + seconds:
            if now >= report:
                newest = one(source, "SELECT max(at) FROM chat")
                late = (datetime.datetime.now(datetime.timezone.utc) - newest).total_seconds()
                behind.append(late)
                print(f"{(done - counted) / (now - report + REPORT_SECONDS):8,.0f} updates/s   "
                      f"{late:6.2f} s behind", flush=True)
                counted, report = done, now + REPORT_SECONDS
            if done >= (now - began) * rate:
                time.sleep(0.001)
                continue
            connection.execute(
                "UPDATE chat SET bits = bits + 1, at = clock_timestamp() WHERE id = %s",
                (dice.randint(1, rows),), prepare=True)
            done += 1
    return done, behind


def main(rows=1_000_000, seconds=60, rate=1_000):
    pg = postgres.Postgres(max_wal_size="4GB", shared_buffers="256MB").start()
    with tempfile.TemporaryDirectory() as folder:
        server = hydrant.Server(Path(folder) / "data").start()
        try:
            pg.psql(TABLE)
            with pg.connect() as connection:
                connection.execute(FILL.replace("%s", str(rows)))
            source = Source(server, pg, "chat")
            began = time.monotonic()
            source.connect()
            source.create(publications=("chat",))
            source.until("streaming", SECONDS_MAX)
            print(f"snapshot of {rows:,} rows into the stream: {time.monotonic() - began:.1f} s")
            source.sql("CREATE TABLE chat FROM SOURCE chat (REFERENCE public.chat)")
            began = time.monotonic()
            eventually(lambda: one(source, "SELECT count(*) FROM chat") == rows,
                       SECONDS_MAX, 0.2)
            print(f"folded into the table: {time.monotonic() - began:.1f} s", flush=True)
            cpu = cpu_seconds(server.process.pid)
            done, behind = updates(pg, source, rows, seconds, rate)
            began, wanted = time.monotonic(), pg.value("SELECT sum(bits) FROM chat")
            eventually(lambda: one(source, "SELECT sum(bits) FROM chat") == wanted,
                       SECONDS_MAX, 0.1)
            cpu = cpu_seconds(server.process.pid) - cpu
            print(f"{done:,} updates; the same {time.monotonic() - began:.1f} s after the last; "
                  f"at most {max(behind, default=0):.1f} s behind; {cpu:.0f} CPU seconds; "
                  f"{resident(server.process.pid, peak=True) >> 20} MiB at most")
        finally:
            server.kill()
            pg.remove()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
