"""Change data capture measured: one large transaction beside pg_recvlogical, and the way of a row.

    HYDRANT_BINARY=target/release/hydrant python tests/bench_postgres.py [rows] [rounds] [inserts]

Starts a PostgreSQL and a hydrant of its own. The transaction inserts `rows` (by default a million) of
ten columns; pg_recvlogical (pgoutput, protocol 1, to /dev/null) and hydrant read it from slots made
before, one after the other, `rounds` times (3), and the order of the two changes each time. Then
`inserts` single rows (100) are timed until they can be selected from a current-state table, and from a
table behind delivery stream, bucket and pipe with a buffer of one second.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hydrant
import postgres
from capture import Source, number
from hydrant import eventually, make_delivery

TICKS = os.sysconf("SC_CLK_TCK")
SECONDS_MAX = 900
# The part of the memory that holds records for readers, and not what capturing needs.
CACHE_MIB = 8
TABLE = """
CREATE TABLE wide (
  channel text, login text, message text, sent timestamptz, bits int, badges jsonb, is_mod boolean,
  color varchar(7), paid numeric(10,2), id uuid);
ALTER TABLE wide REPLICA IDENTITY FULL;
CREATE TABLE one (id int PRIMARY KEY, v text);
CREATE PUBLICATION wide FOR TABLE wide;
CREATE PUBLICATION one FOR TABLE one;
"""
FILL = """
INSERT INTO wide SELECT '#channel' || n % 100, 'login' || n % 5000,
  'a line of chat, as long as they are ' || n,
  '2026-03-01'::timestamptz + n * interval '1 ms', n % 1000, '{"subscriber": 12, "bits": 100}', n % 50 = 0,
  '#1e90ff', n % 997 / 100.0, md5(n::text)::uuid FROM generate_series(1, %s) n
"""


def cpu_seconds(pid):
    """What a process has used of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid, peak=False):
    name = "VmHWM" if peak else "VmRSS"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"no {name}")


def received(pg, slot, end):
    """Wall and CPU seconds of pg_recvlogical up to a position."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run(
        [postgres.tools() / "pg_recvlogical", "-h", pg.folder, "-p", str(pg.port), "-U", "postgres",
         "-d", "postgres", "--slot", slot, "--start", "--no-loop", "--endpos", end, "-f", os.devnull,
         "-o", "proto_version=1", "-o", "publication_names=wide"],
        check=True, timeout=SECONDS_MAX, env=hydrant.environment({}),
    )
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def captured(source, end):
    """Wall and CPU seconds of hydrant up to a position, and how much its memory grew at most."""
    pid = source.server.process.pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    cpu, memory, began = cpu_seconds(pid), resident(pid), time.monotonic()
    source.sql(f"RESUME SOURCE {source.name}")
    ends = time.monotonic() + SECONDS_MAX
    while number(source.report()["confirmed_lsn"]) < number(end):
        if time.monotonic() > ends:
            raise TimeoutError(source.report())
        time.sleep(0.05)
    wall = time.monotonic() - began
    return wall, cpu_seconds(pid) - cpu, resident(pid, peak=True) - memory


def large(pg, server, rows, rounds):
    source = Source(server, pg, "large")
    source.connect()
    source.create(publications=("wide",))
    source.until("streaming")
    pg.execute("SELECT pg_create_logical_replication_slot('beside', 'pgoutput')")
    ours, theirs = [], []
    for count in range(rounds):
        source.sql("PAUSE SOURCE large")
        slot = source.until("paused")["slot"]
        eventually(lambda: not pg.slot(slot)["active"])
        before = source.report()["records"]
        with pg.connect() as connection:
            # Not a parameter: the statement has per cent signs of its own.
            connection.execute(FILL.replace("%s", str(rows)))
        end = pg.value("SELECT pg_current_wal_insert_lsn()::text")
        pg.execute("SELECT pg_logical_emit_message(true, 'bench', 'end')")
        turns = [lambda: theirs.append(received(pg, "beside", end)),
                 lambda: ours.append(captured(source, end))]
        for turn in turns[::1 if count % 2 else -1]:
            turn()
        taken = source.report()["records"] - before
        assert taken >= rows, f"{taken} of {rows} records"
    for who, runs in [("pg_recvlogical", theirs), ("hydrant", ours)]:
        walls, cpus = [run[0] for run in runs], [run[1] for run in runs]
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        print(f"{who:15} wall {wall:6.1f} s ({', '.join(f'{w:.1f}' for w in walls)})   "
              f"CPU {cpu:5.1f} s   {rows / cpu:9,.0f} rows a CPU second", flush=True)
    ratio = statistics.median(o[0] / t[0] for o, t in zip(ours, theirs, strict=True))
    print(f"wall time beside pg_recvlogical: {ratio:.2f} times")
    print(f"hydrant's memory grew at most by {max(run[2] for run in ours) / (1 << 20):.1f} MiB")
    source.drop()


def delays(pg, server, inserts):
    source = Source(server, pg, "one")
    source.connect()
    source.create(publications=("one",))
    source.until("streaming")
    source.sql("CREATE TABLE state FROM SOURCE one (REFERENCE public.one)")
    server.client("s3").create_bucket(Bucket="lake")
    kinesis = server.client("kinesis")
    arn = kinesis.describe_stream_summary(StreamName="one")["StreamDescriptionSummary"]["StreamARN"]
    make_delivery(server.client("firehose"), "one", "lake", arn, seconds=1)
    source.sql("CREATE TABLE landed (v variant)")
    source.sql("CREATE STAGE lake url='s3://lake/' "
               "credentials=(AWS_KEY_ID='test' AWS_SECRET_KEY='test')")
    source.sql("CREATE PIPE p auto_ingest=true AS COPY INTO landed FROM @lake "
               "file_format=(type='JSON')")
    for what, query, first in [
        ("current-state table", "SELECT 1 FROM state WHERE id = {}", 1_000),
        ("delivery stream, bucket, pipe, table",
         "SELECT 1 FROM landed WHERE v:after:id::number = {}", 1_000_000),
    ]:
        taken = []
        with pg.connect() as connection:
            for row in range(first, first + inserts):
                connection.execute(f"INSERT INTO one VALUES ({row}, 'x')")
                began = time.monotonic()
                while not source.sql(query.format(row)):
                    if time.monotonic() > began + 30:
                        raise TimeoutError(what)
                    time.sleep(0.005)
                taken.append(time.monotonic() - began)
        taken.sort()
        print(f"INSERT to {what}: p50 {taken[len(taken) // 2]:.3f} s, "
              f"p99 {taken[min(len(taken) - 1, len(taken) * 99 // 100)]:.3f} s", flush=True)
    source.drop()


def main(rows=1_000_000, rounds=3, inserts=100):
    pg = postgres.Postgres(max_wal_size="8GB", shared_buffers="256MB").start()
    with tempfile.TemporaryDirectory() as folder:
        server = hydrant.Server(Path(folder) / "data", "--tail-cache-mib", str(CACHE_MIB)).start()
        try:
            pg.psql(TABLE)
            large(pg, server, rows, rounds)
            delays(pg, server, inserts)
        finally:
            server.kill()
            pg.remove()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
