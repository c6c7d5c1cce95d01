"""Secrets, connections and sources that the settings file declares, and how passwords are kept."""

import base64
import os
import subprocess

import psycopg
import pytest

import postgres
from capture import Source
from hydrant import eventually, files_with

pytestmark = [pytest.mark.needs("psycopg", "psql", "postgres"), pytest.mark.timeout(120)]

PASSWORD = "correct horse battery staple"
SETTINGS = """
[[secret]]
name = "reader_pass"
user = "reader"
password_env = "READER_PASSWORD"

[[connection]]
name = "pg"
host = "127.0.0.1"
port = {port}
database = "{database}"
secret = "reader_pass"
ssl_mode = "disable"

[[source]]
name = "{name}"
connection = "pg"
publications = ["p"]
tables = [{tables}]
stream = "{name}"
comment = "{comment}"
"""


@pytest.fixture
def database(pg, name):
    """A database with two published tables, and a role that may read them."""
    pg.execute(f"CREATE DATABASE {name}")
    pg.execute(f"CREATE ROLE {name}_reader LOGIN REPLICATION PASSWORD '{PASSWORD}'")
    pg.psql(f"""
        CREATE TABLE a (id int PRIMARY KEY, region text NOT NULL);
        CREATE TABLE b (id int PRIMARY KEY);
        GRANT SELECT ON a, b TO {name}_reader;
        CREATE PUBLICATION p FOR TABLE a, b;
        INSERT INTO a VALUES (1, 'eu'), (2, 'us');
        INSERT INTO b VALUES (10);
    """, database=name)
    yield name
    # Of a test that failed.
    eventually(lambda: not any(active for _, active in slots(pg, name)))
    for slot, _ in slots(pg, name):
        pg.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
    pg.execute(f"DROP DATABASE {name} WITH (FORCE)")
    pg.execute(f"DROP ROLE {name}_reader")


def slots(pg, database):
    return pg.execute("SELECT slot_name, active FROM pg_replication_slots WHERE database = %s",
                      (database,))


def settings(tmp_path, pg, name, tables, comment="", password="READER_PASSWORD"):
    text = SETTINGS.format(port=pg.port, database=name, name=name, comment=comment,
                           tables=", ".join(f'"public.{table}"' for table in tables))
    text = text.replace('"reader"', f'"{name}_reader"').replace("READER_PASSWORD", password)
    path = tmp_path / "hydrant.toml"
    path.write_text(text)
    return "--config", str(path)


def ids(source):
    """The ids that are in the stream, of each table."""
    found = {"a": set(), "b": set()}
    for change in source.changes():
        # A table that is added begins with a truncation.
        if change["op"] != "t":
            found[change["source"]["table"]].add(change["after"]["id"])
    return found


def test_a_source_is_declared(database, start, tmp_path, pg):
    env = {"READER_PASSWORD": PASSWORD}
    server = start(*settings(tmp_path, pg, database, ["a"]), env=env)
    with Source(server, pg, database, database=database) as source:
        source.until("streaming")
        assert ids(source) == {"a": {1, 2}, "b": set()}
        (secret,) = source.sql("SHOW SECRETS")
        assert (secret["name"], secret["username"]) == ("READER_PASS", f"{database}_reader")
        made = secret["created_on"], source.report()["created_on"]
        slot = source.report()["slot"]
    assert server.stop() == 0
    assert PASSWORD not in server.said(1 << 20)

    # Changes meanwhile, and a file that says more.
    source.execute("INSERT INTO a VALUES (3, 'eu')")
    server = start(*settings(tmp_path, pg, database, ["a", "b"], "orders"), env=env)
    with Source(server, pg, database, database=database) as source:
        eventually(lambda: ids(source) == {"a": {1, 2, 3}, "b": {10}}, 30)
        report = source.until("streaming")
        assert (report["slot"], report["comment"]) == (slot, "orders")
        (secret,) = source.sql("SHOW SECRETS")
        assert (secret["created_on"], report["created_on"]) == made, "they are not made again"
        assert [change["op"] for change in source.changes()].count("r") == 3
    assert server.stop() == 0

    # Another password, which is changed in the database at the same time.
    source.execute(f"ALTER ROLE {database}_reader PASSWORD 'another one'")
    given = settings(tmp_path, pg, database, ["a", "b"], "orders")
    server = start(*given, env={"READER_PASSWORD": "another one"})
    with Source(server, pg, database, database=database) as source:
        source.until("streaming", 90)
        source.execute("INSERT INTO b VALUES (11)")
        eventually(lambda: ids(source)["b"] == {10, 11}, 30)
    assert server.stop() == 0
    assert files_with(server.data, PASSWORD, "another one") == []

    # What is declared no more is left as it is, and said.
    (tmp_path / "hydrant.toml").write_text("")
    server = start("--config", str(tmp_path / "hydrant.toml"))
    said = server.said(1 << 20)
    assert f"SOURCE {database.upper()}" in said and "any more" in said
    with Source(server, pg, database, database=database) as source:
        source.until("streaming")
        source.sql(f"DROP SOURCE {database}")
    assert slots(pg, database) == []


