"""What goes wrong between PostgreSQL and hydrant, each with a real server: what the source says then,
that it neither loses nor skips anything, and what mends it.

| what happens | its test |
|---|---|
| wal_level is not logical | test_wal_level_is_not_logical |
| no REPLICATION, no SELECT, row security | test_a_role_that_may_not |
| publication missing, empty, or without an operation | test_a_publication_that_is_missing_empty_or_partial |
| identity NOTHING, or DEFAULT without a key | test_tables_whose_updates_would_fail |
| slots exhausted | test_no_slot_is_left |
| the slot waits for a transaction | test_the_slot_waits_for_a_transaction |
| a slot of that name, not ours | test_a_slot_of_somebody_else |
| slot busy | test_a_slot_that_is_busy, test_our_own_connection_from_before_is_ended |
| server restart, connections cut | test_the_server_is_started_again, test_connections_that_are_cut, test_an_interrupted_snapshot_is_a_new_epoch |
| authentication, TLS | test_a_wrong_password, test_certificates_that_do_not_fit, test_a_server_without_tls |
| slot gone or lost | test_the_slot_is_lost, test_the_slot_is_lost_and_that_is_expected |
| the slot is past what is stored | test_somebody_moved_the_slot_on |
| another system identifier, another timeline | test_another_server_answers, test_a_backup_is_restored, test_a_failover_slot_goes_on (PostgreSQL 17) |
| publication dropped | test_the_publication_is_dropped |
| columns added, dropped, renamed, of another type | test_columns_change |
| a table leaves the publication and comes again, a key comes later | test_what_a_table_changed_before_it_left, test_a_table_that_was_away, test_a_primary_key_that_came_later |
| TRUNCATE | test_truncate_reaches_every_shard |
| an unchanged long value without FULL | test_postgres.py: test_unchanged_long_values |
| a value that cannot be read | test_a_value_that_cannot_be_read |
| a record larger than the stream takes | test_a_record_that_is_too_large, test_a_record_that_is_too_large_is_cut |
| our disk is full | test_our_disk_is_full |
| the log that the slot holds | test_a_long_transaction_holds_the_log |
| clocks that are wrong | crates/cdc/tests/sources/failures.rs: clocks_say_nothing_of_order |
"""

import contextlib
import re
import shutil
import subprocess
import threading
import time

import pytest

import postgres
from capture import UNAVAILABLE, Source, counted, fold, is_change, number
from hydrant import eventually, make_stream
from test_postgres import equal_tables

pytestmark = [pytest.mark.needs("psycopg", "psql", "postgres"), pytest.mark.timeout(120)]

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t;"


@pytest.fixture
def on(server, name):
    """A capture of a server of the test's own, after a script was typed into that."""
    mine = []

    def on(pg, script=TABLE, port=None):
        if script:
            pg.psql(script)
        mine.append(Source(server, pg, f"{name}{len(mine)}", port=port))
        return mine[-1]

    yield on
    for one in mine:
        one.drop()
        one.disconnect()


def fails(source, failure, *words, seconds=20):
    """Waits until the source has failed for a reason, which says some words; the reason."""
    source.until(f"failed({failure})", seconds)
    seen = []

    def said():
        report = source.report()
        seen[:] = [report["state"], report["reason"]]
        there = all(word.lower() in report["reason"].lower() for word in words)
        return report["reason"] if report["state"] == f"failed({failure})" and there else None

    try:
        return eventually(said, seconds, 0.1)
    except AssertionError:
        raise AssertionError(f"{words} are not in {seen}") from None


def whole(source, *tables):
    """Everything committed by now has arrived, and folds into what SELECT says."""
    source.caught_up()
    names = tables or ("t",)
    folded = fold(source.shards(), {f"public.{name}": ["id"] for name in names})
    for name in names:
        rows = source.execute(f"SELECT to_jsonb({name})::text FROM {name}")
        assert folded.get(f"public.{name}", {}) == counted(rows), name


def is_whole(source, *tables):
    """Whether what has arrived folds into what SELECT says; not yet while rows are read anew."""
    try:
        whole(source, *tables)
    except AssertionError:
        return False
    return True


def test_wal_level_is_not_logical(start_postgres, on):
    pg = start_postgres(wal_level="replica")
    source = on(pg)
    source.connect()
    source.create()
    fails(source, "wal-level", "ALTER SYSTEM SET wal_level = logical", "restart")
    # Set, but PostgreSQL was not started again: said as it is. Looking again takes 30 s.
    pg.execute("ALTER SYSTEM SET wal_level = 'logical'")
    source.sql(f"RESUME SOURCE {source.name}")
    eventually(lambda: "restart PostgreSQL" in source.report()["reason"]
               and "ALTER SYSTEM" not in source.report()["reason"], 40)
    pg.restart()
    source.until("streaming", 75)


