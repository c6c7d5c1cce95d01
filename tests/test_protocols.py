"""How requests travel: CBOR, gzip, `Expect`, pages in a browser, TLS, accounts."""

import gzip
import hashlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

import hydrant
from hydrant import KEY, REGION, environment, eventually, make_stream, refuses, serve

CBOR = "application/x-amz-cbor-1.1"
JSON = "application/x-amz-json-1.1"


class Moment(int):
    """Milliseconds, with the tag of a moment."""


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    power = next(power for power in range(4) if n < 1 << (8 << power))
    return bytes([major << 5 | 24 + power]) + n.to_bytes(1 << power, "big")


def packed(value):
    """CBOR as the Java SDK writes it: maps and lists of unknown length, moments as milliseconds."""
    if isinstance(value, dict):
        pairs = b"".join(packed(k) + packed(v) for k, v in value.items())
        return b"\xbf" + pairs + b"\xff"
    if isinstance(value, list):
        return b"\x9f" + b"".join(map(packed, value)) + b"\xff"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, Moment):
        return b"\xc1" + head(0, int(value))
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    return head(3, len(value.encode())) + value.encode()


def unpacked(data, at=0):
    """A value of a reply, and the place behind it."""
    major, n = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return {20: False, 21: True, 22: None}[n], at
    if n >= 24:
        size = 1 << (n - 24)
        n, at = int.from_bytes(data[at:at + size], "big"), at + size
    if major == 0:
        return n, at
    if major in (2, 3):
        value = data[at:at + n]
        return (value if major == 2 else value.decode()), at + n
    values = []
    for _ in range(n * (major - 3)):
        value, at = unpacked(data, at)
        values.append(value)
    return (values if major == 4 else dict(zip(values[::2], values[1::2]))), at


def send(server, operation, body, media_type=JSON, key=KEY, more=None, sign=True, method="POST"):
    """One signed request as bytes; the reply and its body."""
    headers = {"Content-Type": media_type, "X-Amz-Target": f"Kinesis_20131202.{operation}",
               "Host": server.aws.removeprefix("http://"), **(more or {})}
    request = AWSRequest(method, server.aws + "/", data=body, headers=headers)
    if sign:
        SigV4Auth(Credentials(*key), "kinesis", REGION).add_auth(request)
    connection = http.client.HTTPConnection(*server.aws_address, timeout=20)
    connection.request(method, "/", body, dict(request.headers))
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply, data


@pytest.fixture
def stream(kinesis, name):
    make_stream(kinesis, name)
    return name


def ask(server, operation, **members):
    reply, data = send(server, operation, packed(members), CBOR)
    assert reply.getheader("Content-Type") == CBOR
    if not data:
        return reply.status, None
    told, end = unpacked(data)
    assert end == len(data)
    return reply.status, told


