"""AWS's rates and quotas as a switch, large records, dry runs, records without partition keys."""

import time

import pytest
from botocore.exceptions import ClientError

from hydrant import body, eventually, keys, make_delivery, make_stream, read_shard

MIB = 1 << 20
SHARD = "shardId-000000000000"
COMMITMENT = "MinimumThroughputBillingCommitment"
ONCE = {"retries": {"total_max_attempts": 1}}


def refused(call, **members):
    """Code and text of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.fixture
def limited(start):
    return start("--limits", "aws").client("kinesis", **ONCE)


def create(kinesis, name, **members):
    kinesis.create_stream(StreamName=name, **members)
    # Not by the waiter, which would use up the calls of a second.
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.2)
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "ACTIVE":
            return summary
    pytest.fail(f"{name} did not become active")


def test_a_shard_takes_what_aws_lets_it(limited):
    create(limited, "s", ShardCount=1)
    records = [{"Data": bytes(400 << 10), "PartitionKey": "k"} for _ in range(4)]
    reply = limited.put_records(StreamName="s", Records=records)
    failed = [r for r in reply["Records"] if "ErrorCode" in r]
    assert reply["FailedRecordCount"] == len(failed) and 1 <= len(failed) <= 2
    text = f"Rate exceeded for shard {SHARD} in stream s under account 000000000000."
    for record in failed:
        assert record == {
            "ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": text,
        }
    # What failed is put when it is sent again, as a producer does.
    def again():
        return limited.put_records(StreamName="s", Records=records[:1])["FailedRecordCount"] == 0
    eventually(again, seconds=10)


def test_reads_are_bounded(limited):
    create(limited, "s", ShardCount=1)
    iterator = limited.get_shard_iterator(
        StreamName="s", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    codes = []
    for _ in range(20):
        try:
            limited.get_records(ShardIterator=iterator)
            codes.append("")
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])
    assert set(codes) == {"", "ProvisionedThroughputExceededException"}
    assert codes[:5] == [""] * 5


def test_calls_are_bounded(limited):
    create(limited, "s", ShardCount=1)
    limited.describe_limits()
    told = refused(limited.describe_limits)
    assert told == ("LimitExceededException", "Rate exceeded for account 000000000000.")
    time.sleep(1.1)
    assert limited.describe_limits()["ShardLimit"] == 20_000
    with pytest.raises(ClientError) as caught:
        for _ in range(40):
            limited.describe_stream(StreamName="s")
    error = caught.value.response["Error"]
    assert error["Code"] == "LimitExceededException"
    assert error["Message"] == "Rate exceeded for stream s under account 000000000000."


def test_a_client_with_retries_meets_no_limit(start):
    kinesis = start("--limits", "aws").client(
        "kinesis", retries={"total_max_attempts": 10, "mode": "standard"})
    create(kinesis, "s", ShardCount=1)
    for _ in range(15):
        kinesis.describe_stream(StreamName="s")


def test_nothing_is_bounded_without_the_switch(kinesis, name):
    make_stream(kinesis, name)
    for _ in range(30):
        kinesis.describe_stream(StreamName=name)
        records = [{"Data": bytes(MIB // 2), "PartitionKey": "k"}] * 4
        assert kinesis.put_records(StreamName=name, Records=records)["FailedRecordCount"] == 0


def test_the_shard_limit_is_a_setting(start):
    kinesis = start("--shard-limit", "3").client("kinesis", **ONCE)
    kinesis.create_stream(StreamName="s", ShardCount=3)
    code, text = refused(kinesis.create_stream, StreamName="t", ShardCount=1)
    assert code == "LimitExceededException"
    assert "Limit: 3." in text


def delivered(s3, bucket, size):
    """The objects of a bucket, once there is that much in them."""
    objects = [body(s3, bucket, key) for key in keys(s3, bucket)]
    return objects if sum(map(len, objects)) >= size else None


def test_records_of_ten_mebibytes(kinesis, s3, firehose, name):
    kinesis.create_stream(StreamName=name, ShardCount=1, MaxRecordSizeInKiB=10_240)
    kinesis.get_waiter("stream_exists").wait(
        StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["MaxRecordSizeInKiB"] == 10_240
    # A delivery stream takes it as it comes.
    s3.create_bucket(Bucket=name)
    make_delivery(firehose, name, name, stream_arn=summary["StreamARN"])
    blob = bytes(range(256)) * (10 * MIB // 256)
    blob = blob[1:]
    kinesis.put_record(StreamName=name, Data=blob, PartitionKey="k")
    record, = read_shard(kinesis, name, SHARD)
    assert record["Data"] == blob
    code, text = refused(
        kinesis.put_record, StreamName=name, Data=blob + b"x", PartitionKey="k")
    assert code == "ValidationException" and text.endswith("less than or equal to 10485760")
    assert b"".join(eventually(lambda: delivered(s3, name, len(blob)), seconds=30)) == blob
    kinesis.update_max_record_size(StreamARN=summary["StreamARN"], MaxRecordSizeInKiB=1_024)
    code, text = refused(kinesis.put_record, StreamName=name, Data=blob, PartitionKey="k")
    assert code == "ValidationException" and text.endswith("less than or equal to 1048576")


def test_a_dry_run_does_nothing(kinesis, name):
    make_stream(kinesis, name)
    iterator = kinesis.get_shard_iterator(
        StreamName=name, ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    refusal = refused(
        kinesis.put_record, StreamName=name, Data=b"x", PartitionKey="k", DryRun=True)
    assert refusal[0] == "DryRunOperationException"
    assert refused(kinesis.get_records, ShardIterator=iterator, DryRun=True) == refusal
    assert refused(kinesis.put_record, StreamName="none", Data=b"x", PartitionKey="k",
                   DryRun=True)[0] == "ResourceNotFoundException"
    assert kinesis.get_records(ShardIterator=iterator)["Records"] == []


def test_records_without_partition_keys(kinesis, name):
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"},
                          RecordDistributionStrategy="AUTO")
    kinesis.get_waiter("stream_exists").wait(
        StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["RecordDistributionStrategy"] == "AUTO"
    reply = kinesis.put_records(StreamName=name, Records=[{"Data": b"x"}] * 40)
    counts = {}
    for record in reply["Records"]:
        counts[record["ShardId"]] = counts.get(record["ShardId"], 0) + 1
    assert sorted(counts.values()) == [10] * 4
    assert all("PartitionKey" not in r for r in read_shard(kinesis, name, SHARD))
    kinesis.update_stream_record_distribution_strategy(
        StreamARN=summary["StreamARN"], RecordDistributionStrategy="USER_PARTITION_KEY")
    code, text = refused(kinesis.put_record, StreamName=name, Data=b"x")
    assert code == "ValidationException" and "partitionKey" in text


def test_account_settings(start):
    kinesis = start().client("kinesis", **ONCE)
    wanted = {"Status": "ENABLED"}
    assert kinesis.describe_account_settings()[COMMITMENT] == {"Status": "DISABLED"}
    told = kinesis.update_account_settings(**{COMMITMENT: wanted})[COMMITMENT]
    assert told["Status"] == "ENABLED"
    assert (told["EarliestAllowedEndAt"] - told["StartedAt"]).total_seconds() == 24 * 3600
    told = kinesis.update_account_settings(**{COMMITMENT: {"Status": "DISABLED"}})[COMMITMENT]
    assert told["Status"] == "ENABLED_UNTIL_EARLIEST_ALLOWED_END"