def test_a_role_that_may_not(start_postgres, on):
    pg = start_postgres()
    pg.psql("CREATE ROLE reader LOGIN PASSWORD 'pw';")
    source = on(pg)
    pg.execute("INSERT INTO t VALUES (1, 'x')")
    source.connect(user="reader", password="pw")
    source.create()
    fails(source, "permission", "reader", "REPLICATION")
    pg.execute("ALTER ROLE reader REPLICATION")
    source.sql(f"RESUME SOURCE {source.name}")
    fails(source, "permission", "reader", "public.t", "SELECT")
    pg.psql("GRANT SELECT ON t TO reader; ALTER TABLE t ENABLE ROW LEVEL SECURITY;")
    source.sql(f"RESUME SOURCE {source.name}")
    eventually(lambda: "row" in source.report()["reason"] and "public.t" in source.report()["reason"])
    assert source.state() == "failed(permission)" and pg.slots() == []
    pg.execute("ALTER ROLE reader BYPASSRLS")
    source.sql(f"RESUME SOURCE {source.name}")
    source.until("streaming")
    whole(source)


def test_a_publication_that_is_missing_empty_or_partial(start_postgres, on):
    pg = start_postgres()
    source = on(pg, "CREATE TABLE t (id int PRIMARY KEY, v text);")
    source.connect()
    source.create()
    fails(source, "publication-missing", "CREATE PUBLICATION")
    assert pg.slots() == []
    pg.execute("CREATE PUBLICATION p WITH (publish = 'insert')")
    source.sql(f"RESUME SOURCE {source.name}")
    reason = source.until("streaming")["reason"].lower()
    assert "no table" in reason and "update" in reason and "delete" in reason, reason
    # Whatever is altered while it streams is seen within ten seconds.
    pg.psql("ALTER PUBLICATION p SET (publish = 'insert, update, delete, truncate');"
            "ALTER PUBLICATION p ADD TABLE t; INSERT INTO t VALUES (1, 'x');")
    eventually(lambda: source.report()["reason"] == "" and source.state() == "streaming", 30)
    whole(source)
    pg.execute("ALTER PUBLICATION p SET (publish = 'insert, update, delete')")
    eventually(lambda: "truncate" in source.report()["reason"], 30)
    source.until("streaming")


def test_tables_whose_updates_would_fail(start_postgres, on):
    import psycopg

    pg = start_postgres()
    source = on(pg, """
        CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
        CREATE TABLE keyless (v int);
        CREATE TABLE fine (id int PRIMARY KEY);
        CREATE PUBLICATION p FOR ALL TABLES;
    """)
    source.begin()
    reason = source.report()["reason"]
    assert "public.nothing" in reason and "public.keyless" in reason, reason
    assert "public.fine" not in reason and "REPLICA IDENTITY" in reason, reason
    pg.psql("INSERT INTO nothing VALUES (1); INSERT INTO keyless VALUES (1);")
    source.arrived(2)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        pg.execute("UPDATE keyless SET v = 2")
    assert source.state() == "streaming"


def test_no_slot_is_left(start_postgres, on):
    pg = start_postgres(max_replication_slots="2")
    for slot in ("one", "two"):
        pg.execute(f"SELECT pg_create_physical_replication_slot('{slot}')")
    source = on(pg)
    source.connect()
    source.create()
    fails(source, "slots-exhausted", "2 of 2", "max_replication_slots")
    pg.execute("SELECT pg_drop_replication_slot('one')")
    source.sql(f"RESUME SOURCE {source.name}")
    source.until("streaming")


def test_the_slot_waits_for_a_transaction(start_postgres, on):
    pg = start_postgres()
    source = on(pg)
    with pg.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'open')")
        source.connect()
        source.create()
        pid = connection.info.backend_pid

        def named():
            """the report says which process is waited for"""
            report = source.report()
            return report["state"] == "creating-slot" and str(pid) in report["reason"]

        eventually(named)
        connection.commit()
    source.until("streaming")
    whole(source)


def test_a_slot_of_somebody_else(start_postgres, on):
    pg = start_postgres()
    source = on(pg)
    pg.execute("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')")
    pg.execute("INSERT INTO t VALUES (1, 'since the slot')")
    source.connect()
    source.create(slot="'theirs'")
    fails(source, "slot-not-ours", "theirs", "ADOPT")
    confirmed = pg.slot("theirs")["confirmed_flush_lsn"]
    source.sql(f"DROP SOURCE {source.name}")
    # It was not ours to drop.
    assert pg.slot("theirs")["confirmed_flush_lsn"] == confirmed
    source.create(slot="'theirs' ADOPT", SNAPSHOT="'never'")
    source.until("streaming")
    (change,) = source.arrived(1)
    assert change["op"] == "c" and change["after"]["v"] == "since the slot"


