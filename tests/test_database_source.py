"""A delivery stream whose source is a PostgreSQL database, as boto3 sees it."""

import json
import time

import pytest
from botocore.exceptions import ClientError

import postgres
from capture import stamp
from hydrant import ACCOUNT, REGION, body, eventually, keys

pytestmark = [pytest.mark.needs("psycopg", "psql", "postgres"), pytest.mark.timeout(120)]

ROLE = f"arn:aws:iam::{ACCOUNT}:role/firehose"


@pytest.fixture
def database(pg, source):
    """A database with two published tables."""
    name = source.name
    pg.psql(f"""
        CREATE TABLE orders (id int PRIMARY KEY, item text);
        CREATE TABLE other (id int PRIMARY KEY);
        CREATE PUBLICATION {name} FOR TABLE orders, other;
        INSERT INTO orders VALUES (1, 'one'), (2, 'two');
    """, database=name)
    return name


@pytest.fixture
def secret(source):
    """The name of a secret, which is in no other test's way."""
    source.sql(f"CREATE SECRET {source.name}_fh TYPE = PASSWORD USERNAME = 'postgres' "
               f"PASSWORD = '{postgres.PASSWORD}'")
    yield f"{source.name}_fh"
    source.sql(f"DROP SECRET {source.name}_fh")


def described(firehose, name):
    told = firehose.describe_delivery_stream(DeliveryStreamName=name)
    return told["DeliveryStreamDescription"]


def configuration(port, database, secret, **changed):
    given = {
        "Type": "PostgreSQL",
        "Endpoint": "127.0.0.1",
        "Port": port,
        "SSLMode": "Disabled",
        "Databases": {"Include": [database]},
        "Tables": {"Include": ["public.orders"]},
        "SnapshotWatermarkTable": "public.watermarks",
        "DatabaseSourceAuthenticationConfiguration": {"SecretsManagerConfiguration": {
            "Enabled": True, "RoleARN": ROLE,
            # With what Secrets Manager appends to a secret's name.
            "SecretARN": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{secret}-AbC1d2",
        }},
        "DatabaseSourceVPCConfiguration": {
            "VpcEndpointServiceName": "com.amazonaws.vpce.us-east-1.vpce-svc-0123456789abcdef0"},
        **changed,
    }
    return {key: value for key, value in given.items() if value is not None}


def create(firehose, name, bucket, given):
    return firehose.create_delivery_stream(
        DeliveryStreamName=name,
        DeliveryStreamType="DatabaseAsSource",
        DatabaseSourceConfiguration=given,
        ExtendedS3DestinationConfiguration={
            "RoleARN": ROLE, "BucketARN": f"arn:aws:s3:::{bucket}", "Prefix": "orders/",
            "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 1},
        },
    )


def delete(firehose, source, name):
    """Deletes a delivery stream, and waits until what it made is gone too."""
    firehose.delete_delivery_stream(DeliveryStreamName=name)

    def gone():
        """the delivery stream, its source and its connection are gone"""
        names = firehose.list_delivery_streams(Limit=1000)["DeliveryStreamNames"]
        left = source.sql("SHOW SOURCES") + source.sql("SHOW CONNECTIONS")
        return name not in names and name not in [one["name"] for one in left]

    eventually(gone, 30)


def landed(s3, bucket):
    """The changes in the bucket, in commit order: operation, and the row after or before."""
    decoder, found = json.JSONDecoder(), []
    for key in keys(s3, bucket, "orders/"):
        text = body(s3, bucket, key).decode()
        while text := text.lstrip():
            record, end = decoder.raw_decode(text)
            text = text[end:]
            if record.get("op") in ("r", "c", "u", "d"):
                found.append(record)
    rows = [(one["op"], one["after"] or one["before"]) for one in sorted(found, key=stamp)]
    return [(op, row["id"], row.get("item")) for op, row in rows]


