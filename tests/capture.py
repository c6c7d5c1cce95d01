"""A source of hydrant's as its user sees it: SQL statements, a stream, and the rows folded from it."""

import collections
import json

import hydrant
import postgres
from hydrant import eventually, read_stream

# What stands for a value that PostgreSQL did not send.
UNAVAILABLE = "__debezium_unavailable_value"
STREAMING_SECONDS = 30


class Source:
    """A source named after its test, into a stream of the same name, and a connection for SQL."""

    def __init__(self, server, pg, name, database="postgres", port=None):
        self.server = server
        self.pg = pg
        self.name = name
        self.database = database
        self.port = port or pg.port
        self.stream = name
        self.connected = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.disconnect()

    def disconnect(self):
        """Forgets the connection for SQL, as one must when the server was started again."""
        if self.connected:
            self.connected.close()
            self.connected = None

    def sql(self, statement, *parameters):
        """Runs a statement on hydrant; its rows, by column."""
        import psycopg
        import psycopg.rows

        if self.connected is None:
            host, port = self.server.sql_address
            self.connected = psycopg.connect(
                host=host, port=port, user="hydrant", dbname=self.name, autocommit=True,
                row_factory=psycopg.rows.dict_row, connect_timeout=10,
            )
            self.connected.execute(f"CREATE DATABASE IF NOT EXISTS {self.name}")
        cursor = self.connected.execute(statement, *parameters)
        return cursor.fetchall() if cursor.description else []

    def execute(self, statement, *parameters):
        """Runs a statement on PostgreSQL, in the captured database; its rows."""
        return self.pg.execute(statement, *parameters, database=self.database)

    def connect(self, user="postgres", password=postgres.PASSWORD, mode="disable", **more):
        """Creates the secret and the connection."""
        self.sql(f"CREATE OR REPLACE SECRET {self.name}_pass TYPE = PASSWORD "
                 f"USERNAME = '{user}' PASSWORD = '{password}'")
        options = {
            "HOST": "'127.0.0.1'", "PORT": self.port, "DATABASE": f"'{self.database}'",
            "USER": f"'{user}'", "PASSWORD": f"SECRET {self.name}_pass", "SSL MODE": f"'{mode}'",
            **more,
        }
        told = ", ".join(f"{key} {value}" for key, value in options.items())
        self.sql(f"CREATE OR REPLACE CONNECTION {self.name}_pg TO POSTGRES ({told})")

    def create(self, tables="FOR ALL TABLES", publications=("p",), slot="", **options):
        """Creates the source."""
        inside = ", ".join(f"PUBLICATION '{name}'" for name in publications)
        if slot:
            inside += f", SLOT {slot}"
        told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in options.items())
        told = f" WITH ({told})" if told else ""
        self.sql(f"CREATE SOURCE {self.name} FROM POSTGRES CONNECTION {self.name}_pg ({inside}) "
                 f"{tables} INTO STREAM '{self.stream}'{told}")

    def begin(self, tables="FOR ALL TABLES", **options):
        """Connects, creates the source and waits until it streams."""
        self.connect()
        self.create(tables, **options)
        self.until("streaming")

    def report(self):
        """What SHOW SOURCES says of it."""
        rows = [r for r in self.sql("SHOW SOURCES") if r["name"].lower() == self.name.lower()]
        assert len(rows) <= 1, rows
        return rows[0] if rows else None

    def state(self):
        return self.report()["state"]

    def until(self, state, seconds=STREAMING_SECONDS):
        """Waits for a state; the report then."""
        seen = []

        def reached():
            report = self.report()
            told = (report["state"], report["reason"])
            if told not in seen:
                seen.append(told)
            return report if report["state"] == state else None

        try:
            return eventually(reached, seconds, 0.1)
        except AssertionError:
            raise AssertionError(f"never {state} in {seconds} s, but {seen}") from None

    def drop(self):
        if self.report():
            self.sql(f"DROP SOURCE {self.name}")
        self.sql(f"DROP CONNECTION IF EXISTS {self.name}_pg")
        self.sql(f"DROP SECRET IF EXISTS {self.name}_pass")

    def shards(self):
        """Everything in the stream, read as JSON, by shard."""
        kinesis = self.server.client("kinesis")
        return {
            shard: [json.loads(record["Data"]) for record in records]
            for shard, records in read_stream(kinesis, self.stream).items()
        }

    def records(self):
        """Everything in a stream of one shard."""
        (records,) = self.shards().values()
        return records

    def changes(self):
        """The changes of rows among them."""
        return [one for one in self.records() if one["op"] in "rcudt"]

    def arrived(self, count, seconds=20):
        """Waits for as many changes; all there are then."""
        seen = []

        def there():
            seen[:] = self.changes()
            return len(seen) >= count

        try:
            eventually(there, seconds)
        except AssertionError:
            shown = "\n".join(json.dumps(one)[:300] for one in seen[-20:])
            raise AssertionError(
                f"{len(seen)} of {count} changes in {seconds} s; {self.report()}\n{shown}"
            ) from None
        return seen

    def caught_up(self, seconds=60):
        """Waits until everything committed by now is in the stream and confirmed."""
        lsn = self.pg.value("SELECT pg_current_wal_insert_lsn()::text")

        def confirmed():
            """the slot has confirmed what is written by now"""
            report = self.report()
            return report["state"] == "streaming" and number(report["confirmed_lsn"]) >= number(lsn)

        try:
            eventually(confirmed, seconds, 0.1)
        except AssertionError:
            raise AssertionError(f"{lsn} is not confirmed in {seconds} s: {self.report()}") from None

    def folded(self):
        """The stream folded into rows by table."""
        return fold(self.shards())