def test_a_slot_that_is_busy(start_postgres, on):
    pg = start_postgres()
    source = on(pg)
    source.begin()
    source.sql(f"PAUSE SOURCE {source.name}")
    slot = source.until("paused")["slot"]
    eventually(lambda: not pg.slot(slot)["active"])
    other = pg.occupy(slot, "p")
    pid = pg.slot(slot)["active_pid"]
    source.sql(f"RESUME SOURCE {source.name}")
    reason = source.until("retrying")["reason"]
    assert slot in reason and str(pid) in reason and "another" in reason, reason
    time.sleep(2)
    assert pg.slot(slot)["active_pid"] == pid, "the other program was thrown out"
    other.finish()
    source.until("streaming", 60)
    pg.execute("INSERT INTO t VALUES (1, 'x')")
    whole(source)


def test_our_own_connection_from_before_is_ended(start, start_postgres, name):
    """A machine that lost its power left its connection open; the next start ends it."""
    pg, server = start_postgres(), start()
    pg.psql(TABLE)
    proxy = postgres.Proxy(pg.port)
    source = Source(server, pg, name, port=proxy.port)
    try:
        source.begin()
        slot = source.report()["slot"]
        before = pg.slot(slot)["active_pid"]
        proxy.holding = True
        server.kill()
        source.disconnect()
        pg.execute("INSERT INTO t VALUES (1, 'meanwhile')")
        assert pg.slot(slot)["active_pid"] == before
        server.start()
        source.arrived(1, 40)
        assert pg.slot(slot)["active_pid"] != before
        whole(source)
    finally:
        source.disconnect()
        proxy.end()


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_the_server_is_started_again(start_postgres, on, how):
    pg = start_postgres()
    source = on(pg)
    source.begin()
    pg.execute("INSERT INTO t VALUES (1, 'before')")
    source.arrived(1)
    pg.stop(how)
    source.until("retrying")
    # What is in the stream can be read all the while.
    assert len(source.changes()) == 1
    pg.start()
    pg.execute("INSERT INTO t VALUES (2, 'after')")
    source.until("streaming")
    assert [c["after"]["id"] for c in source.arrived(2)] == [1, 2]
    whole(source)


def test_connections_that_are_cut(start_postgres, on):
    pg = start_postgres()
    proxy = postgres.Proxy(pg.port)
    try:
        source = on(pg, port=proxy.port)
        source.begin()
        stop = threading.Event()

        def write():
            n = 0
            while not stop.is_set():
                n += 1
                pg.execute(f"INSERT INTO t SELECT n, repeat('x', 200) "
                           f"FROM generate_series({n * 100}, {n * 100 + 99}) n")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for n in range(8):
                # In the middle of a message, sooner or later.
                proxy.cut_after(20_000 + 7919 * n)
                time.sleep(0.7)
        finally:
            stop.set()
            writer.join(20)
        assert proxy.cuts >= 4
        source.until("streaming", 60)
        whole(source)
        assert source.report()["reconnects"] >= 4
        stamps = [c["source"]["seq"] for c in source.changes()]
        assert len(stamps) == source.pg.value("SELECT count(*) FROM t")
    finally:
        proxy.end()


def test_an_interrupted_snapshot_is_a_new_epoch(start_postgres, on):
    pg = start_postgres()
    pg.psql(TABLE)
    pg.execute("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n")
    proxy = postgres.Proxy(pg.port)
    try:
        source = on(pg, script="", port=proxy.port)
        source.connect()
        proxy.cut_after(3 << 20)
        source.create()
        eventually(lambda: proxy.cuts)
        pg.execute("DELETE FROM t WHERE id <= 100")
        source.until("streaming", 60)
        whole(source)
        records = source.records()
        assert {one["source"]["epoch"] for one in records} == {1, 2}
        starts = [one["source"]["epoch"] for one in records if one.get("type") == "STARTED"]
        ends = [one["source"]["epoch"] for one in records if one.get("type") == "COMPLETED"]
        assert starts == [1, 2] and ends == [2]
        assert len(pg.slots()) == 1
    finally:
        proxy.end()


def test_a_wrong_password(start_postgres, on):
    pg = start_postgres()
    source = on(pg)
    source.connect(password="wrong one")
    source.create()
    reason = fails(source, "authentication", "password")
    assert "wrong one" not in reason
    source.sql(f"CREATE OR REPLACE SECRET {source.name}_pass TYPE = PASSWORD "
               f"USERNAME = 'postgres' PASSWORD = '{postgres.PASSWORD}'")
    source.sql(f"RESUME SOURCE {source.name}")
    source.until("streaming", 70)
    shown = str(source.sql("SHOW SECRETS")) + str(source.sql("SHOW CONNECTIONS")) + str(source.report())
    shown += str(source.sql(f"DESCRIBE SOURCE {source.name}"))
    assert postgres.PASSWORD not in shown and "wrong one" not in shown
    assert postgres.PASSWORD not in source.server.said(1 << 20)