def test_a_change_that_would_lose_the_slot_is_refused(database, start, tmp_path, pg):
    env = {"READER_PASSWORD": PASSWORD}
    server = start(*settings(tmp_path, pg, database, ["a"]), env=env)
    with Source(server, pg, database, database=database) as source:
        source.until("streaming")
    assert server.stop() == 0
    given = settings(tmp_path, pg, database, ["a"])
    path = tmp_path / "hydrant.toml"
    path.write_text(path.read_text().replace('["p"]', '["p", "q"]'))
    with pytest.raises(RuntimeError) as ended:
        start(*given, env=env)
    assert "publications" in str(ended.value) and "DROP SOURCE" in str(ended.value)
    assert PASSWORD not in str(ended.value)
    server = start(*settings(tmp_path, pg, database, ["a"]), env=env)
    with Source(server, pg, database, database=database) as source:
        source.until("streaming")
        source.sql(f"DROP SOURCE {database}")


def test_passwords_are_not_in_the_data_directory(start, tmp_path, pg, name):
    """Neither in the rows of secrets nor in those of a dropped source whose server is away."""
    secrets = [postgres.PASSWORD, "a token of sorts"]
    server = start()
    with Source(server, pg, name) as source:
        source.connect()
        source.sql(f"CREATE SECRET {name}_token TYPE = GENERIC_STRING SECRET_STRING = '{secrets[1]}'")
        pg.execute(f"CREATE PUBLICATION {name}")
        source.create(publications=(name,))
        source.until("streaming")
        assert files_with(server.data, *secrets) == []
        server.kill()
    own = server.data / "secrets.key"
    assert own.stat().st_mode & 0o077 == 0
    assert files_with(server.data, *secrets) == []

    # With a master key from now on, under which they are encrypted again.
    master = {"HYDRANT_MASTER_KEY": base64.b64encode(os.urandom(32)).decode()}
    server = start(env=master)
    with Source(server, pg, name) as source:
        source.until("streaming")
    assert server.stop() == 0
    own.unlink()
    server = start(env=master)
    with Source(server, pg, name) as source:
        source.until("streaming")
    assert server.stop() == 0
    assert not own.exists() and files_with(server.data, *secrets) == []

    # Without it the secret cannot be used until it is stored again.
    server = start()
    with Source(server, pg, name) as source:
        report = eventually(lambda: (r := source.report())["state"] != "validating" and r)
        assert "master key" in report["reason"], report
        assert len(source.sql("SHOW SECRETS")) == 2
        source.connect()
        source.until("streaming", 60)
        source.drop()
    pg.execute(f"DROP PUBLICATION {name}")
    assert server.stop() == 0
    assert files_with(server.data, *secrets) == []


def test_statements_tell_everything_but_the_password(server, source):
    source.execute("CREATE TABLE t (id int PRIMARY KEY, region text); CREATE PUBLICATION p FOR TABLE t")
    source.begin(tables="FOR TABLES (t PARTITION BY (region))")
    name = source.name.upper()
    host, port = server.sql_address
    rows = []
    for statement in [
        "SHOW SECRETS", f"DESCRIBE SECRET {name}_pass", "SHOW CONNECTIONS",
        f"DESC CONNECTION {name}_pg", "SHOW SOURCES", f"DESCRIBE SOURCE {name}",
        f"SHOW CREATE CONNECTION {name}_pg", f"SHOW CREATE SOURCE {name}",
    ]:
        rows.append([row for row in source.sql(statement) if name in str(row) or "region" in str(row)])
        assert len(rows[-1]) == 1, (statement, rows[-1])
        typed = subprocess.run(
            ["psql", "-X", "-h", host, "-p", str(port), "-U", "hydrant", "-d", source.name, "-c",
             statement], capture_output=True, text=True, timeout=60,
        )
        assert typed.returncode == 0, typed.stderr
        assert all(column in typed.stdout for column in rows[-1][0])
        assert postgres.PASSWORD not in typed.stdout + str(rows[-1])
    (secret,), (described,) = rows[0], rows[1]
    assert described == secret and secret["secret_type"] == "PASSWORD"
    (connection,), (described,) = rows[2], rows[3]
    assert described == connection
    assert (connection["host"], connection["secret"]) == ("127.0.0.1", f"{name}_PASS")
    assert rows[5][0]["partition_by"] == "region"
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="DESCRIBE SECRET"):
        source.sql(f"SHOW CREATE SECRET {name}_pass")

    statements = [row[0]["create_sql"] for row in rows[6:]]
    source.sql(f"DROP SOURCE {name}")
    source.sql(f"DROP CONNECTION {name}_pg")
    for statement in statements:
        source.sql(statement)
    source.until("streaming")
    assert [source.sql(f"SHOW CREATE {kind}")[0]["create_sql"] for kind in
            (f"CONNECTION {name}_pg", f"SOURCE {name}")] == statements
