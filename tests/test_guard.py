"""Encryption at rest, resource policies, enhanced monitoring, and tags of consumers."""

import base64
import json
import os
import sqlite3
import time

import botocore.exceptions
import hydrant
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KMS = "alias/aws/kinesis"
SECRET = b"the treasure is under the old oak"
METRICS = [
    "IncomingBytes", "IncomingRecords", "OutgoingBytes", "OutgoingRecords",
    "WriteProvisionedThroughputExceeded", "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
]


def master_key():
    return base64.b64encode(os.urandom(32)).decode()


def refused(code, call, **members):
    """The text of the refusal."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**members)
    assert caught.value.response["Error"]["Code"] == code, caught.value
    return caught.value.response["Error"]["Message"]


def active(kinesis, name):
    """Waits until the stream may be changed again."""
    def is_active():
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        return summary if summary["StreamStatus"] == "ACTIVE" else None
    return hydrant.eventually(is_active)


def encrypt(kinesis, name, key=KMS):
    kinesis.start_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId=key)
    return active(kinesis, name)


def read(kinesis, name):
    shard = kinesis.list_shards(StreamName=name)["Shards"][0]["ShardId"]
    place = kinesis.get_shard_iterator(
        StreamName=name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    return kinesis.get_records(ShardIterator=place["ShardIterator"])["Records"]


def everything(data):
    """Every byte under the data directory."""
    for path in sorted(data.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


def holders(data, needle):
    return [path.name for path, held in everything(data) if needle in held]


def test_what_is_encrypted_is_nowhere_on_the_disk(start, name, tmp_path):
    key = master_key()
    file = tmp_path / "master"
    file.write_text(key + "\n")
    file.chmod(0o600)
    server = start("--master-key-file", str(file), "--kms-key", "alias/orders")
    kinesis = server.client("kinesis")
    hydrant.make_stream(kinesis, name)
    kinesis.put_record(StreamName=name, PartitionKey="plain-key", Data=b"out in the open")
    summary = encrypt(kinesis, name)
    assert (summary["EncryptionType"], summary["KeyId"]) == ("KMS", KMS)
    put = kinesis.put_record(StreamName=name, PartitionKey="secret-key", Data=SECRET)
    assert put["EncryptionType"] == "KMS"
    encrypt(kinesis, name, "alias/orders")
    records = [{"PartitionKey": "k", "Data": SECRET + str(n).encode()} for n in range(100)]
    assert kinesis.put_records(StreamName=name, Records=records)["EncryptionType"] == "KMS"
    got = read(kinesis, name)
    assert [r["Data"] for r in got] == [b"out in the open", SECRET] + [r["Data"] for r in records]
    assert [r.get("EncryptionType") for r in got] == [None] + ["KMS"] * 101

    metrics, log = server.get("/metrics")[1], server.said()
    server.stop()
    raw = base64.b64decode(key)
    # The control: what is not encrypted is found.
    assert holders(server.data, b"out in the open") and holders(server.data, b"secret-key")
    for needle in (SECRET, base64.b64encode(SECRET)[:40], raw, key.encode(), raw.hex().encode()):
        assert holders(server.data, needle) == []
    assert key not in metrics + log and raw.hex() not in metrics + log
    # The data keys themselves, unwrapped as anybody with the master key could.
    keys = data_keys(server.data, raw)
    assert len(keys) == 2
    for data_key in keys:
        for needle in (data_key, base64.b64encode(data_key)[:42], data_key.hex().encode()):
            assert holders(server.data, needle) == []

    again = start("--master-key-file", str(file), "--kms-key", "alias/orders", data=server.data)
    assert [r["Data"] for r in read(again.client("kinesis"), name)][1:2] == [SECRET]


def data_keys(data, master):
    """The data keys of every stream, from their rows in the control store."""
    with sqlite3.connect(f"file:{data}/hydrant.db?mode=ro", uri=True) as store:
        names = "select name from sqlite_master where type = 'table'"
        tables = [table for table, in store.execute(names)]
        rows = [row for table in tables for row in store.execute(f'select * from "{table}"')]
    texts = [c if isinstance(c, str) else c.decode("utf-8", "replace")
             for row in rows for c in row if isinstance(c, (str, bytes))]
    found = []
    for stream in [json.loads(text) for text in texts if '"encryption":' in text]:
        for key, _ in stream["settings"]["encryption"]["keys"]:
            info = b"data keys under " + key["kms_key"].encode()
            wrapping = HKDF(hashes.SHA256(), 32, b"hydrant master key", info).derive(master)
            wrapped = base64.b64decode(key["wrapped"])
            context = key["id"].to_bytes(8, "little") + stream["id"].encode()
            found.append(AESGCM(wrapping).decrypt(wrapped[:12], wrapped[12:], context))
    return found


def test_without_the_key_nothing_is_read_and_the_log_says_so(start, name):
    key = master_key()
    server = start(env={"HYDRANT_MASTER_KEY": key})
    kinesis = server.client("kinesis")
    hydrant.make_stream(kinesis, name)
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"plain")
    encrypt(kinesis, name)
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=SECRET)
    server.stop()
    for environment, code in [
        ({}, "KMSNotFoundException"),
        ({"HYDRANT_MASTER_KEY": master_key()}, "KMSAccessDeniedException"),
        ({"HYDRANT_MASTER_KEY": key, "HYDRANT_KMS_KEYS": f"{KMS}=disabled"}, "KMSDisabledException"),
    ]:
        other = start(data=server.data, env=environment)
        kinesis = other.client("kinesis")
        shard = kinesis.list_shards(StreamName=name)["Shards"][0]["ShardId"]
        place = kinesis.get_shard_iterator(
            StreamName=name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        page = kinesis.get_records(ShardIterator=place)
        assert [r["Data"] for r in page["Records"]] == [b"plain"]
        refused(code, kinesis.get_records, ShardIterator=page["NextShardIterator"])
        refused(code, kinesis.put_record, StreamName=name, PartitionKey="k", Data=b"x")
        assert "encrypted records can be neither read nor written" in other.said()
        assert key not in other.said()
        other.stop()
    again = start(data=server.data, env={"HYDRANT_MASTER_KEY": key})
    assert [r["Data"] for r in read(again.client("kinesis"), name)] == [b"plain", SECRET]


def test_a_server_without_a_master_key_says_how_to_give_one(kinesis, name):
    hydrant.make_stream(kinesis, name)
    text = refused("KMSNotFoundException", kinesis.start_stream_encryption,
                   StreamName=name, EncryptionType="KMS", KeyId=KMS)
    assert "HYDRANT_MASTER_KEY" in text and "--master-key-file" in text


def test_a_bad_master_key_ends_the_start_and_is_not_repeated(tmp_path):
    server = hydrant.Server(tmp_path / "data", env={"HYDRANT_MASTER_KEY": "nearly-a-key"})
    server.spawn()
    assert server.process.wait(20) != 0
    assert "32 bytes" in server.said() and "nearly-a-key" not in server.said()
    hydrant.Server.every.remove(server)


def test_firehose_delivers_encrypted_streams_in_plain(start, name):
    server = start(env={"HYDRANT_MASTER_KEY": master_key()})
    kinesis, firehose, s3 = (server.client(service) for service in ("kinesis", "firehose", "s3"))
    s3.create_bucket(Bucket=name)
    arn = hydrant.make_stream(kinesis, name)
    encrypt(kinesis, name)
    role = "arn:aws:iam::000000000000:role/any"
    firehose.create_delivery_stream(
        DeliveryStreamName=name, DeliveryStreamType="KinesisStreamAsSource",
        KinesisStreamSourceConfiguration={"KinesisStreamARN": arn, "RoleARN": role},
        ExtendedS3DestinationConfiguration={
            "BucketARN": f"arn:aws:s3:::{name}", "RoleARN": role,
            "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 1},
        },
    )
    def is_active():
        described = firehose.describe_delivery_stream(DeliveryStreamName=name)
        return described["DeliveryStreamDescription"]["DeliveryStreamStatus"] == "ACTIVE"
    hydrant.eventually(is_active)
    time.sleep(0.5)
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=SECRET)
    keys = hydrant.eventually(lambda: s3.list_objects_v2(Bucket=name).get("Contents"))
    delivered = s3.get_object(Bucket=name, Key=keys[0]["Key"])["Body"].read()
    assert delivered == SECRET


def policy(arn, effect, principal, *actions):
    return json.dumps({"Version": "2012-10-17", "Statement": [{
        "Effect": effect, "Principal": {"AWS": principal}, "Action": list(actions),
        "Resource": arn,
    }]})


def test_a_resource_policy_is_kept_and_enforced(kinesis, name):
    arn = hydrant.make_stream(kinesis, name)
    assert "Policy" not in kinesis.get_resource_policy(ResourceARN=arn)
    text = policy(arn, "Deny", hydrant.ACCOUNT, "kinesis:PutRecord")
    kinesis.put_resource_policy(ResourceARN=arn, Policy=text)
    assert kinesis.get_resource_policy(ResourceARN=arn)["Policy"] == text
    told = refused("AccessDeniedException", kinesis.put_record,
                   StreamName=name, PartitionKey="k", Data=b"x")
    assert "explicit deny" in told
    record = {"PartitionKey": "k", "Data": b"x"}
    kinesis.put_records(StreamName=name, Records=[record])
    kinesis.delete_resource_policy(ResourceARN=arn)
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"x")
    refused("ResourceNotFoundException", kinesis.delete_resource_policy, ResourceARN=arn)
    bad = policy(arn, "Allow", "111111111111", "kinesis:DeleteStream")
    told = refused("InvalidArgumentException", kinesis.put_resource_policy,
                   ResourceARN=arn, Policy=bad)
    assert "kinesis:DeleteStream" in told


def test_another_account_may_do_what_a_policy_allows(server, kinesis, name):
    arn = hydrant.make_stream(kinesis, name)
    # Without configured keys, an access key id of twelve digits is the account.
    other = server.client("kinesis", key=("111111111111", "any"))
    record = {"StreamARN": arn, "PartitionKey": "k", "Data": b"from elsewhere"}
    told = refused("AccessDeniedException", other.put_record, **record)
    assert "no resource-based policy allows the kinesis:PutRecord action" in told
    kinesis.put_resource_policy(ResourceARN=arn, Policy=policy(
        arn, "Allow", "111111111111", "kinesis:PutRecord", "kinesis:Get*"))
    shard = other.put_record(**record)["ShardId"]
    place = other.get_shard_iterator(
        StreamARN=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    page = other.get_records(ShardIterator=place)
    assert [r["Data"] for r in page["Records"]] == [b"from elsewhere"]
    refused("AccessDeniedException", other.delete_stream, StreamARN=arn)
    refused("ResourceNotFoundException", other.describe_stream, StreamName=name)
    kinesis.delete_resource_policy(ResourceARN=arn)
    refused("AccessDeniedException", other.get_records, ShardIterator=place)


def test_metrics_by_shard_come_with_enhanced_monitoring(server, kinesis, name):
    hydrant.make_stream(kinesis, name, shards=2)
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    reply = kinesis.enable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["ALL"])
    assert reply["CurrentShardLevelMetrics"] == []
    assert (reply["DesiredShardLevelMetrics"], reply["StreamARN"]) == (METRICS, arn)
    summary = active(kinesis, name)
    assert summary["EnhancedMonitoring"] == [{"ShardLevelMetrics": METRICS}]
    put = kinesis.put_record(StreamName=name, PartitionKey="key", Data=b"12345")
    read(kinesis, name)

    def value(metric, shard=None):
        shard = f',shard="{shard}"' if shard else ""
        head = (f'hydrant_kinesis_{metric}{{account="{hydrant.ACCOUNT}",region="{hydrant.REGION}",'
                f'stream="{name}"{shard}}} ')
        lines = server.get("/metrics")[1].splitlines()
        return next((int(line.removeprefix(head)) for line in lines if line.startswith(head)), None)

    assert value("incoming_bytes_total") == 8
    assert value("shard_incoming_bytes_total", put["ShardId"]) == 8
    assert value("shard_incoming_records_total", put["ShardId"]) == 1
    assert value("get_records_success_total") == 1
    active(kinesis, name)
    reply = kinesis.disable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["ALL"])
    assert reply["DesiredShardLevelMetrics"] == []
    assert value("shard_incoming_bytes_total", put["ShardId"]) is None
    active(kinesis, name)
    kinesis.delete_stream(StreamName=name)
    hydrant.eventually(lambda: f'stream="{name}"' not in server.get("/metrics")[1])


def test_a_consumer_has_tags_of_its_own(kinesis, name):
    arn = hydrant.make_stream(kinesis, name)
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"]
    consumer = consumer["ConsumerARN"]
    kinesis.tag_resource(ResourceARN=consumer, Tags={"team": "tea"})
    assert kinesis.list_tags_for_resource(ResourceARN=consumer)["Tags"] == [
        {"Key": "team", "Value": "tea"}]
    assert kinesis.list_tags_for_resource(ResourceARN=arn)["Tags"] == []
    kinesis.untag_resource(ResourceARN=consumer, TagKeys=["team"])
    assert kinesis.list_tags_for_resource(ResourceARN=consumer)["Tags"] == []
