"""A PostgreSQL publication becomes a stream and a table: the session that the notes describe."""

import collections
import json
import random
import threading
import time
import uuid
from datetime import datetime, timezone

import psycopg
import pytest

import postgres
from capture import UNAVAILABLE, Source, counted, fold, is_change, number, stamp
from hydrant import eventually, make_delivery, make_stream, read_stream

pytestmark = [pytest.mark.needs("psycopg", "psql", "postgres"), pytest.mark.timeout(120)]

# The statements of the notes that hydrant is built from, verbatim but for the columns of the table,
# which they leave out.
COLUMNS = """(
  channel text NOT NULL, login text NOT NULL, message text, sent timestamptz NOT NULL,
  bits integer, badges jsonb, is_mod boolean NOT NULL, color varchar(7), paid numeric(10,2), id uuid
)"""
NOTES = """
CREATE SCHEMA twitch;                 -- creates schema
SET search_path TO twitch;            -- sets default schema to twitch

ALTER SYSTEM SET wal_level = logical; -- sets the write ahead log level to logical, which adds some extra goodies
ALTER ROLE postgres WITH REPLICATION; -- enables the postgres role to connect using replication mode.

/* TABLES */

CREATE TABLE xxx {columns};

ALTER TABLE xxx REPLICA IDENTITY FULL; -- makes it so update and delete operations can be replicated so the subscriber knows to update or delete them.
                                       -- full means use the entire row as a primary key bc we don't have one

CREATE PUBLICATION mz_source FOR TABLE xxx;  -- this enables logical replication on this specific table.
"""
LONG = "x" * 9000


def chat(login, message, bits=None, paid=None):
    """The values of one row of the table of the notes."""
    return (f"('#rust', '{login}', $${message}$$, '2026-03-01 12:00:00+01', {bits or 'NULL'}, "
            f"'{{\"sub\": 1}}', false, '#1e90ff', {paid or 'NULL'}, NULL)")


def shown(change):
    """What a change did, in short: its operation and the rows before and after it."""
    return change["op"], *(
        row and {name: row[name] for name in row if name in ("login", "message", "bits", "mood")
                 and row[name] is not None}
        for row in (change.get("before"), change.get("after"))
    )


def test_the_session_of_the_notes(server, start_postgres, name):
    pg = start_postgres(wal_level="replica")
    pg.psql(NOTES.format(columns=COLUMNS))
    pg.restart()
    pg.psql(f"INSERT INTO twitch.xxx VALUES {chat('ada', 'first')}, {chat('bob', LONG, 5)}, "
            f"{chat('ada', 'first')};")
    with Source(server, pg, name) as source:
        source.connect()
        source.stream = f"{name}-twitch"
        source.sql(f"CREATE SOURCE {name} FROM POSTGRES CONNECTION {name}_pg "
                   f"(PUBLICATION 'mz_source') FOR ALL TABLES INTO STREAM '{source.stream}'")
        source.until("streaming")
        source.sql(f"CREATE TABLE xxx FROM SOURCE {name} (REFERENCE twitch.xxx)")
        pg.psql(f"""
            SET search_path TO twitch;
            INSERT INTO xxx VALUES {chat('cyn', 'hello', 1, '1.50')};
            INSERT INTO xxx VALUES {chat('dan', 'one')}, {chat('dan', 'two')};
            UPDATE xxx SET bits = 7 WHERE login = 'cyn';
            DELETE FROM xxx WHERE message = 'one';
            BEGIN; INSERT INTO xxx VALUES {chat('nobody', 'undone')}; ROLLBACK;
            BEGIN;
            INSERT INTO xxx VALUES {chat('eve', 'kept')};
            SAVEPOINT a;
            INSERT INTO xxx VALUES {chat('eve', 'undone')};
            UPDATE xxx SET message = 'undone' WHERE message = 'kept';
            ROLLBACK TO a;
            INSERT INTO xxx VALUES {chat('eve', 'after')};
            COMMIT;
            ALTER TABLE xxx ADD COLUMN mood text;
            UPDATE xxx SET mood = 'glad' WHERE login = 'bob';
        """)
        changes = source.arrived(11)
        ada, bob = {"login": "ada", "message": "first"}, {"login": "bob", "message": LONG, "bits": 5}
        cyn = {"login": "cyn", "message": "hello", "bits": 1}

        def said(login, message):
            return {"login": login, "message": message}

        # The rows that were there before, in any order; then exactly what happened, in commit order.
        first = sorted(map(shown, changes[:3]), key=str)
        assert first == sorted([("r", None, ada), ("r", None, bob), ("r", None, ada)], key=str)
        assert [shown(change) for change in changes[3:]] == [
            ("c", None, cyn),
            ("c", None, said("dan", "one")),
            ("c", None, said("dan", "two")),
            ("u", cyn, {**cyn, "bits": 7}),
            ("d", said("dan", "one"), None),
            ("c", None, said("eve", "kept")),
            ("c", None, said("eve", "after")),
            # The long text was not changed, so PostgreSQL sent it only in the old row.
            ("u", bob, {**bob, "mood": "glad"}),
        ]
        stamps = [stamp(change) for change in changes]
        assert stamps == sorted(set(stamps))
        one_commit = [c["source"]["txId"] for c in changes if (c["after"] or {}).get("login") == "eve"]
        assert len(one_commit) == 2 and len(set(one_commit)) == 1

        equal_tables(source, "twitch.xxx", "xxx")
        pg.psql(f"""
            SET search_path TO twitch;
            TRUNCATE xxx;
            INSERT INTO xxx VALUES {chat('fay', 'anew')};
        """)
        changes = source.arrived(13)
        assert [shown(change) for change in changes[11:]] == [
            ("t", None, None), ("c", None, said("fay", "anew")),
        ]
        equal_tables(source, "twitch.xxx", "xxx")
        source.drop()
    assert pg.slots() == []