def test_certificates_that_do_not_fit(start_postgres, on):
    ours, theirs = postgres.Authority("ours"), postgres.Authority("theirs")
    pg = start_postgres(tls=ours.tls("db.example", addresses=()))
    pg.authenticate("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    pg.reload()
    pg.psql(TABLE)

    def attempt(mode, authority=None):
        source = on(pg, script="")
        given = {"SSL CERTIFICATE AUTHORITY": f"'{authority.pem}'"} if authority else {}
        source.connect(mode=mode, **given)
        source.create()
        return source

    fails(attempt("verify-ca", theirs), "tls")
    # The certificate is for db.example, not for 127.0.0.1.
    fails(attempt("verify-full", ours), "tls")
    # Not of a public authority.
    fails(attempt("verify-full"), "tls")
    # The server takes no plaintext.
    assert attempt("disable").until("failed(authentication)")["reason"]
    for mode, authority in [("require", None), ("verify-ca", ours)]:
        attempt(mode, authority).until("streaming")


def test_a_server_without_tls(start_postgres, on):
    source = on(start_postgres())
    source.connect(mode="require")
    source.create()
    fails(source, "tls")


@pytest.mark.parametrize("how", ["invalidated", "dropped", "while streaming"])
def test_the_slot_is_lost(start_postgres, on, how):
    pg = start_postgres(max_slot_wal_keep_size="1MB", wal_keep_size="0", wal_sender_timeout="5s")
    proxy = postgres.Proxy(pg.port)
    try:
        source = on(pg, port=proxy.port)
        source.begin()
        pg.execute("INSERT INTO t VALUES (1, 'before')")
        source.arrived(1)
        slot = source.report()["slot"]
        if how == "while streaming":
            proxy.flowing.clear()
        else:
            source.sql(f"PAUSE SOURCE {source.name}")
            source.until("paused")
            eventually(lambda: not pg.slot(slot)["active"])
        pg.execute("INSERT INTO t VALUES (2, 'lost'), (3, 'and gone')")
        pg.execute("DELETE FROM t WHERE id = 3")
        if how == "dropped":
            pg.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
        else:
            pg.write(60)
            assert pg.slot(slot)["wal_status"] == "lost"
        if how == "while streaming":
            proxy.flowing.set()
        else:
            source.sql(f"RESUME SOURCE {source.name}")
        fails(source, "slot-lost", slot, "RESNAPSHOT", seconds=40)
        time.sleep(1)
        assert source.state() == "failed(slot-lost)"
        assert (pg.slot(slot) or {"wal_status": "lost"})["wal_status"] == "lost", "made again silently"
        source.sql(f"ALTER SOURCE {source.name} RESNAPSHOT")
        source.until("streaming")
        pg.execute("INSERT INTO t VALUES (4, 'after')")
        whole(source)
        assert {c["source"]["epoch"] for c in source.changes()} == {1, 2}
        assert len(pg.slots()) == 1
    finally:
        proxy.end()


def test_the_slot_is_lost_and_that_is_expected(start_postgres, on):
    pg = start_postgres(max_slot_wal_keep_size="1MB", wal_keep_size="0")
    source = on(pg)
    source.begin(ON_SLOT_LOSS="'resnapshot'")
    pg.execute("INSERT INTO t VALUES (1, 'x')")
    source.arrived(1)
    for epoch in (2, 3, 4):
        if epoch == 3:
            slot = source.report()["slot"]
            source.sql(f"PAUSE SOURCE {source.name}")
            eventually(lambda: not pg.slot(slot)["active"])
            pg.write(60)
            assert pg.slot(slot)["wal_status"] == "lost"
            source.sql(f"RESUME SOURCE {source.name}")
        else:
            lose(source)
        eventually(lambda: source.report()["epoch"] == epoch and source.state() == "streaming", 30)
        whole(source)
    # A slot that is lost again and again is no accident.
    lose(source)
    fails(source, "slot-lost", "RESNAPSHOT")


def lose(source):
    """Drops the slot of a source that streams."""
    slot = source.report()["slot"]

    def dropped():
        """the slot is dropped before the source has it again"""
        source.pg.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                          "WHERE slot_name = %s AND active", (slot,))
        try:
            source.pg.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
        except Exception as error:
            if "does not exist" not in str(error) and "is active" not in str(error):
                raise
            return False
        return True

    eventually(dropped, 20, 0)


def test_somebody_moved_the_slot_on(start_postgres, on):
    pg = start_postgres()
    source = on(pg)
    source.begin()
    slot = source.report()["slot"]
    source.sql(f"PAUSE SOURCE {source.name}")
    source.until("paused")
    eventually(lambda: not pg.slot(slot)["active"])
    pg.execute("INSERT INTO t VALUES (1, 'skipped')")
    pg.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (slot,))
    moved = pg.slot(slot)["confirmed_flush_lsn"]
    source.sql(f"RESUME SOURCE {source.name}")
    reason = fails(source, "position-skipped", moved, "RESNAPSHOT")
    # The other position is the one stored here, and before it.
    found = [number(word.strip("(),.;:")) for word in reason.split()
             if word.count("/") == 1 and all(part.strip("(),.;:") for part in word.split("/"))
             and set(word.strip("(),.;:")) <= set("0123456789ABCDEF/")]
    assert any(lsn < number(moved) for lsn in found), reason
    source.sql(f"ALTER SOURCE {source.name} RESNAPSHOT")
    source.until("streaming")
    whole(source)


