"""What test_warehouse.py asks of Snowflake's driver before version 5, in a process of its own.

Arguments: host, port, and a name that serves for the database and the bucket. Tells as JSON what it
saw.
"""

import json
import sys
import time

import snowflake.connector

host, port, name = sys.argv[1:]
told = {"version": snowflake.connector.__version__}
with snowflake.connector.connect(
    user="hydrant", password="hydrant", account="any", host=host, port=int(port), protocol="http",
    database=name, schema="public", login_timeout=15,
) as connection:
    def run(sql, *parameters):
        with connection.cursor() as cursor:
            return cursor.execute(sql, *parameters).fetchall()

    run(f"create database {name}")
    run("create or replace table tweets (tweet variant)")
    run(f"create or replace stage {name}.public.twitter_stage\nurl='s3://{name}/'\n"
        "credentials = (AWS_KEY_ID='test' AWS_SECRET_KEY='test');")
    run(f"create or replace pipe {name}.public.snowpipe auto_ingest=true as\n"
        f"copy into {name}.public.tweets\nfrom @{name}.public.twitter_stage\n"
        "file_format = (type = 'JSON');")
    run("alter pipe snowpipe refresh")
    for _ in range(200):
        if run("select count(*) from tweets") == [(2,)]:
            break
        time.sleep(0.1)
    told["rows"] = run("select tweet:id::int, tweet:user.name::string, 1.5::float, true, "
                       "'2024-02-29'::date::string from tweets order by 1")
    told["bound"] = run("select tweet:id::int from tweets where tweet:user.name::string = %s",
                        ("it's",))
    try:
        run("select * from nowhere.public.nothing")
    except snowflake.connector.errors.ProgrammingError as error:
        told["error"] = [error.errno, error.sqlstate]
    run(f"use schema {name}.information_schema")
    told["schema"] = run("select current_schema()")
print(json.dumps(told))
