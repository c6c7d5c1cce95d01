"""What hydrant says to what is wrong: AWS's names, a status, never a hang or a crash."""

import contextlib
import http.client
import json
import re
import socket

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from hydrant import ACCOUNT, KEY, REGION, make_delivery, make_stream

KINESIS = "Kinesis_20131202."
FIREHOSE = "Firehose_20150804."


def call(server, target, body, key=KEY, service="kinesis", headers=None, sign=True):
    """One signed request as bytes; status, headers and the error's name and text."""
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    request = AWSRequest("POST", server.aws + "/", data=body, headers={
        "Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target,
        "Host": server.aws.removeprefix("http://"), **(headers or {}),
    })
    if sign:
        SigV4Auth(Credentials(*key), service, REGION).add_auth(request)
    connection = http.client.HTTPConnection(*server.aws_address, timeout=20)
    connection.request("POST", "/", body, dict(request.headers))
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    told = {}
    if text[:1] == b"{":
        told = json.loads(text)
    name = told.get("__type", "").rpartition("#")[2]
    return reply, name, told.get("message", told.get("Message", text.decode(errors="replace")))


def refused(call, **arguments):
    """The name and text of the error that a boto3 call ends with."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    response = error.value.response
    assert response["ResponseMetadata"]["RequestId"]
    return response["Error"]["Code"], response["Error"]["Message"]


@pytest.fixture
def stream(kinesis, name):
    make_stream(kinesis, name)
    return name


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'"text"', b"{\"StreamName\":", b"\xff\xfe", b"{}{}",
    b'{"StreamName":17}', b'{"StreamName":"x","Data":"YQ==","PartitionKey":{}}',
    b"[" * 100_000, b'{"StreamName":' * 100 + b"1" + b"}" * 100,
], ids=lambda body: body[:24].decode("latin-1"))
def test_malformed_json(server, body):
    reply, name, _ = call(server, KINESIS + "PutRecord", body)
    assert reply.status == 400
    assert name in ("SerializationException", "ValidationException"), name
    assert reply.headers["x-amzn-RequestId"]
    assert server.ready()


def test_data_that_is_not_base64(server, stream):
    for data in ["!", "YQ", "Y", "YQ==YQ==", "Y\nQ=="]:
        body = {"StreamName": stream, "Data": data, "PartitionKey": "k"}
        reply, name, _ = call(server, KINESIS + "PutRecord", body)
        assert (reply.status, name) == (400, "SerializationException"), data


def test_a_wrong_signature(start):
    server = start("--access-key", "AKIDGOOD:verysecret", "--sql-user", "ann:pw")
    good = ("AKIDGOOD", "verysecret")
    make_stream(server.client("kinesis", key=good), "s")
    body = {"StreamName": "s"}
    describe = KINESIS + "DescribeStreamSummary"
    assert call(server, describe, body, key=good)[0].status == 200

    _, name, text = call(server, describe, body, key=("AKIDGOOD", "wrong"))
    assert name == "InvalidSignatureException"
    assert text.startswith("The request signature we calculated does not match the signature you")
    _, name, text = call(server, describe, body, key=("AKIDNONE", "verysecret"))
    assert name == "UnrecognizedClientException"
    assert text == "The security token included in the request is invalid."
    _, name, _ = call(server, describe, body, sign=False)
    assert name in ("MissingAuthenticationTokenException", "MissingAuthenticationToken")
    # A signature is for one moment.
    reply, name, text = call(server, describe, body, key=good,
                             headers={"X-Amz-Date": "20200101T000000Z"}, sign=False)
    assert reply.status >= 400
    # The same keys hold for the bucket, in S3's own words.
    s3 = server.client("s3", key=("AKIDGOOD", "wrong"))
    assert refused(s3.list_buckets)[0] == "SignatureDoesNotMatch"
    assert refused(server.client("s3", key=("AKIDNONE", "x")).list_buckets)[0] == (
        "InvalidAccessKeyId"
    )
    server.client("s3", key=good).create_bucket(Bucket="lake")
    assert "verysecret" not in server.log.read_text()


def test_a_changed_body_is_not_what_was_signed(start):
    server = start("--access-key", "AKIDGOOD:verysecret", "--sql-user", "ann:pw")
    body = json.dumps({"StreamName": "s", "ShardCount": 1}).encode()
    request = AWSRequest("POST", server.aws + "/", data=body, headers={
        "Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": KINESIS + "CreateStream",
    })
    SigV4Auth(Credentials("AKIDGOOD", "verysecret"), "kinesis", REGION).add_auth(request)
    connection = http.client.HTTPConnection(*server.aws_address, timeout=20)
    connection.request("POST", "/", body.replace(b'"s"', b'"t"'), dict(request.headers))
    assert json.loads(connection.getresponse().read())["__type"].endswith(
        "InvalidSignatureException"
    )


@pytest.mark.parametrize("target", [KINESIS + "Nonsense", FIREHOSE + "Nonsense"])
def test_an_unknown_operation(server, target):
    service = "firehose" if target.startswith("Firehose") else "kinesis"
    reply, name, _ = call(server, target, {}, service=service)
    assert (reply.status, name) == (400, "UnknownOperationException")


@pytest.mark.parametrize("target", ["", "Nonsense", "Nonsense_20200101.PutRecord", "."])
def test_an_unknown_service(server, target):
    reply, _, _ = call(server, target, {})
    assert 400 <= reply.status < 500
    assert server.ready()


def test_a_record_of_two_mebibytes(kinesis, stream):
    blob = bytes(2 << 20)
    name, text = refused(kinesis.put_record, StreamName=stream, Data=blob, PartitionKey="k")
    assert name == "ValidationException"
    assert "1048576" in text
    many = [{"Data": b"small", "PartitionKey": "k"}, {"Data": blob, "PartitionKey": "k"}]
    name, _ = refused(kinesis.put_records, StreamName=stream, Records=many)
    assert name == "ValidationException"


# shows: limit:records-per-put
def test_five_hundred_and_one_records(kinesis, stream):
    many = [{"Data": b"x", "PartitionKey": "k"}] * 501
    name, text = refused(kinesis.put_records, StreamName=stream, Records=many)
    assert name == "ValidationException"
    assert "less than or equal to 500" in text
    put = kinesis.put_records(StreamName=stream, Records=many[:500])
    assert put["FailedRecordCount"] == 0 and len(put["Records"]) == 500


def test_a_stream_that_is_not_there(kinesis, firehose):
    want = ("ResourceNotFoundException", f"Stream nowhere under account {ACCOUNT} not found.")
    assert refused(kinesis.describe_stream, StreamName="nowhere") == want
    assert refused(kinesis.put_record, StreamName="nowhere", Data=b"", PartitionKey="k") == want
    assert refused(kinesis.delete_stream, StreamName="nowhere") == want
    name, text = refused(firehose.put_record, DeliveryStreamName="nowhere", Record={"Data": b"x"})
    assert name == "ResourceNotFoundException"
    assert text == f"Firehose nowhere under account {ACCOUNT} not found."


def test_a_stream_that_is_there_already(kinesis, stream):
    name, text = refused(kinesis.create_stream, StreamName=stream, ShardCount=1)
    assert name == "ResourceInUseException"
    assert text == f"Stream {stream} under account {ACCOUNT} already exists."


def test_arguments_out_of_bounds(server, stream):
    for operation, body in [
        ("CreateStream", {"StreamName": "a b", "ShardCount": 1}),
        ("CreateStream", {"StreamName": "x" * 129, "ShardCount": 1}),
        ("CreateStream", {"StreamName": "", "ShardCount": 1}),
        ("CreateStream", {"StreamName": "ok", "ShardCount": 0}),
        ("PutRecord", {"StreamName": stream, "Data": "", "PartitionKey": ""}),
        ("PutRecord", {"StreamName": stream, "Data": "", "PartitionKey": "k" * 257}),
        ("PutRecord", {"StreamName": stream, "Data": ""}),
        ("PutRecords", {"StreamName": stream, "Records": []}),
        ("GetRecords", {"ShardIterator": "x" * 8, "Limit": 10_001}),
        ("GetShardIterator", {"StreamName": stream, "ShardId": "shardId-000000000000",
                              "ShardIteratorType": "NONSENSE"}),
    ]:
        reply, name, text = call(server, KINESIS + operation, body)
        assert (reply.status, name) == (400, "ValidationException"), (operation, body, text)
        assert re.match(r"\d validation errors? detected: Value ", text), text
    for operation, body in [
        ("PutRecord", {"StreamName": stream, "Data": "", "PartitionKey": "k",
                       "ExplicitHashKey": str(1 << 128)}),
        ("GetShardIterator", {"StreamName": stream, "ShardId": "shardId-000000000000",
                              "ShardIteratorType": "AT_SEQUENCE_NUMBER"}),
        ("GetShardIterator", {"StreamName": stream, "ShardId": "shardId-000000000000",
                              "ShardIteratorType": "AT_SEQUENCE_NUMBER",
                              "StartingSequenceNumber": "17"}),
        ("DescribeStreamSummary", {}),
    ]:
        reply, name, text = call(server, KINESIS + operation, body)
        assert reply.status == 400, (operation, body)
        assert name in ("InvalidArgumentException", "ValidationException"), (operation, text)


def test_a_shard_that_is_not_there(kinesis, stream):
    name, text = refused(kinesis.get_shard_iterator, StreamName=stream,
                         ShardId="shardId-000000000009", ShardIteratorType="LATEST")
    assert name == "ResourceNotFoundException"
    assert "shardId-000000000009" in text and stream in text


def test_an_iterator_that_hydrant_did_not_make(kinesis, stream):
    for iterator in ["nonsense", "A" * 300, "AAAAAAAAAAE="]:
        assert refused(kinesis.get_records, ShardIterator=iterator)[0] == (
            "InvalidArgumentException"
        )


def test_an_iterator_of_another_server(start, kinesis, stream):
    """The key that signs iterators is a server's own. (That an iterator expires after five minutes
    is tested in the crate, on a clock that the test moves.)"""
    other = start().client("kinesis")
    make_stream(other, stream)
    foreign = other.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    assert refused(kinesis.get_records, ShardIterator=foreign)[0] == "InvalidArgumentException"


def test_what_delivery_does_not_have_is_refused_by_name(firehose, bucket, name):
    role = f"arn:aws:iam::{ACCOUNT}:role/firehose"
    s3 = {"RoleARN": role, "BucketARN": f"arn:aws:s3:::{bucket}"}
    for more, word in [
        ({"ExtendedS3DestinationConfiguration": s3 | {"ProcessingConfiguration": {
            "Enabled": True, "Processors": [{"Type": "Lambda", "Parameters": []}]}}}, "Process"),
        ({"ExtendedS3DestinationConfiguration": s3 | {"CompressionFormat": "Snappy"}}, "Snappy"),
        ({"HttpEndpointDestinationConfiguration": {
            "EndpointConfiguration": {"Url": "https://example.com"}, "S3Configuration": s3}},
         "Http"),
    ]:
        code, text = refused(firehose.create_delivery_stream, DeliveryStreamName=name, **more)
        assert code == "InvalidArgumentException", text
        assert word.lower() in text.lower(), text
    listed = firehose.list_delivery_streams()["DeliveryStreamNames"]
    assert name not in listed


def test_records_that_firehose_cannot_take(firehose, bucket, name):
    make_delivery(firehose, name, bucket)
    big = {"Data": bytes((1000 << 10) + 1)}
    assert refused(firehose.put_record, DeliveryStreamName=name, Record=big)[0] in (
        "ValidationException", "InvalidArgumentException"
    )
    many = [{"Data": b"x"}] * 501
    assert refused(firehose.put_record_batch, DeliveryStreamName=name, Records=many)[0] in (
        "ValidationException", "InvalidArgumentException"
    )
    heavy = [{"Data": bytes(900 << 10)}] * 5
    assert refused(firehose.put_record_batch, DeliveryStreamName=name, Records=heavy)[0] in (
        "ValidationException", "InvalidArgumentException"
    )


@pytest.mark.parametrize("raw", [
    b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
], ids=["blank", "half", "tls", "negative", "headers", "h2"])
def test_bytes_that_are_no_request(server, raw):
    with socket.create_connection(server.aws_address, timeout=10) as wire:
        # The server may hang up before it has heard all of it.
        with contextlib.suppress(OSError):
            wire.sendall(raw)
            wire.shutdown(socket.SHUT_WR)
            while wire.recv(65536):
                pass
    assert server.ready()


def test_a_page_elsewhere_cannot_use_a_server_without_credentials(server):
    """A browser sends the name it was given and the page it is on."""
    for headers in [{"Host": "evil.example"}, {"Origin": "https://evil.example"}]:
        reply, _, _ = call(server, KINESIS + "ListStreams", {}, headers=headers)
        assert reply.status == 403, headers