def equal_tables(source, theirs, ours, seconds=20):
    """Waits until a current-state table has the rows that its table in PostgreSQL has."""
    columns = source.execute(
        "SELECT quote_ident(attname), format_type(atttypid, NULL) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (theirs,))
    names = ", ".join(name for name, _ in columns)
    structured = [kind in ("json", "jsonb") for _, kind in columns]
    wanted = collections.Counter(
        tuple(map(plain, row)) for row in source.execute(f"SELECT {names} FROM {theirs}"))
    got = []

    def same():
        try:
            return rows_are_wanted()
        except psycopg.Error as error:
            # A column that was added is not there yet.
            got[:] = [str(error)]
            return False

    def rows_are_wanted():
        got[:] = [collections.Counter(
            tuple(plain(json.loads(value) if is_json and isinstance(value, str) else value)
                  for value, is_json in zip(row.values(), structured, strict=True))
            for row in source.sql(f"SELECT {names} FROM {ours}"))]
        return got == [wanted]

    try:
        eventually(same, seconds, 0.3)
    except AssertionError:
        raise AssertionError(f"{ours} has {got}\n{theirs} has {wanted}") from None


def plain(value):
    """A value as both drivers' readings of it are the same."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    return value


AWKWARD = "'quoted' \"twice\" back\\slash\ttab\nline é 🦀"
# Type, value as PostgreSQL reads it, and what stands in the record.
TYPES = [
    ("boolean", "true", True),
    ("smallint", "-32768", -32768),
    ("integer", "2147483647", 2147483647),
    ("bigint", "9223372036854775807", 9223372036854775807),
    ("real", "1.5", 1.5),
    ("real", "NaN", "NaN"),
    ("double precision", "0.1", 0.1),
    ("double precision", "-Infinity", "-Infinity"),
    ("numeric", "12345678901234567890.1234567890", "12345678901234567890.1234567890"),
    ("numeric(10,2)", "1.1", "1.10"),
    ("numeric", "NaN", "NaN"),
    ("numeric", "Infinity", "Infinity"),
    ("money", "1.5", "$1.50"),
    ("text", AWKWARD, AWKWARD),
    ("varchar(5)", "abc", "abc"),
    ("char(5)", "abc", "abc  "),
    ("name", "n", "n"),
    ("bytea", "\\xdeadbeef00", "3q2+7wA="),
    ("date", "2026-02-28", "2026-02-28"),
    ("date", "0044-03-15 BC", "0044-03-15 BC"),
    ("date", "infinity", "infinity"),
    ("time", "24:00:00", "24:00:00"),
    ("time", "12:34:56.789", "12:34:56.789"),
    ("timetz", "12:34:56+02", "12:34:56+02"),
    ("timestamp", "2026-02-28 12:34:56.789", "2026-02-28 12:34:56.789"),
    ("timestamptz", "2026-02-28 12:34:56.789+01", "2026-02-28T11:34:56.789Z"),
    ("timestamptz", "-infinity", "-infinity"),
    ("timestamptz", "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
    ("interval", "1 year 2 months 3 days 04:05:06.7", "P1Y2M3DT4H5M6.7S"),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", '{"a" : 1.10, "a": 1e400}', '{"a" : 1.10, "a": 1e400}'),
    ("jsonb", '{"b": [1, null], "a": 1.10}', '{"a": 1.10, "b": [1, null]}'),
    ("xml", "<a>1</a>", "<a>1</a>"),
    ("inet", "192.168.0.1/24", "192.168.0.1/24"),
    ("cidr", "10.0.0.0/8", "10.0.0.0/8"),
    ("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:03"),
    ("bit(3)", "101", "101"),
    ("varbit", "10101", "10101"),
    ("point", "(1,2)", "(1,2)"),
    ("tsvector", "fat cat", "'cat' 'fat'"),
    ("int4range", "[1,5]", "[1,6)"),
    ("tstzrange", "[2026-01-01 00:00+00,)", '["2026-01-01 00:00:00+00",)'),
    ("int4multirange", "{[1,3),[5,8)}", "{[1,3),[5,8)}"),
    ("mood", "sad", "sad"),
    ("pair", "(1,x)", "(1,x)"),
    ("positive", "7", "7"),
    ("int[]", "{1,NULL,3}", [1, None, 3]),
    ("text[]", '{a,"b c","d\\"e",NULL,"NULL"}', ["a", "b c", 'd"e', None, "NULL"]),
    ("boolean[]", "{t,f}", [True, False]),
    ("numeric[]", "{1.10,NaN}", ["1.10", "NaN"]),
    ("timestamptz[]", '{"2026-02-28 12:00+00"}', ["2026-02-28T12:00:00Z"]),
    ("bytea[]", '{"\\\\xff"}', ["/w=="]),
    ("int[]", "{}", []),
    ("int[]", "{{1,2},{3,4}}", "{{1,2},{3,4}}"),
    ("int[]", "[0:1]={1,2}", "[0:1]={1,2}"),
    ("pg_lsn", "16/B374D848", "16/B374D848"),
    ("oid", "4294967295", 4294967295),
]
TYPES_DDL = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (value > 0);
"""


def test_every_type_is_the_same_read_and_streamed(source):
    columns = ", ".join(f"c{n} {kind}" for n, (kind, _, _) in enumerate(TYPES))
    source.pg.psql(
        f"{TYPES_DDL} CREATE TABLE every (id int PRIMARY KEY, {columns}); "
        "ALTER TABLE every REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE every;",
        database=source.database,
    )
    places = ", ".join(["%s"] * len(TYPES))
    values = [value for _, value, _ in TYPES]

    def insert(number):
        source.execute(f"INSERT INTO every VALUES ({number}, {places})", values)
        source.execute(f"INSERT INTO every VALUES ({number + 1})")

    insert(1)
    source.begin()
    insert(3)
    source.execute("DELETE FROM every WHERE id = 3")
    changes = source.arrived(5)
    rows = {(one["op"], one["after"]["id"]): one["after"] for one in changes[:4]}
    rows["d", 3] = changes[4]["before"]
    wrong = []
    for place in [("r", 1), ("c", 3), ("d", 3)]:
        assert list(rows[place]) == ["id", *(f"c{n}" for n in range(len(TYPES)))]
        for n, (kind, value, wanted) in enumerate(TYPES):
            got = rows[place][f"c{n}"]
            if got != wanted or type(got) is not type(wanted):
                wrong.append((place, kind, value, wanted, got))
    assert not wrong
    for place in [("r", 2), ("c", 4)]:
        assert set(rows[place].values()) == {place[1], None}


def test_the_dms_envelope(source):
    source.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    source.execute("INSERT INTO t VALUES (1, 'before')")
    source.execute("CREATE PUBLICATION p FOR TABLE t")
    source.begin(ENVELOPE="'dms'")
    source.pg.psql("INSERT INTO t VALUES (2, 'two'); UPDATE t SET name = 'zwei' WHERE id = 2; "
                   "DELETE FROM t WHERE id = 1;", database=source.database)

    def all_there():
        """the load, insert, update and delete"""
        records = [r for r in source.records() if r["metadata"]["record-type"] == "data"]
        return records if len(records) == 4 else None

    load, insert, update, delete = eventually(all_there)
    for record, operation, data in [
        (load, "load", {"id": 1, "name": "before"}), (insert, "insert", {"id": 2, "name": "two"}),
        (update, "update", {"id": 2, "name": "zwei"}), (delete, "delete", {"id": 1}),
    ]:
        metadata = record["metadata"]
        assert metadata["operation"] == operation
        assert {k: v for k, v in record["data"].items() if v is not None} == data
        assert metadata["schema-name"] == "public" and metadata["table-name"] == "t"
        assert metadata["partition-key-type"] == "primary-key"
        assert datetime.fromisoformat(metadata["timestamp"]).tzinfo
    assert "transaction-id" in insert["metadata"]


def test_keys_decide_the_shard_and_the_order(source):
    """A row with a key is ordered by it, one without by its table; PARTITION BY says otherwise."""
    source.pg.psql("""
        CREATE TABLE keyed (a int, b text, v int, PRIMARY KEY (b, a));
        CREATE TABLE loose (v int);
        CREATE TABLE chat (id int PRIMARY KEY, channel text, v int);
        ALTER TABLE chat REPLICA IDENTITY FULL;
        CREATE PUBLICATION p FOR TABLE keyed, loose, chat;
    """, database=source.database)
    kinesis = source.server.client("kinesis")
    make_stream(kinesis, source.stream, 4)
    source.begin("FOR TABLES (public.keyed, public.loose, public.chat PARTITION BY (channel))")
    source.pg.psql("""
        INSERT INTO keyed SELECT n, 'k', 0 FROM generate_series(1, 30) n;
        INSERT INTO loose SELECT n FROM generate_series(1, 30) n;
        INSERT INTO chat SELECT n, 'c' || n % 3, 0 FROM generate_series(1, 30) n;
        UPDATE keyed SET v = 1;
        UPDATE keyed SET a = 100 WHERE a = 1;
        UPDATE chat SET channel = 'c9' WHERE id = 1;
        TRUNCATE loose;
    """, database=source.database)
    source.caught_up()
    found = collections.defaultdict(list)
    for shard, records in read_stream(kinesis, source.stream).items():
        for record in records:
            change = json.loads(record["Data"])
            if is_change(change):
                found[change["source"]["table"]].append((shard, record["PartitionKey"], change))
    by_row = collections.defaultdict(set)
    for shard, key, change in found["keyed"]:
        by_row[(change["after"] or change["before"])["a"]].add((shard, key))
    assert len(by_row) == 31 and all(len(places) == 1 for places in by_row.values())
    assert all(key.startswith("public.keyed|") for ((_, key),) in by_row.values())
    assert len({shard for shard, _, _ in found["keyed"]}) > 1
    # A key that changes is a row that goes and another that comes.
    moved = [c for _, _, c in found["keyed"] if c["op"] == "d"]
    assert [c["before"]["a"] for c in moved] == [1]
    rows = [(shard, k) for shard, k, c in found["loose"] if c["op"] == "c"]
    assert len(set(rows)) == 1 and rows[0][1] == "public.loose" and len(rows) == 30
    # Every shard learns of a truncation.
    assert len({shard for shard, _, c in found["loose"] if c["op"] == "t"}) == 4
    by_channel = collections.defaultdict(set)
    for shard, k, c in found["chat"]:
        by_channel[(c["after"] or c["before"])["channel"]].add((shard, k))
    assert set(by_channel) == {"c0", "c1", "c2", "c9"}
    assert all(len(places) == 1 for places in by_channel.values())
    stamps = [stamp(c) for _, _, c in found["keyed"] + found["chat"]]
    assert len(stamps) == len(set(stamps))
    chat_moves = [c["op"] for _, _, c in found["chat"] if (c["after"] or c["before"])["id"] == 1]
    assert sorted(chat_moves) == ["c", "c", "d"]


def test_transactions_have_an_end(source):
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source.execute("CREATE PUBLICATION p FOR TABLE t")
    source.begin(TRANSACTIONS="true")
    source.execute("INSERT INTO t SELECT generate_series(1, 3)")
    changes = source.arrived(3)
    assert [c["transaction"]["total_order"] for c in changes] == [1, 2, 3]
    assert [c["transaction"]["data_collection_order"] for c in changes] == [1, 2, 3]
    name = changes[0]["transaction"]["id"]
    told = [r for r in source.records() if r.get("status") in ("BEGIN", "END") and r["id"] == name]
    assert [r["status"] for r in told] == ["BEGIN", "END"]
    assert told[1]["event_count"] == 3
    assert [(d["data_collection"], d["event_count"]) for d in told[1]["data_collections"]] == [
        ("public.t", 3)]


def test_unchanged_long_values(source):
    """Without REPLICA IDENTITY FULL the server leaves them out, and the record says which."""
    source.pg.psql("""
        CREATE TABLE t (id int PRIMARY KEY, long text, n int);
        ALTER TABLE t ALTER long SET STORAGE EXTERNAL;
        CREATE PUBLICATION p FOR TABLE t;
    """, database=source.database)
    source.begin()
    source.sql(f"CREATE TABLE t FROM SOURCE {source.name} (REFERENCE public.t)")
    source.execute("INSERT INTO t VALUES (1, %s, 0)", (LONG,))
    source.execute("UPDATE t SET n = 1")
    source.execute("UPDATE t SET long = 'short'")
    insert, kept, short = source.arrived(3)
    assert insert["after"]["long"] == LONG
    assert kept["after"] == {"id": 1, "long": UNAVAILABLE, "n": 1}
    assert kept["source"]["unavailable"] == ["long"] and "unavailable" not in short["source"]
    assert short["after"] == {"id": 1, "long": "short", "n": 1}
    source.execute("UPDATE t SET long = %s", (LONG,))
    source.execute("UPDATE t SET n = 2")
    equal_tables(source, "t", "t")


def test_parallel_snapshot_with_concurrent_writes(source):
    """Snapshot and stream meet without gap and without overlap."""
    tables = [f"t{n}" for n in range(4)]
    source.pg.psql("".join(f"""
        CREATE TABLE {t} (id int PRIMARY KEY, n int NOT NULL, fill text);
        INSERT INTO {t} SELECT n, 0, repeat('x', 100) FROM generate_series(1, 5000) n;
        ANALYZE {t};
    """ for t in tables) + f"CREATE PUBLICATION p FOR TABLE {', '.join(tables)};",
        database=source.database)
    stop = threading.Event()

    def write(table, seed):
        dice = random.Random(seed)
        with source.pg.connect(source.database) as connection:
            fresh = 10_000
            while not stop.is_set():
                fresh += 1
                row = dice.randint(1, 5000)
                for statement in [
                    f"INSERT INTO {table} VALUES ({fresh}, 0, 'new')",
                    f"UPDATE {table} SET n = n + 1 WHERE id = {row}",
                    f"DELETE FROM {table} WHERE id = {dice.randint(1, 5000)}",
                    f"BEGIN; UPDATE {table} SET id = -id WHERE id = {fresh}; COMMIT",
                ]:
                    connection.execute(statement)

    threads = [threading.Thread(target=write, args=(t, n)) for n, t in enumerate(tables)]
    for thread in threads:
        thread.start()
    try:
        source.begin()
        time.sleep(1)
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    source.caught_up()
    changes = source.changes()
    read = [one for one in changes if one["op"] == "r"]
    assert 4 * 4000 < len(read) < len(changes)
    folded = fold(source.shards(), {f"public.{t}": ["id"] for t in tables})
    for t in tables:
        rows = source.execute(f"SELECT to_jsonb({t})::text FROM {t}")
        assert folded[f"public.{t}"] == counted(rows), t


def test_an_added_table(source):
    """A table that joins the publication later comes with its rows, while others go on."""
    source.execute("CREATE TABLE old (id int PRIMARY KEY)")
    source.execute("CREATE PUBLICATION p FOR TABLE old")
    source.begin("FOR TABLES (public.old)")
    source.pg.psql("""
        CREATE TABLE later (id int PRIMARY KEY, n int);
        INSERT INTO later SELECT n, 0 FROM generate_series(1, 1000) n;
        ALTER PUBLICATION p ADD TABLE later;
        UPDATE later SET n = 1 WHERE id <= 10;
    """, database=source.database)
    stop = threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            source.execute(f"INSERT INTO old VALUES ({n})")
            source.execute(f"UPDATE later SET n = n + 1 WHERE id = {n % 1000 + 1}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        source.sql(f"ALTER SOURCE {source.name} ADD TABLE public.later")
        eventually(lambda: sum(c["op"] == "r" for c in source.changes()) >= 1000)
        time.sleep(0.5)
    finally:
        stop.set()
        writer.join(20)
    source.caught_up()
    keys_of = {"public.old": ["id"], "public.later": ["id"]}
    folded = fold(source.shards(), keys_of)
    for name in ("old", "later"):
        rows = source.execute(f"SELECT to_jsonb({name})::text FROM {name}")
        assert folded[f"public.{name}"] == counted(rows), name
    # And leaves again.
    source.sql(f"ALTER SOURCE {source.name} DROP TABLE public.later")
    source.until("streaming")
    before = len(source.changes())
    source.execute("UPDATE later SET n = 100")
    source.execute("INSERT INTO old VALUES (1000000)")
    assert [c["source"]["table"] for c in source.arrived(before + 1)[before:]] == ["old"]
    assert source.pg.slots().count(source.report()["slot"]) == 1


def test_two_publications_pause_and_resume(source):
    source.pg.psql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);"
                   "CREATE PUBLICATION pa FOR TABLE a; CREATE PUBLICATION pb FOR TABLE b;",
                   database=source.database)
    source.begin(publications=("pa", "pb"), SNAPSHOT="'never'")
    source.execute("INSERT INTO a VALUES (1)")
    source.execute("INSERT INTO b VALUES (1)")
    assert [c["source"]["table"] for c in source.arrived(2)] == ["a", "b"]
    source.sql(f"PAUSE SOURCE {source.name}")
    source.until("paused")
    slot = source.report()["slot"]
    eventually(lambda: not source.pg.slot(slot)["active"])
    source.execute("INSERT INTO a VALUES (2)")
    time.sleep(0.5)
    assert len(source.changes()) == 2
    source.sql(f"RESUME SOURCE {source.name}")
    assert [c["after"]["id"] for c in source.arrived(3)] == [1, 1, 2]


