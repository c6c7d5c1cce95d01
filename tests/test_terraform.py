"""The calls of Terraform's AWS provider, in its order, with the members that it always sends: what it
applies it finds again, and a second apply changes nothing."""

import pytest
from botocore.exceptions import ClientError
from hydrant import ACCOUNT, REGION, eventually

READING = {
    "DescribeLimits", "DescribeStreamSummary", "ListTagsForStream", "DescribeStreamConsumer",
    "GetResourcePolicy", "DescribeDeliveryStream", "ListTagsForDeliveryStream",
}
ROLE = f"arn:aws:iam::{ACCOUNT}:role/terraform"


class Provider:
    """What the provider does with the services; it notes the names of its calls."""

    def __init__(self, server):
        self.calls = []
        self.kinesis, self.firehose = server.client("kinesis"), server.client("firehose")
        for client in (self.kinesis, self.firehose):
            client.meta.events.register("before-call", self.note)
        # Before anything else it asks whose credentials it has.
        told = server.client("sts").get_caller_identity()
        assert told["Account"] == ACCOUNT and told["Arn"].startswith(f"arn:aws:iam::{ACCOUNT}:")

    def note(self, model, **_):
        self.calls.append(model.name)

    def changes(self):
        """The calls since the last time that could have changed something."""
        calls, self.calls = self.calls, []
        return [name for name in calls if name not in READING]

    def stream(self, name):
        """The attributes of a stream as a refresh reads them; None if it is gone."""
        told = self.summary(name)
        if told is None:
            return None
        tags = self.kinesis.list_tags_for_stream(StreamName=name)["Tags"]
        mode = told["StreamModeDetails"]["StreamMode"]
        return {
            "id": told["StreamARN"],
            "encryption_type": told.get("EncryptionType", "NONE"),
            "kms_key_id": told.get("KeyId", ""),
            "max_record_size_in_kib": told["MaxRecordSizeInKiB"],
            "name": told["StreamName"],
            "retention_period": told["RetentionPeriodHours"],
            "shard_count": told["OpenShardCount"] if mode == "PROVISIONED" else None,
            "shard_level_metrics": {
                name for one in told["EnhancedMonitoring"] for name in one["ShardLevelMetrics"]},
            "stream_mode": mode,
            "tags": {tag["Key"]: tag["Value"] for tag in tags},
        }

    def summary(self, name):
        try:
            told = self.kinesis.describe_stream_summary(StreamName=name)
        except self.kinesis.exceptions.ResourceNotFoundException:
            return None
        return told["StreamDescriptionSummary"]

    def settled(self, name, pending):
        """Waits as the provider does: no status but the pending one and ACTIVE may be seen."""
        def active():
            """the stream is ACTIVE"""
            status = self.summary(name)["StreamStatus"]
            assert status in (pending, "ACTIVE")
            return status == "ACTIVE"

        eventually(active)

    def create(self, want):
        """Creates a stream; its attributes."""
        name = want["name"]
        more = {"ShardCount": want["shard_count"]} if want["shard_count"] else {}
        self.kinesis.create_stream(
            StreamName=name, MaxRecordSizeInKiB=want["max_record_size_in_kib"],
            StreamModeDetails={"StreamMode": want["stream_mode"]}, Tags=want["tags"], **more)
        self.settled(name, "CREATING")
        # Always, though the stream has 24 hours already.
        self.kinesis.increase_stream_retention_period(
            StreamName=name, RetentionPeriodHours=want["retention_period"])
        self.settled(name, "UPDATING")
        if want["shard_level_metrics"]:
            self.kinesis.enable_enhanced_monitoring(
                StreamName=name, ShardLevelMetrics=sorted(want["shard_level_metrics"]))
            self.settled(name, "UPDATING")
        if want["encryption_type"] == "KMS":
            self.encrypt(want)
        return self.stream(name)

    def encrypt(self, want):
        self.kinesis.start_stream_encryption(
            StreamName=want["name"], EncryptionType="KMS", KeyId=want["kms_key_id"])
        self.settled(want["name"], "UPDATING")

    def apply(self, want):
        """Refreshes, plans and applies; the attributes after it."""
        self.kinesis.describe_limits()
        have = self.stream(want["name"])
        if have is None:
            return self.create(want)
        name, arn = want["name"], have["id"]
        changed = {key for key in want if want[key] != have[key]}
        if "stream_mode" in changed:
            self.kinesis.update_stream_mode(
                StreamARN=arn, StreamModeDetails={"StreamMode": want["stream_mode"]})
            self.settled(name, "UPDATING")
        if want["stream_mode"] == "PROVISIONED" and "shard_count" in changed:
            self.kinesis.update_shard_count(
                StreamName=name, TargetShardCount=want["shard_count"],
                ScalingType="UNIFORM_SCALING")
            self.settled(name, "UPDATING")
        if "retention_period" in changed:
            longer = want["retention_period"] > have["retention_period"]
            change = (self.kinesis.increase_stream_retention_period if longer
                      else self.kinesis.decrease_stream_retention_period)
            change(StreamName=name, RetentionPeriodHours=want["retention_period"])
            self.settled(name, "UPDATING")
        for change, names in (
            (self.kinesis.disable_enhanced_monitoring,
             have["shard_level_metrics"] - want["shard_level_metrics"]),
            (self.kinesis.enable_enhanced_monitoring,
             want["shard_level_metrics"] - have["shard_level_metrics"]),
        ):
            if names:
                change(StreamName=name, ShardLevelMetrics=sorted(names))
                self.settled(name, "UPDATING")
        if changed & {"encryption_type", "kms_key_id"}:
            if want["encryption_type"] == "KMS":
                self.encrypt(want)
            else:
                self.kinesis.stop_stream_encryption(
                    StreamName=name, EncryptionType=have["encryption_type"],
                    KeyId=have["kms_key_id"])
                self.settled(name, "UPDATING")
        if "max_record_size_in_kib" in changed:
            self.kinesis.update_max_record_size(
                StreamARN=arn, MaxRecordSizeInKiB=want["max_record_size_in_kib"])
            self.settled(name, "UPDATING")
        removed = sorted(set(have["tags"]) - set(want["tags"]))
        if removed:
            self.kinesis.remove_tags_from_stream(StreamName=name, TagKeys=removed)
        added = dict(want["tags"].items() - have["tags"].items())
        if added:
            self.kinesis.add_tags_to_stream(StreamName=name, Tags=added)
        return self.stream(name)

    def destroy(self, name):
        self.kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)

        def gone():
            """the stream is gone"""
            return self.summary(name) is None

        eventually(gone)


