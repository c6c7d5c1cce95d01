"""Lease tables, measurements and identity: what KCL asks of other services, through boto3."""

import threading

import botocore.exceptions
import pytest

import hydrant

INDEX = "LeaseOwnerToLeaseKeyIndex"


@pytest.fixture
def dynamodb(server):
    return server.client("dynamodb")


@pytest.fixture
def table(dynamodb, name):
    """A lease table as KCL makes it."""
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": "application", "Value": name}],
    )
    dynamodb.get_waiter("table_exists").wait(
        TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    return name


def lease(key, counter=0, owner="w1", **more):
    return {
        "leaseKey": {"S": key}, "leaseCounter": {"N": str(counter)}, "leaseOwner": {"S": owner},
        **more,
    }


def code(raised):
    return raised.value.response["Error"]["Code"]


def test_a_table_from_its_creation_to_its_end(dynamodb, table):
    shown = dynamodb.describe_table(TableName=table)["Table"]
    assert shown["TableStatus"] == "ACTIVE"
    assert shown["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert shown["ItemCount"] == 0 and shown["TableSizeBytes"] == 0
    arn = shown["TableArn"]
    dynamodb.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    dynamodb.untag_resource(ResourceArn=arn, TagKeys=["application"])
    assert dynamodb.list_tags_of_resource(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    assert table in dynamodb.list_tables()["TableNames"]
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=True)
    hydrant.eventually(lambda: active(dynamodb, table))
    with pytest.raises(botocore.exceptions.ClientError, match="protected against deletion"):
        dynamodb.delete_table(TableName=table)
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
    hydrant.eventually(lambda: active(dynamodb, table))
    dynamodb.delete_table(TableName=table)
    dynamodb.get_waiter("table_not_exists").wait(
        TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        dynamodb.scan(TableName=table)
    assert code(raised) == "ResourceNotFoundException"
    assert raised.value.response["Error"]["Message"] == "Requested resource not found"


def active(dynamodb, table):
    """the table is ACTIVE"""
    return dynamodb.describe_table(TableName=table)["Table"]["TableStatus"] == "ACTIVE"


def test_of_two_who_take_a_lease_one_gets_it(dynamodb, server, table):
    dynamodb.put_item(
        TableName=table, Item=lease("shard-0"), Expected={"leaseKey": {"Exists": False}}
    )
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        dynamodb.put_item(
            TableName=table, Item=lease("shard-0"), Expected={"leaseKey": {"Exists": False}}
        )
    assert code(raised) == "ConditionalCheckFailedException"
    won = []

    def take(owner):
        client = server.client("dynamodb")
        try:
            client.update_item(
                TableName=table, Key={"leaseKey": {"S": "shard-0"}},
                Expected={"leaseCounter": {"Value": {"N": "0"}}},
                AttributeUpdates={
                    "leaseCounter": {"Value": {"N": "1"}, "Action": "PUT"},
                    "leaseOwner": {"Value": {"S": owner}, "Action": "PUT"},
                    "ownerSwitchesSinceCheckpoint": {"Value": {"N": "1"}, "Action": "ADD"},
                    "checkpointOwner": {"Action": "DELETE"},
                },
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
            won.append(owner)
        except client.exceptions.ConditionalCheckFailedException as error:
            assert error.response["Item"]["leaseCounter"] == {"N": "1"}

    threads = [threading.Thread(target=take, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    item = dynamodb.get_item(
        TableName=table, Key={"leaseKey": {"S": "shard-0"}}, ConsistentRead=True
    )["Item"]
    assert item == lease("shard-0", 1, won[0], ownerSwitchesSinceCheckpoint={"N": "1"})


def test_expressions(dynamodb, table):
    key = {"leaseKey": {"S": "Leader"}}
    dynamodb.put_item(
        TableName=table, Item=key, ConditionExpression="attribute_not_exists(#pk)",
        ExpressionAttributeNames={"#pk": "leaseKey"},
    )
    updated = dynamodb.update_item(
        TableName=table, Key=key,
        UpdateExpression="SET #k0 = :v0, stats = if_not_exists(stats, :none) ADD n :one",
        ConditionExpression="attribute_exists(leaseKey) AND (attribute_not_exists(rvn) OR rvn = :v0)",
        ExpressionAttributeNames={"#k0": "ownerName"},
        ExpressionAttributeValues={":v0": {"S": "w1"}, ":one": {"N": "1.50"}, ":none": {"L": []}},
        ReturnValues="UPDATED_NEW",
    )["Attributes"]
    assert updated == {"ownerName": {"S": "w1"}, "stats": {"L": []}, "n": {"N": "1.5"}}
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        dynamodb.update_item(
            TableName=table, Key=key, UpdateExpression="SET name = :v",
            ExpressionAttributeValues={":v": {"S": "x"}},
        )
    assert raised.value.response["Error"]["Message"] == (
        "Invalid UpdateExpression: Attribute name is a reserved keyword; reserved keyword: name"
    )
    old = dynamodb.delete_item(
        TableName=table, Key=key, ConditionExpression="ownerName = :v",
        ExpressionAttributeValues={":v": {"S": "w1"}}, ReturnValues="ALL_OLD",
    )["Attributes"]
    assert old["n"] == {"N": "1.5"}


def test_pages_parts_and_the_index_of_owners(dynamodb, table):
    for n in range(25):
        dynamodb.put_item(TableName=table, Item=lease(f"shard-{n:02}", owner=f"w{n % 2}"))
    pages = dynamodb.get_paginator("scan").paginate(
        TableName=table, PaginationConfig={"PageSize": 7}
    )
    assert sorted(i["leaseKey"]["S"] for page in pages for i in page["Items"]) == [
        f"shard-{n:02}" for n in range(25)
    ]
    parts = [
        dynamodb.scan(TableName=table, Segment=n, TotalSegments=4)["Count"] for n in range(4)
    ]
    assert sum(parts) == 25
    dynamodb.update_table(
        TableName=table,
        AttributeDefinitions=[
            {"AttributeName": "leaseKey", "AttributeType": "S"},
            {"AttributeName": "leaseOwner", "AttributeType": "S"},
        ],
        GlobalSecondaryIndexUpdates=[{"Create": {
            "IndexName": INDEX,
            "KeySchema": [
                {"AttributeName": "leaseOwner", "KeyType": "HASH"},
                {"AttributeName": "leaseKey", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }}],
    )

    def indexed():
        """the index is ACTIVE"""
        indexes = dynamodb.describe_table(TableName=table)["Table"]["GlobalSecondaryIndexes"]
        return [i["IndexStatus"] for i in indexes] == ["ACTIVE"]

    hydrant.eventually(indexed)
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table, IndexName=INDEX, KeyConditionExpression="leaseOwner = :o",
        ExpressionAttributeValues={":o": {"S": "w1"}}, PaginationConfig={"PageSize": 5},
    )
    assert [i["leaseKey"]["S"] for page in pages for i in page["Items"]] == [
        f"shard-{n:02}" for n in range(1, 25, 2)
    ]


def test_a_transaction_is_whole(dynamodb, table):
    dynamodb.put_item(TableName=table, Item=lease("a", 1))
    actions = [
        {"ConditionCheck": {
            "TableName": table, "Key": {"leaseKey": {"S": "a"}},
            "ConditionExpression": "leaseCounter = :n",
            "ExpressionAttributeValues": {":n": {"N": "2"}},
        }},
        {"Put": {"TableName": table, "Item": lease("b")}},
    ]
    with pytest.raises(dynamodb.exceptions.TransactionCanceledException) as raised:
        dynamodb.transact_write_items(TransactItems=actions)
    reasons = raised.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["ConditionalCheckFailed", "None"]
    assert dynamodb.scan(TableName=table)["Count"] == 1
    actions[0]["ConditionCheck"]["ExpressionAttributeValues"] = {":n": {"N": "1"}}
    dynamodb.transact_write_items(TransactItems=actions)
    assert dynamodb.scan(TableName=table)["Count"] == 2


def test_what_is_not_there_is_refused_by_name(dynamodb, table):
    with pytest.raises(botocore.exceptions.ClientError, match="hydrant does not support") as raised:
        dynamodb.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": lease("a")}}]})
    assert code(raised) == "UnsupportedOperationException"
    with pytest.raises(botocore.exceptions.ClientError, match="no backups"):
        dynamodb.update_continuous_backups(
            TableName=table,
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
        )


def test_leases_outlive_a_kill(start):
    server = start()
    dynamodb = server.client("dynamodb")
    dynamodb.create_table(
        TableName="app",
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        ProvisionedThroughput={"ReadCapacityUnits": 10, "WriteCapacityUnits": 10},
    )
    hydrant.eventually(lambda: active(dynamodb, "app"))
    dynamodb.put_item(TableName="app", Item=lease("a", 7))
    server.kill()
    server.start()
    dynamodb = server.client("dynamodb")
    assert dynamodb.scan(TableName="app")["Items"] == [lease("a", 7)]
    assert dynamodb.describe_table(TableName="app")["Table"]["ItemCount"] == 1


def test_lag_of_an_application_is_on_the_metrics_page(server, kinesis, dynamodb, table, name):
    hydrant.make_stream(kinesis, name)
    put = kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    checkpoint = {"S": put["SequenceNumber"]}
    dynamodb.put_item(TableName=table, Item=lease(put["ShardId"], checkpoint=checkpoint))
    wanted = (
        f'hydrant_kcl_checkpoint_age_milliseconds{{account="{hydrant.ACCOUNT}",'
        f'region="{hydrant.REGION}",application="{table}",shard="{put["ShardId"]}",owner="w1"}} '
    )
    status, page = server.get("/metrics")
    assert status == 200
    [line] = [line for line in page.splitlines() if line.startswith(wanted)]
    assert 0 <= int(line.removeprefix(wanted)) < 60_000


@pytest.mark.parametrize("size", [1, 400])
def test_measurements_are_shown(server, name, size):
    # Large requests come packed.
    cloudwatch = server.client("cloudwatch")
    data = [
        {
            "MetricName": "MillisBehindLatest",
            "Unit": "Milliseconds",
            "Dimensions": [
                {"Name": "Operation", "Value": "ProcessTask"},
                {"Name": "ShardId", "Value": f"shardId-{n:012}"},
            ],
            "StatisticValues": {"SampleCount": 2, "Sum": 30, "Minimum": 10, "Maximum": 20},
        }
        for n in range(size)
    ]
    cloudwatch.put_metric_data(Namespace=name, MetricData=data)
    page = server.get("/metrics")[1]
    for wanted in [
        f'hydrant_kcl_millis_behind_latest{{account="{hydrant.ACCOUNT}",region="{hydrant.REGION}",'
        f'application="{name}",shard="shardId-{size - 1:012}"}} 20',
        f'namespace="{name}",metric="MillisBehindLatest",operation="ProcessTask",'
        f'shard_id="shardId-{size - 1:012}"}} 30',
    ]:
        assert wanted in page, wanted
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        cloudwatch.put_metric_data(Namespace="AWS/mine", MetricData=data[:1])
    assert code(raised).startswith("InvalidParameterValue")


def test_measurements_as_a_form(server, name):
    # What older SDKs send, and the AWS CLI for some years.
    out = signed(server, "monitoring", (
        "Action=PutMetricData&Version=2010-08-01&Namespace=" + name
        + "&MetricData.member.1.MetricName=Records&MetricData.member.1.Value=3"
        + "&MetricData.member.1.Dimensions.member.1.Name=StreamName"
        + "&MetricData.member.1.Dimensions.member.1.Value=tweets"
    ))
    assert "<PutMetricDataResponse" in out and "<RequestId>" in out
    wanted = f'namespace="{name}",metric="Records",stream_name="tweets"}} 3'
    assert wanted in server.get("/metrics")[1]


def signed(server, service, form):
    """Posts a form, signed, and returns the reply's text."""
    import urllib.request

    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(
        "POST", server.aws + "/", data=form.encode(),
        headers={"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
    )
    SigV4Auth(Credentials(*hydrant.KEY), service, hydrant.REGION).add_auth(request)
    plain = urllib.request.Request(server.aws + "/", form.encode(), dict(request.headers.items()))
    with urllib.request.urlopen(plain, timeout=10) as reply:
        return reply.read().decode()


def test_who_is_calling(server):
    identity = server.client("sts").get_caller_identity()
    assert identity["Account"] == hydrant.ACCOUNT
    assert identity["Arn"] == f"arn:aws:iam::{hydrant.ACCOUNT}:root"
    with pytest.raises(botocore.exceptions.ClientError, match="does not support AssumeRole"):
        server.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{hydrant.ACCOUNT}:role/any", RoleSessionName="any"
        )