def test_another_server_answers(start_postgres, on):
    pg = start_postgres()
    source = on(pg)
    source.begin()
    pg.stop()
    other = postgres.Postgres(fresh=True)
    try:
        other.port = pg.port
        other.start()
        other.psql(TABLE)
        mine, theirs = source.report(), other.value("SELECT system_identifier FROM pg_control_system()")
        assert mine["state"] in ("retrying", "streaming", "failed(system-changed)")
        fails(source, "system-changed", str(theirs), "RESNAPSHOT")
        assert other.slots() == []
    finally:
        other.remove()
    # The right one is back: nothing was lost, and nothing need be read again.
    pg.start()
    pg.execute("INSERT INTO t VALUES (1, 'x')")
    source.sql(f"RESUME SOURCE {source.name}")
    source.until("streaming")
    whole(source)
    assert source.report()["epoch"] == 1


def test_a_backup_is_restored(start_postgres, on):
    """Point-in-time recovery ends in another timeline: what was read may never have happened there."""
    pg = start_postgres()
    source = on(pg)
    source.begin()
    pg.execute("INSERT INTO t VALUES (1, 'in the backup')")
    source.arrived(1)
    copy = pg.backup()
    try:
        pg.execute("INSERT INTO t VALUES (2, 'not in the backup')")
        source.arrived(2)
        pg.stop()
        copy.port = pg.port
        (copy.data / "standby.signal").touch()
        copy.start()
        copy.execute("SELECT pg_promote()")
        fails(source, "timeline-changed", "RESNAPSHOT", seconds=30)
        source.pg = copy
        source.sql(f"ALTER SOURCE {source.name} RESNAPSHOT")
        source.until("streaming")
        copy.execute("INSERT INTO t VALUES (3, 'on the new timeline')")
        whole(source)
    finally:
        source.drop()
        copy.remove()


def test_the_publication_is_dropped(start_postgres, on):
    pg = start_postgres()
    source = on(pg)
    source.begin()
    pg.execute("DROP PUBLICATION p")
    pg.execute("INSERT INTO t VALUES (1, 'unpublished')")
    fails(source, "publication-dropped", "RESNAPSHOT", "p", seconds=30)
    # Making it again is not enough: the change above is decoded with the catalog of its time.
    pg.execute("CREATE PUBLICATION p FOR TABLE t")
    source.sql(f"RESUME SOURCE {source.name}")
    fails(source, "publication-dropped", "RESNAPSHOT", seconds=30)
    source.sql(f"ALTER SOURCE {source.name} RESNAPSHOT")
    source.until("streaming")
    pg.execute("INSERT INTO t VALUES (2, 'published')")
    whole(source)


def test_columns_change(start_postgres, on):
    """The stream says so and goes on; a table takes what it can, and stops alone where it cannot."""
    pg = start_postgres()
    source = on(pg, TABLE + "CREATE TABLE u (id int PRIMARY KEY, v int);"
                    "ALTER PUBLICATION p ADD TABLE u;")
    source.begin()
    for name in ("t", "u"):
        source.sql(f"CREATE TABLE {name} FROM SOURCE {source.name} (REFERENCE public.{name})")
    pg.psql("""
        INSERT INTO t VALUES (1, 'one'); INSERT INTO u VALUES (1, 1);
        ALTER TABLE t ADD COLUMN added int;
        INSERT INTO t VALUES (2, 'two', 2);
        UPDATE t SET added = 1 WHERE id = 1;
    """)
    source.arrived(4)
    equal_tables(source, "t", "t")
    pg.psql("""
        ALTER TABLE u ALTER v TYPE text USING 'v' || v;
        INSERT INTO u VALUES (2, 'two');
        ALTER TABLE t RENAME v TO w;
        ALTER TABLE t DROP COLUMN added;
        INSERT INTO t VALUES (3, 'three');
    """)
    changes = source.arrived(6)
    assert changes[4]["after"] == {"id": 2, "v": "two"}
    assert changes[5]["after"] == {"id": 3, "w": "three"}
    told = [one for one in source.records() if "tableChanges" in one]
    columns = [[c["name"] for c in one["tableChanges"][0]["table"]["columns"]] for one in told]
    assert ["id", "v", "added"] in columns and ["id", "w"] in columns
    assert source.state() == "streaming"

    def stopped():
        """the table whose column has another type says what to do"""
        (table,) = [row for row in source.sql("SHOW TABLES") if row["name"] == "U"]
        return "errored" in table["comment"] and "RESNAPSHOT" in table["comment"]

    eventually(stopped)


