"""SQL over what lands in the bucket: Snowflake's own Python driver, psycopg and psql."""

import gzip
import json
import sys
from pathlib import Path

import pytest

from hydrant import DRIVER4, eventually, files_with, sh

CREDENTIALS = "credentials = (AWS_KEY_ID='test' AWS_SECRET_KEY='test')"


@pytest.fixture
def database(name):
    return name


@pytest.fixture
def snow(server, database):
    """A connection that names a database before it exists, as a client of Snowflake may."""
    connection = server.snowflake(database, "public")
    yield connection
    connection.close()


@pytest.fixture
def run(snow):
    def run(sql, *parameters):
        with snow.cursor() as cursor:
            cursor.execute(sql, *parameters)
            return cursor.fetchall()

    return run


@pytest.fixture
def lake(run, bucket, database):
    """A database with a table of one VARIANT, a stage over the bucket and a pipe between them."""
    run(f"create database {database}")
    run("create or replace table public.tweets (tweet variant)")
    run(f"create or replace stage {database}.public.lake\nurl='s3://{bucket}/'\n{CREDENTIALS};")
    run(f"create or replace pipe {database}.public.flow auto_ingest=true as\n"
        f"copy into {database}.public.tweets\nfrom @{database}.public.lake\n"
        "file_format = (type = 'JSON');")
    return bucket


