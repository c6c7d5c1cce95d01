"""A source of hydrant's as its user sees it: SQL statements, a stream, and the rows folded from it."""

import collections
import json

import postgres
from hydrant import eventually, read_stream

# The operations of changes: read by the snapshot, created, updated, deleted, truncated.
CHANGES = ("r", "c", "u", "d", "t")
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

    def connected_to(self, pg):
        """Leads the connection to another server."""
        self.pg, self.port = pg, pg.port
        self.connect()

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
        return [one for one in self.records() if is_change(one)]

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
        # What is behind it belongs to no commit, and may stay in memory until the next checkpoint.
        lsn = self.pg.value("SELECT pg_current_wal_flush_lsn()::text")

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


def is_change(record):
    """Whether a record is of a row or a truncation, not of a schema, snapshot or transaction."""
    return record.get("op") in CHANGES


def table(record):
    return f"{record['source']['schema']}.{record['source']['table']}"


def stamp(record):
    """Where a record stands among all of its source."""
    source = record["source"]
    return source["epoch"], source["commit_lsn"], source["seq"]


def row(values, missing=()):
    """A row's values as something that can be counted. What a column added later is in the rows
    before, NULL or the value that is `missing` there, is as good as a column that is not there."""
    missing = dict(missing)
    return json.dumps({k: v for k, v in values.items() if v != missing.get(k)}, sort_keys=True)


def missing_values(shards):
    """What columns that were added later are in the rows before, by table."""
    found = collections.defaultdict(dict)
    for records in shards.values():
        for one in records:
            for change in one.get("tableChanges", ()):
                found[table(one)] |= {
                    column["name"]: column["missingValue"]
                    for column in change["table"]["columns"] if "missingValue" in column}
    return found


def fold(shards, keys=(), columns=()):
    """What is left of each table: a count of each row.

    `keys` has the columns of the primary key of each table with one; a row of the others is found
    again by all of its values. `columns` has those that a table with a key has in the end. Each shard
    is folded alone, since everything about a row is in one; of several epochs the last counts.
    """
    keys, columns = dict(keys), dict(columns)
    epoch = max(one["source"]["epoch"] for records in shards.values() for one in records)
    missing = missing_values(shards)
    tables = collections.defaultdict(collections.Counter)
    for records in shards.values():
        held = collections.defaultdict(dict)
        for one in records:
            if one["source"]["epoch"] == epoch and is_change(one):
                apply(held[table(one)], keys.get(table(one)), one, missing[table(one)])
        for name, rows in held.items():
            for key, value in rows.items():
                if name in keys:
                    left = columns.get(name, value)
                    value = {k: v for k, v in value.items() if k in left}
                    tables[name][row(value, missing[name])] += 1
                else:
                    tables[name][key] += value
    return {name: +rows for name, rows in tables.items()}


def apply(held, key, record, missing=()):
    """Applies one change to the rows of a table in one shard."""
    op, before, after = record["op"], record.get("before"), record.get("after")
    if op == "t":
        held.clear()
    elif not key:
        if op in "ud":
            assert held.get(row(before, missing)), f"not there: {str(record)[:1000]}"
            held[row(before, missing)] -= 1
        if op in "cru":
            held[row(after, missing)] = held.get(row(after, missing), 0) + 1
    elif op == "d":
        name = tuple(before[column] for column in key)
        assert held.pop(name, None) is not None, f"not there to delete: {str(record)[:1000]}"
    else:
        name = tuple(after[column] for column in key)
        assert (name in held) == (op == "u"), f"twice, or not there: {str(record)[:1000]}"
        unknown = record["source"].get("unavailable", [])
        assert {k for k, v in after.items() if v == UNAVAILABLE} == set(unknown), record
        told = {column: value for column, value in after.items() if column not in unknown}
        before = held.get(name, {})
        held[name] = told | {column: before[column] for column in unknown if column in before}


def counted(rows, missing=()):
    """Rows of PostgreSQL, each one a JSON text, counted as `fold` counts them."""
    return collections.Counter(row(json.loads(text), missing) for (text,) in rows)
