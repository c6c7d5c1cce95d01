"""Delivery streams as boto3 sees them."""

import gzip
import json
import re
import time

import pytest
from botocore.exceptions import ClientError

from hydrant import ACCOUNT, body, eventually, keys, make_delivery, make_stream

NAME = re.compile(r"^(\d{4}/\d\d/\d\d/\d\d/)([^/]+)-1-\d{4}(-\d\d){5}-[0-9a-f]{8}(-[0-9a-f]{4}){3}"
                  r"-[0-9a-f]{12}(\.gz)?$")


def lines(s3, bucket, prefix=""):
    return [
        line for key in keys(s3, bucket, prefix) for line in body(s3, bucket, key).splitlines()
    ]


def test_direct_put_lands_under_the_hour_it_arrived(firehose, s3, bucket, name):
    make_delivery(firehose, name, bucket)
    told = firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]
    assert told["DeliveryStreamARN"].endswith(f":{ACCOUNT}:deliverystream/{name}")
    assert told["DeliveryStreamType"] == "DirectPut"
    assert told["VersionId"] == "1"
    destination, = told["Destinations"]
    s3_told = destination["ExtendedS3DestinationDescription"]
    assert s3_told["BufferingHints"] == {"SizeInMBs": 1, "IntervalInSeconds": 1}
    assert s3_told["CompressionFormat"] == "UNCOMPRESSED"
    assert s3_told["EncryptionConfiguration"] == {"NoEncryptionConfig": "NoEncryption"}

    one = firehose.put_record(DeliveryStreamName=name, Record={"Data": b"one\n"})
    assert one["RecordId"]
    more = firehose.put_record_batch(
        DeliveryStreamName=name, Records=[{"Data": b"two\n"}, {"Data": b"three\n"}]
    )
    assert more["FailedPutCount"] == 0
    assert len({r["RecordId"] for r in more["RequestResponses"]} | {one["RecordId"]}) == 3
    eventually(lambda: lines(s3, bucket) == [b"one", b"two", b"three"])
    for key in keys(s3, bucket):
        found = NAME.match(key)
        assert found, key
        assert found[2] == name and key.startswith(time.strftime("%Y/", time.gmtime()))


def test_a_tap_writes_gzip_under_its_prefix(kinesis, firehose, s3, bucket, name):
    arn = make_stream(kinesis, name, 2)
    make_delivery(firehose, name, bucket, arn, Prefix="tap/", CompressionFormat="GZIP")
    told = firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]
    assert told["DeliveryStreamType"] == "KinesisStreamAsSource"
    source = told["Source"]["KinesisStreamSourceDescription"]
    assert source["KinesisStreamARN"] == arn
    records = [{"Data": b"%d\n" % n, "PartitionKey": str(n)} for n in range(400)]
    assert kinesis.put_records(StreamName=name, Records=records)["FailedRecordCount"] == 0
    eventually(lambda: len(lines(s3, bucket, "tap/")) >= 400)
    assert sorted(map(int, lines(s3, bucket))) == list(range(400))
    for key in keys(s3, bucket):
        assert NAME.match(key.removeprefix("tap/")) and key.endswith(".gz"), key
        raw = s3.get_object(Bucket=bucket, Key=key)
        assert gzip.decompress(raw["Body"].read())


def test_a_delivery_stream_on_a_tap_takes_no_direct_puts(kinesis, firehose, bucket, name):
    make_delivery(firehose, name, bucket, make_stream(kinesis, name))
    with pytest.raises(ClientError) as error:
        firehose.put_record(DeliveryStreamName=name, Record={"Data": b"x"})
    assert error.value.response["Error"]["Code"] == "InvalidArgumentException"


def test_size_ends_a_batch_before_its_time(firehose, s3, bucket, name):
    make_delivery(firehose, name, bucket, seconds=900)
    for n in range(3):
        record = {"Data": b"%d" % n + b"x" * 499_999 + b"\n"}
        firehose.put_record(DeliveryStreamName=name, Record=record)
    key, = eventually(lambda: keys(s3, bucket))
    assert [line[:1] for line in body(s3, bucket, key).splitlines()][:2] == [b"0", b"1"]


def test_the_legacy_destination_and_its_defaults(firehose, s3, bucket, name):
    role = f"arn:aws:iam::{ACCOUNT}:role/firehose"
    firehose.create_delivery_stream(DeliveryStreamName=name, S3DestinationConfiguration={
        "RoleARN": role, "BucketARN": f"arn:aws:s3:::{bucket}", "Prefix": "legacy-",
        "BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 0},
    })

    def taken():
        """the delivery stream takes a record"""
        try:
            return firehose.put_record(DeliveryStreamName=name, Record={"Data": b"now\n"})
        except ClientError:
            return None

    eventually(taken)
    key = eventually(lambda: keys(s3, bucket))[0]
    assert key.startswith("legacy-") and NAME.match(key.removeprefix("legacy-")), key


def test_lists_and_deletion(firehose, bucket, name):
    names = [f"{name}-{n}" for n in range(3)]
    for one in names:
        make_delivery(firehose, one, bucket)
    page = firehose.list_delivery_streams(ExclusiveStartDeliveryStreamName=names[0], Limit=1)
    assert page["DeliveryStreamNames"] == names[1:2]
    assert page["HasMoreDeliveryStreams"] is True
    with pytest.raises(ClientError) as error:
        make_delivery(firehose, names[0], bucket)
    assert error.value.response["Error"]["Code"] == "ResourceInUseException"
    for one in names:
        firehose.delete_delivery_stream(DeliveryStreamName=one)

    def gone():
        """the delivery streams are gone"""
        listed = firehose.list_delivery_streams(Limit=10_000)["DeliveryStreamNames"]
        return not set(names) & set(listed)

    eventually(gone)
    with pytest.raises(ClientError) as error:
        firehose.describe_delivery_stream(DeliveryStreamName=names[0])
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_records_wait_for_a_bucket_that_is_not_there_yet(start):
    """Nothing that was acknowledged is lost while the bucket is missing. (A missing bucket is tried
    again once a minute, or at the next start.)"""
    server = start()
    firehose = server.client("firehose")
    make_delivery(firehose, "d", "lake")
    payload = json.dumps({"kept": True}).encode()
    firehose.put_record(DeliveryStreamName="d", Record={"Data": payload})
    time.sleep(2)
    server.client("s3").create_bucket(Bucket="lake")
    assert server.stop() == 0
    s3 = start().client("s3")
    key = eventually(lambda: keys(s3, "lake"))[0]
    assert body(s3, "lake", key) == payload
