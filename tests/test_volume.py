"""A hundred thousand records of one kibibyte, from boto3 to the table, in bounded memory."""

import concurrent.futures
import json
import time

import pytest

from hydrant import eventually, make_delivery, make_stream

RECORDS = 100_000
RECORD_BYTES = 1024
BATCH = 500
SHARDS = 16
PEAK_BYTES_MAX = 640 << 20


@pytest.mark.needs("snowflake")
@pytest.mark.timeout(300)
def test_a_hundred_thousand_records(start, capsys):
    server = start()
    kinesis, firehose, s3 = (server.client(s) for s in ("kinesis", "firehose", "s3"))
    s3.create_bucket(Bucket="lake")
    arn = make_stream(kinesis, "s", SHARDS)
    connection = server.snowflake("db", "public")

    def run(sql):
        return connection.cursor().execute(sql).fetchall()

    run("create database db")
    run("create table t (v variant)")
    run("create stage lake url='s3://lake/' credentials=(AWS_KEY_ID='test' AWS_SECRET_KEY='test')")
    run("create pipe p auto_ingest=true as copy into t from @lake file_format=(type='JSON')")
    make_delivery(firehose, "d", "lake", arn, CompressionFormat="GZIP",
                  BufferingHints={"SizeInMBs": 8, "IntervalInSeconds": 2})

    def record(n):
        text = json.dumps({"id": n, "even": n % 2 == 0, "fill": ""})
        return (text[:-2] + f"{n:x}-" * RECORD_BYTES)[:RECORD_BYTES - 3] + '"}\n'

    def put(first):
        entries = [{"Data": record(n).encode(), "PartitionKey": f"key-{n}"}
                   for n in range(first, first + BATCH)]
        assert all(len(e["Data"]) == RECORD_BYTES for e in entries)
        # What a shard's throughput did not allow is put again, as every producer does.
        for _ in range(600):
            told = kinesis.put_records(StreamName="s", Records=entries)["Records"]
            entries = [e for e, r in zip(entries, told, strict=True) if "ErrorCode" in r]
            if not entries:
                return
            time.sleep(0.1)
        raise AssertionError(f"{len(entries)} records were never taken")

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(0, RECORDS, BATCH)))
    taken = time.monotonic()

    def loaded():
        """every record is in the table"""
        return run("select count(*) from t")[0][0] >= RECORDS

    eventually(loaded, 150, 0.5)
    ended = time.monotonic()
    assert run("select count(*), count(distinct v:id::int), min(v:id::int), max(v:id::int), "
               "sum(length(v:fill::string)) > 0 from t") == [
        (RECORDS, RECORDS, 0, RECORDS - 1, True)
    ]
    connection.close()
    peak = server.peak_bytes()
    with capsys.disabled():
        print(f"\n{RECORDS:,} records of {RECORD_BYTES} bytes: taken in {taken - began:.1f} s, "
              f"in the table after {ended - began:.1f} s, peak memory {peak / (1 << 20):.0f} MiB")
    assert peak <= PEAK_BYTES_MAX
    assert server.stop() == 0