def test_an_idle_table_holds_no_log(source):
    """Another database writes; nothing of it is published, and yet nothing is held for us."""
    source.execute("CREATE TABLE quiet (id int PRIMARY KEY)")
    source.execute("CREATE PUBLICATION p FOR TABLE quiet")
    source.begin()
    slot = source.report()["slot"]
    before = number(source.pg.slot(slot)["confirmed_flush_lsn"])
    source.pg.execute("CREATE TABLE noise AS SELECT n, repeat('x', 500) AS fill "
                      "FROM generate_series(1, 20000) n")
    written = number(source.pg.value("SELECT pg_current_wal_lsn()::text"))
    assert written - before > 10 << 20
    source.pg.execute("DROP TABLE noise")

    def released():
        """the slot has confirmed what the other database wrote"""
        return number(source.pg.slot(slot)["confirmed_flush_lsn"]) >= written

    eventually(released, 30)
    report = source.report()
    assert report["lag_bytes"] < 1 << 20 and report["lag_seconds"] < 1
    assert source.changes() == []


def test_tls_and_scram(server, start_postgres, name):
    """verify-full with an authority of one's own; refused with the reason where it does not fit."""
    authority = postgres.Authority()
    pg = start_postgres(tls=authority.tls("localhost"))
    pg.authenticate("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    pg.reload()
    pg.psql("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t;")
    with Source(server, pg, name) as source:
        given = {"SSL CERTIFICATE AUTHORITY": f"'{authority.pem}'"}
        source.connect(mode="verify-full", **given)
        source.create()
        source.until("streaming")
        told = pg.execute("SELECT DISTINCT s.ssl FROM pg_stat_replication JOIN pg_stat_ssl s "
                          "USING (pid)")
        assert told == [(True,)]
        pg.execute("INSERT INTO t VALUES (1)")
        source.arrived(1)
        source.drop()


@pytest.mark.parametrize("version", [
    pytest.param(version, marks=pytest.mark.needs(f"postgres {version}"))
    for version in postgres.VERSIONS
])
def test_a_whole_session_on_each_version(server, start_postgres, name, version):
    pg = start_postgres(version)
    pg.psql("""
        CREATE TABLE keyed (id int PRIMARY KEY, v text);
        CREATE TABLE loose (a int, b jsonb);
        ALTER TABLE loose REPLICA IDENTITY FULL;
        CREATE PUBLICATION p FOR TABLE keyed, loose;
        INSERT INTO keyed VALUES (1, 'one'), (2, 'back\\slash');
        INSERT INTO loose VALUES (1, '{"x": 1}'), (1, '{"x": 1}');
    """)
    with Source(server, pg, name) as source:
        source.begin()
        for table in ("keyed", "loose"):
            source.sql(f"CREATE TABLE {table} FROM SOURCE {name} (REFERENCE public.{table})")
        pg.psql("""
            BEGIN; INSERT INTO keyed VALUES (3, 'three'); SAVEPOINT a;
            DELETE FROM keyed; ROLLBACK TO a; COMMIT;
            UPDATE keyed SET id = 10, v = 'ten' WHERE id = 1;
            DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose);
            ALTER TABLE loose ADD COLUMN c int;
            INSERT INTO loose VALUES (2, 'null', 3);
        """)
        pg.restart("immediate")
        pg.psql("INSERT INTO keyed VALUES (4, 'after the restart');")
        changes = source.arrived(4 + 6)
        assert len(changes) == 10
        equal_tables(source, "keyed", "keyed")
        equal_tables(source, "loose", "loose")
        source.drop()
        assert pg.slots() == []


def test_from_insert_to_a_row_in_the_warehouse(source, s3, firehose, capsys):
    """PostgreSQL, stream, delivery stream with a buffer of one second, bucket, pipe, table."""
    name = source.name
    source.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
    source.execute("CREATE PUBLICATION p FOR TABLE t")
    source.begin()
    s3.create_bucket(Bucket=name)
    kinesis = source.server.client("kinesis")
    summary = kinesis.describe_stream_summary(StreamName=source.stream)["StreamDescriptionSummary"]
    make_delivery(firehose, name, name, summary["StreamARN"], seconds=1)
    source.sql("CREATE TABLE landed (v variant)")
    source.sql(f"CREATE STAGE lake url='s3://{name}/' "
               "credentials=(AWS_KEY_ID='test' AWS_SECRET_KEY='test')")
    source.sql("CREATE PIPE pipe auto_ingest=true AS COPY INTO landed FROM @lake "
               "file_format=(type='JSON')")
    delays = []
    for row in range(1, 6):
        began = time.monotonic()
        source.execute("INSERT INTO t VALUES (%s)", (row,))

        def landed():
            """the row is in the table"""
            return source.sql(f"SELECT v FROM landed WHERE v:after:id::number = {row}")

        eventually(landed, 15, 0.02)
        delays.append(time.monotonic() - began)
    with capsys.disabled():
        print(f"\nINSERT to row: {', '.join(f'{delay:.2f}' for delay in delays)} s")
    assert max(delays) < 5
