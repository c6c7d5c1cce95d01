"""Random work in PostgreSQL while both servers are killed with -9 at random: the stream folded into
rows is what SELECT says, nothing is lost and nothing is there twice.

An everyday run has few cycles and always the same seed. Others by the environment:

    HYDRANT_CYCLES=200 HYDRANT_SEED=7 cargo xtask test --only postgres_crash

The same seed makes the same choices, but processes still race.
"""

import collections
import json
import os
import random
import threading
import time

import pytest

from capture import Source, counted, fold, is_change, missing_values, stamp
from hydrant import eventually, make_stream, read_stream

EVERYDAY_CYCLES = 8
EVERYDAY_SEED = 1
# Long, as a machine may have much else to do.
SECONDS = 240
# At most between two transactions, so that there is not more of them than can be read back.
PAUSE_SECONDS = 0.04
CYCLES = int(os.environ.get("HYDRANT_CYCLES") or EVERYDAY_CYCLES)
SEED = int(os.environ.get("HYDRANT_SEED") or EVERYDAY_SEED)
SHARDS = 3
ROWS = 500
# A value PostgreSQL keeps outside of the row, and sends only when it changed.
LONG = 3000
TABLES = {
    # Two columns as key; the server sends only the key of the row before.
    "keyed": ["a", "b"],
    # The whole row before, so its key may change without its long value.
    "full_keyed": ["id"],
    # No key: a row is all of its values.
    "loose": None,
}
SCHEMA = """
CREATE TABLE keyed (a int, b text, n numeric, long text, PRIMARY KEY (b, a));
CREATE TABLE full_keyed (id bigint PRIMARY KEY, at timestamptz, long text, doc jsonb);
CREATE TABLE loose (kind text, n int, data bytea);
ALTER TABLE keyed ALTER long SET STORAGE EXTERNAL;
ALTER TABLE full_keyed ALTER long SET STORAGE EXTERNAL;
ALTER TABLE full_keyed REPLICA IDENTITY FULL;
ALTER TABLE loose REPLICA IDENTITY FULL;
CREATE PUBLICATION p FOR TABLE keyed, full_keyed, loose;
"""


class Work:
    """Random transactions, one after the other, whatever happens to the server."""

    def __init__(self, pg, seed):
        self.pg = pg
        self.dice = random.Random(seed)
        self.next = 1
        self.columns = {name: [] for name in TABLES}
        # Those that hydrant was seen to have.
        self.known = {name: set() for name in TABLES}
        self.commits = 0
        self.unknown = 0
        self.altered = 0
        self.failed = None

    def run(self, stop):
        import psycopg

        connection = None
        while not stop.is_set():
            try:
                connection = connection or self.pg.connect(autocommit=False)
                self.transaction(connection)
                self.commits += 1
                stop.wait(self.dice.uniform(0, PAUSE_SECONDS))
            except (psycopg.OperationalError, psycopg.InterfaceError):
                # Its outcome is not known, nor does it matter: SELECT will say.
                self.unknown += 1
                connection = None
                time.sleep(0.05)
            except Exception as error:
                self.failed = error
                raise

    def transaction(self, connection):
        dice = self.dice
        for _ in range(dice.choice([1, 1, 2, 5])):
            self.statement(connection)
            if dice.random() < 0.2:
                connection.execute("SAVEPOINT s")
                self.statement(connection)
                if dice.random() < 0.6:
                    connection.execute("ROLLBACK TO s")
        if dice.random() < 0.1:
            connection.rollback()
        else:
            connection.commit()

    def fresh(self, count=1):
        first, self.next = self.next, self.next + count
        return first, self.next - 1

    def statement(self, connection):
        name = self.dice.choice(list(TABLES))
        pick = self.dice.random()
        if pick < 0.01:
            connection.execute(f"TRUNCATE {name}")
        elif pick < 0.03:
            self.alter(connection, name)
        elif pick < 0.032:
            self.insert(connection, name, 5000)
        elif pick < 0.45:
            self.insert(connection, name, self.dice.randint(1, 20))
        else:
            getattr(self, name)(connection, self.some())

    def some(self):
        """A condition on which a few rows are changed."""
        return f"mod(%s, 97) = {self.dice.randrange(97)}"

    def alter(self, connection, name):
        """Adds a column, or drops one where a key says which row is meant. Only one that hydrant
        knows is dropped: of another that goes at once, nobody could say what it was renamed to."""
        self.altered += 1
        mine = self.columns[name]
        known = [column for column in mine if column in self.known[name]]
        if known and TABLES[name] and self.dice.random() < 0.5:
            mine.remove(known[0])
            connection.execute(f"ALTER TABLE {name} DROP COLUMN IF EXISTS {known[0]}")
        elif len(mine) < 8:
            mine.append(f"x{self.fresh()[0]}")
            default = self.dice.choice(["", f" DEFAULT 'of {mine[-1]}'", " NOT NULL DEFAULT '\"'"])
            connection.execute(f"ALTER TABLE {name} ADD COLUMN {mine[-1]} text{default}")

    def insert(self, connection, name, count):
        first, last = self.fresh(count)
        rows = {
            "keyed": f"n, 'k' || n % 7, n / 3.0, repeat('ä\\', {self.dice.choice([1, LONG])})",
            "full_keyed": f"n, date_trunc('second', now()), repeat('y', {self.dice.choice([1, LONG])}), "
                          "jsonb_build_object('n', n, 'quote', '\"')",
            "loose": "'k' || n % 3, n % 5, decode(md5((n % 5)::text), 'hex')",
        }[name]
        columns = {"keyed": "a, b, n, long", "full_keyed": "id, at, long, doc",
                   "loose": "kind, n, data"}[name]
        connection.execute(f"INSERT INTO {name} ({columns}) SELECT {rows} "
                           f"FROM generate_series({first}, {last}) n")

    def keyed(self, connection, some):
        connection.execute(self.dice.choice([
            "UPDATE keyed SET n = n + 0.10 WHERE {}",
            f"UPDATE keyed SET long = repeat('z', {LONG}) WHERE {{}}",
            "UPDATE keyed SET b = b || 'x', long = 'moved' WHERE {} AND length(b) < 20",
            "DELETE FROM keyed WHERE {}",
        ]).format(some % "a"))

    def full_keyed(self, connection, some):
        connection.execute(self.dice.choice([
            "UPDATE full_keyed SET doc = doc || '{{\"again\": 1.10}}' WHERE {}",
            f"UPDATE full_keyed SET id = -{self.fresh()[0]}000000 - id WHERE {{}} AND id > 0",
            "UPDATE full_keyed SET at = 'infinity' WHERE {}",
            "DELETE FROM full_keyed WHERE {}",
        ]).format(some % "id"))

    def loose(self, connection, _):
        n = self.dice.randrange(5)
        connection.execute(self.dice.choice([
            f"UPDATE loose SET n = {self.dice.randrange(5)} WHERE ctid IN "
            f"(SELECT ctid FROM loose WHERE n = {n} LIMIT 5)",
            f"DELETE FROM loose WHERE ctid IN (SELECT ctid FROM loose WHERE n = {n} LIMIT 8)",
            "INSERT INTO loose (kind) VALUES (NULL), (NULL)",
        ]))