def put_json(s3, bucket, key, *rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    s3.put_object(Bucket=bucket, Key=key,
                  Body=gzip.compress(text) if key.endswith(".gz") else text)


def counts(run, want, table="tweets"):
    """waits until the table has so many rows"""
    def enough():
        """the rows are in the table"""
        return run(f"select count(*) from {table}") == [(want,)]

    eventually(enough)


@pytest.mark.needs("snowflake")
def test_the_notes_statements_through_snowflakes_driver(server, s3, run, lake):
    put_json(s3, lake, "a.json.gz",
             {"id": 1, "user": {"screen_name": "ada", "followers": 12}, "tags": ["x", "y"]},
             {"id": 2, "user": {"screen_name": "bob", "followers": 7}, "tags": []})
    put_json(s3, lake, "b.json", {"id": 3, "user": {"screen_name": "ada"}, "text": "it's \"ü\""})
    counts(run, 3)
    assert run("""select tweet:user.screen_name::string, count(*), sum(tweet:user.followers::int)
                  from tweets group by 1 order by 2 desc""") == [("ada", 2, 12), ("bob", 1, 7)]
    assert run("select tweet:tags[1]::string, tweet:nothing::string from tweets "
               "where tweet:id::number = 1") == [("y", None)]
    assert run("select tweet:text::string from tweets where tweet:id = 3") == [("it's \"ü\"",)]
    whole = run("select tweet from tweets where tweet:id::int = 2")[0][0]
    assert json.loads(whole) == {
        "id": 2, "user": {"screen_name": "bob", "followers": 7}, "tags": []
    }


@pytest.mark.needs("snowflake")
def test_types_names_and_parameters_through_snowflakes_driver(snow, run, database):
    run(f"create database {database}")
    run('create table t (n number, f float, s varchar, b boolean, d date, "mixed" int)')
    run("insert into t values (1, 1.5, 'x', true, '2024-02-29', 7), (null,null,null,null,null,null)")
    with snow.cursor() as cursor:
        cursor.execute("select * from t order by n nulls last")
        assert [c[0] for c in cursor.description] == ["N", "F", "S", "B", "D", "mixed"]
        first, second = cursor.fetchall()
    assert first[:4] == (1, 1.5, "x", True) and first[4].isoformat() == "2024-02-29"
    assert first[5] == 7 and second == (None,) * 6
    assert run("select n from t where s = %s and n = %s", ("x", 1)) == [(1,)]
    assert run("select s from t where s = %s", ("'; drop table t; --",)) == []
    assert run("select current_database(), current_schema()") == [(database.upper(), "PUBLIC")]
    run("create schema side")
    run(f"use schema {database}.side")
    assert run("select current_schema()") == [("SIDE",)]
    run(f"use schema {database}.public")
    assert run("select count(*) from T") == [(2,)]


@pytest.mark.needs("snowflake")
def test_errors_through_snowflakes_driver(run, database):
    import snowflake.connector

    def refused(sql):
        with pytest.raises(snowflake.connector.errors.ProgrammingError) as error:
            run(sql)
        return error.value

    missing = refused("select * from nowhere.public.nothing")
    assert missing.errno == 2003 and missing.sqlstate == "02000"
    assert "does not exist or not authorized" in missing.msg
    wrong = refused("selec 1")
    assert wrong.errno == 1003 and wrong.sqlstate == "42000"
    run(f"create database {database}")
    run("create table t (n int)")
    assert refused("create table t (n int)").errno == 2002
    assert refused("select nope from t").errno == 904
    # What is not there is refused by name.
    assert "task" in refused("create task x schedule = '1 minute' as select 1").msg.lower()


@pytest.mark.needs("snowflake")
def test_logins(start):
    import snowflake.connector

    server = start("--access-key", "AKIDGOOD:verysecret", "--sql-user", "ann:right")
    with server.snowflake(user="ann", password="right") as connection:
        assert connection.cursor().execute("select 1").fetchall() == [(1,)]
    for user, password in [("ann", "wrong"), ("bob", "right"), ("ann", "x" * 5000)]:
        with pytest.raises(snowflake.connector.errors.DatabaseError) as error:
            server.snowflake(user=user, password=password)
        assert "Incorrect username or password was specified" in str(error.value)
    assert "right" not in server.log.read_text()


@pytest.mark.needs("snowflake")
def test_copy_list_and_show(s3, run, lake, database):
    put_json(s3, lake, "in/1.json", {"n": 1}, {"n": 2})
    counts(run, 2)
    listed = run("list @lake")
    assert [row[0] for row in listed] == [f"s3://{lake}/in/1.json"]
    assert [row[1] for row in run("show tables")] == ["TWEETS"]
    assert [row[1] for row in run("show stages")] == ["LAKE"]
    pipe, = run("show pipes")
    assert pipe[1] == "FLOW" and "copy into" in str(pipe)
    secret = run("show stages") + run("show pipes")
    assert not any("AWS_SECRET_KEY='test'" in str(row) for row in secret)

    # A copy by hand, into a table of its own: each file once, then again when forced.
    run("create table second (v variant)")
    copy = "copy into second from @lake/in/ file_format = (type = 'JSON')"
    (file, status, parsed, loaded, *_), = run(copy)
    assert file.endswith("in/1.json") and (status, parsed, loaded) == ("LOADED", 2, 2)
    run(copy)
    counts(run, 2, "second")
    run(copy + " force = true")
    counts(run, 4, "second")


@pytest.mark.needs("snowflake")
def test_a_broken_file_is_told_and_holds_nothing_up(s3, run, lake, database):
    good = gzip.compress(b'{"n":1}\n')
    s3.put_object(Bucket=lake, Key="1-cut.json.gz", Body=good[:-6])
    s3.put_object(Bucket=lake, Key="2-noise.json.gz", Body=b"this is not gzip")
    s3.put_object(Bucket=lake, Key="3-bad-line.json", Body=b'{"n":2}\n{"n":\n')
    put_json(s3, lake, "4-good.json.gz", {"n": 4})
    counts(run, 1)

    def told():
        """copy_history has the four files"""
        rows = run("select file_name, status, row_count, error_count, first_error_message "
                   "from table(information_schema.copy_history(table_name=>'TWEETS', "
                   "start_time=>dateadd(hours, -1, current_timestamp())))")
        seen = {row[0].rpartition("/")[2]: row[1:] for row in rows}
        return seen if len(seen) == 4 else None

    seen = eventually(told)
    assert seen["4-good.json.gz"][0].lower() == "loaded"
    for key in ["1-cut.json.gz", "2-noise.json.gz", "3-bad-line.json"]:
        status, loaded, errors, text = seen[key]
        assert status.lower() == "load failed", (key, seen[key])
        assert not loaded and errors >= 1 and text, (key, seen[key])
    status = json.loads(run(f"select system$pipe_status('{database}.public.flow')")[0][0])
    assert status["executionState"] == "RUNNING" and status["pendingFileCount"] == 0
    # Only what was good is in the table: a file is all or nothing by default.
    assert run("select tweet:n::int from tweets") == [(4,)]


@pytest.mark.needs("driver4")
def test_the_notes_statements_through_the_driver_before_its_rewrite(server, s3, bucket):
    put_json(s3, bucket, "a.json.gz", {"id": 1, "user": {"name": "ada"}})
    put_json(s3, bucket, "b.json", {"id": 2, "user": {"name": "it's"}})
    script = Path(__file__).parent / "driver4.py"
    host, port = server.aws_address
    env = server.shell({"PYTHONPATH": str(DRIVER4)})
    told = json.loads(sh(f"'{sys.executable}' '{script}' {host} {port} {bucket}", env))
    assert told["version"].startswith("4.")
    assert told["rows"] == [[1, "ada", 1.5, True, "2024-02-29"], [2, "it's", 1.5, True, "2024-02-29"]]
    assert told["bound"] == [[2]]
    assert told["error"] == [2003, "02000"]
    assert told["schema"] == [["INFORMATION_SCHEMA"]]


@pytest.mark.needs("psycopg")
def test_the_notes_statements_through_postgresqls_protocol(server, s3, bucket, database):
    import psycopg

    host, port = server.sql_address
    address = f"host={host} port={port} user=hydrant dbname={database}"
    with psycopg.connect(address, autocommit=True) as connection:
        def run(sql, *parameters):
            cursor = connection.execute(sql, *parameters)
            return cursor.fetchall() if cursor.description else []

        run(f"create database if not exists {database}")
        run("create or replace table public.tweets (tweet variant)")
        run(f"create or replace stage {database}.public.twitter_stage\n"
            f"url='s3://{bucket}/'\n{CREDENTIALS};")
        run(f"create or replace pipe {database}.public.snowpipe auto_ingest=true as\n"
            f"copy into {database}.public.tweets\nfrom @{database}.public.twitter_stage\n"
            "file_format = (type = 'JSON');")
        put_json(s3, bucket, "a.json", {"id": 1, "user": {"name": "ada"}}, {"id": 2})
        counts(lambda sql: [tuple(row) for row in run(sql)], 2)
        got = run("select tweet:id::number as id, tweet:user.name::string as name "
                  "from tweets order by id")
        assert got == [(1, "ada"), (2, None)]
        assert run("select tweet:id::number from tweets where tweet:id::number = %s", (2,)) == [
            (2,)
        ]
        with pytest.raises(psycopg.errors.Error) as error:
            run("select * from nowhere.public.nothing")
        assert "does not exist or not authorized" in str(error.value)
        # The connection is good after an error.
        assert run("select 1") == [(1,)]


@pytest.mark.needs("psql")
def test_psql_is_asked_for_its_password(start):
    server = start("--access-key", "AKIDGOOD:verysecret", "--sql-user", "ann:right")
    host, port = server.sql_address
    psql = f"psql -X -At -h {host} -p {port} -U ann anything -c 'select 1'"
    assert sh(psql, server.shell({"PGPASSWORD": "right"})) == "1\n"
    for env in [{"PGPASSWORD": "wrong"}, {"PGPASSFILE": "/dev/null"}]:
        with pytest.raises(AssertionError, match="exit 2"):
            sh(psql + " -w", server.shell(env))


@pytest.mark.needs("psql")
def test_psql_reads_a_script(server, name):
    host, port = server.sql_address
    script = f"""psql -X -v ON_ERROR_STOP=1 -h {host} -p {port} -U hydrant {name} <<'SQL'
create database {name};
create table fruit (id number(38,0), name varchar);
insert into fruit values (1, 'apple'), (2, 'pear');
select name, id from fruit order by id desc limit 1;
SQL"""
    out = sh(script, server.shell())
    assert " pear | " in out.lower() and "(1 row)" in out, out
    assert "NAME" in out


@pytest.mark.needs("psql")
def test_the_key_of_a_stage_is_in_no_file(start, name):
    server = start()
    host, port = server.sql_address
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"
    script = f"""psql -X -v ON_ERROR_STOP=1 -h {host} -p {port} -U hydrant {name} <<'SQL'
create database {name};
create stage lake url='s3://lake/' credentials=(AWS_KEY_ID='AKIDLAKE' AWS_SECRET_KEY='{secret}');
describe stage lake;
SQL"""
    out = sh(script, server.shell())
    assert "AKIDLAKE" in out and secret not in out
    assert server.stop() == 0
    assert files_with(server.data, "AKIDLAKE") != []
    assert files_with(server.data, secret) == []
    assert secret not in server.said(1 << 20)