def wanted(name, **more):
    return {
        "name": name, "shard_count": 2, "stream_mode": "PROVISIONED", "retention_period": 24,
        "shard_level_metrics": set(), "encryption_type": "NONE", "kms_key_id": "",
        "max_record_size_in_kib": 1024, "tags": {"team": "data"}, **more,
    }


def applied(provider, want):
    """Applies twice: the first has the stream as it is wanted, the second changes nothing."""
    have = provider.apply(want)
    assert {key: have[key] for key in want} == want
    changes = provider.changes()
    assert provider.apply(want) == have
    assert provider.changes() == []
    return changes


def test_a_stream_through_its_life(server, name):
    provider = Provider(server)
    want = wanted(name)
    assert applied(provider, want) == ["CreateStream", "IncreaseStreamRetentionPeriod"]
    for change, calls in (
        ({"tags": {"team": "ingest", "cost": "1"}}, ["AddTagsToStream"]),
        ({"tags": {"cost": "1"}}, ["RemoveTagsFromStream"]),
        ({"shard_count": 4}, ["UpdateShardCount"]),
        ({"shard_count": 2}, ["UpdateShardCount"]),
        ({"retention_period": 48}, ["IncreaseStreamRetentionPeriod"]),
        ({"retention_period": 24}, ["DecreaseStreamRetentionPeriod"]),
        ({"shard_level_metrics": {"IncomingBytes", "OutgoingRecords"}},
         ["EnableEnhancedMonitoring"]),
        ({"shard_level_metrics": {"IncomingRecords"}},
         ["DisableEnhancedMonitoring", "EnableEnhancedMonitoring"]),
        ({"max_record_size_in_kib": 2048}, ["UpdateMaxRecordSize"]),
        ({"stream_mode": "ON_DEMAND", "shard_count": None}, ["UpdateStreamMode"]),
    ):
        want = {**want, **change}
        assert applied(provider, want) == calls, change
    provider.destroy(name)
    # Gone is gone: what would be applied now is created anew.
    assert provider.stream(name) is None


def test_encryption_is_switched_on_and_off(start, name, tmp_path):
    key = tmp_path / "master.key"
    key.write_text(bytes(range(32)).hex())
    server = start("--master-key-file", str(key))
    provider = Provider(server)
    want = wanted(name, encryption_type="KMS", kms_key_id="alias/aws/kinesis")
    assert applied(provider, want)[-1] == "StartStreamEncryption"
    assert applied(provider, {**want, "encryption_type": "NONE", "kms_key_id": ""}) == [
        "StopStreamEncryption"]