def test_records_in_cbor(server, stream):
    blob = bytes(range(256)) * 300
    records = [{"Data": data, "PartitionKey": "ü"} for data in (blob, b"", b"last")]
    status, put = ask(server, "PutRecords", StreamName=stream, Records=records)
    assert (status, put["FailedRecordCount"], len(put["Records"])) == (200, 0, 3)
    status, one = ask(server, "PutRecord", StreamName=stream, Data=b"\0", PartitionKey="k")
    assert status == 200 and one["SequenceNumber"] > put["Records"][2]["SequenceNumber"]

    # A moment of yesterday, in milliseconds: before all of them.
    yesterday = Moment(time.time() * 1000 - 86_400_000)
    status, begin = ask(server, "GetShardIterator", StreamName=stream, ShardId="shardId-000000000000",
                        ShardIteratorType="AT_TIMESTAMP", Timestamp=yesterday)
    assert status == 200, begin
    status, page = ask(server, "GetRecords", ShardIterator=begin["ShardIterator"], Limit=10)
    assert [record["Data"] for record in page["Records"]] == [blob, b"", b"last", b"\0"]
    assert page["Records"][0]["PartitionKey"] == "ü"
    assert page["MillisBehindLatest"] == 0 and page["NextShardIterator"]
    arrived = page["Records"][0]["ApproximateArrivalTimestamp"]
    assert isinstance(arrived, int) and abs(arrived - time.time() * 1000) < 60_000
    status, told = ask(server, "DescribeStreamSummary", StreamName=stream)
    created = told["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    assert isinstance(created, int) and abs(created - time.time() * 1000) < 120_000


def test_errors_in_cbor(server):
    status, told = ask(server, "PutRecord", StreamName="nowhere", Data=b"", PartitionKey="k")
    assert (status, told["__type"]) == (400, "ResourceNotFoundException")
    assert told["message"].startswith("Stream nowhere under account")
    status, told = ask(server, "MakeCoffee")
    assert (status, told) == (400, {"__type": "UnknownOperationException"})
    vast = b"\x10" + bytes(7)
    for bad in [b"", b"{}", b"\xbf", b"\xbb" + vast, b"\x5b" + vast, b"\x9f" * 100_000]:
        reply, data = send(server, "ListStreams", bad, CBOR)
        assert reply.status == 400
        assert unpacked(data)[0]["__type"] == "SerializationException", bad[:10]


def test_a_body_in_gzip(start, server, stream):
    body = json.dumps({"StreamName": stream, "Data": "YQ==" * 1000, "PartitionKey": "k"}).encode()
    reply, data = send(server, "PutRecord", gzip.compress(body), more={"Content-Encoding": "gzip"})
    assert reply.status == 400  # base64 in the middle of which there is padding
    body = json.dumps({"StreamName": stream, "Data": "YWFh" * 1000, "PartitionKey": "k"}).encode()
    reply, data = send(server, "PutRecord", gzip.compress(body), more={"Content-Encoding": "gzip"})
    assert reply.status == 200, data
    bomb = gzip.compress(bytes(64 << 20))
    reply, data = send(server, "PutRecord", bomb, more={"Content-Encoding": "gzip"})
    assert reply.status == 413
    reply, data = send(server, "PutRecord", b"{}", more={"Content-Encoding": "br"})
    assert reply.status == 400 and b"gzip" in data

    # What is signed is what is sent: with keys, the hash is that of the packed body.
    locked = start("--access-key", "AKIDEXAMPLE:secret")
    packed_body = gzip.compress(b"{}")
    key = ("AKIDEXAMPLE", "secret")
    zipped = {"Content-Encoding": "gzip"}
    reply, data = send(locked, "ListStreams", packed_body, key=key, more=zipped)
    assert (reply.status, json.loads(data)["StreamNames"]) == (200, [])
    wrong = {**zipped, "X-Amz-Content-SHA256": hashlib.sha256(b"{}").hexdigest()}
    reply, data = send(locked, "ListStreams", packed_body, key=key, more=wrong)
    assert (reply.status, json.loads(data)["__type"]) == (400, "InvalidSignatureException")


def test_a_client_that_asks_before_it_sends(server):
    body = b"{}"
    lines = [
        "POST / HTTP/1.1", f"Host: {server.aws.removeprefix('http://')}", f"Content-Type: {JSON}",
        "X-Amz-Target: Kinesis_20131202.DescribeLimits", "X-Amz-Date: 20260102T030405Z",
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20260102/us-east-1/kinesis/aws4_request, "
        f"SignedHeaders=host, Signature={'0' * 64}",
        "Expect: 100-continue", f"Content-Length: {len(body)}", "", "",
    ]
    with socket.create_connection(server.aws_address, timeout=10) as wire:
        wire.sendall("\r\n".join(lines).encode())
        assert wire.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(body)
        assert wire.recv(1024).startswith(b"HTTP/1.1 200 OK\r\n")
        # A page elsewhere is told at once, and sends nothing.
        foreign = [*lines[:2], "Origin: https://evil.example", *lines[2:]]
        wire.sendall("\r\n".join(foreign).encode())
        assert wire.recv(1024).startswith(b"HTTP/1.1 403 Forbidden\r\n")


def test_a_page_of_our_own_may_call(server):
    page = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,x-amz-target"}
    connection = http.client.HTTPConnection(*server.aws_address, timeout=10)
    connection.request("OPTIONS", "/", headers=page)
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (200, b"")
    allowed = {name: reply.getheader(f"Access-Control-{name}") for name in
               ("Allow-Origin", "Allow-Methods", "Allow-Headers", "Max-Age")}
    assert allowed == {"Allow-Origin": "*", "Allow-Methods": "POST", "Max-Age": "172800",
                       "Allow-Headers": "content-type,x-amz-target"}
    foreign = {**page, "Origin": "https://evil.example"}
    connection.request("OPTIONS", "/", headers=foreign)
    reply = connection.getresponse()
    assert reply.status == 403 and reply.getheader("Access-Control-Allow-Origin") is None
    connection.close()
    reply, _ = send(server, "ListStreams", b"{}", more={"Origin": "http://localhost:3000"})
    assert reply.status == 200 and reply.getheader("Access-Control-Allow-Origin") == "*"
    assert "x-amzn-RequestId" in reply.getheader("Access-Control-Expose-Headers")


def test_an_access_key_of_twelve_digits_is_an_account(server, name):
    own, other = (server.client("kinesis", key=(account, "any"))
                  for account in ("test", "210987654321"))
    arn = make_stream(other, name)
    assert arn == f"arn:aws:kinesis:{REGION}:210987654321:stream/{name}"
    assert name in other.list_streams()["StreamNames"]
    assert name not in own.list_streams()["StreamNames"]
    with pytest.raises(ClientError) as error:
        own.describe_stream_summary(StreamName=name)
    assert f"under account {hydrant.ACCOUNT}" in str(error.value)


# --- TLS


def trusting(server):
    """A boto3 client that knows the authority that `endpoints.json` names."""
    return boto3.client(
        "kinesis", endpoint_url=server.endpoints["aws_tls"], region_name=REGION,
        verify=server.endpoints["ca"], aws_access_key_id=KEY[0], aws_secret_access_key=KEY[1],
    )


def shown(server):
    """The certificate that a new connection sees."""
    return ssl.get_server_certificate(server.aws_address, timeout=10)


def test_boto3_over_tls(server, stream):
    kinesis = trusting(server)
    put = kinesis.put_record(StreamName=stream, Data=b"secret", PartitionKey="k")
    assert put["ShardId"] == "shardId-000000000000"
    key = server.data / "tls" / "ca.key"
    assert key.stat().st_mode & 0o077 == 0
    stranger = boto3.client(
        "kinesis", endpoint_url=server.endpoints["aws_tls"], region_name=REGION,
        aws_access_key_id=KEY[0], aws_secret_access_key=KEY[1],
    )
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.list_streams()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("alpn, want", [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"),
                                        ([], None)])
def test_versions_of_tls_and_http(server, version, alpn, want):
    context = ssl.create_default_context(cafile=server.endpoints["ca"])
    only = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
    context.minimum_version = context.maximum_version = only
    if alpn:
        context.set_alpn_protocols(alpn)
    for host in ("localhost", "127.0.0.1"):
        with socket.create_connection(server.aws_address, timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=host) as wire:
                assert wire.version() == "TLSv" + version
                assert wire.selected_alpn_protocol() == want


@pytest.mark.parametrize("flag, version", [("--http1.1", "1.1"), ("--http2", "2")])
def test_curl_over_tls(server, flag, version):
    if not hydrant.which("curl"):
        pytest.skip("curl is not installed")
    reply = subprocess.run(
        ["curl", "-sS", flag, "--cacert", server.endpoints["ca"], "-o", "/dev/null", "-w",
         "%{http_version} %{http_code}", "-H", "X-Amz-Target: Kinesis_20131202.ListStreams",
         "-H", f"Content-Type: {JSON}", "-d", "{}", server.endpoints["aws_tls"] + "/"],
        capture_output=True, text=True, timeout=20, env=environment({}),
    )
    # Without a signature; it is the way there that counts.
    assert reply.stdout == f"{version} 400", reply.stderr


def test_a_given_certificate_is_read_again(start, tmp_path, server):
    pair = tmp_path / "pair.pem"
    shutil.copy(server.data / "tls" / "server.pem", pair)
    own = start("--tls-cert", str(pair), "--tls-key", str(pair))
    assert "ca" not in own.endpoints
    first = shown(own)
    assert first.strip() in pair.read_text()

    # One that is no certificate changes nothing; another one is taken.
    pair.write_text("nonsense")
    eventually(lambda: "the TLS certificate stays as it was" in own.said(), seconds=30)
    assert shown(own) == first
    other = start(data=tmp_path / "other")
    shutil.copy(other.data / "tls" / "server.pem", pair)
    eventually(lambda: shown(own) != first, seconds=30)
    assert shown(own) == shown(other)
    # The certificate of a data directory outlives a restart.
    assert other.stop() == 0
    before = (other.data / "tls" / "server.pem").read_text()
    other.start()
    assert shown(other).strip() in before


@pytest.mark.parametrize("content, word", [
    (None, "missing.pem"), ("", "no certificate"), ("-----BEGIN CERTIFICATE-----\n!\n", "PEM"),
])
def test_a_bad_certificate_is_told_at_the_start(tmp_path, content, word):
    file = tmp_path / "missing.pem"
    if content is not None:
        file.write_text(content)
    said = refuses(*serve(tmp_path / "data"), "--tls-cert", file, "--tls-key", file)
    assert word in said, said