@pytest.mark.parametrize("followed", ["at once", "by nothing"])
def test_a_table_that_was_away(start_postgres, on, followed):
    """What it missed meanwhile is nowhere but in the table, so that is read anew."""
    pg = start_postgres()
    source = on(pg, TABLE + "CREATE TABLE u (id int PRIMARY KEY, v text);"
                    "ALTER PUBLICATION p ADD TABLE u;")
    pg.psql("INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO u VALUES (1, 'a');")
    source.begin()
    source.sql(f"CREATE TABLE t FROM SOURCE {source.name} (REFERENCE public.t)")
    for turn in range(2 if followed == "at once" else 1):
        pg.psql(f"""
            INSERT INTO u VALUES ({turn} + 10, 'before');
            ALTER PUBLICATION p DROP TABLE t;
            INSERT INTO t VALUES ({turn} + 100, 'unpublished');
            DELETE FROM t WHERE id = {turn} + 1;
            ALTER PUBLICATION p ADD TABLE t;
        """)
        if followed == "at once":
            # Changes of rows that the stream has never heard of, beside others.
            pg.psql(f"""
                BEGIN;
                INSERT INTO u VALUES ({turn} + 20, 'beside');
                UPDATE t SET v = 'again' WHERE id = {turn} + 100;
                INSERT INTO u VALUES ({turn} + 30, 'beside');
                COMMIT;
            """)
        eventually(lambda: is_whole(source, "t", "u"), 30)
        equal_tables(source, "t", "t")
    pg.psql("DELETE FROM t WHERE id = 100; INSERT INTO t VALUES (5, 'after');")
    whole(source, "t", "u")
    equal_tables(source, "t", "t")
    assert source.until("streaming")["epoch"] == 1


@pytest.mark.parametrize("how", ["DROP TABLE u", "ALTER PUBLICATION p DROP TABLE u"])
def test_what_a_table_changed_before_it_left(start_postgres, on, how):
    """It is in the stream, however late that is read."""
    pg = start_postgres()
    source = on(pg, TABLE + "CREATE TABLE u (id int PRIMARY KEY, v text);"
                    "ALTER PUBLICATION p ADD TABLE u;")
    source.begin()
    source.sql(f"PAUSE SOURCE {source.name}")
    source.until("paused")
    pg.psql(f"""
        INSERT INTO u SELECT n, 'last' FROM generate_series(1, 50) n;
        {how};
        INSERT INTO t VALUES (1, 'after');
    """)
    source.sql(f"RESUME SOURCE {source.name}")
    whole(source, "t")
    last = [one for one in source.changes() if one["source"]["table"] == "u"]
    assert sorted(one["after"]["id"] for one in last) == list(range(1, 51))
    eventually(lambda: [row["table"] for row in source.sql(f"DESCRIBE SOURCE {source.name}")] == ["t"], 60)


@pytest.mark.parametrize("column", ["", "ADD COLUMN w int, "], ids=["alone", "with a column"])
def test_a_primary_key_that_came_later(start_postgres, on, server, column):
    """The rows are told apart otherwise and go to other shards, so they are read anew."""
    pg = start_postgres()
    source = on(pg, """
        CREATE TABLE t (id int NOT NULL, v text); ALTER TABLE t REPLICA IDENTITY FULL;
        CREATE PUBLICATION p FOR TABLE t;
        INSERT INTO t SELECT n, 'before' FROM generate_series(1, 20) n;
    """)
    make_stream(server.client("kinesis"), source.stream, 4)
    source.begin()
    pg.psql(f"""
        UPDATE t SET v = 'changed' WHERE id < 5;
        ALTER TABLE t {column}ADD PRIMARY KEY (id);
        UPDATE t SET v = 'keyed' WHERE id < 3;
        INSERT INTO t VALUES (21, 'after');
    """)
    eventually(lambda: is_whole(source), 30)
    pg.psql("UPDATE t SET v = 'later' WHERE id > 15; DELETE FROM t WHERE id = 1;")
    whole(source)
    shards = source.shards()
    later = [shard for shard, records in shards.items()
             if any((one.get("after") or {}).get("v") == "later" for one in records)]
    assert len(later) > 1, "the rows still have one partition key"
    told = [one for records in shards.values() for one in records if "tableChanges" in one]
    assert any(one["tableChanges"][0]["table"]["primaryKeyColumnNames"] == ["id"] for one in told), told
    assert source.report()["epoch"] == 1


def test_truncate_reaches_every_shard(start_postgres, on, server):
    pg = start_postgres()
    source = on(pg)
    make_stream(server.client("kinesis"), source.stream, 3)
    source.begin()
    source.sql(f"CREATE TABLE t FROM SOURCE {source.name} (REFERENCE public.t)")
    pg.psql("""
        INSERT INTO t SELECT n, 'gone' FROM generate_series(1, 50) n;
        TRUNCATE t;
        INSERT INTO t VALUES (1, 'new');
    """)
    whole(source)
    for records in source.shards().values():
        ops = [one["op"] for one in records if is_change(one)]
        assert ops.count("t") == 1 and "c" not in ops[ops.index("t") + 2:], ops
    equal_tables(source, "t", "t")