def number(lsn):
    """An LSN as PostgreSQL writes it, as a number."""
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


def stamp(record):
    """Where a record stands among all of its source."""
    source = record["source"]
    return source["epoch"], number(source["commit_lsn"]), source["seq"]


def row(values):
    """A row's values as something that can be counted."""
    return json.dumps(values, sort_keys=True)


def fold(shards, keys=()):
    """What is left of each table: rows by key for those with one, else a count of each row.

    Each shard is folded alone, since everything about a row is in one; of several epochs the last
    counts. A row without a key is found again by all of its values.
    """
    keys = dict(keys)
    epoch = max(one["source"]["epoch"] for records in shards.values() for one in records)
    tables = collections.defaultdict(collections.Counter)
    for records in shards.values():
        rows = collections.defaultdict(dict)
        for one in records:
            if one["source"]["epoch"] == epoch and one["op"] in "rcudt":
                name = f"{one['source']['schema']}.{one['source']['table']}"
                apply(rows[name], keys.get(name), one)
        for name, held in rows.items():
            if name in keys:
                tables[name].update(row(values) for values in held.values())
            else:
                tables[name].update({values: count for values, count in held.items() if count})
    return tables


def apply(held, key, record):
    """Applies one change to the rows of a table in one shard."""
    op, before, after = record["op"], record.get("before"), record.get("after")
    if op == "t":
        held.clear()
    elif key:
        if op in "cru":
            name = tuple(after[column] for column in key)
            old = held.get(name, {})
            assert op == "u" or not old, f"inserted twice: {record}"
            for column, value in after.items():
                if value == UNAVAILABLE:
                    assert column in record["source"]["unavailable"], record
                    after[column] = old[column]
            held[name] = after
        else:
            name = tuple(before[column] for column in key)
            assert held.pop(name, None) is not None, f"not there to delete: {record}"
    else:
        if op in "ud":
            assert held.get(row(before)), f"not there: {record}"
            held[row(before)] -= 1
        if op in "cru":
            held[row(after)] = held.get(row(after), 0) + 1


def counted(rows):
    """Rows of PostgreSQL, each one a JSON text, counted as `fold` counts them."""
    return collections.Counter(row(json.loads(text)) for (text,) in rows)


def lines(report):
    """A report shown on a test's failure."""
    return "\n".join(f"{name}: {value}" for name, value in report.items())


__all__ = ["Source", "UNAVAILABLE", "counted", "fold", "hydrant", "lines", "number", "row", "stamp"]