@pytest.mark.needs("psycopg", "postgres")
@pytest.mark.timeout(CYCLES * 15 + 4 * SECONDS)
def test_both_sides_are_killed(start, start_postgres, name, capsys):
    with capsys.disabled():
        print(f"\nHYDRANT_SEED={SEED} HYDRANT_CYCLES={CYCLES}")
    dice = random.Random(SEED)
    pg, server = start_postgres(), start()
    pg.psql(SCHEMA)
    work = Work(pg, dice.random())
    with pg.connect(autocommit=False) as connection:
        for table in TABLES:
            work.insert(connection, table, ROWS)
    make_stream(server.client("kinesis"), name, SHARDS)
    source = Source(server, pg, name)
    source.connect()
    # Not waited for: the first cycles meet the snapshot.
    source.create()
    follow(source, name)
    source.disconnect()

    stop = threading.Event()
    worker = threading.Thread(target=work.run, args=(stop,))
    worker.start()
    began = time.monotonic()
    try:
        for _ in range(CYCLES):
            time.sleep(dice.uniform(0.02, 1.5))
            look(source, work)
            victim = dice.choice(["hydrant", "hydrant", "postgres", "both"])
            if victim != "postgres":
                server.kill()
            if victim != "hydrant":
                pg.kill()
                time.sleep(dice.uniform(0, 0.3))
                pg.start()
            if victim != "postgres":
                server.start()
    finally:
        stop.set()
        worker.join(SECONDS)
    assert work.failed is None and not worker.is_alive()
    try:
        source.until("streaming", SECONDS)
        for table in TABLES:
            equal_state(source, table)
        # The stream tells of columns with the next change.
        with pg.connect(autocommit=False) as connection:
            for table in TABLES:
                work.insert(connection, table, 1)
        source.caught_up(SECONDS)
        told = check(source, server)
        for table in TABLES:
            equal_state(source, table)
    finally:
        source.disconnect()
    with capsys.disabled():
        print(f"{CYCLES} kills in {time.monotonic() - began:.0f} s: {work.commits:,} transactions, "
              f"{work.unknown} of unknown outcome, {work.altered} ALTERs; {told}")