def test_rows_arrive_in_the_bucket(firehose, kinesis, s3, bucket, pg, database, source, secret):
    name = database
    given = configuration(pg.port, database, secret)
    arn = create(firehose, name, bucket, given)["DeliveryStreamARN"]
    assert arn == f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/{name}"
    eventually(lambda: described(firehose, name)["DeliveryStreamStatus"] == "ACTIVE", 30)
    eventually(lambda: len(landed(s3, bucket)) == 2, 40)
    pg.execute("INSERT INTO orders VALUES (3, 'three')", database=database)
    pg.execute("UPDATE orders SET item = 'zwei' WHERE id = 2", database=database)
    pg.execute("DELETE FROM orders WHERE id = 1", database=database)
    pg.execute("INSERT INTO other VALUES (9)", database=database)
    eventually(lambda: len(landed(s3, bucket)) == 5, 40)
    found = landed(s3, bucket)
    assert sorted(found[:2]) == [("r", 1, "one"), ("r", 2, "two")]
    assert found[2:4] == [("c", 3, "three"), ("u", 2, "zwei")] and found[4][:2] == ("d", 1), found

    told = described(firehose, name)
    assert told["DeliveryStreamType"] == "DatabaseAsSource"
    assert "FailureDescription" not in told
    shown = told["Source"]["DatabaseSourceDescription"]
    (snapshot,) = shown.pop("SnapshotInfo")
    assert shown == given
    requested = snapshot.pop("RequestTimestamp").timestamp()
    assert abs(requested - time.time()) < 600
    assert snapshot.pop("Id")
    assert snapshot == {"Table": "public.orders", "RequestedBy": "FIREHOSE", "Status": "COMPLETE"}
    assert firehose.list_delivery_streams(DeliveryStreamType="DatabaseAsSource", Limit=100)[
        "DeliveryStreamNames"].count(name) == 1
    with pytest.raises(ClientError) as error:
        firehose.put_record(DeliveryStreamName=name, Record={"Data": b"x"})
    assert error.value.response["Error"]["Code"] == "InvalidArgumentException"
    (row,) = [row for row in source.sql("SHOW SOURCES") if row["name"] == name]
    assert pg.slot(row["slot"])["active"]

    delete(firehose, source, name)
    assert pg.slot(row["slot"]) is None
    kinesis.delete_stream(StreamName=name)


def test_a_database_that_is_not_ready_is_said(firehose, kinesis, s3, bucket, pg, database, source,
                                              secret):
    """The publication is missing: AWS's failure has the reason, and mending it is enough."""
    name = database
    pg.execute(f"DROP PUBLICATION {name}", database=database)
    create(firehose, name, bucket, configuration(pg.port, database, secret))

    def told():
        failure = described(firehose, name).get("FailureDescription", {})
        return "CREATE PUBLICATION" in failure.get("Details", "") and failure

    assert eventually(told, 30)["Type"] == "UNKNOWN_ERROR"
    pg.execute(f"CREATE PUBLICATION {name} FOR TABLE orders", database=database)
    source.sql(f'RESUME SOURCE "{name}"')
    eventually(lambda: len(landed(s3, bucket)) == 2, 60)
    assert "FailureDescription" not in described(firehose, name)
    delete(firehose, source, name)
    kinesis.delete_stream(StreamName=name)


def test_what_cannot_be_is_refused_by_name(firehose, bucket, pg, database, secret):
    enabled = "DatabaseSourceAuthenticationConfiguration"

    def secrets(**given):
        return {enabled: {"SecretsManagerConfiguration": given}}

    elsewhere = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:nobody"
    for changed, code, words in [
        ({"Type": "MySQL"}, "InvalidArgumentException", ("Type", "PostgreSQL")),
        ({"Columns": {"Include": ["public.orders.id"]}}, "InvalidArgumentException", ("Columns",)),
        ({"SurrogateKeys": ["id"]}, "InvalidArgumentException", ("SurrogateKeys",)),
        ({"Databases": {"Include": ["a", "b"]}}, "InvalidArgumentException", ("Databases.Include",)),
        ({"Databases": {"Exclude": ["a"]}}, "InvalidArgumentException", ("Databases.Exclude",)),
        ({"Tables": {"Exclude": ["public.x"]}}, "InvalidArgumentException", ("Tables.Exclude",)),
        ({"Tables": {"Include": ["public.or.*"]}}, "InvalidArgumentException", ("Tables.Include",)),
        (secrets(Enabled=False), "InvalidArgumentException", ("SecretsManagerConfiguration",)),
        (secrets(Enabled=True, SecretARN=elsewhere), "InvalidArgumentException",
         ("SecretARN", "CREATE SECRET")),
        ({"Endpoint": " "}, "ValidationException", ("endpoint",)),
        ({"SSLMode": "Maybe"}, "ValidationException", ("sslMode", "Disabled, Enabled")),
    ]:
        with pytest.raises(ClientError) as error:
            create(firehose, database, bucket, configuration(pg.port, database, secret, **changed))
        told = error.value.response["Error"]
        assert told["Code"] == code, (changed, told)
        assert all(word in told["Message"] for word in words), (changed, told)
        assert postgres.PASSWORD not in str(told)
    assert database not in firehose.list_delivery_streams(Limit=1000)["DeliveryStreamNames"]