@pytest.mark.parametrize("when", ["streamed", "in the snapshot"])
def test_a_value_that_cannot_be_read(start_postgres, server, name, when):
    """A database that does not check its texts may hold one that is none. Nothing after it is read."""
    pg = start_postgres()
    pg.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 "
               "LC_COLLATE 'C' LC_CTYPE 'C'")
    pg.psql(TABLE, database="ascii")
    with Source(server, pg, name, database="ascii") as source:
        source.connect()
        spoil = r"INSERT INTO t VALUES (1, 'fine'); INSERT INTO t VALUES (2, E'\377');"
        if when == "streamed":
            source.create()
            source.until("streaming")
            assert "SQL_ASCII" in source.report()["reason"]
        pg.psql(spoil + "INSERT INTO t VALUES (3, 'behind it');", database="ascii")
        if when == "in the snapshot":
            source.create()
        where = "associated LSN" if when == "streamed" else "public.t"
        fails(source, "undecodable", where, "skipped", "RESNAPSHOT")
        if when == "streamed":
            assert [c["after"]["id"] for c in source.changes()] == [1]
            source.sql(f"RESUME SOURCE {source.name}")
            time.sleep(1)
            fails(source, "undecodable", "associated LSN")
            assert [c["after"]["id"] for c in source.changes()] == [1], "skipped, or doubled"
        pg.psql("DELETE FROM t WHERE id = 2", database="ascii")
        source.sql(f"ALTER SOURCE {source.name} RESNAPSHOT")
        source.until("streaming")
        whole(source)
        source.drop()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "hydrant", folder],
                             capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    # The kernel lets it go when the last process has.
    subprocess.run(["umount", "-l", folder], check=True)


def test_our_disk_is_full(small_disk, start, start_postgres, name):
    """Nothing more is read, the connection stays, and all of it comes once there is room."""
    server = start("--segment-mib", "16", data=small_disk / "data")
    pg = start_postgres(wal_sender_timeout="3s")
    pg.psql(TABLE)
    with Source(server, pg, name) as source:
        source.begin()
        pg.execute("INSERT INTO t VALUES (0, 'first')")
        whole(source)
        slot = source.report()["slot"]
        ballast = small_disk / "ballast"
        free = shutil.disk_usage(small_disk).free
        # The log leaves 256 MiB to others.
        with open(ballast, "wb") as file:
            for _ in range(max(0, free - (250 << 20)) >> 20):
                file.write(bytes(1 << 20))
        for n in range(1, 61):
            pg.execute("INSERT INTO t VALUES (%s, repeat('x', 900000))", (n,))
        end = pg.value("SELECT pg_current_wal_insert_lsn()::text")
        eventually(lambda: "disk is full" in source.report()["reason"], 40)
        pid, held = pg.slot(slot)["active_pid"], pg.slot(slot)["confirmed_flush_lsn"]
        time.sleep(5)
        # Longer than PostgreSQL waits for a sign of life, and nothing is confirmed that is not here.
        now = pg.slot(slot)
        assert now["active_pid"] == pid and pid, "the connection was lost"
        assert number(held) <= number(now["confirmed_flush_lsn"]) < number(end)
        report = source.report()
        assert report["state"] == "streaming" and "disk is full" in report["reason"], report
        assert source.changes(), "what is there cannot be read"
        ballast.unlink()
        whole(source)
        eventually(lambda: "disk is full" not in source.report()["reason"])
        source.drop()


@pytest.mark.needs("postgres 17")
def test_a_failover_slot_goes_on(start_postgres, on):
    """A standby that has a copy of the slot is promoted: nothing is read anew, and nothing lost."""
    import psycopg

    primary = start_postgres("17")
    primary.psql(TABLE)
    primary.execute("SELECT pg_create_physical_replication_slot('standby')")
    primary.stop()
    standby = primary.copied()
    standby.configure(
        primary_conninfo=f"host={primary.folder} port={primary.port} user=postgres dbname=postgres",
        primary_slot_name="standby", hot_standby_feedback="on",
    )
    primary.configure(synchronized_standby_slots="standby")
    primary.start()
    (standby.data / "standby.signal").touch()
    try:
        standby.start()
        primary.execute("SELECT pg_create_logical_replication_slot('ours', 'pgoutput', failover => true)")
        source = on(primary, script="")
        source.connect()
        source.create(slot="'ours' ADOPT")
        source.until("streaming")
        primary.execute("INSERT INTO t SELECT n, 'before' FROM generate_series(1, 100) n")
        whole(source)

        def copied():
            """the standby has a copy of the slot that outlives a promotion"""
            with contextlib.suppress(psycopg.Error):
                standby.execute("SELECT pg_sync_replication_slots()")
            slot = standby.slot("ours")
            return slot and slot["synced"] and not slot["temporary"]

        eventually(copied, 60)
        primary.execute("UPDATE t SET v = 'between' WHERE id <= 10")
        source.arrived(110)
        last = primary.value("SELECT pg_current_wal_lsn()::text")
        eventually(lambda: number(
            standby.value("SELECT pg_last_wal_replay_lsn()::text")) >= number(last))
        primary.stop()
        standby.execute("SELECT pg_promote()")
        source.until("retrying")
        standby.execute("INSERT INTO t VALUES (1000, 'after')")
        source.connected_to(standby)
        source.until("streaming")
        whole(source)
        assert source.report()["epoch"] == 1
        assert {c["source"]["epoch"] for c in source.changes()} == {1}
    finally:
        source.drop()
        standby.remove()