def follow(source, name):
    """Creates the current-state tables, as soon as the source knows its tables."""
    import psycopg

    def create(table):
        try:
            texts = ", TEXT COLUMNS (at)" if table == "full_keyed" else ""
            source.sql(f"CREATE TABLE IF NOT EXISTS {table} FROM SOURCE {name} "
                       f"(REFERENCE public.{table}{texts})")
            return True
        except psycopg.Error as error:
            assert "is not captured" in str(error), error
            return False

    for table in TABLES:
        eventually(lambda table=table: create(table), SECONDS)


def look(source, work):
    """Notes which columns hydrant has."""
    import psycopg

    try:
        for table in TABLES:
            columns = source.sql(f"DESCRIBE TABLE {table}")
            work.known[table] = {column["name"].lower() for column in columns}
    except psycopg.Error:
        # Not yet there again.
        pass
    finally:
        source.disconnect()


def equal_state(source, table):
    """Waits until a current-state table has the columns and rows that its table in PostgreSQL has."""
    import psycopg

    names = [column for (column,) in source.execute(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
        "AND NOT attisdropped ORDER BY attnum", (table,))]
    told = ", ".join(AS_TOLD.get(name, name) for name in names)
    wanted = hashed(source.execute(f"SELECT {told} FROM {table}"), names)
    differs = []

    def same():
        try:
            rows = source.sql(f"SELECT * FROM {table}")
        except psycopg.Error as error:
            differs[:] = [str(error)]
            source.disconnect()
            return False
        columns = [column.lower() for column in rows[0]] if rows else names
        if columns != names:
            differs[:] = [f"columns {columns}, not {names}"]
            return False
        got = hashed((row.values() for row in rows), names)
        shown = [str(next(iter(some)))[:500] if (some := part) else "-"
                 for part in (wanted - got, got - wanted)]
        differs[:] = [f"{(wanted - got).total()} rows less, such as {shown[0]}; "
                      f"{(got - wanted).total()} more, such as {shown[1]}"]
        return got == wanted

    try:
        eventually(same, SECONDS, 0.5)
    except AssertionError:
        tables = [str(row) for row in source.sql("SHOW TABLES")]
        raise AssertionError(f"{table}: {differs}; {tables}; {source.report()}") from None


def hashed(rows, names):
    """Rows, counted; each value as both drivers' readings of it are the same."""
    def plain(name, value):
        if name == "n" and value is not None:
            return str(value)
        if isinstance(value, str) and name == "doc":
            value = json.loads(value)
        if isinstance(value, dict):
            return json.dumps(value, sort_keys=True)
        return bytes(value).hex() if isinstance(value, (bytes, memoryview)) else value

    return collections.Counter(
        tuple(map(plain, names, row)) for row in rows)


def check(source, server):
    shards = {
        shard: [json.loads(record["Data"]) for record in records]
        for shard, records in read_stream(server.client("kinesis"), source.stream).items()
    }
    for shard, records in shards.items():
        stamps = [stamp(record) for record in records if is_change(record)]
        assert stamps == sorted(set(stamps)), f"{shard} has records twice or out of order"
    missing = missing_values(shards)
    now = {}
    for table in TABLES:
        rows = source.execute(f"SELECT {PLAIN[table]} FROM {table} t")
        now[f"public.{table}"] = counted(rows, missing[f"public.{table}"])
    columns = {f"public.{table}": [column for (column,) in source.execute(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
        "AND NOT attisdropped", (table,))] for table in TABLES}
    keys = {f"public.{table}": key for table, key in TABLES.items() if key}
    folded = fold(shards, keys, columns)
    for name, rows in now.items():
        lost, strange = rows - folded.get(name, {}), folded.get(name, {}) - rows
        assert not lost, f"{name}: {lost.total()} rows are lost, such as {next(iter(lost))[:300]}"
        assert not strange, f"{name}: {strange.total()} too many, such as {next(iter(strange))[:300]}"
    records = sum(map(len, shards.values()))
    epochs = max(one["source"]["epoch"] for some in shards.values() for one in some)
    rows = sum(rows.total() for rows in now.values())
    return f"{records:,} records, {epochs} epochs, {rows:,} rows on both sides"


FINITE = """to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""
AT = f"CASE WHEN isfinite(at) THEN {FINITE} ELSE at::text END"
# Columns that a current-state table has as the text in the records.
AS_TOLD = {"n": "n::text", "at": AT}
# A row as the stream has it: what is no JSON number or text of its own, as the text of it.
PLAIN = {
    "keyed": "(to_jsonb(t) || jsonb_build_object('n', n::text))::text",
    "full_keyed": f"(to_jsonb(t) || jsonb_build_object('doc', doc::text, 'at', {AT}))::text",
    "loose": "(to_jsonb(t) || jsonb_build_object('data', encode(data, 'base64')))::text",
}