def test_a_consumer_and_a_policy_of_a_stream(server, name):
    provider = Provider(server)
    arn = provider.apply(wanted(name))["id"]
    kinesis = provider.kinesis
    consumer = kinesis.register_stream_consumer(
        StreamARN=arn, ConsumerName="terraform")["Consumer"]["ConsumerARN"]

    def active():
        """the consumer is ACTIVE"""
        told = kinesis.describe_stream_consumer(ConsumerARN=consumer)["ConsumerDescription"]
        assert told["StreamARN"] == arn and told["ConsumerName"] == "terraform"
        return told["ConsumerStatus"] == "ACTIVE"

    eventually(active)
    policy = (f'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":'
              f'"arn:aws:iam::{ACCOUNT}:root"}},"Action":["kinesis:PutRecord"],'
              f'"Resource":"{arn}"}}]}}')
    kinesis.put_resource_policy(ResourceARN=arn, Policy=policy)
    assert kinesis.get_resource_policy(ResourceARN=arn)["Policy"] == policy
    kinesis.delete_resource_policy(ResourceARN=arn)
    kinesis.deregister_stream_consumer(ConsumerARN=consumer)

    def gone():
        """the consumer is gone"""
        try:
            kinesis.describe_stream_consumer(ConsumerARN=consumer)
        except kinesis.exceptions.ResourceNotFoundException:
            return True
        return False

    eventually(gone)
    # A consumer that is left over goes with its stream, because Terraform enforces that.
    kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="left-over")
    provider.destroy(name)


def test_a_delivery_stream_through_its_life(server, s3, name):
    provider = Provider(server)
    firehose = provider.firehose
    s3.create_bucket(Bucket=name)
    destination = {
        "BucketARN": f"arn:aws:s3:::{name}", "RoleARN": ROLE,
        "BufferingHints": {"IntervalInSeconds": 300, "SizeInMBs": 5}, "Prefix": "",
        "CompressionFormat": "UNCOMPRESSED", "CustomTimeZone": "UTC", "FileExtension": "",
        "DataFormatConversionConfiguration": {"Enabled": False},
        "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"},
        "S3BackupMode": "Disabled",
    }
    firehose.create_delivery_stream(
        DeliveryStreamName=name, DeliveryStreamType="DirectPut",
        ExtendedS3DestinationConfiguration=destination, Tags=[{"Key": "team", "Value": "data"}])

    def described():
        """the delivery stream is ACTIVE"""
        told = firehose.describe_delivery_stream(DeliveryStreamName=name)
        told = told["DeliveryStreamDescription"]
        assert told["DeliveryStreamStatus"] in ("CREATING", "ACTIVE")
        return told if told["DeliveryStreamStatus"] == "ACTIVE" else None

    told = eventually(described)
    assert told["DeliveryStreamARN"] == f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/{name}"
    found = told["Destinations"][0]["ExtendedS3DestinationDescription"]
    for member in ("BucketARN", "RoleARN", "BufferingHints", "CompressionFormat",
                   "EncryptionConfiguration", "S3BackupMode"):
        assert found[member] == destination[member], member
    tags = firehose.list_tags_for_delivery_stream(DeliveryStreamName=name)["Tags"]
    assert tags == [{"Key": "team", "Value": "data"}]

    # The provider updates with the version and the destination that it read last.
    update = {**destination, "BufferingHints": {"IntervalInSeconds": 60, "SizeInMBs": 1},
              "ErrorOutputPrefix": ""}
    firehose.update_destination(
        DeliveryStreamName=name, CurrentDeliveryStreamVersionId=told["VersionId"],
        DestinationId=told["Destinations"][0]["DestinationId"],
        ExtendedS3DestinationUpdate=update)
    again = eventually(described)
    assert again["VersionId"] != told["VersionId"]
    found = again["Destinations"][0]["ExtendedS3DestinationDescription"]
    assert found["BufferingHints"] == update["BufferingHints"]
    with pytest.raises(ClientError) as error:
        firehose.update_destination(
            DeliveryStreamName=name, CurrentDeliveryStreamVersionId=told["VersionId"],
            DestinationId=told["Destinations"][0]["DestinationId"],
            ExtendedS3DestinationUpdate=update)
    assert error.value.response["Error"]["Code"] == "ConcurrentModificationException"

    firehose.delete_delivery_stream(DeliveryStreamName=name)

    def gone():
        """the delivery stream is gone"""
        try:
            firehose.describe_delivery_stream(DeliveryStreamName=name)
        except firehose.exceptions.ResourceNotFoundException:
            return True
        return False

    eventually(gone)