def test_a_record_that_is_too_large(start_postgres, on):
    pg = start_postgres()
    source = on(pg, TABLE + "CREATE TABLE other (id int PRIMARY KEY, v text);"
                    "ALTER PUBLICATION p ADD TABLE other;")
    source.begin()
    pg.psql("""
        INSERT INTO t VALUES (1, 'small');
        INSERT INTO t VALUES (2, repeat('x', 3000000));
        INSERT INTO t VALUES (3, 'behind it');
        INSERT INTO other VALUES (1, 'goes on');
    """)
    changes = source.arrived(2)
    assert [(c["source"]["table"], c["after"]["id"]) for c in changes] == [("t", 1), ("other", 1)]
    # Said once the position behind it is stored.
    eventually(lambda: "public.t" in source.report()["reason"])
    assert source.state() == "streaming"
    (told,) = [row for row in source.sql(f"DESCRIBE SOURCE {source.name}") if row["table"] == "t"]
    assert told["state"] == "errored" and "2" in told["reason"] and "/" in told["reason"], told
    # The table comes back with a snapshot, once the row is smaller.
    pg.execute("UPDATE t SET v = 'smaller' WHERE id = 2")
    source.sql(f"ALTER SOURCE {source.name} RESNAPSHOT")
    eventually(lambda: source.report()["epoch"] == 2)
    source.until("streaming")
    whole(source, "t", "other")


def test_a_record_that_is_too_large_is_cut(start_postgres, on):
    pg = start_postgres()
    source = on(pg)
    source.begin(OVERSIZE="'truncate'")
    pg.psql("INSERT INTO t VALUES (1, repeat('x', 3000000)); INSERT INTO t VALUES (2, 'small');")
    large, small = source.arrived(2)
    assert large["after"] == {"id": 1, "v": UNAVAILABLE}
    assert large["source"]["unavailable"] == ["v"] and small["after"]["v"] == "small"


def test_a_long_transaction_holds_the_log(start_postgres, on):
    """The warning comes before the slot is lost."""
    pg = start_postgres(max_slot_wal_keep_size="64MB")
    source = on(pg)
    source.begin()
    with pg.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'open')")
        pg.write(44)

        def warned():
            """the report warns of the log that is held"""
            report = source.report()
            return report["safe_wal_bytes"] and report["retained_wal_bytes"] > 40 << 20 and (
                "max_slot_wal_keep_size" in report["reason"])

        eventually(warned, 45)
        assert source.state() == "streaming"
        metrics = source.server.get("/metrics")[1]
        warning = rf'(?i)hydrant_source_retained_wal_warning{{source="{source.name}"}} [12]\n'
        assert "hydrant_source_retained_wal_bytes" in metrics and re.search(warning, metrics)
        connection.commit()
    pg.write(1)
    eventually(lambda: "max_slot_wal_keep_size" not in source.report()["reason"], 60)


def test_statements_that_cannot_be(source):
    """Refused by name, with what there is instead."""
    import psycopg

    source.execute(TABLE.split(";")[0])
    source.execute(TABLE.split(";")[1])
    with pytest.raises(psycopg.Error, match="(?i)secret.*does not exist"):
        source.sql("CREATE CONNECTION x TO POSTGRES (HOST 'h', DATABASE 'd', PASSWORD SECRET nosuch)")
    with pytest.raises(psycopg.Error, match="(?i)connection.*does not exist"):
        source.sql("CREATE SOURCE x FROM POSTGRES CONNECTION nosuch (PUBLICATION 'p') "
                   "FOR ALL TABLES INTO STREAM 's'")
    source.begin()
    for statement, words in [
        (f"DROP CONNECTION {source.name}_pg", "used by"),
        (f"DROP SECRET {source.name}_pass", "used by"),
        (f"ALTER SOURCE {source.name} DROP TABLE public.nosuch", "does not exist"),
        ("PAUSE SOURCE nosuch", "does not exist"),
        (f"CREATE TABLE x FROM SOURCE {source.name} (REFERENCE public.nosuch)", "nosuch"),
    ]:
        with pytest.raises(psycopg.Error, match=f"(?i){words}"):
            source.sql(statement)
    assert source.state() == "streaming"
